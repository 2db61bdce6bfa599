"""A broker's restart: what has to be true before, what is done, and how it ends when something is not."""

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
NODES = ["rabbit@mq1", "rabbit@mq2", "rabbit@mq3"]


class Host:
    """Answers the program's commands, and keeps those that change something."""

    def __init__(self) -> None:
        self.running = NODES
        self.partitions: dict[str, Any] = {}
        self.seen_by: dict[str, list[str]] = {}  # who runs, as another broker sees it
        self.refused: set[str] = set()
        self.active = "active"
        self.drained: set[str] = set()
        self.done: list[str] = []

    def run(self, *command: str, **_limits: int) -> subprocess.CompletedProcess[str]:
        words = " ".join(word for word in command if word != "--silent")
        code = 1 if words in self.refused else 0
        if words.startswith("rabbitmqctl cluster_status"):
            known = {
                "disk_nodes": NODES, "ram_nodes": [], "running_nodes": self.running,
                "partitions": self.partitions, "alarms": [],
                "maintenance_status": {
                    name: "draining" if name in self.drained else "not under maintenance" for name in NODES
                },
            }  # fmt: skip
            return subprocess.CompletedProcess(command, code, json.dumps(known), "")
        if words.startswith("rabbitmqctl --node"):
            other = command[command.index("--node") + 1]
            known = {
                "disk_nodes": NODES, "ram_nodes": [], "running_nodes": self.seen_by.get(other, []),
                "partitions": {}, "alarms": [], "maintenance_status": {},
            }  # fmt: skip
            return subprocess.CompletedProcess(command, other not in self.seen_by, json.dumps(known), "")
        if words.startswith("systemctl is-active"):
            return subprocess.CompletedProcess(command, 0, f"{self.active}\n", "")
        if words in (DRAIN, REVIVE, RESTART, START):
            self.done.append(words)
        return subprocess.CompletedProcess(command, code, "", "no" if code else "")


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def member(host: Host, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = program("roles/rabbitmq/files/rabbitmq-member")
    monkeypatch.setattr(module, "run", host.run)
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


def test_nothing_is_touched_while_the_cluster_is_cut(host: Host, member: Any) -> None:
    host.partitions = {"rabbit@mq1": ["rabbit@mq2"]}
    with pytest.raises(member.RefusedError, match="partitioned"):
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


def apart(host: Host, **seen_by: list[str]) -> None:
    """mq1, on which the program runs, is alone; the others see who runs as given."""
    host.running = NODES[:1]
    host.partitions = {"rabbit@mq1": NODES[1:]}
    host.seen_by = {f"rabbit@{name}": seen for name, seen in seen_by.items()}


def test_a_broker_that_the_others_went_on_without_is_restarted(host: Host, member: Any) -> None:
    apart(host, mq2=NODES[1:], mq3=NODES[1:])
    member.watch([])
    assert host.done == [RESTART]


def test_each_word_of_a_partition_is_looked_into(host: Host, member: Any) -> None:
    def lines() -> Any:
        assert host.done == []
        apart(host, mq2=NODES[1:], mq3=NODES[1:])
        yield "inconsistent_database, running_partitioned_network"

    member.watch(lines())
    assert host.done == [RESTART]


def test_a_broker_of_the_majority_stays(host: Host, member: Any) -> None:
    host.running = NODES[:2]
    host.partitions = {"rabbit@mq1": NODES[2:]}
    host.seen_by = {"rabbit@mq3": NODES[2:]}
    member.watch(["told"])
    assert host.done == []


def test_nobody_restarts_while_no_majority_is_together(host: Host, member: Any) -> None:
    apart(host, mq2=NODES[1:2], mq3=NODES[2:])
    member.watch(["told"])
    assert host.done == []


def test_a_broker_restarts_only_for_a_majority_that_it_can_ask(host: Host, member: Any) -> None:
    apart(host)
    member.watch(["told"])
    assert host.done == []


def test_a_whole_cluster_is_left_alone(host: Host, member: Any) -> None:
    member.watch(["told"])
    assert host.done == []


def test_of_two_restarts_at_once_neither_goes_on(host: Host, member: Any) -> None:
    host.drained = {"rabbit@mq1", "rabbit@mq2"}
    with pytest.raises(member.RefusedError, match="not the only one that is drained: rabbit@mq1, rabbit@mq2"):
        member.restart(0)
    assert host.done == [DRAIN, REVIVE]


def test_whatever_ends_it_before_the_restart_puts_the_broker_back(
    host: Host, member: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = member.status

    def status(*_of: str) -> Any:
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
