"""`fab brokers.restart`: when it refuses, what it does, how it ends when something is not as it should be."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_fakes import TIERS, all_queues, broker_cluster, facts, gone, outdated, tiers

from bulkhead import brokers
from bulkhead.brokers import NotNowError, run
from bulkhead.errors import CancelledError, FailedError, HostError, RefusedError
from bulkhead.inventory import Inventory
from bulkhead.status.facts import Node

NAMES = TIERS["brokers"]


def cluster_nodes(**changes: Any) -> dict[str, Node]:
    """The brokers as all of them see the cluster; keywords go to broker_cluster."""
    well = facts(TIERS).nodes
    return {name: replace(well[name], broker=broker_cluster(name, **changes)) for name in NAMES}


class Cluster:
    def __init__(self) -> None:
        self.nodes: dict[str, Node] = cluster_nodes()
        self.restarted: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self.after: Callable[[str], None] = lambda _host: None

    def look(self) -> Mapping[str, Node]:
        return self.nodes

    def restart(self, host: str) -> None:
        if host in self.failing:
            raise self.failing[host]
        self.restarted.append(host)
        self.after(host)

    def command(self, host: str, command: str) -> str:
        return f"ssh {host} {command}"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setattr(brokers, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(brokers, "POLL_SECONDS", 0)
    return Cluster()


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    return tiers(release_store=str(tmp_path))


def ledger(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "operations.jsonl").read_text().splitlines()]


def test_one_after_the_other_and_it_is_recorded(
    cluster: Cluster, inventory: Inventory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(inventory, cluster, yes=True)
    assert cluster.restarted == NAMES
    told = capsys.readouterr().out
    assert "mq1  leads default, mail and dead_letters" in told
    assert "[3/3]" in told
    assert [(line["event"], line.get("host")) for line in ledger(tmp_path)] == [
        ("began", None), ("restarted", "mq1"), ("restarted", "mq2"), ("restarted", "mq3"), ("ended", None),
    ]  # fmt: skip


def test_a_dry_run_changes_nothing(cluster: Cluster, inventory: Inventory, tmp_path: Path) -> None:
    run(inventory, cluster, dry_run=True)
    assert cluster.restarted == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("nodes", "says", "mend"),
    [
        ({**cluster_nodes(), "mq2": gone("mq2")}, "mq2 cannot be reached", "ssh mq2"),
        (
            {**cluster_nodes(), "mq3": Node("mq3", unknown={"members": "connection refused"})},
            "mq3 does not answer (connection refused)",
            "rabbitmq-member revive",
        ),
        (cluster_nodes(mq2={"running": False}), "does not see mq2", "cluster_status"),
        (cluster_nodes(mq2={"drained": True}), "mq2 is drained", "rabbitmq-member revive"),
        (cluster_nodes(mq1={"memory_alarm": True}), "mq1 is short of memory", "fab queues"),
        (cluster_nodes(mq1={"disk_alarm": True}), "mq1 is short of disk", "fab queues"),
        (
            cluster_nodes(queues=all_queues(mail={"online": ("mq1", "mq3")})),
            "Queue mail has a copy that does not answer, on mq2",
            "Wait",
        ),
        ({"mq1": cluster_nodes()["mq1"]}, "There are 1 brokers", "by hand"),
    ],
)
def test_it_refuses_before_it_acts(
    nodes: dict[str, Node], says: str, mend: str, cluster: Cluster, inventory: Inventory, tmp_path: Path
) -> None:
    cluster.nodes = nodes
    with pytest.raises(RefusedError) as refused:
        run(inventory, cluster, yes=True)
    assert says in refused.value.message
    assert mend in refused.value.mend
    assert cluster.restarted == []
    assert list(tmp_path.iterdir()) == []


def test_a_word_from_before_the_broker_was_cut_off_keeps_nobody(
    cluster: Cluster, inventory: Inventory
) -> None:
    cluster.nodes = outdated(cluster_nodes())
    run(inventory, cluster, yes=True)
    assert cluster.restarted == NAMES


@pytest.mark.parametrize("word", [None, frozenset({"mail"})])
def test_a_copy_that_does_not_answer_keeps_them(
    word: frozenset[str] | None, cluster: Cluster, inventory: Inventory
) -> None:
    cluster.nodes = outdated(cluster_nodes(), mq3=word)
    with pytest.raises(RefusedError, match="Queue mail has a copy that does not answer, on mq1 and mq3"):
        run(inventory, cluster, yes=True)


def test_brokers_that_do_not_tell_of_queues_stay(cluster: Cluster, inventory: Inventory) -> None:
    silent = {name: replace(broker_cluster(name), queues=None) for name in NAMES}
    cluster.nodes = {name: replace(node, broker=silent[name]) for name, node in cluster.nodes.items()}
    with pytest.raises(RefusedError, match="who may go is not known"):
        run(inventory, cluster, yes=True)


def test_a_refusal_of_the_first_node_has_changed_nothing(cluster: Cluster, inventory: Inventory) -> None:
    cluster.failing["mq1"] = NotNowError("mq1", "the broker was not restarted: mq2 is not running.")
    with pytest.raises(RefusedError, match="mq2 is not running"):
        run(inventory, cluster, yes=True)


def test_a_later_refusal_says_how_things_stand(cluster: Cluster, inventory: Inventory) -> None:
    cluster.failing["mq2"] = NotNowError("mq2", "the broker was not restarted: no majority.")
    with pytest.raises(FailedError, match="Restarted before: mq1; not yet: mq2 and mq3"):
        run(inventory, cluster, yes=True)


@pytest.mark.parametrize(
    ("cause", "kind"),
    [(HostError("mq2", "the connection was lost"), FailedError), (KeyboardInterrupt(), CancelledError)],
)
def test_one_that_may_be_left_drained_is_named_with_what_brings_it_back(
    cause: BaseException, kind: type[FailedError], cluster: Cluster, inventory: Inventory, tmp_path: Path
) -> None:
    cluster.failing["mq2"] = cause
    with pytest.raises(kind) as ended:
        run(inventory, cluster, yes=True)
    assert "mq2" in ended.value.message
    assert "ssh mq2 sudo /usr/local/lib/bulkhead/rabbitmq-member revive" in ended.value.mend
    assert cluster.restarted == ["mq1"]
    assert ledger(tmp_path)[-1]["result"] == kind.__name__


def test_it_stops_when_the_cluster_is_not_whole_again(cluster: Cluster, inventory: Inventory) -> None:
    def breaks(_host: str) -> None:
        cluster.nodes = cluster_nodes(queues=all_queues(mail={"online": ("mq2", "mq3")}))

    cluster.after = breaks
    with pytest.raises(FailedError, match=r"not whole again.*Queue mail"):
        run(inventory, cluster, yes=True)
    assert cluster.restarted == ["mq1"]
