"""From facts to what the screen says: rows to show, and findings: what is wrong and what to type. No I/O.

A finding is a cause. What follows from a host that cannot be reached is shown in the rows, and found only
where the cluster as a whole is short of something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bulkhead import patroni
from bulkhead.connections import ssh_command
from bulkhead.inventory import Host, Inventory
from bulkhead.status.facts import Answer, Facts, Node

ALL_WELL, SOMETHING_WRONG, OUTAGE = 0, 5, 6

# A standby further behind than this would lose time in a failover.
LAG_LIMIT_BYTES = 64 * 1024 * 1024

UNKNOWN = "?"


@dataclass(frozen=True)
class Finding:
    outage: bool  # clients notice it
    what: str
    mend: str


@dataclass(frozen=True)
class Address:
    name: str
    address: str
    kind: str
    wanted: str
    owners: tuple[str, ...]
    answer: Answer | None


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


@dataclass(frozen=True)
class Releases:
    host: str
    current: str | None
    pools: Mapping[str, Mapping[str, str]]
    well: bool


@dataclass(frozen=True)
class View:
    environment: str
    sources: str
    hosts: int
    unreachable: Mapping[str, str]
    load_balancers: tuple[str, ...]
    addresses: tuple[Address, ...]
    pools: tuple[Pool, ...]
    database: Database | None
    releases: tuple[Releases, ...]
    failed_units: Mapping[str, tuple[str, ...]]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        if any(finding.outage for finding in self.findings):
            return OUTAGE
        return SOMETHING_WRONG if self.findings else ALL_WELL

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "exit_code": self.exit_code}


def view(inventory: Inventory, facts: Facts) -> View:
    judge = _Judge(inventory, facts)
    # The order of the sections is the order of the findings: what clients notice comes first.
    unreachable = judge.unreachable()
    addresses = judge.addresses()
    load_balancers = judge.load_balancers()
    releases = judge.releases()
    pools = judge.pools()
    database = judge.database()
    failed_units = judge.units()
    findings = sorted(judge.findings, key=lambda finding: not finding.outage)
    return View(
        environment=inventory.environment_name,
        sources=inventory.sources,
        hosts=len(facts.nodes),
        unreachable=unreachable,
        load_balancers=load_balancers,
        addresses=addresses,
        pools=pools,
        database=database,
        releases=releases,
        failed_units=failed_units,
        findings=tuple(findings),
        seconds=round(facts.seconds, 2),
    )


class _Judge:
    def __init__(self, inventory: Inventory, facts: Facts) -> None:
        self.inventory = inventory
        self.facts = facts
        self.findings: list[Finding] = []

    # --- small words ---------------------------------------------------------------------------------------

    def outage(self, what: str, mend: str) -> None:
        self.findings.append(Finding(True, what, mend))

    def wrong(self, what: str, mend: str) -> None:
        self.findings.append(Finding(False, what, mend))

    def nodes(self, group: str) -> list[Node]:
        return [self.facts.nodes[host.name] for host in self.inventory.hosts(group)]

    def reached(self, group: str) -> list[Node]:
        return [node for node in self.nodes(group) if node.unreachable is None]

    def on(self, host: str, command: str) -> str:
        return f"{ssh_command(self.inventory.host(host))} {command}"

    def converge(self, playbook: str, host: str) -> str:
        if "lab_name" in self.inventory.variables:
            return "make up"
        return f"ansible-playbook playbooks/{playbook}.yml --limit {host}"

    # --- sections ------------------------------------------------------------------------------------------

    def unreachable(self) -> Mapping[str, str]:
        lost = {name: node.unreachable for name, node in self.facts.nodes.items() if node.unreachable}
        for name, reason in lost.items():
            host = self.inventory.host(name)
            mend = "make up" if "lab_name" in self.inventory.variables else ssh_command(host)
            self.wrong(f"{name} cannot be reached: {reason.rstrip('.')}", mend)
        return lost

    def addresses(self) -> tuple[Address, ...]:
        balancers = self.reached("load_balancers")
        silent = [node.host for node in self.nodes("load_balancers") if node.addresses is None]
        rows = []
        for wanted in self.inventory.virtual_addresses:
            owners = tuple(node.host for node in balancers if wanted.address in (node.addresses or ()))
            answer = self.facts.answers.get(wanted.name)
            rows.append(Address(wanted.name, wanted.address, wanted.kind, wanted.owner, owners, answer))
            name = f"{wanted.name} ({wanted.address})"
            if len(owners) > 1:
                self.outage(
                    f"{name} has {len(owners)} owners: {' and '.join(owners)}",
                    self.on(self._not_wanted(owners, wanted.owner), "sudo systemctl restart keepalived"),
                )
            elif not owners and silent:
                self._unproved(name, silent, answer)
            elif not owners:
                self.outage(
                    f"{name} has no owner", self.on(wanted.owner, "sudo systemctl status keepalived haproxy")
                )
            elif owners[0] != wanted.owner and self._fit(wanted.owner):
                self.wrong(
                    f"{name} is on {owners[0]}, the inventory wants it on {wanted.owner}", "fab lb.failback"
                )
            if answer is not None and not answer.good and owners:
                said = answer.problem or f"it answered {answer.code}"
                path = self.inventory.application.get("health", {}).get("ready", "/")
                self.outage(
                    f"{name} does not serve: {said}", f"curl -vk https://{_bracketed(wanted.address)}{path}"
                )
        return tuple(rows)

    @staticmethod
    def _not_wanted(owners: tuple[str, ...], wanted: str) -> str:
        return next((owner for owner in owners if owner != wanted), owners[0])

    def _unproved(self, name: str, silent: list[str], answer: Answer | None) -> None:
        """Nobody who answers holds the address: one who does not answer may, and its clients know."""
        mend = self.on(silent[0], "ip address show")
        if answer is not None and answer.good:
            self.wrong(f"{name} answers, and its owner is not known ({', '.join(silent)} may be)", mend)
        else:
            self.outage(f"{name} has no owner that is known ({', '.join(silent)} may be)", mend)

    def _fit(self, host: str) -> bool:
        """Whether a load balancer could take an address. If not, that is the finding, and not where it is."""
        node = self.facts.nodes.get(host)
        return node is not None and bool(node.alive) and node.services.get("keepalived.service") == "active"

    def load_balancers(self) -> tuple[str, ...]:
        for node in self.reached("load_balancers"):
            if node.services.get("haproxy.service") == "active" and not node.alive:
                self.wrong(
                    f"{node.host}: HAProxy runs and does not answer",
                    self.on(node.host, "sudo journalctl -u haproxy -n 50"),
                )
            elif node.haproxy is None and node.services.get("haproxy.service") == "active":
                self.wrong(
                    f"{node.host}: HAProxy's runtime API: {node.unknown.get('haproxy', UNKNOWN)}",
                    self.on(node.host, "sudo journalctl -u haproxy -n 50"),
                )
            if node.holds:
                self.wrong(
                    f"{node.host} is held back from {', '.join(node.holds)}: an operation was cut short",
                    self.on(
                        node.host,
                        f"sudo rm {' '.join(f'/run/keepalived/hold/{hold}' for hold in node.holds)}",
                    ),
                )
        return tuple(host.name for host in self.inventory.hosts("load_balancers"))

    def releases(self) -> tuple[Releases, ...]:
        rows = []
        for node in self.reached("app_servers"):
            found = node.release
            if found is None:
                self.wrong(
                    f"{node.host}: its releases are not known: {node.unknown.get('release', UNKNOWN)}",
                    self.converge("app_servers", node.host),
                )
                continue
            well = True
            for pool in self.inventory.application.get("pools", {}):
                running = found.running.get(pool, {})
                if self._pool_kind(pool) == "http" and found.current and found.current not in running:
                    well = False
                    self.wrong(
                        f"{node.host}: pool {pool} does not run the current release {found.current}",
                        self.on(
                            node.host,
                            f"sudo journalctl -n 50 -u '{self.inventory.application['name']}-{pool}@*'",
                        ),
                    )
            rows.append(Releases(node.host, found.current, found.running, well))
        deployed = {row.current for row in rows}
        if rows and deployed == {None}:
            self.outage("no release is deployed", "fab deploy")
        elif len(deployed) > 1:
            by_release = "; ".join(
                f"{release or 'none'} on {', '.join(row.host for row in rows if row.current == release)}"
                for release in sorted(deployed, key=str)
            )
            self.wrong(f"nodes run different releases: {by_release}", "fab deploy")
        return tuple(rows)

    def _pool_kind(self, pool: str) -> str:
        return str(self.inventory.application["pools"][pool].get("kind", "http"))

    def pools(self) -> tuple[Pool, ...]:
        """Each pool of the application, and PostgreSQL's two, as the load balancers that answer see them."""
        seers = [node for node in self.nodes("load_balancers") if node.haproxy is not None]
        if not seers:
            return ()
        rows = []
        nothing_deployed = all(
            node.release is not None and node.release.current is None for node in self.reached("app_servers")
        )
        for pool, settings in self.inventory.application.get("pools", {}).items():
            row = self._pool(pool, f"pool_{pool}", self.inventory.hosts("app_servers"), seers)
            rows.append(row)
            if not nothing_deployed:
                self._judge_pool(row, seers, int(settings.get("min_healthy", 1)))
        for role in ("primary", "replica"):
            backend = f"postgres_{role}"
            if any(node.haproxy and node.haproxy.backend(backend) for node in seers):
                rows.append(self._postgres_pool(role, backend, seers))
        return tuple(rows)

    def _pool(self, name: str, backend: str, hosts: list[Host], seers: list[Node]) -> Pool:
        servers = []
        for host in hosts:
            seen = {node.host: node.haproxy.backend(backend).get(host.name) for node in seers if node.haproxy}
            servers.append(
                Server(
                    name=host.name,
                    states={lb: server.state if server else "missing" for lb, server in seen.items()},
                    sessions=sum(server.sessions for server in seen.values() if server),
                    well=all(server is not None and server.state == "up" for server in seen.values()),
                )
            )
        return Pool(name, backend, tuple(servers))

    def _judge_pool(self, pool: Pool, seers: list[Node], min_healthy: int) -> None:
        for node in seers:
            assert node.haproxy is not None
            serving = [server for server in node.haproxy.backend(pool.backend).values() if server.serving]
            if not serving:
                self.outage(
                    f"pool {pool.name} has no server on {node.host}",
                    self.on(node.host, "sudo journalctl -u haproxy -n 50"),
                )
            elif len(serving) < min_healthy:
                self.wrong(
                    f"pool {pool.name} has {len(serving)} of at least {min_healthy} servers on {node.host}",
                    "see the servers that are not up, above",
                )
        for server in pool.servers:
            if not server.well and self.facts.nodes[server.name].unreachable is None:
                self._judge_server(pool, server)

    def _judge_server(self, pool: Pool, server: Server) -> None:
        states = set(server.states.values())
        if len(states) > 1:
            told = ", ".join(f"{lb} says {state}" for lb, state in server.states.items())
            what = f"the load balancers disagree about {server.name} in pool {pool.name}: {told}"
        else:
            what = f"{server.name} is {next(iter(states))} in pool {pool.name}"
        marked = [lb for lb, state in server.states.items() if "drained" in state or state == "maintenance"]
        missing = [lb for lb, state in server.states.items() if state == "missing"]
        if marked:
            mend = self.on(
                marked[0], f"sudo /usr/local/lib/bulkhead/haproxy-marks ready {pool.backend}/{server.name}"
            )
        elif missing:
            mend = self.converge("load_balancers", missing[0])
        else:
            units = f"{self.inventory.application['name']}-{pool.name}@*"
            mend = self.on(server.name, f"sudo journalctl -n 50 -u '{units}'")
        self.wrong(what, mend)

    def _postgres_pool(self, role: str, backend: str, seers: list[Node]) -> Pool:
        """One server of the primary's pool serves and the others are down, and that is well."""
        hosts = self.inventory.hosts("databases")
        shown = self._pool(f"postgres {role}", backend, hosts, seers)
        leader = self._leader()
        servers = []
        for server in shown.servers:
            node = self.facts.nodes[server.name]
            leads = server.name == leader
            replicates = (
                not leads and node.patroni is not None and node.patroni.state in patroni.RUNNING_STATES
            )
            wanted = leads if role == "primary" else replicates
            states = {
                lb: "standby" if state == "down" and not wanted else state
                for lb, state in server.states.items()
            }
            well = all(state == ("up" if wanted else "standby") for state in states.values())
            servers.append(Server(server.name, states, server.sessions, well))
            if not well and leader is not None and node.unreachable is None:
                told = ", ".join(f"{lb} says {state}" for lb, state in states.items())
                what = f"{server.name} should be {'up' if wanted else 'down'} in pool postgres {role}: {told}"
                (self.outage if role == "primary" else self.wrong)(what, self.patronictl(server.name))
        return Pool(shown.name, backend, tuple(servers))

    def _leader(self) -> str | None:
        writable = [node.host for node in self.reached("databases") if node.patroni and node.patroni.writable]
        return writable[0] if len(writable) == 1 else None

    def patronictl(self, host: str) -> str:
        return self.on(host, "sudo patronictl list")

    def database(self) -> Database | None:
        nodes = self.nodes("databases")
        if not nodes:
            return None
        answering = [node for node in nodes if node.patroni is not None]
        writable = [node.host for node in answering if node.patroni and node.patroni.writable]
        if len(writable) > 1:
            self.outage(
                f"PostgreSQL has {len(writable)} primaries: {' and '.join(writable)}",
                self.patronictl(writable[0]),
            )
        elif not writable:
            self._no_leader(nodes, answering)
        cluster = self._cluster(answering)
        members = {member.name: member for member in cluster.members} if cluster else {}
        leader = members.get(writable[0]) if len(writable) == 1 else None
        rows = [self._member(node, members.get(node.host), leader) for node in nodes]
        if cluster is not None:
            self._judge_cluster(cluster, nodes, leader)
        self._judge_etcd(nodes)
        return Database(
            leader=writable[0] if len(writable) == 1 else None,
            paused=cluster is not None and cluster.paused,
            members=tuple(rows),
        )

    def _no_leader(self, nodes: list[Node], answering: list[Node]) -> None:
        silent = [node.host for node in nodes if node.patroni is None]
        named = {
            member.name
            for node in answering
            if node.patroni
            for member in node.patroni.cluster.members
            if member.leads and member.running
        }
        if named and named <= set(silent):
            # The others still hear it: it leads, and only this screen cannot see it.
            self.wrong(
                f"PostgreSQL's leader {', '.join(sorted(named))} answers the other members and not here",
                self.patronictl(answering[0].host),
            )
            return
        asked = answering[0].host if answering else nodes[0].host
        self.outage("PostgreSQL has no leader: nothing can be written", self.patronictl(asked))

    @staticmethod
    def _cluster(answering: list[Node]) -> patroni.Cluster | None:
        """The leader's view of the cluster, or else anyone's."""
        views = sorted((node.patroni for node in answering if node.patroni), key=lambda one: not one.writable)
        return views[0].cluster if views else None

    def _member(self, node: Node, member: patroni.Member | None, leader: patroni.Member | None) -> Member:
        if node.unreachable is not None:
            role, state = (member.role if member else UNKNOWN), "unreachable"
        elif node.patroni is None:
            role, state = (member.role if member else UNKNOWN), "Patroni does not answer"
        else:
            role, state = (member.role if member else node.patroni.role), node.patroni.state
            if member is not None and member.running:
                state = member.state
        running = state in patroni.RUNNING_STATES
        late = member is not None and not member.leads and _late(member)
        astray = bool(
            member and leader and member.timeline and leader.timeline and member.timeline != leader.timeline
        )
        return Member(
            name=node.host,
            role=role.replace("_", " "),
            state=state,
            lag_bytes=member.lag_bytes if member else None,
            timeline=member.timeline if member else None,
            etcd=_etcd_word(node),
            well=running and not late and not astray and member is not None,
        )

    def _judge_cluster(
        self, cluster: patroni.Cluster, nodes: list[Node], leader: patroni.Member | None
    ) -> None:
        known = {member.name: member for member in cluster.members}
        for node in nodes:
            member = known.get(node.host)
            if node.unreachable is not None:
                continue
            if node.patroni is None:
                self.wrong(
                    f"{node.host}: Patroni does not answer: {node.unknown.get('patroni', UNKNOWN)}",
                    self.on(node.host, "sudo journalctl -u patroni -n 50"),
                )
            elif member is None:
                self.wrong(
                    f"{node.host} is not a member of PostgreSQL's cluster",
                    self.on(node.host, "sudo journalctl -u patroni -n 50"),
                )
            elif not member.running:
                self.wrong(
                    f"{node.host}: PostgreSQL is {member.state}",
                    self.on(node.host, "sudo journalctl -u patroni -n 50"),
                )
            elif not member.leads and _late(member):
                self.wrong(
                    f"{node.host} is {megabytes(member.lag_bytes)} behind the leader",
                    self.patronictl(node.host),
                )
        if (
            leader is not None
            and cluster.replicas
            and not any(member.synchronous and member.running for member in cluster.replicas)
        ):
            self.wrong(
                "no standby is synchronous: what is committed now is on one node only",
                self.patronictl(leader.name),
            )
        if cluster.paused:
            name = leader.name if leader else nodes[0].host
            self.wrong(
                "Patroni is paused: nothing fails over by itself",
                self.on(name, "sudo patronictl resume --wait"),
            )
        restarts = [member.name for member in cluster.members if member.pending_restart]
        if restarts:
            self.wrong(
                f"PostgreSQL has settings that wait for a restart on {', '.join(restarts)}",
                self.patronictl(restarts[0]),
            )

    def _judge_etcd(self, nodes: list[Node]) -> None:
        healthy = [node for node in nodes if node.etcd is not None and node.etcd.healthy]
        for node in nodes:
            if node.unreachable is None and node not in healthy:
                self.wrong(
                    f"{node.host}: etcd is not well: {_etcd_word(node)}",
                    self.on(node.host, "sudo journalctl -u etcd -n 50"),
                )
        needed = len(nodes) // 2 + 1
        if len(healthy) < needed:
            self.wrong(
                f"etcd has no quorum ({len(healthy)} of {len(nodes)} members are well, {needed} are needed): "
                "PostgreSQL cannot fail over",
                "bring the database hosts back first",
            )

    def units(self) -> Mapping[str, tuple[str, ...]]:
        failed: dict[str, tuple[str, ...]] = {}
        for name, node in self.facts.nodes.items():
            if node.unreachable is not None:
                continue
            if node.failed_units is None:
                self.wrong(
                    f"{name}: systemd does not answer: {node.unknown.get('units', UNKNOWN)}",
                    self.on(name, "systemctl --failed"),
                )
                continue
            if node.failed_units:
                failed[name] = node.failed_units
                self.wrong(
                    f"{name}: failed: {', '.join(node.failed_units)}",
                    self.on(name, f"sudo systemctl status {node.failed_units[0]}"),
                )
            for service, state in node.services.items():
                if state != "active" and service not in node.failed_units:
                    self.wrong(
                        f"{name}: {service} is {state}", self.on(name, f"sudo systemctl start {service}")
                    )
        return failed


def _late(member: patroni.Member) -> bool:
    return member.lag_bytes is not None and member.lag_bytes > LAG_LIMIT_BYTES


def _etcd_word(node: Node) -> str:
    if node.etcd is None:
        return UNKNOWN if node.unreachable else node.unknown.get("etcd", UNKNOWN)
    if not node.etcd.healthy:
        return node.etcd.reason or "unhealthy"
    return "leader" if node.etcd.leads else "member"


def megabytes(count: int | None) -> str:
    """A number of bytes as a person reads it."""
    if count is None:
        return UNKNOWN
    size, units = float(count), ["B", "kB", "MB", "GB", "TB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.0f} {units[0]}" if size >= 10 or units[0] == "B" else f"{size:.1f} {units[0]}"


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
