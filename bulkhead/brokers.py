"""`fab brokers.restart`: every broker, one at a time, and no queue ever without its majority.

The restart itself is the node's own program (roles/rabbitmq/files/rabbitmq-member): it asks whether the
others can do without this broker, hands over what it leads, restarts it, and waits until it has caught up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from bulkhead import ledger, rabbitmq, screen
from bulkhead.connections import Connections, ssh_command
from bulkhead.errors import CancelledError, Error, FailedError, HostError, RefusedError
from bulkhead.inventory import Inventory
from bulkhead.lock import Actions, locked
from bulkhead.problem import listed
from bulkhead.status import facts
from bulkhead.status.facts import Node

PROGRAM = "/usr/local/lib/bulkhead/rabbitmq-member"
WAIT_SECONDS = 180  # the role's default: for the others before, and for the broker after
SETTLE_SECONDS = 60.0
POLL_SECONDS = 1.0
REFUSED = 3  # the program's exit code when it has changed nothing


@dataclass(frozen=True)
class Step:
    host: str
    leads: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.host}  leads {listed(self.leads)}"


class Brokers(Protocol):
    """What the operation needs of the cluster; tests have one of their own."""

    def look(self) -> Mapping[str, Node]: ...

    def restart(self, host: str) -> None: ...

    def command(self, host: str, command: str) -> str: ...


def plan(brokers: Brokers) -> list[Step]:
    """Every broker in the inventory's order; refuses when the cluster cannot do without one."""
    nodes = brokers.look()
    reason = trouble(nodes, brokers.command)
    if reason is not None:
        raise reason
    cluster = rabbitmq.best(facts.clusters(nodes.values()))
    queues = cluster.queues or () if cluster else ()
    return [Step(name, tuple(queue.name for queue in queues if queue.leader == name)) for name in nodes]


def trouble(nodes: Mapping[str, Node], command: Callable[[str, str], str]) -> RefusedError | None:
    """Why no broker may be taken away now, and what to do about it."""
    if len(nodes) < 3:
        return RefusedError(
            f"There are {len(nodes)} brokers, and queues keep their majority with three or more.",
            mend="Restart it by hand, and expect that publishers and workers wait meanwhile: "
            + command(next(iter(nodes)), "sudo systemctl restart rabbitmq-server"),
        )
    for name, node in nodes.items():
        if node.unreachable is not None:
            return RefusedError(
                f"{name} cannot be reached ({node.unreachable.rstrip('.')}), and with one broker away no "
                "other may go.",
                mend=f"Bring it back first: {command(name, 'uptime')}",
            )
        if node.broker is None:
            why = node.unknown.get("members", "it says nothing").rstrip(".")
            return RefusedError(
                f"The broker on {name} does not answer ({why}), and with one away no other may go.",
                mend=f"Bring it back first: {command(name, f'sudo {PROGRAM} revive')}",
            )
    return _cluster_trouble(list(nodes), facts.clusters(nodes.values()), command)


def _cluster_trouble(
    names: list[str], clusters: list[rabbitmq.Cluster], command: Callable[[str, str], str]
) -> RefusedError | None:
    for cluster in clusters:
        for name in names:
            member = cluster.member(name)
            if member is None or not member.running:
                return RefusedError(
                    f"{cluster.asked} does not see {name} in the cluster.",
                    mend=command(name, "sudo rabbitmqctl cluster_status"),
                )
            if member.drained:
                return RefusedError(
                    f"{name} is drained: an operation was cut short, or another one runs.",
                    mend=f"Put it back into service: {command(name, f'sudo {PROGRAM} revive')}",
                )
            if member.alarms:
                return RefusedError(
                    f"{name} is short of {listed(member.alarms)}, and publishers wait. A restart would move "
                    "its load to the others.",
                    mend="See what takes it: fab queues",
                )
    told = rabbitmq.best(clusters)
    if told is None or told.queues is None:
        return RefusedError(
            "No broker tells of its queues in time, so who may go is not known.",
            mend=command(names[0], "sudo rabbitmq-diagnostics check_if_node_is_quorum_critical"),
        )
    for queue in told.queues:
        if not queue.whole:
            away = sorted(set(queue.members) - set(queue.online))
            return RefusedError(
                f"Queue {queue.name} has a copy that does not answer, on {listed(away)}: it could lose its "
                "majority.",
                mend="Wait until it has caught up: fab status",
            )
    return None


def restart(
    inventory: Inventory, connections: Connections, *, yes: bool = False, dry_run: bool = False
) -> None:
    if not inventory.hosts("brokers"):
        raise RefusedError(
            f"The inventory has no brokers ({inventory.sources}).", mend="docs/brokers.md says what it takes."
        )
    with locked(inventory, connections, "brokers.restart", dry_run=dry_run) as actions:
        run(inventory, RealBrokers(inventory, connections, actions), yes=yes, dry_run=dry_run)


def run(inventory: Inventory, brokers: Brokers, *, yes: bool = False, dry_run: bool = False) -> None:
    """plan -> show -> confirm -> act -> verify -> record"""
    output = screen.console()
    wanted = plan(brokers)
    output.print("These brokers restart, one after the other; each hands over what it leads first:")
    for step in wanted:
        output.print(f"  {step}", soft_wrap=True)
    if dry_run:
        output.print("Dry run: nothing was changed.")
        return
    screen.confirm("Restart them?", yes=yes)
    steps = screen.Steps(len(wanted))
    done: list[str] = []
    with ledger.record(inventory, "brokers.restart", hosts=[step.host for step in wanted]) as record:
        for step in wanted:
            steps.step("restart", host=step.host)
            began = time.monotonic()
            left = [other.host for other in wanted if other.host not in (*done, step.host)]
            _restart(brokers, step.host, done, left)
            _verify(brokers, step.host, done, left)
            steps.note(f"back after {time.monotonic() - began:.0f} s, every queue has its copies")
            done.append(step.host)
            record("restarted", host=step.host)
    output.print(f"All {len(done)} brokers were restarted.")


def _standing(done: list[str], left: list[str]) -> str:
    return f"Restarted before: {listed(done)}; not yet: {listed(left)}."


def _restart(brokers: Brokers, host: str, done: list[str], left: list[str]) -> None:
    mend = f"Look: fab status. Put it back into service: {brokers.command(host, f'sudo {PROGRAM} revive')}"
    try:
        brokers.restart(host)
    except NotNowError as error:
        kind: type[Error] = FailedError if done else RefusedError
        raise kind(
            f"{host}: {error.reason} {_standing(done, [host, *left])}", mend="See why: fab status"
        ) from None
    except HostError as error:
        raise FailedError(f"{error.message}\n  {_standing(done, left)}", mend=mend) from None
    except KeyboardInterrupt:
        raise CancelledError(
            f"Stopped (Ctrl-C) while {host} was restarted: its own program goes on there to the end. "
            f"{_standing(done, left)}",
            mend=mend,
        ) from None


def _verify(brokers: Brokers, host: str, done: list[str], left: list[str]) -> None:
    """The cluster is whole again, as every broker sees it."""
    limit = time.monotonic() + SETTLE_SECONDS
    try:
        while (reason := trouble(brokers.look(), brokers.command)) is not None:
            if time.monotonic() > limit:
                raise FailedError(
                    f"{host} was restarted, and the cluster is not whole again within {SETTLE_SECONDS:g} s: "
                    f"{reason.message} {_standing([*done, host], left)}",
                    mend=reason.mend,
                )
            time.sleep(POLL_SECONDS)  # between two looks at a condition
    except KeyboardInterrupt:
        raise CancelledError(
            f"Stopped (Ctrl-C). {_standing([*done, host], left)} No broker is drained.",
            mend="See how they are: fab status",
        ) from None


class NotNowError(HostError):
    """The node's program refused, and has changed nothing."""


class RealBrokers:
    """The brokers of an inventory, over SSH."""

    def __init__(self, inventory: Inventory, connections: Connections, actions: Actions) -> None:
        self._inventory = inventory
        self._connections = connections
        self._actions = actions
        self._hosts = {host.name: host for host in inventory.hosts("brokers")}
        self._wait_seconds = max(
            int(host.literal("rabbitmq_wait_seconds", WAIT_SECONDS)) for host in self._hosts.values()
        )

    def look(self) -> Mapping[str, Node]:
        return facts.look(self._inventory, self._connections, list(self._hosts.values()), patient=True)

    def restart(self, host: str) -> None:
        words = f"{PROGRAM} restart --wait {self._wait_seconds}"
        # Its two waits, a drain, a start with its own time-out, and the tools' own time.
        limit = 4 * self._wait_seconds + 120
        answer = self._actions.run(self._hosts[host], words, timeout_seconds=limit, check=False)
        said = answer.stderr.strip() or answer.stdout.strip()
        if answer.code == REFUSED:
            raise NotNowError(host, said)
        if answer.code:
            raise HostError(host, said)

    def command(self, host: str, command: str) -> str:
        return f"{ssh_command(self._hosts[host])} {command}"
