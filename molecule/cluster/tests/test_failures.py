"""Any one node is lost, and the addresses go on answering; the leader of PostgreSQL is lost, and no committed
row is. Short form: one node of each kind; long form: every node."""

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

import pytest
from breaking import wait_until

from bulkhead.status.outside import client_context

# What the first issue promises to a user of the cluster.
ANSWERS_WITHIN_SECONDS = 10
WRITES_WITHIN_SECONDS = 35


def answers(outside: Any, address: str, path: str) -> bool:
    try:
        return bool(outside.get(path, address=address).status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("host", ["lb1", "lb2", "app1", "app2", "builder1", "replica", "leader"])
def test_the_addresses_answer_with_any_one_node_lost(
    host: str, nodes: Any, outside: Any, public_addresses: Any, fab: Any, long_form: bool
) -> None:
    if host in ("lb2", "app1", "builder1", "leader") and not long_form:
        pytest.skip("one node of each kind in the short form; the leader has a test of its own")
    database = json.loads(fab("status", "--json").stdout)["database"]
    replicas = [member["name"] for member in database["members"] if member["name"] != database["leader"]]
    name = {"leader": database["leader"], "replica": replicas[0]}.get(host, host)
    nodes.kill(name)
    for address in public_addresses:
        seconds = wait_until(
            lambda address=address: answers(outside, address.address, "/api/repositories"),
            ANSWERS_WITHIN_SECONDS,
            f"{address.name} answers without {name}",
        )
        print(f"{name} lost: {address.name} answered {seconds:.1f} s later")
    # One answer may be the other server's luck; from now on nobody may meet the dead one.
    for address in public_addresses:
        lost = [n for n in range(50) if not answers(outside, address.address, "/api/repositories")]
        assert lost == [], f"{address.name} without {name}: {len(lost)} of 50 requests were not answered"
    told = fab("status")
    assert told.returncode in (5, 6)
    assert name in told.stdout, "status has to name the node that is lost"


@dataclass
class Writer:
    """Makes numbered repositories through a public address, one after the other, until told to stop."""

    url: str
    token: str
    context: Any
    acknowledged: list[str] = field(default_factory=list)
    written_at: list[float] = field(default_factory=list)
    stop: Event = field(default_factory=Event)

    def write(self, name: str) -> bool:
        request = urllib.request.Request(
            f"{self.url}/api/repositories",
            data=json.dumps({"name": name, "kind": "git"}).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
                return bool(answer.status == 201)
        except (urllib.error.URLError, OSError):
            return False

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            name = f"row-{int(time.time())}-{number}"
            if self.write(name):
                self.acknowledged.append(name)
                self.written_at.append(time.monotonic())
            self.stop.wait(0.1)


def test_no_committed_row_is_lost_with_the_leader(
    nodes: Any, inventory: Any, public_addresses: Any, fab: Any, token: str, outside: Any
) -> None:
    url = f"https://{public_addresses[1].address}"
    writer = Writer(url, token, client_context(inventory))
    thread = Thread(target=writer.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: len(writer.acknowledged) >= 20, 30, "the first rows")
        leader = json.loads(fab("status", "--json").stdout)["database"]["leader"]
        nodes.kill(leader)
        killed = time.monotonic()
        wait_until(
            lambda: bool(writer.written_at) and writer.written_at[-1] > killed + 1,
            WRITES_WITHIN_SECONDS,
            f"writes without {leader}",
        )
        gap = next(at for at in writer.written_at if at > killed + 1) - killed
        before = len(writer.acknowledged)
        wait_until(lambda: len(writer.acknowledged) >= before + 20, 30, "rows on the new leader")
    finally:
        writer.stop.set()
        thread.join(timeout=30)
    present: set[str] = set()
    page: str | None = "/api/repositories"
    while page:
        listed = json.loads(outside.get(page, address=public_addresses[0].address).body)
        present |= {row["name"] for row in listed["repositories"]}
        page = listed["next"]
    lost = [name for name in writer.acknowledged if name not in present]
    print(f"{leader} lost: {len(writer.acknowledged)} rows acknowledged, {len(lost)} lost, gap {gap:.1f} s")
    assert lost == []
