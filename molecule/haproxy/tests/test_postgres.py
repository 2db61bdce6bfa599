"""The PostgreSQL front ends follow Patroni. The members here are stand-ins that say who they are."""

from __future__ import annotations

import socket

import pytest
from haproxy_nodes import INTERNAL, Host, log, now, receive_line, servers, wait_until

pytestmark = pytest.mark.usefixtures("well")
PRIMARY, REPLICA = 5432, 5433


def connect(port: int) -> tuple[socket.socket, str]:
    connection = socket.create_connection((INTERNAL, port), timeout=10)
    return connection, receive_line(connection)


def promote(old: Host, new: Host) -> None:
    old.check_output("echo replica | tee /run/sample/role")
    new.check_output("echo primary | tee /run/sample/role")


def test_each_front_end_leads_to_its_role() -> None:
    for port, expected in ((PRIMARY, "back1"), (REPLICA, "back2")):
        connection, who = connect(port)
        connection.close()
        assert who == expected


def cut(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_no_client_stays_on_a_demoted_primary(lb1: Host, back1: Host, back2: Host) -> None:
    since = now(lb1)
    connection, who = connect(PRIMARY)
    assert who == "back1"
    promote(back1, back2)
    assert cut(connection, 5), "the session was not cut"
    wait_until("the new primary serves", lambda: connect(PRIMARY)[1] == "back2", 5)
    line = wait_until(
        "the log", lambda: [one for one in log(lb1, since) if one.get("frontend") == "postgres_primary"]
    )[0]
    assert (line["event"], line["server"], line["termination"][0]) == ("connection", "back1", "D")


def test_a_session_from_before_a_reload_is_cut_as_well(lb1: Host, back1: Host, back2: Host) -> None:
    """It lives in the old worker, whose checks have to go on."""
    connection, who = connect(PRIMARY)
    assert who == "back1"
    lb1.check_output("systemctl reload haproxy")
    promote(back1, back2)
    assert cut(connection, 8), "the old worker kept the session"


def test_a_frozen_primary_loses_its_sessions(back1: Host) -> None:
    connection, who = connect(PRIMARY)
    assert who == "back1"
    back1.check_output("systemctl kill --signal=STOP sample")
    try:
        assert cut(connection, 8)
    finally:
        back1.check_output("systemctl kill --signal=CONT sample")


def test_after_a_start_nobody_is_led_to_a_member_that_was_not_checked(lb1: Host) -> None:
    lb1.check_output("systemctl restart haproxy")
    # Right after the start: the connection is refused, or leads to the primary.
    connection, who = connect(PRIMARY)
    connection.close()
    assert who in ("", "back1")
    wait_until("the primary serves", lambda: connect(PRIMARY)[1] == "back1", 5)
    assert servers(lb1)["postgres_primary/back2"] == "DOWN"
