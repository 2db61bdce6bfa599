"""PostgreSQL's cluster and the etcd that decides who leads it."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead import patroni
from bulkhead.status.facts import Node
from bulkhead.status.judge import UNKNOWN, Judge
from bulkhead.status.units import byte_count

# A standby further behind than this would lose time in a failover.
LAG_LIMIT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Member:
    name: str
    role: str
    state: str
    lag_bytes: int | None
    timeline: int | None
    etcd: str  # leader, member, or what is wrong with it
    well: bool


@dataclass(frozen=True)
class Database:
    leader: str | None
    paused: bool
    members: tuple[Member, ...]


def writable(judge: Judge) -> list[str]:
    """The members that say of themselves that they take writes."""
    return [node.host for node in judge.nodes("databases") if node.patroni and node.patroni.writable]


def leader_of(judge: Judge) -> str | None:
    found = writable(judge)
    return found[0] if len(found) == 1 else None


def database(judge: Judge) -> Database | None:
    nodes = judge.nodes("databases")
    if not nodes:
        return None
    primaries = writable(judge)
    if len(primaries) > 1:
        what = f"PostgreSQL has {len(primaries)} primaries: {' and '.join(primaries)}"
        judge.outage(what, judge.patronictl(primaries[0]))
    elif not primaries:
        _no_leader(judge, nodes)
    cluster = _cluster(nodes)
    members = {member.name: member for member in cluster.members} if cluster else {}
    leader = members.get(leader_of(judge) or "")
    if cluster is not None:
        _judge_members(judge, nodes, members)
        _judge_cluster(judge, cluster, leader, nodes)
    _judge_etcd(judge, nodes)
    return Database(
        leader=leader_of(judge),
        paused=cluster is not None and cluster.paused,
        members=tuple(_member(node, members.get(node.host), leader) for node in nodes),
    )


def _no_leader(judge: Judge, nodes: list[Node]) -> None:
    views = [node for node in nodes if node.patroni is not None]
    silent = {node.host for node in nodes if node.patroni is None}
    named = {
        member.name
        for node in views
        if node.patroni
        for member in node.patroni.cluster.members
        if member.leads and member.running
    }
    if named and named <= silent:
        # The others still hear it: it leads, and only this screen cannot see it.
        judge.wrong(
            f"PostgreSQL's leader {', '.join(sorted(named))} answers the other members and not here",
            judge.patronictl(views[0].host),
        )
        return
    asked = views[0].host if views else nodes[0].host
    judge.outage("PostgreSQL has no leader: nothing can be written", judge.patronictl(asked))


def _cluster(nodes: list[Node]) -> patroni.Cluster | None:
    """The leader's view of the cluster, or else anyone's."""
    views = sorted((node.patroni for node in nodes if node.patroni), key=lambda one: not one.writable)
    return views[0].cluster if views else None


def _member(node: Node, member: patroni.Member | None, leader: patroni.Member | None) -> Member:
    if node.unreachable is not None:
        role, state = (member.role if member else UNKNOWN), "unreachable"
    elif node.patroni is None:
        role, state = (member.role if member else UNKNOWN), "Patroni does not answer"
    else:
        # Its own word first; the cluster's adds whether it streams.
        role = member.role if member else node.patroni.role
        state = (
            member.state
            if member and member.running and node.patroni.state in patroni.RUNNING_STATES
            else (node.patroni.state)
        )
    timelines = {one.timeline for one in (member, leader) if one and one.timeline}
    return Member(
        name=node.host,
        role=role.replace("_", " "),
        state=state,
        lag_bytes=member.lag_bytes if member else None,
        timeline=member.timeline if member else None,
        etcd=_etcd_word(node),
        well=member is not None
        and state in patroni.RUNNING_STATES
        and not _late(member)
        and len(timelines) < 2,
    )


def _judge_members(judge: Judge, nodes: list[Node], members: dict[str, patroni.Member]) -> None:
    for node in nodes:
        if node.unreachable is not None or _stopped(node, "patroni.service"):
            continue
        member = members.get(node.host)
        if node.patroni is None:
            what = f"{node.host}: Patroni does not answer: {node.unknown.get('patroni', UNKNOWN)}"
        elif member is None:
            what = f"{node.host} is not a member of PostgreSQL's cluster"
        elif not member.running:
            what = f"{node.host}: PostgreSQL is {member.state}"
        elif _late(member):
            what = f"{node.host} is {byte_count(member.lag_bytes)} behind the leader"
        else:
            continue
        judge.wrong(what, judge.journal(node.host, "patroni"))


def _judge_cluster(
    judge: Judge, cluster: patroni.Cluster, leader: patroni.Member | None, nodes: list[Node]
) -> None:
    asked = leader.name if leader else nodes[0].host
    synchronous = [member for member in cluster.replicas if member.synchronous and member.running]
    if leader is not None and cluster.replicas and not synchronous:
        what = "no standby is synchronous: what is committed now is on one node only"
        judge.wrong(what, judge.patronictl(asked))
    if cluster.paused:
        what = "Patroni is paused: nothing fails over by itself"
        judge.wrong(what, judge.patronictl(asked, "resume --wait"))
    restarts = [member.name for member in cluster.members if member.pending_restart]
    if restarts:
        what = f"PostgreSQL has settings that wait for a restart on {', '.join(restarts)}"
        judge.wrong(what, judge.patronictl(restarts[0]))


def _judge_etcd(judge: Judge, nodes: list[Node]) -> None:
    well = [node for node in nodes if node.etcd is not None and node.etcd.healthy]
    for node in nodes:
        if node.unreachable is None and node not in well and not _stopped(node, "etcd.service"):
            judge.wrong(
                f"{node.host}: etcd is not well: {_etcd_word(node)}", judge.journal(node.host, "etcd")
            )
    needed = len(nodes) // 2 + 1
    if len(well) < needed:
        judge.wrong(
            f"etcd has no quorum ({len(well)} of {len(nodes)} members are well, {needed} are needed): "
            "PostgreSQL cannot fail over",
            "bring the database hosts back first",
        )


def _stopped(node: Node, service: str) -> bool:
    """Then that is the cause, and it is found with the units."""
    return node.services.get(service, "active") != "active"


def _late(member: patroni.Member) -> bool:
    return not member.leads and member.lag_bytes is not None and member.lag_bytes > LAG_LIMIT_BYTES


def _etcd_word(node: Node) -> str:
    if node.etcd is None:
        return UNKNOWN if node.unreachable else node.unknown.get("etcd", UNKNOWN)
    if not node.etcd.healthy:
        return node.etcd.reason or "unhealthy"
    return "leader" if node.etcd.leads else "member"
