"""HAProxy's answers as data. The samples are HAProxy 3.0's own, with columns that are not read left out."""

import json
from typing import Any

import pytest
from cluster_fakes import inventory, server

from bulkhead import haproxy
from bulkhead.connections import Result
from bulkhead.errors import FailedError

INFO = "Name: HAProxy\nVersion: 3.0.11-1+deb13u5\nUptime: 0d 0h02m28s\nUptime_sec: 148\nCurrConns: 7\n"
STAT_COLUMNS = "# pxname,svname,qcur,scur,status,weight,lastchg,check_status,check_code,"
STATE_COLUMNS = (
    "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight"
)


def one(status: str, admin: int = 0, operational: int = 2, weight: int = 1) -> haproxy.Server:
    stat = (
        f"{STAT_COLUMNS}\npool_web,FRONTEND,,,OPEN,,,,,\npool_web,app1,2,5,{status},{weight},99,L7STS,503,\n"
    )
    stat += "pool_web,BACKEND,0,0,UP,1,0,,,\n"
    state = f"{STATE_COLUMNS}\n6 pool_web 1 app1 192.0.2.21 {operational} {admin} 1 1\n\n"
    found = haproxy.parse(INFO, stat, state)
    assert len(found.servers) == 1
    return found.servers[0]


def test_what_a_load_balancer_says_of_itself() -> None:
    found = haproxy.parse(INFO, "", "")
    assert (found.version, found.uptime_seconds, found.sessions) == ("3.0.11-1+deb13u5", 148, 7)


def test_a_server() -> None:
    found = one("UP")
    assert (found.backend, found.name, found.sessions, found.queued) == ("pool_web", "app1", 5, 2)
    assert (found.check, found.seconds_in_state) == ("L7STS/503", 99)


@pytest.mark.parametrize(
    ("status", "admin", "operational", "state", "serving"),
    [
        ("UP", 0, 2, "up", True),
        ("UP 1/2", 0, 2, "going down", True),
        ("no check", 0, 2, "unchecked", True),
        ("DOWN", 0, 0, "down", False),
        ("DOWN 1/2", 0, 0, "going up", False),
        ("DRAIN", 8, 2, "drained", False),
        ("DOWN", 8, 0, "down, drained", False),
        ("MAINT", 1, 0, "maintenance", False),
        ("MAINT (resolution)", 32, 0, "maintenance", False),
    ],
)
def test_states(status: str, admin: int, operational: int, state: str, serving: bool) -> None:
    found = one(status, admin, operational)
    assert (found.state, found.serving) == (state, serving)


def test_a_server_without_weight_is_given_nothing() -> None:
    found = one("UP", weight=0)
    assert (found.state, found.serving) == ("drained", False)


def test_servers_are_found_by_backend() -> None:
    found = haproxy.Statistics("3.0", 1, 0, (server("a", "x"), server("b", "x"), server("b", "y")))
    assert found.backends == ("a", "b")
    assert list(found.backend("b")) == ["x", "y"]


def test_nonsense_is_no_servers() -> None:
    assert haproxy.parse("", "Unknown command", "nothing").servers == ()


class FakeConnections:
    def __init__(self, stdout: str) -> None:
        self.stdout = stdout
        self.commands: list[str] = []

    def run(self, _host: Any, command: str, **_options: Any) -> Result:
        self.commands.append(command)
        return Result(self.stdout, "", 0)


def test_commands_are_sent_as_words() -> None:
    connections = FakeConnections(json.dumps(["", "done"]))
    client = haproxy.RuntimeApi(connections)
    answers = client.commands(inventory().host("lb1"), "set server a/b state drain", "show; info")
    assert answers == ["", "done"]
    assert connections.commands == ["python3 - 'set server a/b state drain' 'show; info'"]


def test_an_answer_without_servers_is_an_error_that_names_the_host() -> None:
    client = haproxy.RuntimeApi(FakeConnections(json.dumps(["", "", ""])))
    with pytest.raises(FailedError, match="lb1"):
        client.statistics(inventory().host("lb1"))
