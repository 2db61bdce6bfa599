"""Rate limits and kill switches."""

from __future__ import annotations

import collections
import json

import pytest
from haproxy_nodes import BLOCK, PUBLIC2, Client, Host, admin, log, now, wait_until

# Keeps one connection open and says how often each status came, and what the last answer's headers were.
FLOOD = """
import collections, http.client, json, ssl, sys
context = ssl.create_default_context(cafile='/etc/bulkhead/pki/ca.crt')
connection = http.client.HTTPSConnection(sys.argv[1], context=context, timeout=20)
seen = collections.Counter()
for _ in range(int(sys.argv[2])):
    connection.request('GET', '/flooded')
    answer = connection.getresponse()
    answer.read()
    seen[answer.status] += 1
print(json.dumps([seen, dict(answer.getheaders())]))
"""


def flood(host: Host, address: str, times: int) -> tuple[collections.Counter[str], dict[str, str]]:
    seen, headers = json.loads(host.check_output("python3 -c %s %s %s", FLOOD, address, str(times)))
    return collections.Counter(seen), headers


def test_a_flood_is_answered_429_on_both_load_balancers(
    client: Client, back1: Host, lb1: Host, lb2: Host
) -> None:
    since = now(lb1)
    seen, headers = flood(back1, "198.18.12.101", 400)
    assert seen["429"] >= 50
    assert seen["200"] + seen["429"] == 400
    assert int(next(value for name, value in headers.items() if name.lower() == "retry-after")) > 0
    # The other node learnt of it: the client does not begin anew when the address moves.
    wait_until("the peer knows the client", lambda: "198.18.12.21" in admin(lb2, "show table clients"), 10)
    seen, _ = flood(back1, PUBLIC2, 1)
    assert seen["429"] == 1
    # Nobody else is touched.
    assert client.get().status == 200
    lines = wait_until(
        "the log", lambda: [one for one in log(lb1, since) if one.get("reason") == "rate_limit"]
    )
    assert lines[0]["status"] == 429


@pytest.mark.parametrize(
    ("kind", "key", "path", "free"),
    [
        ("path", "/search/", "/search/all?q=1", "/searching"),
        ("path", "/search/", "/%73earch/all", "/searching"),
        ("repository", "alice/huge", "/repositories/alice/huge/commits", "/repositories/alice/huger/"),
        ("repository", "alice/huge", "/api/repositories/alice/huge.git", "/api/repositories/bob/huge"),
    ],
)
@pytest.mark.parametrize("status", [503, 429])
def test_a_kill_switch_blocks_at_once_and_only_what_it_names(
    client: Client, lb1: Host, kind: str, key: str, path: str, free: str, status: int
) -> None:
    process = admin(lb1, "show info").split("Pid: ")[1].split()[0]
    lb1.check_output(f"{BLOCK} add {kind} {key} {status}")
    assert client.get(path).status == status
    assert int(client.get(path).headers["retry-after"]) > 0
    assert client.get(free).status == 200
    assert admin(lb1, "show info").split("Pid: ")[1].split()[0] == process, "it was reloaded"
    lb1.check_output(f"{BLOCK} remove {kind} {key}")
    assert client.get(path).status == 200


@pytest.mark.usefixtures("well")
def test_a_client_can_be_blocked(client: Client, lb1: Host) -> None:
    lb1.check_output(f"{BLOCK} add client 198.18.12.1 429")
    assert client.get().status == 429
    assert client.get(address=PUBLIC2).status == 200
    lb1.check_output(f"{BLOCK} remove client 198.18.12.1")
    assert client.get().status == 200


@pytest.mark.usefixtures("well")
def test_a_kill_switch_survives_reload_and_restart(client: Client, lb1: Host) -> None:
    lb1.check_output(f"{BLOCK} add path /search/ 503")
    for how in ("reload", "restart"):
        lb1.check_output(f"systemctl {how} haproxy")
        assert client.get("/search/").status == 503, how


@pytest.mark.usefixtures("well")
def test_a_kill_switch_can_be_set_while_haproxy_is_down(client: Client, lb1: Host) -> None:
    lb1.check_output("systemctl stop haproxy")
    said = lb1.run(f"{BLOCK} add path /search/ 503")
    assert said.rc == 0
    assert "holds when it starts" in said.stderr
    lb1.check_output("systemctl start haproxy")
    assert client.get("/search/").status == 503


@pytest.mark.parametrize("words", ["add path search 503", "add client alice 503", "remove path /nothing/"])
def test_a_mistake_is_one_sentence(lb1: Host, words: str) -> None:
    said = lb1.run(f"{BLOCK} {words}")
    assert said.rc == 2
    assert said.stderr.startswith("haproxy-block: ")
    assert "Traceback" not in said.stderr
