"""Drain marks: they outlive a reload, a restart and a dead load balancer's return."""

from __future__ import annotations

import time

import pytest
from haproxy_nodes import MARKS, Client, Host, container, marks, servers, wait_until

DRAINED = {"pool_web/back1": "drain", "pool_api/back2": "maint"}

pytestmark = pytest.mark.usefixtures("well")


def mark_both(lb1: Host, lb2: Host) -> None:
    for balancer in (lb1, lb2):
        balancer.check_output(f"{MARKS} drain pool_web/back1")
        balancer.check_output(f"{MARKS} maint pool_api/back2")


def test_marks_go_the_whole_way(client: Client, lb1: Host, lb2: Host) -> None:
    mark_both(lb1, lb2)
    assert {client.get().said["server"] for _ in range(8)} == {"back2"}
    lb1.check_output("systemctl reload haproxy")
    assert marks(lb1) == DRAINED
    lb1.check_output("systemctl restart haproxy")
    assert marks(lb1) == DRAINED
    assert {client.get().said["server"] for _ in range(8)} == {"back2"}

    # One is away while the other's marks change: it comes back with what it missed, before it serves.
    lb1.check_output("systemctl stop haproxy")
    lb2.check_output(f"{MARKS} ready back1 back2")
    lb2.check_output(f"{MARKS} drain pool_web/back2")
    lb1.check_output("systemctl start haproxy")
    assert marks(lb1) == marks(lb2) == {"pool_web/back2": "drain"}
    assert {client.get().said["server"] for _ in range(8)} == {"back1"}


def test_marks_outlive_a_crash(lb1: Host, lb2: Host) -> None:
    mark_both(lb1, lb2)
    before = lb1.check_output("systemctl show -p MainPID --value haproxy")
    lb1.check_output(f"kill -KILL {before}")
    wait_until(
        "systemd has started it again",
        lambda: (
            lb1.check_output("systemctl show -p MainPID --value haproxy") not in (before, "0")
            and lb1.run("systemctl is-active haproxy").rc == 0
        ),
    )
    assert marks(lb1) == DRAINED


def test_a_start_waits_for_no_dead_peer_and_its_own_marks_stand(lb1: Host, lb2: Host) -> None:
    mark_both(lb1, lb2)
    container("lb2", "pause")
    try:
        began = time.monotonic()
        lb1.check_output("systemctl restart haproxy")
        took = time.monotonic() - began
    finally:
        container("lb2", "unpause")
    assert took < 8, f"the restart took {took:.1f} s"
    assert marks(lb1) == DRAINED
    assert "lb2 does not tell its marks" in lb1.check_output("journalctl -u haproxy -n 60 -o cat")


def test_only_decisions_come_from_the_peer_and_no_health(lb1: Host, lb2: Host, back1: Host) -> None:
    """lb2 has seen back1 fail and is then cut off from the news that it is well again."""
    back1.check_output("touch /run/sample/unready")
    wait_until("back1 is down", lambda: servers(lb2)["pool_web/back1"] == "DOWN", 10)
    back1.check_output("rm /run/sample/unready")
    lb1.check_output("systemctl restart haproxy")
    assert servers(lb1)["pool_web/back1"] == "UP"
    assert marks(lb1) == {}


def test_a_reload_keeps_what_was_seen(lb1: Host, back1: Host) -> None:
    """A server that is down stays down over a reload: no request is wasted on it."""
    back1.check_output("touch /run/sample/unready")
    wait_until("back1 is down", lambda: servers(lb1)["pool_web/back1"] == "DOWN", 10)
    lb1.check_output("systemctl reload haproxy")
    assert servers(lb1)["pool_web/back1"] == "DOWN"


def test_a_mark_can_be_set_while_haproxy_is_down_everywhere(lb1: Host, lb2: Host) -> None:
    for balancer in (lb1, lb2):
        balancer.check_output("systemctl stop haproxy")
    for balancer in (lb1, lb2):
        said = balancer.run(f"{MARKS} drain pool_web/back2")
        assert said.rc == 0
        assert "hold when it starts" in said.stderr
    lb1.check_output("systemctl start haproxy")
    assert marks(lb1) == {"pool_web/back2": "drain"}


def test_a_mistake_is_one_sentence(lb1: Host) -> None:
    said = lb1.run(f"{MARKS} drain back9")
    assert said.rc == 2
    assert "back9: this load balancer has no such server" in said.stderr
    unprivileged = lb1.run(f"runuser -u nobody -- {MARKS} drain back1")
    assert unprivileged.rc == 2
    assert "Run it with sudo" in unprivileged.stderr
