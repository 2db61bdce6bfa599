"""`fab workers.drain`, `workers.undrain` and `workers.restart`: workers stop warm, and no task is lost.

What is done on a node is the node's own program (roles/release/files/release): it stops the units, each queue
to its own deadline. What has not ended by then goes back to its queue. A mark on the node keeps a boot, a
converge and a deploy from starting what an operator has stopped.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bulkhead import ledger, rabbitmq, screen
from bulkhead.connections import Connections, ssh_command
from bulkhead.deploy import PROGRAM, START_DEADLINE_SECONDS
from bulkhead.errors import CancelledError, FailedError, HostError, RefusedError, SettingsError
from bulkhead.inventory import Inventory
from bulkhead.lock import Actions, locked
from bulkhead.problem import listed
from bulkhead.status import facts
from bulkhead.status.facts import Node, queues_of
from bulkhead.status.workers import NO_BROKER, WELL

# What systemd and the program add to a deadline.
MARGIN_SECONDS = 120
SETTLE_SECONDS = 60.0
POLL_SECONDS = 1.0
SCHEDULER = "the scheduler"


@dataclass(frozen=True)
class Tier:
    """What of the application's description these operations need."""

    application: str
    deadlines: Mapping[str, int]  # queue -> seconds that its tasks have to end
    start_seconds: int
    has_scheduler: bool

    @property
    def drain_timeout_seconds(self) -> int:
        return max(self.deadlines.values(), default=0) + MARGIN_SECONDS

    @property
    def restart_timeout_seconds(self) -> int:
        """One queue after the other: its tasks end, then the new worker begins."""
        services = len(self.deadlines) + self.has_scheduler
        return sum(self.deadlines.values()) + services * self.start_seconds + MARGIN_SECONDS

    @classmethod
    def of(cls, inventory: Inventory) -> Tier:
        hosts = inventory.hosts("workers")
        described = queues_of(inventory)
        if not hosts or not described:
            raise RefusedError(
                f"The inventory has no worker node, or the application has no queue ({inventory.sources}).",
                mend="docs/workers.md says what it takes to have them.",
            )
        return cls(
            application=str(inventory.application["name"]),
            deadlines={name: int(raw["drain_deadline_seconds"]) for name, raw in described.items()},
            start_seconds=max(
                int(host.literal("celery_start_deadline_seconds", START_DEADLINE_SECONDS)) for host in hosts
            ),
            has_scheduler=bool(inventory.application.get("beat")),
        )


class Cluster(Protocol):
    """What the operations need of worker nodes and brokers; tests have one of their own."""

    tier: Tier

    def look(self) -> tuple[Mapping[str, Node], rabbitmq.Cluster | None]: ...

    def drain(self, host: str) -> str: ...

    def undrain(self, host: str) -> str: ...

    def restart(self, host: str) -> str: ...

    def command(self, host: str, command: str) -> str: ...


def serves(node: Node, tier: Tier) -> frozenset[str]:
    """The queues that a node takes from, and the scheduler if it could act."""
    found = node.release
    if found is None or found.current is None or found.drained is not None:
        return frozenset()
    queues = {
        name
        for name in tier.deadlines
        if found.queues.get(name, {}).get(found.current) == WELL
        and not found.said.get(f"{tier.application}-queue-{name}@{found.current}.service", "").startswith(
            NO_BROKER
        )
    }
    beat = {SCHEDULER} if found.beat.get("beat", {}).get(found.current) == WELL else set()
    return frozenset(queues | beat)


def last_of(host: str, nodes: Mapping[str, Node], tier: Tier) -> list[str]:
    """What nobody would serve any more without this host, in the description's order."""
    others: set[str] = set().union(*(serves(node, tier) for name, node in nodes.items() if name != host))
    wanted = [*tier.deadlines, *([SCHEDULER] if tier.has_scheduler else [])]
    return [name for name in wanted if name not in others]


def is_stopped(node: Node) -> bool:
    found = node.release
    return found is not None and not any(found.queues.values()) and not any(found.beat.values())


# --- drain --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrainPlan:
    host: str
    done: bool  # it is drained already, and nothing runs
    unserved: tuple[str, ...]

    def lines(self, tier: Tier) -> list[str]:
        told = [f"{self.host} takes nothing new; what its workers have begun may end, and then they stop:"]
        for name, seconds in tier.deadlines.items():
            told.append(
                f"  queue {name}: its tasks have {seconds} s; what is not done by then goes back to it"
            )
        if tier.has_scheduler and SCHEDULER not in self.unserved:
            told.append("  the scheduler: another host's takes over")
        if self.unserved:
            told.append(f"  NOBODY ELSE serves {listed(self.unserved)}: jobs wait until a host is undrained")
        told.append("No boot, converge or deploy starts them again, only this:")
        told.append(f"  fab workers.undrain {self.host}")
        return told


def plan_drain(host: str, cluster: Cluster, *, last: bool) -> DrainPlan:
    nodes, _ = cluster.look()
    node = _required(host, nodes, cluster)
    assert node.release is not None
    if node.release.drained is not None and is_stopped(node):
        return DrainPlan(host, True, ())
    unserved = tuple(last_of(host, nodes, cluster.tier))
    if unserved and not last:
        away = [name for name, other in nodes.items() if name != host and not serves(other, cluster.tier)]
        raise RefusedError(
            f"{host} is the last host that serves {listed(unserved)}: jobs would wait until a host is back"
            + (f" ({listed(away)} {'does' if len(away) == 1 else 'do'} not)." if away else "."),
            mend=f"Bring another back first (fab status), or say it: fab workers.drain {host} --last",
        )
    return DrainPlan(host, False, unserved)


def _required(host: str, nodes: Mapping[str, Node], cluster: Cluster) -> Node:
    """The node, if it can be worked with."""
    if host not in nodes:
        raise SettingsError(
            f"{host} is no worker node of this inventory.", mend=f"Worker nodes are: {', '.join(nodes)}."
        )
    node = nodes[host]
    if node.unreachable is not None:
        raise RefusedError(
            f"{host} cannot be reached ({node.unreachable.rstrip('.')}).",
            mend=f"Bring it back first: {cluster.command(host, 'uptime')}",
        )
    if node.release is None:
        raise RefusedError(
            f"{host} does not tell what it runs: {node.unknown.get('release', 'no answer').rstrip('.')}.",
            mend=f"Converge it: ansible-playbook playbooks/workers.yml --limit {host}",
        )
    return node


def drain(
    inventory: Inventory,
    connections: Connections,
    host: str,
    *,
    last: bool = False,
    without_lock: str | None = None,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    with locked(
        inventory,
        connections,
        f"workers.drain {host}",
        dry_run=dry_run,
        without=without_lock,
        may_go_without=True,
    ) as actions:
        cluster = RealCluster(inventory, connections, actions)
        run_drain(inventory, cluster, host, last=last, yes=yes, dry_run=dry_run)


def run_drain(
    inventory: Inventory,
    cluster: Cluster,
    host: str,
    *,
    last: bool = False,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """plan -> show -> confirm -> act -> verify -> record"""
    output = screen.console()
    plan = plan_drain(host, cluster, last=last)
    undrain_it = f"fab workers.undrain {host}"
    if plan.done:
        if not dry_run:
            ledger.nothing_to_do(inventory, "workers.drain", host=host)
        output.print(f"{host} is drained already. Nothing to do. Bring it back: {undrain_it}", soft_wrap=True)
        return
    for line in plan.lines(cluster.tier):
        output.print(line, soft_wrap=True)
    if dry_run:
        output.print("Dry run: nothing was changed.")
        return
    # Who stops the last one says which.
    screen.confirm("Drain it?", yes=yes, answer=host if plan.unserved else "yes")
    steps = screen.Steps(2)
    with ledger.record(inventory, "workers.drain", host=host, unserved=plan.unserved) as record:
        try:
            steps.step("drain", host=host)
            for line in cluster.drain(host).splitlines():
                steps.note(line, host=host)
            record("drained", host=host)
            steps.step("the others serve its queues")
            for line in _prove_drained(host, plan, cluster):
                steps.note(line)
        except KeyboardInterrupt:
            raise CancelledError(
                f"Stopped (Ctrl-C). {host} stays drained, and its workers end what they have.",
                mend=f"Bring it back: {undrain_it}",
            ) from None
        except HostError as error:
            raise FailedError(
                f"{error.message}\n  {host} may be drained in part.", mend=f"Bring it back: {undrain_it}"
            ) from None
    output.print(f"{host} is drained. Bring it back: {undrain_it}")


def _prove_drained(host: str, plan: DrainPlan, cluster: Cluster) -> list[str]:
    limit = time.monotonic() + SETTLE_SECONDS
    while True:
        nodes, told = cluster.look()
        node = nodes[host]
        if node.release is not None and node.release.drained is not None and is_stopped(node):
            break
        if time.monotonic() > limit:
            raise FailedError(
                f"{host} was told to stop its workers, and does not say that it has.",
                mend=cluster.command(host, f"sudo {PROGRAM} list"),
            )
        time.sleep(POLL_SECONDS)  # between two looks at a condition
    if told is None or told.queues is None:
        return ["no broker tells who takes from the queues now"]
    lines = []
    for name in cluster.tier.deadlines:
        if name in plan.unserved:
            lines.append(f"queue {name}: nobody takes from it")
            continue
        hosts = [other for other, each in nodes.items() if name in serves(each, cluster.tier)]
        lines.append(f"queue {name}: {listed(hosts)} {'takes' if len(hosts) == 1 else 'take'} from it")
    return lines


# --- undrain ------------------------------------------------------------------------------------------------


def undrain(
    inventory: Inventory,
    connections: Connections,
    host: str,
    *,
    without_lock: str | None = None,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    with locked(
        inventory,
        connections,
        f"workers.undrain {host}",
        dry_run=dry_run,
        without=without_lock,
        may_go_without=True,
    ) as actions:
        cluster = RealCluster(inventory, connections, actions)
        run_undrain(inventory, cluster, host, yes=yes, dry_run=dry_run)


def run_undrain(
    inventory: Inventory, cluster: Cluster, host: str, *, yes: bool = False, dry_run: bool = False
) -> None:
    """plan -> show -> confirm -> act -> verify -> record"""
    output = screen.console()
    nodes, told = cluster.look()
    node = _required(host, nodes, cluster)
    assert node.release is not None
    tier = cluster.tier
    wanted = {*tier.deadlines, *([SCHEDULER] if tier.has_scheduler else [])}
    if node.release.drained is None and serves(node, tier) == wanted:
        if not dry_run:
            ledger.nothing_to_do(inventory, "workers.undrain", host=host)
        output.print(f"{host} is not drained and serves all its queues. Nothing to do.")
        return
    _require_brokers(told)
    if node.release.drained is not None:
        mark = node.release.drained
        output.print(f"{host} was drained by {mark.get('by', '?')} at {mark.get('at', '?')}.", soft_wrap=True)
    output.print(f"It takes from {listed(tier.deadlines)} again, with release {node.release.current}.")
    if dry_run:
        output.print("Dry run: nothing was changed.")
        return
    screen.confirm("Start its workers?", yes=yes)
    steps = screen.Steps(2)
    again = f"fab workers.undrain {host}"
    with ledger.record(inventory, "workers.undrain", host=host) as record:
        try:
            steps.step("start the workers", host=host)
            for line in cluster.undrain(host).splitlines():
                steps.note(line, host=host)
            record("undrained", host=host)
            steps.step("the brokers count them as consumers")
            _wait_served(host, cluster)
        except KeyboardInterrupt:
            raise CancelledError(
                f"Stopped (Ctrl-C). {host} is not drained any more, and its workers start.",
                mend=f"See whether they did: fab status. Again: {again}",
            ) from None
        except HostError as error:
            raise FailedError(
                f"{error.message}\n  {host} is not marked as drained any more.",
                mend=f"When it is mended: {again}. Leave it out of service: fab workers.drain {host}",
            ) from None
    output.print(f"{host} serves {listed(tier.deadlines)}.")


def _require_brokers(told: rabbitmq.Cluster | None) -> None:
    if told is None:
        raise RefusedError(
            "No broker answers, so workers that start would not become ready.",
            mend="Bring the brokers back first: fab queues",
        )


def _wait_served(host: str, cluster: Cluster) -> None:
    """The node says that it takes from every queue, and the broker counts as many consumers as hosts do."""
    limit = time.monotonic() + SETTLE_SECONDS
    while True:
        nodes, told = cluster.look()
        missing = _not_served(host, nodes, told, cluster.tier)
        if not missing:
            return
        if time.monotonic() > limit:
            raise FailedError(
                f"{host} runs its workers, and within {SETTLE_SECONDS:g} s {'; '.join(missing)}.",
                mend="See why: fab queues",
            )
        time.sleep(POLL_SECONDS)  # between two looks at a condition


def _not_served(host: str, nodes: Mapping[str, Node], told: rabbitmq.Cluster | None, tier: Tier) -> list[str]:
    own = serves(nodes[host], tier)
    wrong = [f"it does not take from {name}" for name in tier.deadlines if name not in own]
    if tier.has_scheduler and SCHEDULER not in own:
        wrong.append("its scheduler does not run")
    for name in tier.deadlines:
        hosts = sum(name in serves(node, tier) for node in nodes.values())
        queue = told.queue(name) if told else None
        if queue is None or queue.consumers is None:
            continue  # the broker tells less while another one keeps it waiting: the node's word stands
        if queue.consumers < hosts:
            wrong.append(f"the broker counts {queue.consumers} consumers of {name} for {hosts} hosts")
    return wrong


# --- restart ------------------------------------------------------------------------------------------------


def plan_restart(cluster: Cluster) -> tuple[list[str], list[str]]:
    """Who restarts, in the inventory's order, and who is drained and left alone."""
    nodes, told = cluster.look()
    for name in nodes:
        _required(name, nodes, cluster)
    _require_brokers(told)
    drained = [name for name, node in nodes.items() if node.release and node.release.drained is not None]
    bare = [name for name, node in nodes.items() if node.release and node.release.current is None]
    if bare:
        raise RefusedError(f"{listed(bare)} has no release yet.", mend="fab deploy")
    wanted = [name for name in nodes if name not in drained]
    if not wanted:
        raise RefusedError(
            "Every worker node is drained: there is nothing to restart.",
            mend=f"fab workers.undrain {drained[0]}",
        )
    return wanted, drained


def restart(
    inventory: Inventory, connections: Connections, *, yes: bool = False, dry_run: bool = False
) -> None:
    with locked(inventory, connections, "workers.restart", dry_run=dry_run) as actions:
        cluster = RealCluster(inventory, connections, actions)
        run_restart(inventory, cluster, yes=yes, dry_run=dry_run)


def run_restart(inventory: Inventory, cluster: Cluster, *, yes: bool = False, dry_run: bool = False) -> None:
    """plan -> show -> confirm -> act -> verify -> record"""
    output = screen.console()
    wanted, drained = plan_restart(cluster)
    output.print("The workers of these hosts restart, one host and one queue after the other:")
    for name in wanted:
        output.print(f"  {name}")
    for queue, seconds in cluster.tier.deadlines.items():
        output.print(f"  tasks of {queue} have {seconds} s to end; then they go back to the queue")
    if len(wanted) == 1:
        output.print(f"  nobody else serves: the queues wait while {wanted[0]} restarts", soft_wrap=True)
    for name in drained:
        output.print(f"  {name} is drained and stays so")
    if dry_run:
        output.print("Dry run: nothing was changed.")
        return
    screen.confirm("Restart them?", yes=yes)
    steps = screen.Steps(len(wanted))
    done: list[str] = []
    with ledger.record(inventory, "workers.restart", hosts=wanted) as record:
        for name in wanted:
            left = [other for other in wanted if other not in (*done, name)]
            standing = f"Restarted before: {listed(done)}; not yet: {listed(left)}."
            mend = f"See how it is: fab status. Start what does not run there: fab workers.undrain {name}"
            steps.step("restart the workers", host=name)
            try:
                for line in cluster.restart(name).splitlines():
                    steps.note(line, host=name)
                _wait_served(name, cluster)
            except KeyboardInterrupt:
                raise CancelledError(
                    f"Stopped (Ctrl-C). What was begun on {name} goes on there by itself. {standing}",
                    mend=mend,
                ) from None
            except HostError as error:
                raise FailedError(f"{error.message}\n  {standing}", mend=mend) from None
            except FailedError as error:
                raise FailedError(f"{error.message}\n  {standing}", mend=error.mend) from None
            done.append(name)
            record("restarted", host=name)
    output.print(f"The workers of {listed(done)} were restarted.")


class RealCluster:
    """Worker nodes and brokers of an inventory, over SSH."""

    def __init__(self, inventory: Inventory, connections: Connections, actions: Actions) -> None:
        self.tier = Tier.of(inventory)
        self._inventory = inventory
        self._connections = connections
        self._actions = actions
        self._workers = {host.name: host for host in inventory.hosts("workers")}
        self._brokers = [host for host in inventory.hosts("brokers") if host.name not in self._workers]

    def look(self) -> tuple[Mapping[str, Node], rabbitmq.Cluster | None]:
        hosts = [*self._workers.values(), *self._brokers]
        nodes = facts.look(self._inventory, self._connections, hosts, patient=True)
        told = facts.seen_by_brokers(nodes.values())
        return {name: nodes[name] for name in self._workers}, told

    def drain(self, host: str) -> str:
        return self._program(host, f"drain --by {shlex.quote(ledger.who())}", self.tier.drain_timeout_seconds)

    def undrain(self, host: str) -> str:
        return self._program(host, "undrain", self.tier.start_seconds + MARGIN_SECONDS)

    def restart(self, host: str) -> str:
        return self._program(host, "reload --kinds queues beat", self.tier.restart_timeout_seconds)

    def _program(self, host: str, words: str, timeout_seconds: int) -> str:
        answer = self._actions.run(
            self._workers[host], f"{PROGRAM} {words}", timeout_seconds=timeout_seconds, check=False
        )
        if answer.code:
            said = (answer.stderr.strip() or answer.stdout.strip()).removeprefix("release: ")
            raise HostError(host, f"`release {words.split()[0]}` failed: {said}")
        return answer.stdout

    def command(self, host: str, command: str) -> str:
        return f"{ssh_command(self._workers[host])} {command}"
