"""`fab lb.failback`: every virtual address goes to the load balancer that the inventory names, one at a time.

keepalived moves an address by itself only when its owner is not fit (`nopreempt`). So this makes the others
unfit for one address, by a hold file that keepalived's check looks at, until the wanted owner has it.
Connections that the old owner serves on that address end with the move.
"""

from __future__ import annotations

import contextlib
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from bulkhead import screen
from bulkhead.connections import Connections, answers_of, ssh_command
from bulkhead.errors import CancelledError, Error, FailedError, RefusedError
from bulkhead.inventory import Inventory, VirtualAddress
from bulkhead.lock import Actions, locked
from bulkhead.status import facts, outside
from bulkhead.status.facts import Node
from bulkhead.status.outside import Answer

HOLD_DIRECTORY = "/run/keepalived/hold"
KEEPALIVED_STATE = "/usr/local/lib/bulkhead/keepalived-state"
SETTLE_SECONDS = 10.0
# A move takes well under a second; while it lasts nobody may have the address.
MOVE_SECONDS = 3.0
ANSWER_SECONDS = 5.0
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Move:
    address: VirtualAddress
    owner: str

    @property
    def wanted(self) -> str:
        return self.address.owner

    def __str__(self) -> str:
        return f"{self.address.name} ({self.address.address}): {self.owner} -> {self.wanted}"


class LoadBalancers(Protocol):
    """What the operation needs of the cluster; tests have one of their own."""

    def look(self) -> Mapping[str, Node]: ...

    def owners(self, address: str) -> list[str]: ...

    def hold(self, name: str, hosts: list[str]) -> None: ...

    def release(self, name: str, hosts: list[str]) -> None: ...

    def state(self, host: str, name: str) -> str: ...

    def ask(self, address: VirtualAddress) -> Answer: ...

    def command(self, host: str, command: str) -> str: ...


def plan(addresses: tuple[VirtualAddress, ...], balancers: LoadBalancers) -> list[Move]:
    """The moves that bring every address home; refuses when one of them is not safe."""
    nodes = _settled(addresses, balancers)
    for name, node in nodes.items():
        if node.unreachable is not None:
            raise RefusedError(
                f"{name} cannot be reached ({node.unreachable.rstrip('.')}), so who owns what is not known.",
                mend=f"Bring it back first: {balancers.command(name, 'uptime')}",
            )
        if node.addresses is None:
            raise RefusedError(f"{name} does not tell its addresses: {node.unknown.get('addresses', '')}")
    moves = []
    for address in addresses:
        if address.owner not in nodes:
            raise RefusedError(
                f"The inventory wants {address.name} on {address.owner}, which is no load balancer.",
                mend="Correct virtual_addresses in the inventory.",
            )
        owners = _owners(nodes, address)
        if len(owners) != 1:
            told = f"{len(owners)} owners ({', '.join(owners)})" if owners else "no owner"
            raise RefusedError(
                f"{address.name} ({address.address}) has {told}; nothing is moved before it has one.",
                mend="See why: fab status",
            )
        if owners[0] != address.owner:
            _require_fit(nodes[address.owner], address, balancers)
            moves.append(Move(address, owners[0]))
    return moves


def _settled(addresses: tuple[VirtualAddress, ...], balancers: LoadBalancers) -> Mapping[str, Node]:
    """What the load balancers say, once every address has one owner: after a start that takes a moment."""
    end = time.monotonic() + SETTLE_SECONDS
    while True:
        nodes = balancers.look()
        lost = any(node.unreachable is not None for node in nodes.values())
        one_each = all(len(_owners(nodes, address)) == 1 for address in addresses)
        if lost or one_each or time.monotonic() > end:
            return nodes
        time.sleep(POLL_SECONDS)  # between two looks at a condition


def _owners(nodes: Mapping[str, Node], address: VirtualAddress) -> list[str]:
    return [name for name, node in nodes.items() if address.address in (node.addresses or ())]


def _require_fit(node: Node, address: VirtualAddress, balancers: LoadBalancers) -> None:
    keepalived = node.services.get("keepalived.service", "unknown")
    if not node.alive:
        raise RefusedError(
            f"{node.host} is to have {address.name}, and its HAProxy does not answer.",
            mend=balancers.command(node.host, "sudo systemctl status haproxy"),
        )
    if keepalived != "active":
        raise RefusedError(
            f"{node.host} is to have {address.name}, and its keepalived is {keepalived}.",
            mend=balancers.command(node.host, "sudo systemctl status keepalived"),
        )
    if address.name in node.holds:
        raise RefusedError(
            f"{node.host} is to have {address.name}, and is held back from it: an operation was cut short.",
            mend=balancers.command(node.host, f"sudo rm {HOLD_DIRECTORY}/{address.name}"),
        )
    state = balancers.state(node.host, address.name)
    if state != "backup":
        raise RefusedError(
            f"{node.host} is to have {address.name}, and its keepalived is not ready to take it: {state}.",
            mend=balancers.command(node.host, "sudo journalctl -u keepalived -n 50"),
        )


def move(one: Move, everyone: list[str], balancers: LoadBalancers) -> float:
    """Moves one address and returns the seconds it took. The hold is gone afterwards, whatever happens."""
    others = [name for name in everyone if name != one.wanted]
    began = time.monotonic()
    try:
        balancers.hold(one.address.name, others)
        arrived = _wait(lambda: balancers.owners(one.address.address) == [one.wanted], MOVE_SECONDS)
        seconds = time.monotonic() - began
    finally:
        with _undisturbed():
            balancers.release(one.address.name, others)
    if not arrived:
        _wait(lambda: len(balancers.owners(one.address.address)) == 1, SETTLE_SECONDS)
        owners = balancers.owners(one.address.address)
        raise FailedError(
            f"{one.address.name} did not go to {one.wanted} within {MOVE_SECONDS:g} s. "
            f"It is on {', '.join(owners) or 'no load balancer'}, and nobody is held back from it any more.",
            mend=balancers.command(one.wanted, "sudo journalctl -u keepalived -n 50"),
        )
    return seconds


def verify(one: Move, balancers: LoadBalancers) -> str:
    """The move seen from outside: one owner, and the address answers."""
    owners = balancers.owners(one.address.address)
    if owners != [one.wanted]:
        raise FailedError(
            f"{one.address.name} did not stay on {one.wanted}: it is on {', '.join(owners) or 'none'}.",
            mend="See why: fab status",
        )
    if one.address.kind != "public":
        return ""
    answers: list[Answer] = []

    def answers_now() -> bool:
        answers.append(balancers.ask(one.address))
        # Before the first release the load balancer itself answers 503: it is there.
        return answers[-1].code is not None

    if not _wait(answers_now, ANSWER_SECONDS):
        raise FailedError(
            f"{one.address.name} is on {one.wanted} and does not answer: {answers[-1].problem}.",
            mend="See why: fab status",
        )
    return f", answers {answers[-1].code} in {answers[-1].milliseconds} ms"


def _wait(condition: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_SECONDS)  # between two looks at a condition
    return True


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave a load balancer held back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def failback(
    inventory: Inventory,
    connections: Connections,
    *,
    without_lock: str | None = None,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    with locked(
        inventory, connections, "lb.failback", dry_run=dry_run, without=without_lock, may_go_without=True
    ) as actions:
        balancers = RealLoadBalancers(inventory, connections, actions)
        run(inventory.virtual_addresses, balancers, yes=yes, dry_run=dry_run)


def run(
    addresses: tuple[VirtualAddress, ...],
    balancers: LoadBalancers,
    *,
    yes: bool = False,
    dry_run: bool = False,
) -> None:
    """plan -> show -> confirm -> act -> verify"""
    output = screen.console()
    moves = plan(addresses, balancers)
    if not moves:
        output.print("Every virtual address is where the inventory wants it. Nothing to do.")
        return
    output.print("These addresses go home, one after the other; connections on them are cut by the move:")
    for one in moves:
        output.print(f"  {one}", soft_wrap=True)
    if dry_run:
        output.print("Dry run: nothing was changed.")
        return
    screen.confirm("Move them?", yes=yes)
    everyone = list(balancers.look())
    steps = screen.Steps(len(moves))
    moved: list[str] = []
    try:
        for one in moves:
            steps.step(str(one))
            seconds = move(one, everyone, balancers)
            steps.note(f"moved in {seconds:.1f} s{verify(one, balancers)}")
            moved.append(one.address.name)
    except KeyboardInterrupt:
        told = f"moved: {', '.join(moved)}" if moved else "no address was moved for certain"
        raise CancelledError(
            f"Stopped (Ctrl-C); {told}. No load balancer is held back.", mend="See where they are: fab status"
        ) from None


class RealLoadBalancers:
    """The load balancers of an inventory, over SSH."""

    def __init__(self, inventory: Inventory, connections: Connections, actions: Actions) -> None:
        self._inventory = inventory
        self._connections = connections
        self._actions = actions
        self._hosts = {host.name: host for host in inventory.hosts("load_balancers")}

    def look(self) -> Mapping[str, Node]:
        return facts.look(self._inventory, self._connections, list(self._hosts.values()))

    def owners(self, address: str) -> list[str]:
        # The exact address with its prefix length, so that .10 is not found in .101.
        command = f"ip -oneline address show to {shlex.quote(address)}"
        found = answers_of(
            self._connections.each(
                self._hosts.values(),
                lambda host: self._connections.run(host, command, sudo=False, timeout_seconds=5).stdout,
            ),
            doing=f"Looking for {address}",
        )
        return [name for name, shown in found.items() if shown.strip()]

    def hold(self, name: str, hosts: list[str]) -> None:
        # keepalived reads a number from the file: an empty one holds nothing back.
        self._everywhere(
            self._actions, hosts, f"echo 1 > {HOLD_DIRECTORY}/{shlex.quote(name)}", "Holding back"
        )

    def release(self, name: str, hosts: list[str]) -> None:
        file = f"{HOLD_DIRECTORY}/{shlex.quote(name)}"
        try:
            # With or without the lock: a hold that is left behind would keep an address from moving.
            self._everywhere(self._connections, hosts, f"rm -f {file}", "Removing the hold")
        except Error as error:
            mends = "\n  ".join(self.command(host, f"sudo rm -f {file}") for host in hosts)
            raise FailedError(
                f"{error.message}\nA load balancer that keeps the hold cannot take {name} when it has to.",
                mend=mends,
            ) from None

    def _everywhere(self, by: Actions | Connections, hosts: list[str], command: str, doing: str) -> None:
        answers_of(
            self._connections.each(
                [self._hosts[host] for host in hosts],
                lambda host: by.run(host, command, timeout_seconds=10),
            ),
            doing=doing,
        )

    def state(self, host: str, name: str) -> str:
        """What keepalived says of an address: backup, master, fault or init; or why it says nothing."""
        try:
            told = self._connections.run(self._hosts[host], KEEPALIVED_STATE, timeout_seconds=5).stdout
        except Error as error:
            return " ".join(error.message.split()).rstrip(".")
        states = dict(line.split(maxsplit=1) for line in told.splitlines() if " " in line)
        return states.get(name, "it does not know this address")

    def ask(self, address: VirtualAddress) -> Answer:
        return outside.ask(self._inventory, address)

    def command(self, host: str, command: str) -> str:
        return f"{ssh_command(self._hosts[host])} {command}"
