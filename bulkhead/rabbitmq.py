"""What a broker says of its cluster and its queues: the management API's answers, as data. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

PREFIX = "rabbit@"  # role rabbitmq: a broker is called rabbit@HOST
# Where messages end that nobody could take (inventories/shared/group_vars/brokers).
DEAD_LETTERS = "dead_letters"
# How far back the broker's own history of a queue is asked for, and in what steps: what it keeps (RabbitMQ's
# sample_retention_policies) is 10 minutes in steps of 5 s, and an hour in steps of 60 s.
HISTORIES = ((600, 10), (3600, 60))


@dataclass(frozen=True)
class Member:
    """A broker, as the one that was asked sees it."""

    name: str  # of its host
    running: bool
    drained: bool = False
    memory_alarm: bool = False
    disk_alarm: bool = False
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None

    @property
    def alarms(self) -> tuple[str, ...]:
        return ("memory",) * self.memory_alarm + ("disk",) * self.disk_alarm


@dataclass(frozen=True)
class Queue:
    """None: the broker does not say."""

    name: str
    kind: str  # quorum, classic
    ready: int
    unacked: int
    consumers: int | None = None
    members: tuple[str, ...] = ()  # hosts that have a copy of it
    online: tuple[str, ...] = ()  # those of them whose copy answers
    leader: str = ""
    in_per_second: float | None = None
    out_per_second: float | None = None  # acknowledged: done with
    backlog_seconds: int | None = None  # messages have waited in it, without a break, for at least this long
    held_seconds: int | None = None  # workers have held some of its messages, without a break, for this long
    silent_seconds: int | None = None  # nothing was acknowledged for at least this long
    head_at: int | None = None  # when the first message was made, for queues and messages that tell

    @property
    def messages(self) -> int:
        return self.ready + self.unacked

    @property
    def majority(self) -> int:
        return len(self.members) // 2 + 1

    @property
    def has_majority(self) -> bool:
        return self.kind != "quorum" or not self.members or len(self.online) >= self.majority

    @property
    def whole(self) -> bool:
        return self.kind != "quorum" or set(self.online) == set(self.members)

    def needs(self, member: str) -> bool:
        """Whether it has a majority now, and would have none without this broker."""
        return (
            self.kind == "quorum"
            and member in self.online
            and self.has_majority
            and len(self.online) - 1 < self.majority
        )

    def at_least_old_seconds(self) -> int | None:
        """The first message is this old, or older: it waits, and nothing has left the queue since."""
        if not self.ready or self.backlog_seconds is None or self.silent_seconds is None:
            return None
        return min(self.backlog_seconds, self.silent_seconds) or None


@dataclass(frozen=True)
class Cluster:
    """The answer of one broker. `queues` is None when it has not told of them in time."""

    asked: str
    members: tuple[Member, ...]
    queues: tuple[Queue, ...] | None
    partial: bool = False  # put together from what each broker knows by itself

    @property
    def running(self) -> tuple[str, ...]:
        return tuple(member.name for member in self.members if member.running)

    def member(self, name: str) -> Member | None:
        return next((member for member in self.members if member.name == name), None)

    def queue(self, name: str) -> Queue | None:
        return next((queue for queue in self.queues or () if queue.name == name), None)

    def needing(self, member: str) -> tuple[str, ...]:
        """The queues that would have no majority without this broker."""
        return tuple(queue.name for queue in self.queues or () if queue.needs(member))


def history(limits: Iterable[int]) -> tuple[int, int]:
    """How much history it takes to see that a task has run beyond its limit: (seconds, step)."""
    needed = max(limits, default=0) + 2 * HISTORIES[0][1]
    return next((each for each in HISTORIES if each[0] >= needed), HISTORIES[-1])


def best(clusters: Iterable[Cluster]) -> Cluster | None:
    """Whose word to take: who sees the most brokers, then who tells of the queues, the first of equals."""
    return max(clusters, key=lambda one: (len(one.running), one.queues is not None), default=None)


def corrected(cluster: Cluster, critical: Mapping[str, Collection[str]]) -> Cluster:
    """With every copy online of a queue whose copies say so themselves. `critical`: the brokers that have
    asked them, each with the queues that would have no majority without it.

    The management of a broker that led a queue and was cut off keeps its word of then for as long as the
    queue is idle."""
    if cluster.queues is None:
        return cluster
    queues = (
        replace(queue, online=queue.members) if _is_outdated(queue, critical) else queue
        for queue in cluster.queues
    )
    return replace(cluster, queues=tuple(queues))


def _is_outdated(queue: Queue, critical: Mapping[str, Collection[str]]) -> bool:
    """Nobody lists a queue that has more than its majority online. Of five copies that can be four: a word
    that agrees with it stays."""
    return (
        queue.kind == "quorum"
        and bool(queue.members)
        and len(queue.online) <= queue.majority
        and all(name in critical and queue.name not in critical[name] for name in queue.members)
    )


def parse(
    asked: str, nodes: Iterable[Mapping[str, Any]], queues: Iterable[Mapping[str, Any]] | None
) -> Cluster:
    return Cluster(
        asked=asked,
        members=tuple(sorted((_member(each) for each in nodes), key=lambda member: member.name)),
        queues=tuple(_queue(each) for each in queues) if queues is not None else None,
    )


@dataclass(frozen=True)
class Metrics:
    """What a broker knows by itself, when nobody can say more: its alarms, and the queues that it leads."""

    alarms: tuple[str, ...]
    queues: tuple[Queue, ...]


def parse_metrics(raw: Mapping[str, Any]) -> Metrics:
    words = {"memory": "memory", "free_disk": "disk"}
    return Metrics(
        alarms=tuple(words[alarm] for alarm in raw["alarms"]),
        queues=tuple(
            Queue(
                name,
                "unknown",
                ready=found.get("messages_ready", 0),
                unacked=found.get("messages_unacked", 0),
                consumers=found.get("consumers"),
            )
            for name, found in raw["queues"].items()
        ),
    )


def from_metrics(told: Mapping[str, Metrics]) -> Cluster | None:
    """The cluster of the brokers that say something: who else there is, is not known then."""
    if not told:
        return None
    members = tuple(
        Member(name, True, memory_alarm="memory" in one.alarms, disk_alarm="disk" in one.alarms)
        for name, one in told.items()
    )
    queues: dict[str, Queue] = {}
    for queue in (queue for one in told.values() for queue in one.queues):
        # Who led a queue before may still tell what it had then.
        known = queues.get(queue.name)
        if known is None or queue.messages > known.messages:
            queues[queue.name] = queue
    return Cluster(next(iter(told)), members, tuple(queues.values()), partial=True)


def host(name: str) -> str:
    return name.removeprefix(PREFIX)


def _member(raw: Mapping[str, Any]) -> Member:
    return Member(
        name=host(raw["name"]),
        running=bool(raw["running"]),
        drained=bool(raw.get("being_drained")),
        memory_alarm=bool(raw.get("mem_alarm")),
        disk_alarm=bool(raw.get("disk_free_alarm")),
        memory_bytes=raw.get("mem_used"),
        memory_limit_bytes=raw.get("mem_limit"),
    )


def _queue(raw: Mapping[str, Any]) -> Queue:
    told: Mapping[str, Any] = raw.get("message_stats") or {}
    waiting = _samples(raw.get("messages_ready_details"))
    return Queue(
        name=raw["name"],
        kind=raw["type"],
        # A queue that was made a moment ago has no numbers yet.
        ready=raw.get("messages_ready") or 0,
        unacked=raw.get("messages_unacknowledged") or 0,
        consumers=raw.get("consumers"),
        members=tuple(sorted(host(name) for name in raw.get("members") or ())),
        online=tuple(sorted(host(name) for name in raw.get("online") or ())),
        leader=host(raw.get("leader") or ""),
        in_per_second=_rate(told.get("publish_details")),
        out_per_second=_rate(told.get("ack_details")),
        backlog_seconds=_unbroken(waiting, lambda value: value > 0),
        held_seconds=_unbroken(_samples(raw.get("messages_unacknowledged_details")), lambda value: value > 0),
        # A queue of which nothing was ever acknowledged has no count of it.
        silent_seconds=_since_change(_samples(told.get("ack_details")))
        if told.get("ack_details")
        else _span(waiting),
        head_at=raw.get("head_message_timestamp"),
    )


def _rate(details: Mapping[str, Any] | None) -> float | None:
    return float(details["rate"]) if details and "rate" in details else None


Samples = list[tuple[float, float]]  # (seconds since 1970, value), newest first


def _samples(details: Mapping[str, Any] | None) -> Samples:
    found = [(each["timestamp"] / 1000, each["sample"]) for each in (details or {}).get("samples", [])]
    return sorted(found, reverse=True)


def _unbroken(samples: Samples, holds: Any) -> int | None:
    """For how long it has held until the newest sample."""
    if not samples:
        return None
    last = samples[0][0]
    for at, value in samples:
        if not holds(value):
            break
        last = at
    return int(samples[0][0] - last) if holds(samples[0][1]) else 0


def _since_change(samples: Samples) -> int | None:
    return _unbroken(samples, lambda value: value == samples[0][1])


def _span(samples: Samples) -> int | None:
    return int(samples[0][0] - samples[-1][0]) if samples else None
