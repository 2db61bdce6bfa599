"""PostgreSQL's cluster as Patroni's REST API tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEADER_ROLES = ("leader", "master", "primary", "standby_leader")
SYNCHRONOUS_ROLES = ("sync_standby", "quorum_standby")
RUNNING_STATES = ("running", "streaming")


@dataclass(frozen=True)
class Member:
    name: str
    role: str  # leader, replica, sync_standby, quorum_standby
    state: str  # running, streaming, starting, stopped, start failed ...
    timeline: int | None
    lag_bytes: int | None  # None for the leader and for a member whose position is not known
    pending_restart: bool

    @property
    def leads(self) -> bool:
        return self.role in LEADER_ROLES

    @property
    def synchronous(self) -> bool:
        """A commit waits for it (for a quorum of such members)."""
        return self.role in SYNCHRONOUS_ROLES

    @property
    def running(self) -> bool:
        return self.state in RUNNING_STATES


@dataclass(frozen=True)
class Cluster:
    members: tuple[Member, ...]
    paused: bool  # an operator has taken failover into their own hands
    scheduled_switchover: str | None

    @property
    def leader(self) -> Member | None:
        """The member that leads and runs; Patroni's record may name one that does not."""
        return next((member for member in self.members if member.leads and member.running), None)

    @property
    def replicas(self) -> tuple[Member, ...]:
        return tuple(member for member in self.members if not member.leads)


@dataclass(frozen=True)
class Node:
    """What one node says of itself and of the cluster. Each node's Patroni has its own view."""

    role: str
    state: str
    cluster: Cluster

    @property
    def writable(self) -> bool:
        return self.role in LEADER_ROLES and self.state in RUNNING_STATES


def parse(member: Mapping[str, Any], cluster: Mapping[str, Any]) -> Node:
    """The answers to `GET /patroni` and `GET /cluster`."""
    return Node(
        role=str(member.get("role", "unknown")),
        state=str(member.get("state", "unknown")),
        cluster=parse_cluster(cluster),
    )


def parse_cluster(data: Mapping[str, Any]) -> Cluster:
    switchover = data.get("scheduled_switchover")
    return Cluster(
        members=tuple(_member(entry) for entry in data.get("members", [])),
        paused=bool(data.get("pause", False)),
        scheduled_switchover=str(switchover.get("at")) if isinstance(switchover, Mapping) else None,
    )


def _member(entry: Mapping[str, Any]) -> Member:
    # "unknown" while a member has not told its position.
    lag, timeline = entry.get("lag"), entry.get("timeline")
    return Member(
        name=str(entry.get("name", "?")),
        role=str(entry.get("role", "unknown")),
        state=str(entry.get("state", "unknown")),
        timeline=timeline if isinstance(timeline, int) else None,
        lag_bytes=lag if isinstance(lag, int) else None,
        pending_restart=bool(entry.get("pending_restart", False)),
    )
