"""What the brokers' answers mean: members, copies, history, whose word counts."""

from dataclasses import replace
from typing import Any

import pytest
from cluster_fakes import broker_cluster, queue

from bulkhead import rabbitmq

WELL = {
    "running": True,
    "being_drained": False,
    "mem_alarm": False,
    "disk_free_alarm": False,
}
NODES = [
    {**WELL, "name": "rabbit@mq1", "mem_used": 125988864, "mem_limit": 536870912},
    {"name": "rabbit@mq2", "running": False},  # all that is told of one that is away
    {
        "name": "rabbit@mq3",
        "running": True,
        "being_drained": True,
        "mem_alarm": True,
        "disk_free_alarm": True,
    },
]


def history(*values: float, step: int = 10) -> dict[str, Any]:
    """As the management API has it: the newest first."""
    return {
        "rate": 0.0,
        "samples": [
            {"sample": value, "timestamp": 1_795_384_200_000 - 1000 * step * back}
            for back, value in enumerate(values)
        ],
    }


def told(**fields: Any) -> rabbitmq.Queue:
    raw = {"name": "default", "type": "quorum", "messages_ready": 3, "messages_unacknowledged": 1, **fields}
    found = rabbitmq.parse("mq1", NODES, [raw]).queue("default")
    assert found is not None
    return found


def test_members_are_hosts_with_their_alarms() -> None:
    cluster = rabbitmq.parse("mq1", NODES, None)
    assert cluster.running == ("mq1", "mq3")
    third = cluster.member("mq3")
    assert third is not None
    assert (third.drained, third.alarms) == (True, ("memory", "disk"))
    assert cluster.queues is None


def test_a_queue_that_says_little() -> None:
    bare = told(messages_ready=None, messages_unacknowledged=None)
    assert (bare.ready, bare.unacked, bare.consumers, bare.in_per_second) == (0, 0, None, None)
    assert bare.at_least_old_seconds() is None


@pytest.mark.parametrize(
    ("waiting", "done", "seconds"),
    [
        ((3, 2, 1, 0, 5), (9, 9, 9, 9, 9), 20),  # it was empty 30 s ago
        ((3, 3, 3, 3, 3), (9, 9, 9, 9, 9), 40),
        ((3, 3, 3, 3, 3), (9, 9, 8, 8, 8), 10),  # something left 20 s ago
        ((3, 3, 3, 3, 3), (9, 8, 7, 6, 5), None),
    ],
)
def test_how_old_the_first_message_is_at_least(
    waiting: tuple[int, ...], done: tuple[int, ...], seconds: int | None
) -> None:
    found = told(messages_ready_details=history(*waiting), message_stats={"ack_details": history(*done)})
    assert found.at_least_old_seconds() == seconds


def test_where_nothing_was_ever_acknowledged_the_backlog_counts() -> None:
    assert told(messages_ready_details=history(3, 3, 0)).at_least_old_seconds() == 10


def test_an_empty_queue_has_no_oldest_message() -> None:
    assert told(messages_ready=0, messages_ready_details=history(0, 3)).at_least_old_seconds() is None


@pytest.mark.parametrize(
    ("online", "majority", "whole", "critical"),
    [
        (("mq1", "mq2", "mq3"), True, True, set()),
        (("mq1", "mq3"), True, False, {"mq1", "mq3"}),
        (("mq3",), False, False, set()),
    ],
)
def test_who_may_go(online: tuple[str, ...], majority: bool, whole: bool, critical: set[str]) -> None:
    found = queue("default", online=online)
    assert (found.has_majority, found.whole) == (majority, whole)
    assert {name for name in ("mq1", "mq2", "mq3") if found.needs(name)} == critical


def test_a_classic_queue_keeps_nobody_from_going() -> None:
    found = queue("reply", kind="classic", members=(), online=())
    assert found.has_majority
    assert not found.needs("mq1")


def test_the_word_of_the_larger_part_counts() -> None:
    alone = broker_cluster("mq1", mq2={"running": False}, mq3={"running": False})
    two = broker_cluster("mq2", mq1={"running": False})
    slow = replace(two, asked="mq3", queues=None)
    best = rabbitmq.best([alone, slow, two])
    assert best is not None
    assert best.asked == "mq2"
    assert rabbitmq.best([]) is None


@pytest.mark.parametrize(("limit", "window"), [(70, (600, 10)), (3000, (3600, 60)), (90_000, (3600, 60))])
def test_the_history_is_longer_than_a_task_may_run(limit: int, window: tuple[int, int]) -> None:
    assert rabbitmq.history([limit]) == window


NOBODY: dict[str, set[str]] = {"mq1": set(), "mq2": set(), "mq3": set()}
ONE_IS_SILENT: dict[str, set[str]] = {"mq1": set(), "mq3": set()}


@pytest.mark.parametrize(
    ("online", "critical", "holds"),
    [
        (("mq2",), NOBODY, ("mq1", "mq2", "mq3")),
        (("mq1", "mq3"), NOBODY, ("mq1", "mq2", "mq3")),
        ((), NOBODY, ("mq1", "mq2", "mq3")),
        (("mq2",), {**NOBODY, "mq1": {"mail"}}, ("mq1", "mq2", "mq3")),
        (("mq2",), {**NOBODY, "mq1": {"default"}}, ("mq2",)),
        (("mq2",), ONE_IS_SILENT, ("mq2",)),
        (("mq2",), {}, ("mq2",)),
    ],
)
def test_the_word_of_the_copies_counts(
    online: tuple[str, ...], critical: dict[str, set[str]], holds: tuple[str, ...]
) -> None:
    cluster = broker_cluster(queues=(queue("default", online=online),))
    found = rabbitmq.corrected(cluster, critical).queue("default")
    assert found is not None
    assert found.online == holds


@pytest.mark.parametrize(("online", "whole"), [(1, True), (3, True), (4, False)])
def test_of_five_copies_the_check_can_miss_one(online: int, whole: bool) -> None:
    names = tuple(f"mq{number}" for number in range(1, 6))
    cluster = broker_cluster(queues=(queue("default", members=names, online=names[:online]),))
    found = rabbitmq.corrected(cluster, dict.fromkeys(names, ())).queue("default")
    assert found is not None
    assert found.whole == whole


def test_what_has_no_copies_or_is_not_told_stays() -> None:
    classic = broker_cluster(queues=(queue("reply", kind="classic", members=(), online=()),))
    for cluster in (classic, replace(classic, queues=None)):
        assert rabbitmq.corrected(cluster, NOBODY) == cluster
