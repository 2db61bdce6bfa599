"""haproxy-marks and haproxy-block, away from a HAProxy: what is kept, what is taken over, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from node_programs import program

marks = program("scripts/haproxy-marks")
block = program("scripts/haproxy-block")

CONFIGURATION = """
peers bulkhead
    server lb2 198.18.0.12:10000 verifyhost lb2
backend pool_web
    server app1 198.18.0.21:8001 sni str(app1)
    server app2 [fd00::22]:8001 sni str(app2)
backend postgres_primary
    server db1 198.18.0.41:5432
frontend x
    bind :80
"""
PORTS = {"pool_web/app1": "8001", "pool_web/app2": "8001", "postgres_primary/db1": "5432"}


def server(
    name: str, admin: int = 0, up: bool = True, weight: str = "1", port: str = "8001"
) -> dict[str, str]:
    pool, host = name.split("/")
    return {
        **dict.fromkeys(marks.COLUMNS, "0"),
        **marks.DASHES,
        "be_name": pool,
        "srv_name": host,
        "srv_op_state": "2" if up else "0",
        "srv_admin_state": str(admin),
        "srv_uweight": weight,
        "srv_iweight": "1",
        "srv_port": port,
    }


def state(*servers: dict[str, str]) -> dict[str, dict[str, str]]:
    return {f"{one['be_name']}/{one['srv_name']}": one for one in servers}


def test_what_is_written_is_what_is_read() -> None:
    before = state(server("pool_web/app1", 8), server("pool_web/app2"))
    assert marks.parse(marks.render(before)) == before
    assert marks.parse("") == {}
    assert marks.parse("1\n") == {}


def test_the_ports_come_from_the_configuration() -> None:
    assert marks.configured_ports(CONFIGURATION) == PORTS
    kept = marks.for_reload(state(server("pool_web/app1", port="7000"), server("pool_web/gone")), PORTS)
    assert {name: one["srv_port"] for name, one in kept.items()} == {"pool_web/app1": "8001"}


def test_the_peer_decides_and_what_it_does_not_know_stays() -> None:
    own = state(server("pool_web/app1", marks.MARKS["drain"]), server("pool_web/app2", marks.MARKS["maint"]))
    peer = state(server("pool_web/app1"))
    result = marks.for_start(own, peer, PORTS, [])
    assert {name: marks.mark_of(one) for name, one in result.items()} == {"pool_web/app2": "maint"}


def test_health_does_not_carry_over_and_decisions_do() -> None:
    own = state(server("pool_web/app1", up=False), server("pool_web/app2", marks.MARKS["drain"], up=False))
    result = marks.for_start(own, {}, PORTS, [])
    assert list(result) == ["pool_web/app2"]
    assert result["pool_web/app2"]["srv_op_state"] == "2"
    weighted = marks.for_start(state(server("pool_web/app1", weight="0")), {}, PORTS, [])
    assert weighted["pool_web/app1"]["srv_uweight"] == "0"


def test_a_database_begins_out_of_service_until_it_is_checked() -> None:
    result = marks.for_start(
        {}, state(server("postgres_primary/db1", port="5432")), PORTS, ["postgres_primary"]
    )
    assert result["postgres_primary/db1"]["srv_op_state"] == "0"
    assert result["postgres_primary/db1"]["srv_check_health"] == "0"


def test_marks_of_the_configuration_and_of_names_are_not_taken_over() -> None:
    result = marks.for_start(state(server("pool_web/app1", 0x04 | 0x20 | 0x08)), {}, PORTS, [])
    assert result["pool_web/app1"]["srv_admin_state"] == "8"


def test_a_server_is_named_alone_or_with_its_pool() -> None:
    known = state(server("pool_web/app1"), server("pool_api/app1"), server("pool_web/app2"))
    assert marks.chosen(known, ["app1"]) == ["pool_web/app1", "pool_api/app1"]
    assert marks.chosen(known, ["pool_api/app1", "app1"]) == ["pool_api/app1", "pool_web/app1"]
    with pytest.raises(
        marks.RefusedError, match=r"app9: this load balancer has no such server\. It has: pool_api/app1"
    ):
        marks.chosen(known, ["app9"])


def test_the_first_peer_that_answers_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(peer: dict[str, Any], _: dict[str, Any]) -> dict[str, dict[str, str]]:
        if peer["name"] == "dead":
            raise TimeoutError("timed out")
        return state(server("pool_web/app1", 8))

    taken, name = marks.first_answer({"peers": [{"name": "dead"}, {"name": "alive"}]}, answer)
    assert (list(taken), name) == (["pool_web/app1"], "alive")
    assert "dead does not tell its marks: timed out" in capsys.readouterr().err
    assert marks.first_answer({"peers": [{"name": "dead"}]}, answer) == ({}, "")


@pytest.mark.parametrize(
    ("kind", "typed", "key"),
    [
        ("client", "203.0.113.7", "203.0.113.7/32"),
        ("client", "203.0.113.7/24", "203.0.113.0/24"),
        ("client", "fd00::1", "fd00::1/128"),
        ("path", "/search/", "/search/"),
        ("repository", "alice/huge", "alice/huge"),
    ],
)
def test_keys_of_kill_switches(kind: str, typed: str, key: str) -> None:
    assert block.checked(kind, typed) == key


@pytest.mark.parametrize(
    ("kind", "typed"),
    [
        ("client", "alice"),
        ("path", "search"),
        ("path", "/a b"),
        ("path", "/a\nb"),
        ("path", ""),
        ("repository", "alice"),
        ("repository", "/alice/huge"),
        ("repository", "#/x"),
    ],
)
def test_a_wrong_key_is_named_with_an_example(kind: str, typed: str) -> None:
    with pytest.raises(block.RefusedError, match="An example: "):
        block.checked(kind, typed)


def test_a_map_is_read_as_haproxy_reads_it() -> None:
    assert block.parse("/a/ 503\n# /b/ 503\n\n/c/ 429\n") == {"/a/": "503", "/c/": "429"}


PROCESSES = """#<PID>          <type>          <reloads>       <uptime>        <version>
1162            master          5               0d00h02m07s     3.0.11
# workers
1271            worker          1               0d00h00m00s     3.0.11
# old workers
1233            worker          3               0d00h00m43s     3.0.11
1234            worker          4               0d00h00m43s     3.0.11
# programs
"""


def test_old_workers_are_told_apart() -> None:
    old = program("scripts/haproxy-old-workers")
    assert old.old_workers(PROCESSES) == ["1233", "1234"]
    assert old.old_workers(PROCESSES.split("# old")[0]) == []
    known = state(server("postgres_primary/db1", up=False), server("pool_web/app1", up=False))
    assert old.down(known, ["postgres_primary"]) == ["postgres_primary/db1"]


SESSIONS = """
0x7f1: proto=tcpv4 src=198.18.12.11:58126 fe=postgres_primary be=postgres_primary srv=db1 ts=00 epoch=0 age=6s
0x7f2: proto=tcpv4 src=198.18.12.11:58127 fe=postgres_replica be=postgres_replica srv=db1 ts=00 epoch=0 age=6s
0x7f3: proto=sockpair src=unix:3 fe=GLOBAL be=<NONE> srv=<none> ts=00 epoch=0 age=0s calls=1
"""


def test_only_sessions_of_the_member_that_is_down_are_ended() -> None:
    old = program("scripts/haproxy-old-workers")
    assert old.sessions(SESSIONS, ["postgres_primary/db1"]) == ["0x7f1"]
    assert old.sessions("", ["postgres_primary/db1"]) == []
