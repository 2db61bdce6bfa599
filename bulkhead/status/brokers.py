"""The brokers: who runs, who may go, what makes publishers wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bulkhead import rabbitmq
from bulkhead.problem import listed
from bulkhead.status import facts
from bulkhead.status.facts import Node
from bulkhead.status.judge import UNKNOWN, Judge

UNIT = "rabbitmq-server.service"
MEMBER = "sudo /usr/local/lib/bulkhead/rabbitmq-member"
RUNNING = "running"


@dataclass(frozen=True)
class Broker:
    name: str
    state: str
    alarms: tuple[str, ...]
    memory_bytes: int | None
    memory_limit_bytes: int | None
    needed_by: tuple[str, ...] | None  # queues that would have no majority without it; None: not known

    @property
    def well(self) -> bool:
        return self.state == RUNNING and not self.alarms


def seen(judge: Judge) -> rabbitmq.Cluster | None:
    return facts.seen_by_brokers(judge.nodes("brokers"))


def brokers(judge: Judge) -> tuple[Broker, ...]:
    nodes = judge.nodes("brokers")
    cluster = seen(judge)
    rows = tuple(_broker(node, cluster) for node in nodes)
    if nodes:
        _judge_majority(judge, rows, cluster)
        for node, row in zip(nodes, rows, strict=True):
            _judge_broker(judge, node, row)
        if cluster is not None:
            _judge_copies(judge, rows, cluster)
    return rows


def _broker(node: Node, cluster: rabbitmq.Cluster | None) -> Broker:
    # Its own word first; others tell of one that says nothing.
    own = node.broker.member(node.host) if node.broker else None
    member = own or (cluster.member(node.host) if cluster else None)
    knows = cluster is not None and cluster.queues is not None and not cluster.partial
    return Broker(
        name=node.host,
        state=_state(node, cluster),
        alarms=member.alarms if member else (),
        memory_bytes=member.memory_bytes if member else None,
        memory_limit_bytes=member.memory_limit_bytes if member else None,
        needed_by=cluster.needing(node.host) if cluster is not None and knows else None,
    )


def _state(node: Node, cluster: rabbitmq.Cluster | None) -> str:
    if node.unreachable is not None:
        return "unreachable"
    unit = node.services.get(UNIT, "active")
    if unit != "active":
        return unit
    member = cluster.member(node.host) if cluster else None
    if member is not None and not member.running:
        return "not in the cluster"  # and so it answers nobody: its watch has closed its listeners
    if node.broker is None and node.metrics is None:
        return "does not answer"
    if member is None:
        return "not in the cluster"
    own = node.broker.member(node.host) if node.broker else member
    return "drained" if own is not None and own.drained else RUNNING


def _judge_majority(judge: Judge, rows: tuple[Broker, ...], cluster: rabbitmq.Cluster | None) -> None:
    running = cluster.running if cluster else ()
    if 2 * len(running) > len(rows):
        return
    silent = next((row for row in rows if row.state != RUNNING), rows[0])
    if cluster is None and _workers_consume(judge):
        what = (
            "no broker says how it is, and workers take from them all the same: this screen cannot see them"
        )
        judge.wrong(what, judge.on(silent.name, "uptime"))
        return
    told = f"{len(running)} of {len(rows)} run" if cluster else "none of them answers"
    judge.outage(
        f"the brokers have no majority ({told}): no job is taken and none is given out",
        judge.on(silent.name, f"sudo systemctl status {UNIT}"),
    )


def _workers_consume(judge: Judge) -> bool:
    """A worker's own word, that a broker has it as a consumer."""
    return any(
        text.startswith("consumes ")
        for node in judge.reached("workers")
        if node.release is not None
        for text in node.release.said.values()
    )


def _judge_broker(judge: Judge, node: Node, row: Broker) -> None:
    finds: dict[str, Callable[[], None]] = {
        "does not answer": lambda: judge.wrong(
            f"{row.name}: the broker does not answer: {node.unknown.get('members', UNKNOWN)}",
            judge.journal(row.name, UNIT),
        ),
        "not in the cluster": lambda: judge.wrong(
            f"{row.name}: the broker runs and the others do not see it: it turns clients away",
            judge.on(row.name, "sudo rabbitmqctl cluster_status"),
        ),
        "drained": lambda: judge.wrong(
            f"{row.name} is drained and serves nobody: an operation was cut short",
            judge.on(row.name, f"{MEMBER} revive"),
        ),
    }
    finds.get(row.state, lambda: None)()
    if node.broker is None and row.state == RUNNING and _all_should_answer(judge):
        judge.wrong(
            f"{row.name}: the broker's management interface does not answer: "
            f"{node.unknown.get('members', UNKNOWN)}",
            judge.journal(row.name, UNIT),
        )
    if row.state in ("unreachable", "inactive", "failed"):
        return  # what others last heard of it is no finding
    look = {"memory": "sudo rabbitmq-diagnostics memory_breakdown", "disk": "df -h /var/lib/rabbitmq"}
    for alarm in row.alarms:
        what = f"{row.name} is short of {alarm}: publishers wait, at every broker"
        judge.outage(what, judge.on(row.name, look[alarm]))


def _all_should_answer(judge: Judge) -> bool:
    """One that is away keeps the others' management interfaces waiting, and is the finding."""
    return all(
        node.unreachable is None and node.services.get(UNIT, "active") == "active"
        for node in judge.nodes("brokers")
    )


def _judge_copies(judge: Judge, rows: tuple[Broker, ...], cluster: rabbitmq.Cluster) -> None:
    lost = [queue for queue in cluster.queues or () if not queue.has_majority]
    if lost:
        away = sorted({name for queue in lost for name in queue.members if name not in queue.online})
        judge.outage(
            f"{_queues(lost)} no majority of copies: nothing goes in or out; "
            f"{listed(away)} {'has' if len(away) == 1 else 'have'} the others",
            judge.on(away[0], f"sudo systemctl status {UNIT}")
            if away and away[0] in judge.inventory.everyone
            else "bring the brokers back first",
        )
    behind = [queue for queue in cluster.queues or () if queue.has_majority and not queue.whole]
    # While a broker is away that is the cause, and a finding already.
    if behind and all(row.well for row in rows):
        away = sorted({name for queue in behind for name in queue.members if name not in queue.online})
        judge.wrong(
            f"{_queues(behind)} a copy that does not answer, on {listed(away)}",
            judge.on(
                rows[0].name,
                f"sudo rabbitmq-queues quorum_status --vhost {judge.application} {behind[0].name}",
            ),
        )


def _queues(queues: list[rabbitmq.Queue]) -> str:
    many = len(queues) > 1
    return f"queue{'s' * many} {listed(queue.name for queue in queues)} {'have' if many else 'has'}"
