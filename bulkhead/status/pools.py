"""Pools and their servers, as every load balancer that answers sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead import haproxy, patroni
from bulkhead.status.database import leader_of
from bulkhead.status.judge import Judge

BROKERS = "rabbitmq"  # the load balancers' back end of AMQP
MARKS = "sudo /usr/local/lib/bulkhead/haproxy-marks"

Seen = Mapping[str, haproxy.Statistics]  # by load balancer


@dataclass(frozen=True)
class Server:
    name: str
    states: Mapping[str, str]  # as each load balancer sees it
    sessions: int
    well: bool


@dataclass(frozen=True)
class Pool:
    name: str
    backend: str
    servers: tuple[Server, ...]


def pools(judge: Judge) -> tuple[Pool, ...]:
    seen = {node.host: node.haproxy for node in judge.nodes("load_balancers") if node.haproxy is not None}
    if not seen:
        return ()
    rows = []
    # Before the first release every server is down, and that is no finding of its own.
    empty = all(node.release and node.release.current is None for node in judge.reached("app_servers"))
    for name, settings in judge.inventory.application.get("pools", {}).items():
        row = _pool(judge, name, f"pool_{name}", "app_servers", seen)
        rows.append(row)
        if not empty:
            _judge_pool(judge, row, seen, int(settings.get("min_healthy", 1)))
    for role in ("primary", "replica"):
        if any(statistics.backend(f"postgres_{role}") for statistics in seen.values()):
            rows.append(_postgres_pool(judge, role, seen))
    if any(statistics.backend(BROKERS) for statistics in seen.values()):
        rows.append(_broker_pool(judge, seen))
    return tuple(rows)


def _pool(judge: Judge, name: str, backend: str, group: str, seen: Seen) -> Pool:
    servers = []
    for host in judge.inventory.hosts(group):
        found = {lb: statistics.backend(backend).get(host.name) for lb, statistics in seen.items()}
        states = {lb: server.state if server else "missing" for lb, server in found.items()}
        sessions = sum(server.sessions for server in found.values() if server)
        servers.append(Server(host.name, states, sessions, set(states.values()) == {"up"}))
    return Pool(name, backend, tuple(servers))


def _judge_pool(judge: Judge, pool: Pool, seen: Seen, min_healthy: int) -> None:
    for lb, statistics in seen.items():
        serving = sum(server.serving for server in statistics.backend(pool.backend).values())
        if serving == 0:
            judge.outage(f"pool {pool.name} has no server on {lb}", judge.journal(lb, "haproxy"))
        elif serving < min_healthy:
            judge.wrong(
                f"pool {pool.name} has {serving} of at least {min_healthy} servers on {lb}",
                "see the servers that are not up, above",
            )
    for server in pool.servers:
        if not server.well and judge.facts.nodes[server.name].unreachable is None:
            _judge_server(judge, pool, server)


def _judge_server(judge: Judge, pool: Pool, server: Server) -> None:
    states = set(server.states.values())
    if len(states) > 1:
        what = f"the load balancers disagree about {server.name} in pool {pool.name}: {_told(server)}"
    else:
        what = f"{server.name} is {next(iter(states))} in pool {pool.name}"
    marked = [lb for lb, state in server.states.items() if "drained" in state or state == "maintenance"]
    missing = [lb for lb, state in server.states.items() if state == "missing"]
    if marked:
        mend = judge.on(marked[0], f"{MARKS} ready {pool.backend}/{server.name}")
    elif missing:
        mend = judge.converge("load_balancers", missing[0])
    else:
        mend = judge.journal(server.name, f"'{judge.application}-{pool.name}@*'")
    judge.wrong(what, mend)


def _broker_pool(judge: Judge, seen: Seen) -> Pool:
    """One that is away, or drained, is a finding of its own; one that is well has to be up."""
    shown = _pool(judge, "brokers", BROKERS, "brokers", seen)
    for server in shown.servers:
        node = judge.facts.nodes[server.name]
        member = node.broker.member(server.name) if node.broker else None
        if not server.well and member is not None and member.running and not member.drained:
            lb = next(name for name, state in server.states.items() if state != "up")
            judge.wrong(
                f"{server.name} should be up in pool {shown.name}: {_told(server)}",
                judge.journal(lb, "haproxy"),
            )
    return shown


def _told(server: Server) -> str:
    return ", ".join(f"{lb} says {state}" for lb, state in server.states.items())


def _postgres_pool(judge: Judge, role: str, seen: Seen) -> Pool:
    """Members in the other role are down in it, and that is well: they stand by."""
    shown = _pool(judge, f"postgres {role}", f"postgres_{role}", "databases", seen)
    leader = leader_of(judge)
    servers = []
    for server in shown.servers:
        node = judge.facts.nodes[server.name]
        leads = server.name == leader
        follows = not leads and node.patroni is not None and node.patroni.state in patroni.RUNNING_STATES
        wanted = leads if role == "primary" else follows
        states = {
            lb: "standby" if state == "down" and not wanted else state for lb, state in server.states.items()
        }
        well = set(states.values()) == {"up" if wanted else "standby"}
        servers.append(Server(server.name, states, server.sessions, well))
        # A member that does not tell its role is a finding already.
        if not well and leader is not None and node.patroni is not None:
            what = f"{server.name} should be {'up' if wanted else 'down'} in pool {shown.name}: "
            find = judge.outage if role == "primary" else judge.wrong
            find(what + _told(servers[-1]), judge.patronictl(server.name))
    return Pool(shown.name, shown.backend, tuple(servers))
