"""Queues: what waits, who takes it, what is stuck and why."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bulkhead import rabbitmq
from bulkhead.status import brokers
from bulkhead.status.facts import queues_of
from bulkhead.status.judge import Judge
from bulkhead.status.workers import WELL

# Workers that hold nothing while messages wait have had this long to take one.
TAKE_SECONDS = 30
# A task that is asked to end at its limit has this long to do so, and the broker to tell of it.
LIMIT_MARGIN_SECONDS = 60
STUCK = "STUCK"


@dataclass(frozen=True)
class Queue:
    name: str
    kind: str  # queue, dead letters or other: one that the application's description does not have
    ready: int | None  # None: not known
    unacked: int | None
    consumers: int | None
    in_per_second: float | None
    out_per_second: float | None
    oldest_seconds: int | None
    oldest_is_least: bool  # it is that old or older
    state: str
    why: str

    @property
    def well(self) -> bool:
        return not self.why

    @property
    def messages(self) -> int:
        return (self.ready or 0) + (self.unacked or 0)


@dataclass(frozen=True)
class Stuck:
    why: str
    outage: bool
    cause: str  # no_majority, no_consumer, idle or held


def stuck(queue: rabbitmq.Queue, time_limit_seconds: int) -> Stuck | None:
    """Why nothing of a queue of the application gets done, if so."""
    if not queue.has_majority:
        return Stuck("it has no majority of its copies", True, "no_majority")
    if queue.consumers == 0:
        waiting = f", and {queue.ready} messages wait" if queue.ready else ""
        return Stuck(f"no worker takes from it{waiting}", True, "no_consumer")
    backlog, held, silent = (
        seconds or 0 for seconds in (queue.backlog_seconds, queue.held_seconds, queue.silent_seconds)
    )
    if queue.ready and not queue.unacked and min(backlog, silent) >= TAKE_SECONDS:
        return Stuck(f"{queue.ready} messages wait, and its workers take none", False, "idle")
    if queue.unacked and min(held, silent) >= time_limit_seconds + LIMIT_MARGIN_SECONDS:
        return Stuck(
            f"its workers hold {queue.unacked} messages for longer than a task may run "
            f"({time_limit_seconds} s)",
            False,
            "held",
        )
    return None


def queues(judge: Judge) -> tuple[Queue, ...]:
    cluster = brokers.seen(judge)
    described = queues_of(judge.inventory)
    if not judge.nodes("brokers"):
        return ()
    if cluster is None or cluster.queues is None:
        return tuple(_unknown(name, "?") for name in described)
    rows = [_described(judge, cluster.queue(name), name, raw) for name, raw in described.items()]
    letters = cluster.queue(rabbitmq.DEAD_LETTERS)
    if letters is not None:
        rows.append(_dead_letters(judge, letters))
    known = {*described, rabbitmq.DEAD_LETTERS}
    rows += [
        _row(queue, "other", "")
        for queue in cluster.queues
        if queue.name not in known and (queue.kind == "quorum" or queue.messages)
    ]
    return tuple(rows)


def _described(judge: Judge, queue: rabbitmq.Queue | None, name: str, raw: Mapping[str, Any]) -> Queue:
    if queue is None:
        cluster = brokers.seen(judge)
        if cluster is not None and cluster.partial:
            return _unknown(name, "no leader yet")  # the one that it had does not answer
        if any(node.release and node.release.current for node in judge.reached("workers")):
            what = f"queue {name} is not there: no worker has ever taken from it"
            judge.outage(what, _bring_workers_back(judge, name))
        return _unknown(name, "not there")
    found = stuck(queue, int(raw.get("time_limit_seconds", 0)))
    if found is not None and found.cause != "no_majority":  # that is found with the brokers
        find = judge.outage if found.outage else judge.wrong
        mend = _bring_workers_back(judge, name) if found.cause == "no_consumer" else "fab workers.restart"
        find(f"queue {name} is stuck: {found.why}", mend)
    return _row(queue, "queue", found.why if found else "")


def _dead_letters(judge: Judge, queue: rabbitmq.Queue) -> Queue:
    why = ""
    if queue.messages:
        why = f"{queue.messages} messages were given up: each was delivered too often, or refused"
        judge.wrong(f"queue {queue.name}: {why}", "docs/brokers.md says how to read them and put them back")
    return _row(queue, "dead letters", why)


def _bring_workers_back(judge: Judge, name: str) -> str:
    reached = judge.reached("workers")
    drained = [node.host for node in reached if node.release and node.release.drained]
    if drained:
        return f"fab workers.undrain {drained[0]}"
    for node in reached:
        running = node.release.queues.get(name, {}) if node.release else {}
        if not running and node.release is not None:
            return f"fab workers.undrain {node.host}"
        if WELL not in running.values():
            return judge.journal(node.host, f"'{judge.application}-queue-{name}@*'")
    if reached:
        return judge.journal(reached[0].host, f"'{judge.application}-queue-{name}@*'")
    return "bring the worker hosts back first"


def _unknown(name: str, state: str) -> Queue:
    return Queue(name, "queue", None, None, None, None, None, None, False, state, "")


def _row(queue: rabbitmq.Queue, kind: str, why: str) -> Queue:
    exact = max(0, int(time.time()) - queue.head_at) if queue.head_at and queue.ready else None
    least = queue.at_least_old_seconds()
    return Queue(
        name=queue.name,
        kind=kind,
        ready=queue.ready,
        unacked=queue.unacked,
        consumers=queue.consumers,
        in_per_second=queue.in_per_second,
        out_per_second=queue.out_per_second,
        oldest_seconds=exact if exact is not None else least,
        oldest_is_least=exact is None and least is not None,
        state=_state(queue, kind, why),
        why=why,
    )


def _state(queue: rabbitmq.Queue, kind: str, why: str) -> str:
    if kind == "dead letters":
        return "LOOK" if why else "empty"
    if why:
        return STUCK
    if queue.ready and (queue.in_per_second or 0) > (queue.out_per_second or 0):
        return "grows"
    if queue.ready:
        return "waits"
    return "works" if queue.unacked or queue.out_per_second else "idle"
