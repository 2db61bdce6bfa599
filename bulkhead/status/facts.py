"""What can be seen of the cluster now: one SSH command per host, one request per public address, all at once.

Every fact may be missing: this runs when parts are down.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead import haproxy, patroni, probes
from bulkhead.connections import Connections
from bulkhead.errors import CommandError, Error, SettingsError, TimedOutError, UnreachableError
from bulkhead.inventory import Host, Inventory, VirtualAddress
from bulkhead.status import outside
from bulkhead.status.outside import Answer

HOSTS_TIMEOUT_SECONDS = 3.5
# When most are late, it is this machine that is slow, and a wrong answer would be worse than a late one.
PATIENCE_SECONDS = 10.0

# What is looked at on the hosts of a group, and which services have to run there.
EVERYWHERE = ("units",)
PARTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "load_balancers": (("addresses", "haproxy", "alive", "holds"), ("haproxy.service", "keepalived.service")),
    "app_servers": (("release",), ()),
    "databases": (("patroni", "etcd"), ("patroni.service", "etcd.service")),
}


@dataclass(frozen=True)
class Etcd:
    healthy: bool
    leads: bool
    reason: str


@dataclass(frozen=True)
class Release:
    """Releases on an application server."""

    current: str | None
    previous: str | None
    running: Mapping[str, Mapping[str, str]]  # pool -> release -> systemd's state


@dataclass(frozen=True)
class Node:
    """What a host says of itself. None: not asked, or not known, and then `unknown` says why."""

    host: str
    unreachable: str | None = None
    unknown: Mapping[str, str] = field(default_factory=dict)
    addresses: frozenset[str] | None = None
    failed_units: tuple[str, ...] | None = None
    services: Mapping[str, str] = field(default_factory=dict)
    haproxy: haproxy.Statistics | None = None
    alive: bool | None = None
    holds: tuple[str, ...] = ()
    patroni: patroni.Node | None = None
    etcd: Etcd | None = None
    release: Release | None = None


@dataclass(frozen=True)
class Facts:
    seconds: float
    nodes: Mapping[str, Node]
    answers: Mapping[str, Answer]  # by the address's name


def gather(inventory: Inventory, connections: Connections) -> Facts:
    began = time.monotonic()
    answers: dict[str, Answer] = {}
    asking = [
        threading.Thread(target=_ask_into, args=(answers, inventory, address), daemon=True)
        for address in inventory.virtual_addresses
        if address.kind == "public"
    ]
    for thread in asking:
        thread.start()
    nodes = look(inventory, connections, list(inventory.everyone.values()))
    for thread in asking:
        thread.join(max(0.0, began + HOSTS_TIMEOUT_SECONDS - time.monotonic()))
    late = Answer(None, round((time.monotonic() - began) * 1000), "no answer in time")
    return Facts(
        seconds=time.monotonic() - began,
        nodes=nodes,
        answers={
            address.name: answers.get(address.name, late)
            for address in inventory.virtual_addresses
            if address.kind == "public"
        },
    )


def look(inventory: Inventory, connections: Connections, hosts: list[Host]) -> dict[str, Node]:
    """What these hosts say of themselves, by name."""
    program = probes.source("node")
    found = connections.each(
        hosts,
        lambda host: _look(inventory, connections, host, program),
        timeout_seconds=HOSTS_TIMEOUT_SECONDS,
        patience_seconds=PATIENCE_SECONDS,
    )
    return {name: _node_or_why(name, node) for name, node in found.items()}


def _node_or_why(name: str, outcome: Node | Error) -> Node:
    if isinstance(outcome, SettingsError):
        raise outcome
    if isinstance(outcome, Error):
        reason = getattr(outcome, "reason", outcome.message)
        return Node(host=name, unreachable=" ".join(str(reason).split()))
    return outcome


def parts_of(inventory: Inventory, host: Host) -> tuple[list[str], list[str]]:
    """What to look at on a host, and which services must run there."""
    parts: list[str] = list(EVERYWHERE)
    services: list[str] = []
    for group, (more_parts, more_services) in PARTS.items():
        if host in inventory.hosts(group):
            parts += more_parts
            services += more_services
    return parts, services


def _look(inventory: Inventory, connections: Connections, host: Host, program: str) -> Node:
    parts, services = parts_of(inventory, host)
    settings = json.dumps({"parts": parts, "services": services, "node_address": host.node_address})
    command = f"python3 - {shlex.quote(settings)}"
    try:
        result = connections.run(host, command, input=program, timeout_seconds=PATIENCE_SECONDS)
        return parse_node(host.name, json.loads(result.stdout))
    except TimedOutError:
        raise UnreachableError(host.name, f"it did not answer within {PATIENCE_SECONDS:g} s") from None
    except CommandError as error:
        lines = error.output.strip().splitlines() or ["no output"]
        raise UnreachableError(host.name, f"looking at it failed: {lines[-1]}") from None
    except ValueError as error:
        raise UnreachableError(host.name, f"the probe's answer cannot be read ({error})") from None


def parse_node(name: str, raw: Mapping[str, Any]) -> Node:
    """A host's facts from what the probe printed."""
    unknown: dict[str, str] = dict(raw["errors"])

    def part(key: str, parse: Any) -> Any:
        if key not in raw["parts"]:
            return None
        try:
            return parse(raw["parts"][key])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            unknown[key] = f"its answer cannot be read ({type(error).__name__}: {error})"
            return None

    units = part("units", lambda found: (tuple(found["failed"]), dict(found["services"])))
    statistics = part("haproxy", _statistics)
    return Node(
        host=name,
        addresses=part("addresses", frozenset),
        failed_units=units[0] if units else None,
        services=units[1] if units else {},
        haproxy=statistics,
        alive=part("alive", lambda code: code == 200) if "alive" not in unknown else False,
        holds=part("holds", tuple) or (),
        patroni=part("patroni", lambda found: patroni.parse(found["member"], found["cluster"])),
        etcd=part("etcd", _etcd),
        release=part("release", _release),
        unknown=unknown,
    )


def _statistics(found: Mapping[str, str]) -> haproxy.Statistics:
    statistics = haproxy.parse(found["show info"], found["show stat"], found["show servers state"])
    if not statistics.backends:
        raise ValueError("no servers in it")
    return statistics


def _etcd(found: Mapping[str, Any]) -> Etcd:
    health, status = found["health"], found["status"]
    return Etcd(
        healthy=str(health.get("health")).lower() == "true",
        leads=status.get("leader") is not None and status["leader"] == status["header"]["member_id"],
        reason=str(health.get("reason", "")),
    )


def _release(found: Mapping[str, Any]) -> Release:
    return Release(
        current=found["current"],
        previous=found["previous"],
        running={pool: dict(entry["running"]) for pool, entry in found["pools"].items()},
    )


def _ask_into(answers: dict[str, Answer], inventory: Inventory, address: VirtualAddress) -> None:
    answers[address.name] = outside.ask(inventory, address)
