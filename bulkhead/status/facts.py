"""What can be seen of the cluster now: one SSH command per host, one request per public address, all at once.

Every fact may be missing: this runs when parts are down.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead import etcd, haproxy, history, lock, patroni, probes, rabbitmq
from bulkhead.connections import Connections
from bulkhead.errors import CommandError, Error, SettingsError, TimedOutError, UnreachableError
from bulkhead.inventory import Host, Inventory, VirtualAddress
from bulkhead.status import outside
from bulkhead.status.outside import Answer

HOSTS_TIMEOUT_SECONDS = 3.5
# When most are late, it is this machine that is slow, and a wrong answer would be worse than a late one.
PATIENCE_SECONDS = 10.0
# What the probe has of that, its start and the way there and back left aside.
PATIENT_PROBE_SECONDS = 8.0

# What is looked at on the hosts of a group, and which services have to run there.
EVERYWHERE = ("units",)
PARTS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "load_balancers": (("addresses", "haproxy", "alive", "holds"), ("haproxy.service", "keepalived.service")),
    "app_servers": (("release",), ()),
    "workers": (("release",), ()),
    "brokers": (
        ("members", "queues", "critical", "metrics"),
        ("rabbitmq-server.service", "rabbitmq-watch.service"),
    ),
    "databases": (("patroni", "etcd", "operations"), ("patroni.service", "etcd.service")),
}
# What the monitoring user of the brokers signs in with (role rabbitmq).
BROKER_LOGIN = "rabbitmq_operator_password"


@dataclass(frozen=True)
class Etcd:
    healthy: bool
    leads: bool
    reason: str


@dataclass(frozen=True)
class Operations:
    """What is done to the cluster now, and what was done last, as etcd has it."""

    holder: str | None  # who holds the environment's lock, doing what, since when
    last: history.Operation | None
    again: str  # what to type to end the last one, if it was cut short


@dataclass(frozen=True)
class Release:
    """Releases on an application server or worker node, and what runs of them."""

    current: str | None
    previous: str | None
    running: Mapping[str, Mapping[str, str]]  # pool -> release -> systemd's state
    queues: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # the same of queues
    beat: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # and of the scheduler
    drained: Mapping[str, str] | None = None  # by whom and when, if somebody stopped queues and scheduler
    said: Mapping[str, str] = field(default_factory=dict)  # unit -> what it last told systemd


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
    operations: Operations | None = None
    release: Release | None = None
    broker: rabbitmq.Cluster | None = None  # its word alone: clusters() has what holds of the queues' copies
    critical: frozenset[str] | None = None  # queues that would have no majority without this broker
    metrics: rabbitmq.Metrics | None = None


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


def look(
    inventory: Inventory, connections: Connections, hosts: list[Host], *, patient: bool = False
) -> dict[str, Node]:
    """What these hosts say of themselves, by name. An operation is patient: it acts on the answer, and a host
    that is merely busy is not away."""
    found = connections.each(
        hosts,
        lambda host: _look(inventory, connections, host, patient),
        timeout_seconds=PATIENCE_SECONDS if patient else HOSTS_TIMEOUT_SECONDS,
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
    return list(dict.fromkeys(parts)), services


def _look(inventory: Inventory, connections: Connections, host: Host, patient: bool) -> Node:
    parts, services = parts_of(inventory, host)
    settings: dict[str, Any] = {"parts": parts, "services": services, "node_address": host.node_address}
    if patient:
        settings["limit_seconds"] = PATIENT_PROBE_SECONDS
    secrets: dict[str, str] = {}
    if "members" in parts:
        limits = [int(each.get("time_limit_seconds", 0)) for each in queues_of(inventory).values()]
        settings["virtual_host"] = inventory.application["name"]
        settings["history"] = rabbitmq.history(limits)
        if host.variables.get(BROKER_LOGIN):
            secrets[BROKER_LOGIN] = str(host.literal(BROKER_LOGIN))
    if "operations" in parts and host.variables.get(etcd.LOGIN):
        secrets[etcd.LOGIN] = str(host.literal(etcd.LOGIN))
    command = f"python3 - {shlex.quote(json.dumps(settings))}"
    program = probes.with_secrets("node", secrets)
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


def queues_of(inventory: Inventory) -> Mapping[str, Mapping[str, Any]]:
    """The application's queues, as they are described."""
    found: Mapping[str, Mapping[str, Any]] = inventory.application.get("queues") or {}
    return found


def clusters(nodes: Iterable[Node]) -> list[rabbitmq.Cluster]:
    """The cluster as each broker sees it, with what the queues' copies say themselves."""
    asked = list(nodes)
    critical = {node.host: node.critical for node in asked if node.critical is not None}
    return [rabbitmq.corrected(node.broker, critical) for node in asked if node.broker is not None]


def seen_by_brokers(nodes: Iterable[Node]) -> rabbitmq.Cluster | None:
    """The cluster as the broker sees it whose word counts. While a broker is frozen, all others' management
    interfaces wait for it (20 s and more): then what each knows by itself has to do."""
    asked = list(nodes)
    best = rabbitmq.best(clusters(asked))
    if best is not None and best.queues is not None:
        return best
    return rabbitmq.from_metrics({node.host: node.metrics for node in asked if node.metrics is not None})


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
        operations=part("operations", _operations),
        release=part("release", _release),
        broker=part("members", lambda nodes: rabbitmq.parse(name, nodes, raw["parts"].get("queues"))),
        critical=part("critical", frozenset),
        metrics=part("metrics", rabbitmq.parse_metrics),
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


def _operations(found: Mapping[str, Any]) -> Operations:
    held = lock.parse(found["lock"])
    entries = found["entries"]
    running = held is not None and held.revision == found["revision"]
    return Operations(
        holder=str(held.holder) if held else None,
        last=history.operation(entries, running=running) if entries else None,
        again=history.again(entries[0]) if entries else "",
    )


def _release(found: Mapping[str, Any]) -> Release:
    return Release(
        current=found["current"],
        previous=found["previous"],
        running=_running(found["pools"]),
        queues=_running(found.get("queues", {})),
        beat=_running(found.get("beat", {})),
        drained=found.get("drained"),
        said=dict(found.get("said", {})),
    )


def _running(services: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {name: dict(entry["running"]) for name, entry in services.items()}


def _ask_into(answers: dict[str, Answer], inventory: Inventory, address: VirtualAddress) -> None:
    answers[address.name] = outside.ask(inventory, address)
