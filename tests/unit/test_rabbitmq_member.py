"""A broker's restart: what has to be true before, what is done, and how it ends when something is not."""

import itertools
import json
import subprocess
from typing import Any

import pytest
from node_programs import program

CRITICAL = "rabbitmq-diagnostics check_if_node_is_quorum_critical"
DRAIN = "rabbitmq-upgrade drain"
REVIVE = "rabbitmq-upgrade revive"
RESTART = "systemctl restart rabbitmq-server.service"
START = "systemctl start rabbitmq-server.service"
SUSPEND = "rabbitmqctl suspend_listeners"
CLOSE = "rabbitmqctl close_all_connections --global this broker has no majority"
RESUME = "rabbitmqctl resume_listeners"
NODES = ["rabbit@mq1", "rabbit@mq2", "rabbit@mq3"]


class Host:
    """Answers the program's commands, and keeps those that change something."""

    def __init__(self) -> None:
        self.running = NODES
        self.silent = 0  # so many questions get no answer
        self.khepri = "enabled"
        self.open = True  # to clients
        self.refused: set[str] = set()
        self.active = "active"
        self.drained: set[str] = set()
        self.done: list[str] = []

    def run(self, *command: str, **_limits: int) -> subprocess.CompletedProcess[str]:
        words = " ".join(word for word in command if word != "--silent")
        code = 1 if words in self.refused else 0
        if words.startswith("rabbitmqctl cluster_status"):
            if self.silent:
                self.silent -= 1
                return subprocess.CompletedProcess(command, 69, "", "no answer")
            known = {
                "disk_nodes": NODES, "ram_nodes": [], "running_nodes": self.running, "alarms": [],
                "feature_flags": [{"name": "khepri_db", "state": self.khepri}],
                "maintenance_status": {
                    name: "draining" if name in self.drained else "not under maintenance" for name in NODES
                },
            }  # fmt: skip
            return subprocess.CompletedProcess(command, code, json.dumps(known), "")
        if words.startswith("ss "):
            return subprocess.CompletedProcess(command, 0, "LISTEN 0 128 *:5671 *:*\n" * self.open, "")
        if words.startswith("systemctl is-active"):
            return subprocess.CompletedProcess(command, 0, f"{self.active}\n", "")
        if words in (DRAIN, REVIVE, RESTART, START, SUSPEND, CLOSE, RESUME):
            self.done.append(words)
        if not code and words in (SUSPEND, RESUME):
            self.open = words == RESUME
        return subprocess.CompletedProcess(command, code, "", "no" if code else "")


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def member(host: Host, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = program("roles/rabbitmq/files/rabbitmq-member")
    monkeypatch.setattr(module.socket, "gethostname", lambda: "mq1")
    monkeypatch.setattr(module, "run", host.run)
    clock = itertools.count()
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(module.time, "sleep", lambda _seconds: None)
    return module


def test_a_restart_drains_restarts_and_revives(host: Host, member: Any) -> None:
    member.restart(0)
    assert host.done == [DRAIN, RESTART, REVIVE]


def test_a_broker_that_is_down_is_started_without_asking(host: Host, member: Any) -> None:
    host.active = "failed"
    host.refused = {CRITICAL}
    member.restart(0)
    assert host.done == [RESTART, REVIVE]


def test_nothing_is_touched_while_another_is_away(host: Host, member: Any) -> None:
    host.running = NODES[:2]
    with pytest.raises(member.RefusedError, match="rabbit@mq3 is not running"):
        member.restart(0)
    assert host.done == []


def test_nothing_is_touched_while_a_queue_needs_it(host: Host, member: Any) -> None:
    host.refused = {CRITICAL}
    with pytest.raises(member.RefusedError, match="majority"):
        member.restart(0)
    assert host.done == []


def test_a_drain_that_fails_is_taken_back(host: Host, member: Any) -> None:
    host.refused = {DRAIN}
    with pytest.raises(member.RefusedError, match="could not be drained"):
        member.restart(0)
    assert host.done == [DRAIN, REVIVE]


def test_a_broker_that_does_not_come_back_is_no_success(host: Host, member: Any) -> None:
    host.refused = {RESTART}
    with pytest.raises(member.FailedError, match="did not start"):
        member.restart(0)


def test_a_broker_that_has_not_caught_up_is_no_success(host: Host, member: Any) -> None:
    host.refused = {"rabbitmq-upgrade await_online_quorum_plus_one --timeout 30"}
    with pytest.raises(member.FailedError, match="no copy to spare"):
        member.restart(0)
    assert host.done == [DRAIN, RESTART, REVIVE]


def test_a_broker_without_a_majority_turns_its_clients_away(host: Host, member: Any) -> None:
    host.running = NODES[:1]
    member.watch([])
    assert host.done == [SUSPEND, CLOSE]
    assert not host.open


def test_with_a_majority_clients_are_let_in_again(host: Host, member: Any) -> None:
    def lines() -> Any:
        host.running = NODES[:1]
        yield "node rabbit@mq2 down"
        host.running = NODES[:2]
        yield "node rabbit@mq2 up"
        yield "node rabbit@mq3 up"

    member.watch(lines())
    assert host.done == [SUSPEND, CLOSE, RESUME]


def test_a_watch_that_starts_anew_sees_what_is_closed(host: Host, member: Any) -> None:
    host.open = False
    member.watch([])
    assert host.done == [RESUME]


def test_a_broker_that_started_anew_meanwhile_is_closed_again(host: Host, member: Any) -> None:
    host.running = NODES[:1]
    member.watch([])
    host.open = True
    member.watch(["node rabbit@mq2 down"])
    assert not host.open


def test_what_is_drained_stays_closed(host: Host, member: Any) -> None:
    host.open, host.drained = False, {"rabbit@mq1"}
    member.watch([])
    assert host.done == []


def test_listeners_that_did_not_open_are_tried_again_without_another_word(host: Host, member: Any) -> None:
    host.open, host.refused = False, {RESUME}
    before = host.run

    def run(*command: str, **limits: int) -> subprocess.CompletedProcess[str]:
        if host.done.count(RESUME) == 2:
            host.refused = set()
        return before(*command, **limits)

    member.run = run
    member.watch([])
    assert host.open


def test_connections_that_stayed_are_closed_at_the_next_attempt(host: Host, member: Any) -> None:
    host.running, host.refused = NODES[:1], {CLOSE}
    member.ATTEND_SECONDS = 3
    member.watch([])
    assert host.done.count(CLOSE) > 1


def test_a_broker_that_is_busy_is_asked_again(host: Host, member: Any) -> None:
    host.running, host.silent = NODES[:1], 3
    member.watch([])
    assert host.done == [SUSPEND, CLOSE]


def test_one_that_says_nothing_is_left_alone(host: Host, member: Any) -> None:
    host.silent = 1000
    member.watch(["node rabbit@mq3 down"])
    assert host.done == []


def test_a_whole_cluster_is_left_alone(host: Host, member: Any) -> None:
    member.watch(["node rabbit@mq3 up"])
    assert host.done == []


@pytest.mark.parametrize(("state", "metadata"), [("enabled", "khepri"), ("disabled", "mnesia")])
def test_status_tells_where_the_metadata_is(host: Host, member: Any, state: str, metadata: str) -> None:
    host.khepri = state
    assert member.status()["metadata"] == metadata


def test_of_two_restarts_at_once_neither_goes_on(host: Host, member: Any) -> None:
    host.drained = {"rabbit@mq1", "rabbit@mq2"}
    with pytest.raises(member.RefusedError, match="not the only one that is drained: rabbit@mq1, rabbit@mq2"):
        member.restart(0)
    assert host.done == [DRAIN, REVIVE]


def test_whatever_ends_it_before_the_restart_puts_the_broker_back(
    host: Host, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = member.status

    def status() -> Any:
        if DRAIN in host.done:
            raise SystemExit("stopped by a signal")
        return before()

    monkeypatch.setattr(member, "status", status)
    with pytest.raises(SystemExit):
        member.restart(0)
    assert host.done == [DRAIN, REVIVE]


def test_it_goes_on_when_nobody_listens_any_more(
    host: Host, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_words: str, **_options: bool) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", nobody)
    member.restart(0)
    assert host.done == [DRAIN, RESTART, REVIVE]


def test_revive_starts_a_broker_and_puts_it_back(host: Host, member: Any) -> None:
    host.refused = {CRITICAL}  # it adds a broker, so nothing speaks against it
    member.start("start", 0)
    assert host.done == [START, REVIVE]
