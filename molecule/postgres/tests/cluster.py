"""The scenario's cluster as clients and operators see it, and the power switch of its nodes."""

import base64
import itertools
import json
import os
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import testinfra
import yaml

from tests import scenario

STATE = Path(os.environ["BULKHEAD_STATE"])
SECRETS = yaml.safe_load((STATE / "inventory/group_vars/all/secrets.yml").read_text())
MEMBERS = {"db1": "198.18.15.41", "db2": "198.18.15.42", "db3": "198.18.15.43"}
APPLICATION = "forge"
TLS = ssl.create_default_context(cadata=SECRETS["pki_ca_certificate"])


def ask(path: str, member: str | None = None) -> Any:
    """Patroni's answer, from the first member that gives one."""
    for name in [member] if member else MEMBERS:
        try:
            with urllib.request.urlopen(
                f"https://{MEMBERS[name]}:8008/{path}", timeout=3, context=TLS
            ) as answer:
                return json.load(answer)
        except OSError:
            continue
    return {}


def leader() -> str | None:
    """As most members see it: one that was just thawed may still believe in itself."""
    seen = [
        each["name"]
        for name in MEMBERS
        for each in ask("cluster", name).get("members", [])
        if each["role"] == "leader" and each["state"] == "running"
    ]
    names = [name for name in MEMBERS if seen.count(name) >= 2]
    return names[0] if names else None


def whole() -> bool:
    """One leads, and both others could take over."""
    members = ask("cluster").get("members", [])
    standbys = [each for each in members if (each["role"], each["state"]) == ("quorum_standby", "streaming")]
    return leader() is not None and len(standbys) == 2


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """How long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.3)  # between two looks at a condition
    return time.monotonic() - begun


def wait_until_whole() -> float:
    return wait_until(whole, 120, "one leads and two standbys could take over")


def podman(action: str, member: str) -> None:
    subprocess.run(
        ["podman", action, f"bulkhead-postgres-{member}"], check=True, capture_output=True, timeout=60
    )


def superuser(member: str, statement: str, database: str = "postgres") -> str:
    """As an operator on the node does it: through the local socket."""
    node = testinfra.get_host(f"ansible://{member}")
    command = "cd / && sudo -u postgres psql --no-psqlrc -qtA -d %s -c %s"
    return str(node.check_output(command, database, statement)).strip()


converge = partial(scenario.converge, "postgres")


def rest(member: str, method: str, path: str, *, password: str | None, certificate: bool) -> int:
    """The status of a call to Patroni's REST API, sent from the member's own node."""
    options = ["--cacert", "/etc/bulkhead/pki/ca.crt", "--request", method, "--data", "'{\"loop_wait\": 5}'"]
    if certificate:
        options += ["--cert", "/etc/bulkhead/pki/node.crt", "--key", "/etc/bulkhead/pki/node.key"]
    if password:
        basic = base64.b64encode(f"patroni:{password}".encode()).decode()
        options += ["--header", f"'Authorization: Basic {basic}'"]
    node = testinfra.get_host(f"ansible://{member}")
    address = f"https://{MEMBERS[member]}:8008/{path}"
    return int(
        node.run(f"curl -s -o /dev/null -w '%{{http_code}}' {' '.join(options)} {address}").stdout or 0
    )


@dataclass
class Numbers:
    """What the client was told is there, and the longest time without such an answer."""

    run: str
    acknowledged: dict[int, float] = field(default_factory=dict)

    @property
    def longest_gap(self) -> float:
        times = list(self.acknowledged.values())
        return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)

    def missing(self, member: str) -> set[int]:
        rows = superuser(member, f"SELECT number FROM numbers WHERE run = '{self.run}'", APPLICATION)
        return set(self.acknowledged) - set(map(int, rows.split()))

    def all_on(self, member: str) -> bool:
        try:
            return not self.missing(member)
        except AssertionError:  # it does not run there just now: a leader that lost its lead starts anew
            return False


@contextmanager
def numbering(run: str, patience: float = 2) -> Iterator[Numbers]:
    """A client on client1 numbers rows for as long as the block runs."""
    now = leader()
    assert now
    superuser(
        now,
        f"SET ROLE {APPLICATION}; CREATE TABLE IF NOT EXISTS numbers (run text, number int);"
        f" DELETE FROM numbers WHERE run = '{run}'",
        APPLICATION,
    )
    settings = {
        "run": run,
        "hosts": list(MEMBERS.values()),
        "patience": patience,
        "authority": SECRETS["pki_ca_certificate"],
        "connection": {
            "dbname": APPLICATION,
            "user": APPLICATION,
            "password": SECRETS["postgres_application_password"],
        },
    }
    numbers = Numbers(run)
    with (STATE / "log" / f"{run}.stderr").open("w") as errors:
        client = subprocess.Popen(
            ["ssh", "-F", str(STATE / "ssh_config"), "client1", "/usr/local/bin/number-rows"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        assert client.stdin
        assert client.stdout
        client.stdin.write(json.dumps(settings) + "\n")
        client.stdin.flush()
        first = client.stdout.readline()
        assert first, f"the client could not write: see {errors.name}"
        try:
            yield numbers
        finally:
            rest, _ = client.communicate(timeout=60)
    for line in [first, *rest.splitlines()]:
        number, seconds = line.split()
        numbers.acknowledged[int(number)] = float(seconds)
