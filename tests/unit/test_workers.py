"""`fab workers.*`: who serves what, when a drain refuses, and that no host is left drained in silence."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_fakes import (
    RELEASE,
    TIERS,
    all_queues,
    broker_cluster,
    drained_release,
    facts,
    gone,
    said,
    tiers,
    worker_release,
)
from cluster_fakes import (
    inventory as plain_inventory,
)

from bulkhead import rabbitmq, workers
from bulkhead.errors import CancelledError, FailedError, HostError, RefusedError, SettingsError
from bulkhead.inventory import Inventory
from bulkhead.status.facts import Node, Release
from bulkhead.workers import SCHEDULER, Tier, last_of, run_drain, run_restart, run_undrain, serves

BOTH = TIERS["workers"]
TIER = Tier.of(tiers())


def node(name: str, release: Release | None = None) -> Node:
    return Node(host=name, release=release or worker_release())


class Cluster:
    tier = TIER

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {name: node(name) for name in BOTH}
        self.told: rabbitmq.Cluster | None = broker_cluster()
        self.done: list[str] = []
        self.failing: BaseException | None = None
        self.deaf = False  # workers do as they are told, and say otherwise

    def look(self) -> tuple[Mapping[str, Node], rabbitmq.Cluster | None]:
        return self.nodes, self.told

    def _do(self, what: str, host: str, release: Release) -> str:
        if self.failing:
            raise self.failing
        self.done.append(f"{what} {host}")
        if not self.deaf:
            self.nodes[host] = node(host, release)
        return f"{what} done\n"

    def drain(self, host: str) -> str:
        return self._do("drain", host, drained_release())

    def undrain(self, host: str) -> str:
        return self._do("undrain", host, worker_release())

    def restart(self, host: str) -> str:
        return self._do("restart", host, worker_release())

    def command(self, host: str, command: str) -> str:
        return f"ssh {host} {command}"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(workers, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(workers, "POLL_SECONDS", 0)
    return Cluster()


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return tiers(release_store=str(tmp_path))


# --- who serves what ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("release", "expected"),
    [
        (worker_release(), {"default", "mail", SCHEDULER}),
        (drained_release(), set()),
        (worker_release(current=None), set()),
        # Another release than the current one is on its way out.
        (worker_release(current="ba9876543210"), set()),
        (
            worker_release(
                queues={"default": {RELEASE: "activating/start"}, "mail": {RELEASE: "active/running"}}
            ),
            {"mail", SCHEDULER},
        ),
        (
            worker_release(
                said={**said(), f"forge-queue-mail@{RELEASE}.service": "no broker: does not consume mail"}
            ),
            {"default", SCHEDULER},
        ),
    ],
)
def test_what_a_host_serves(release: Release, expected: set[str]) -> None:
    assert serves(node("worker1", release), TIER) == expected


def test_a_host_that_cannot_be_reached_serves_nothing() -> None:
    assert last_of("worker1", {"worker1": node("worker1"), "worker2": gone("worker2")}, TIER) == [
        "default",
        "mail",
        SCHEDULER,
    ]


def test_one_queue_that_the_other_has_not_makes_a_host_the_last() -> None:
    half = worker_release(queues={"default": {RELEASE: "active/running"}, "mail": {}})
    nodes = {"worker1": node("worker1"), "worker2": node("worker2", half)}
    assert last_of("worker1", nodes, TIER) == ["mail"]
    assert last_of("worker2", nodes, TIER) == []


def test_deadlines_bound_how_long_it_waits() -> None:
    assert TIER.drain_timeout_seconds == 80 + 120
    # Each queue ends its tasks and starts, one after the other, and the scheduler.
    assert TIER.restart_timeout_seconds == 80 + 30 + 3 * 120 + 120


def test_without_workers_there_is_nothing_to_do() -> None:
    with pytest.raises(RefusedError, match="no worker node"):
        Tier.of(plain_inventory())


# --- drain --------------------------------------------------------------------------------------------------


def test_a_drain_is_told_done_proved_and_recorded(
    cluster: Cluster, inventory: Inventory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_drain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == ["drain worker1"]
    told = capsys.readouterr().out
    assert "queue default: its tasks have 80 s" in told
    assert "queue default: worker2 takes from it" in told
    assert told.strip().endswith("worker1 is drained. Bring it back: fab workers.undrain worker1")
    lines = [json.loads(line) for line in (tmp_path / "operations.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines] == ["began", "drained", "ended"]
    assert lines[-1]["result"] == "done"


def test_a_dry_run_drains_nothing(cluster: Cluster, inventory: Inventory) -> None:
    run_drain(inventory, cluster, "worker1", dry_run=True)
    assert cluster.done == []


def test_drained_twice_is_drained(
    cluster: Cluster, inventory: Inventory, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.nodes["worker1"] = node("worker1", drained_release())
    run_drain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == []
    assert "drained already" in capsys.readouterr().out


def test_a_drain_that_was_cut_short_goes_on(cluster: Cluster, inventory: Inventory) -> None:
    cluster.nodes["worker1"] = node("worker1", replace(worker_release(), drained={"by": "a", "at": "b"}))
    run_drain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == ["drain worker1"]


@pytest.mark.parametrize("other", [gone("worker2"), node("worker2", drained_release())])
def test_the_last_host_is_not_drained_unless_it_is_said(
    other: Node, cluster: Cluster, inventory: Inventory, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.nodes["worker2"] = other
    with pytest.raises(RefusedError) as refused:
        run_drain(inventory, cluster, "worker1", yes=True)
    assert "last host that serves default, mail and the scheduler" in refused.value.message
    assert "worker2 does not" in refused.value.message
    assert "--last" in refused.value.mend
    assert cluster.done == []
    run_drain(inventory, cluster, "worker1", last=True, yes=True)
    assert cluster.done == ["drain worker1"]
    told = capsys.readouterr().out
    assert "NOBODY ELSE serves default" in told
    assert "queue default: nobody takes from it" in told


def test_who_drains_the_last_host_types_its_name(
    cluster: Cluster, inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.nodes["worker2"] = gone("worker2")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: "yes")
    with pytest.raises(RefusedError, match="Not confirmed"):
        run_drain(inventory, cluster, "worker1", last=True)
    monkeypatch.setattr("builtins.input", lambda _question: "worker1")
    run_drain(inventory, cluster, "worker1", last=True)
    assert cluster.done == ["drain worker1"]


@pytest.mark.parametrize(
    ("host", "there", "kind", "says"),
    [
        ("app1", node("worker1"), SettingsError, "Worker nodes are: worker1, worker2"),
        ("worker1", gone("worker1"), RefusedError, "cannot be reached"),
        ("worker1", Node("worker1", unknown={"release": "never converged"}), RefusedError, "never converged"),
    ],
)
def test_a_host_that_cannot_be_drained(
    host: str, there: Node, kind: type[RefusedError], says: str, cluster: Cluster, inventory: Inventory
) -> None:
    cluster.nodes["worker1"] = there
    with pytest.raises(kind, match=says):
        run_drain(inventory, cluster, host, yes=True)


@pytest.mark.parametrize(
    ("cause", "kind"), [(HostError("worker1", "lost"), FailedError), (KeyboardInterrupt(), CancelledError)]
)
def test_a_drain_that_ends_early_says_what_brings_the_host_back(
    cause: BaseException, kind: type[FailedError], cluster: Cluster, inventory: Inventory
) -> None:
    cluster.failing = cause
    with pytest.raises(kind) as ended:
        run_drain(inventory, cluster, "worker1", yes=True)
    assert "fab workers.undrain worker1" in ended.value.mend


def test_a_drain_that_did_not_happen_is_no_success(cluster: Cluster, inventory: Inventory) -> None:
    cluster.deaf = True
    with pytest.raises(FailedError, match="does not say that it has"):
        run_drain(inventory, cluster, "worker1", yes=True)


# --- undrain ------------------------------------------------------------------------------------------------


def test_undrain_waits_until_the_brokers_count_on_it(cluster: Cluster, inventory: Inventory) -> None:
    cluster.nodes["worker1"] = node("worker1", drained_release())
    run_undrain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == ["undrain worker1"]


def test_a_consumer_that_the_broker_does_not_count_is_no_success(
    cluster: Cluster, inventory: Inventory
) -> None:
    cluster.nodes["worker1"] = node("worker1", drained_release())
    cluster.told = broker_cluster(queues=all_queues(mail={"consumers": 1}))
    with pytest.raises(FailedError, match="the broker counts 1 consumers of mail for 2 hosts"):
        run_undrain(inventory, cluster, "worker1", yes=True)


def test_a_broker_that_tells_little_leaves_the_nodes_word(cluster: Cluster, inventory: Inventory) -> None:
    cluster.nodes["worker1"] = node("worker1", drained_release())
    cluster.told = replace(broker_cluster(), queues=None)
    run_undrain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == ["undrain worker1"]


def test_nothing_starts_without_a_broker(cluster: Cluster, inventory: Inventory) -> None:
    cluster.nodes["worker1"] = node("worker1", drained_release())
    cluster.told = None
    with pytest.raises(RefusedError, match="No broker answers"):
        run_undrain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == []


def test_a_host_that_serves_is_left_alone(cluster: Cluster, inventory: Inventory) -> None:
    run_undrain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == []


def test_stopped_units_of_a_host_that_is_not_drained_start_too(
    cluster: Cluster, inventory: Inventory
) -> None:
    stopped = worker_release(queues={"default": {}, "mail": {}})
    cluster.nodes["worker1"] = node("worker1", stopped)
    run_undrain(inventory, cluster, "worker1", yes=True)
    assert cluster.done == ["undrain worker1"]


def test_an_undrain_that_fails_says_how_the_host_stands(cluster: Cluster, inventory: Inventory) -> None:
    cluster.nodes["worker1"] = node("worker1", drained_release())
    cluster.failing = HostError("worker1", "the worker did not start")
    with pytest.raises(FailedError) as ended:
        run_undrain(inventory, cluster, "worker1", yes=True)
    assert "not marked as drained any more" in ended.value.message
    assert "fab workers.drain worker1" in ended.value.mend


# --- restart ------------------------------------------------------------------------------------------------


def test_host_after_host_and_the_drained_one_stays_drained(
    cluster: Cluster, inventory: Inventory, capsys: pytest.CaptureFixture[str]
) -> None:
    run_restart(inventory, cluster, yes=True)
    assert cluster.done == ["restart worker1", "restart worker2"]
    cluster.nodes["worker1"] = node("worker1", drained_release())
    cluster.done.clear()
    run_restart(inventory, cluster, yes=True)
    assert cluster.done == ["restart worker2"]
    told = capsys.readouterr().out
    assert "worker1 is drained and stays so" in told
    assert "nobody else serves" in told


@pytest.mark.parametrize(
    ("nodes", "told", "says"),
    [
        ({"worker2": gone("worker2")}, broker_cluster(), "worker2 cannot be reached"),
        ({}, None, "No broker answers"),
        ({"worker2": node("worker2", worker_release(current=None))}, broker_cluster(), "no release yet"),
        (
            {name: node(name, drained_release()) for name in BOTH},
            broker_cluster(),
            "Every worker node is drained",
        ),
    ],
)
def test_a_restart_refuses(
    nodes: dict[str, Node], told: Any, says: str, cluster: Cluster, inventory: Inventory
) -> None:
    cluster.nodes.update(nodes)
    cluster.told = told
    with pytest.raises(RefusedError, match=says):
        run_restart(inventory, cluster, yes=True)
    assert cluster.done == []


def test_a_host_that_does_not_come_back_stops_the_others(cluster: Cluster, inventory: Inventory) -> None:
    cluster.deaf = True
    cluster.nodes["worker1"] = node("worker1", worker_release(queues={"default": {}, "mail": {}}))
    with pytest.raises(FailedError) as ended:
        run_restart(inventory, cluster, yes=True)
    assert "it does not take from default" in ended.value.message
    assert "not yet: worker2" in ended.value.message
    assert cluster.done == ["restart worker1"]


@pytest.mark.parametrize(
    ("cause", "kind"), [(HostError("worker1", "lost"), FailedError), (KeyboardInterrupt(), CancelledError)]
)
def test_a_restart_that_ends_early_says_how_things_stand(
    cause: BaseException, kind: type[FailedError], cluster: Cluster, inventory: Inventory
) -> None:
    cluster.failing = cause
    with pytest.raises(kind) as ended:
        run_restart(inventory, cluster, yes=True)
    assert "not yet: worker2" in ended.value.message
    assert "fab workers.undrain worker1" in ended.value.mend


def test_all_is_well_in_the_fakes() -> None:
    for name in BOTH:
        assert serves(facts(TIERS).nodes[name], TIER) == {"default", "mail", SCHEDULER}
