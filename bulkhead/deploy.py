"""`fab deploy`: build once, ship to all application nodes, migrate once, switch node by node, prove it.

The switch itself is the node's own program (roles/release/files/release): the new release's instance starts
beside the old one and takes requests once it is ready, so no node leaves the pool.
"""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bulkhead import ledger, screen
from bulkhead.application import Application
from bulkhead.connections import Connections, answers_of, ssh_command
from bulkhead.errors import CancelledError, CommandError, Error, FailedError, HostError, RefusedError
from bulkhead.inventory import Host, Inventory
from bulkhead.lock import Actions, locked
from bulkhead.release import Release, find_or_build, path_on_node, require_stored, store_of

PROGRAM = "/usr/local/lib/bulkhead/release"
RECEIVE_TIMEOUT_SECONDS = 300
MIGRATE_TIMEOUT_SECONDS = 960  # above gunicorn_migrate_deadline_seconds
START_DEADLINE_SECONDS = 120  # the default of the roles
OUTSIDE_DEADLINE_SECONDS = 60
POLL_SECONDS = 0.25


@dataclass(frozen=True)
class NodeState:
    """What one application or worker node has and runs."""

    host: Host
    current: str | None
    sha256: str | None  # of the wanted release's archive, if the node has it
    whole: bool  # every service runs the current release, nothing else, and starts it at boot
    has_pools: bool = True  # it answers requests, which a worker node does not
    drained: bool = False  # its queues and its scheduler are stopped by an operator, and stay so

    def serves(self, release: Release) -> bool:
        return self.whole and self.current == release.id and self.sha256 == release.manifest.sha256


@dataclass(frozen=True)
class Plan:
    release: Release
    nodes: tuple[NodeState, ...]
    migrate: tuple[str, ...]
    switch_timeout_seconds: int

    @property
    def to_ship(self) -> list[Host]:
        return [node.host for node in self.nodes if node.sha256 != self.release.manifest.sha256]

    @property
    def to_switch(self) -> list[Host]:
        return [node.host for node in self.nodes if not node.serves(self.release)]

    @property
    def migrates(self) -> bool:
        return bool(self.migrate) and any(node.current != self.release.id for node in self.nodes)

    @property
    def steps(self) -> int:
        return bool(self.to_ship) + self.migrates + len(self.to_switch) + 1

    def lines(self) -> list[str]:
        manifest = self.release.manifest
        size = f"{manifest.bytes / 1e6:.1f} MB"
        told = [f"Release {manifest.id} of {manifest.application}: {size}, built {manifest.built_at}"]
        for node in self.nodes:
            if node.serves(self.release):
                told.append(f"  {node.host.name}: has it and {'is drained' if node.drained else 'runs it'}")
                continue
            doing = "receive, switch" if node.host in self.to_ship else "switch"
            doing += ", drained: its workers stay stopped" if node.drained else ""
            told.append(f"  {node.host.name}: {node.current or 'no release'} -> {manifest.id} ({doing})")
        if self.migrates:
            told.append(f"  once, on {self.to_switch[0].name} before any switch: {' '.join(self.migrate)}")
        return told


@dataclass
class Progress:
    """One line per step: which of how many, where, what, and the time since the start."""

    steps: int
    say: Callable[[str], None]
    done: int = 0
    started: float = field(default_factory=time.monotonic)

    def step(self, where: str, what: str) -> None:
        self.done += 1
        self.say(f"[{self.done}/{self.steps}] {time.monotonic() - self.started:5.1f} s  {where}: {what}")


def deploy(
    inventory: Inventory,
    connections: Connections,
    release: str | None = None,
    yes: bool = False,
    dry_run: bool = False,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    operation = f"deploy --release {release}" if release else "deploy"
    with locked(inventory, connections, operation, dry_run=dry_run) as actions:
        _deploy(inventory, connections, actions, release, yes, dry_run, say)


def _deploy(
    inventory: Inventory,
    connections: Connections,
    actions: Actions,
    release: str | None,
    yes: bool,
    dry_run: bool,
    say: Callable[[str], None],
) -> None:
    application = inventory.checked_application()
    pools = inventory.hosts("app_servers")
    if not pools:
        raise RefusedError(
            f"The inventory has no application node ({inventory.sources}).",
            mend="Put at least one host into the group `app_servers`.",
        )
    # Workers first: they know the old release's tasks and the new one's before anybody asks for the new ones.
    queues = inventory.hosts("workers") if application.queues else []
    hosts = [*queues, *(host for host in pools if host not in queues)]
    # Asked first: a node that is down is told before minutes go into a build.
    lists = answers_of(
        connections.each(hosts, lambda host: _listing(connections, host)), doing="Asking for releases"
    )
    wanted = (
        require_stored(store_of(inventory), release)
        if release
        else find_or_build(inventory, connections, say)
    )
    services = {host.name: services_of(application, host in pools, host in queues) for host in hosts}
    plan = make_plan(application, wanted, [(host, lists[host.name]) for host in hosts], services)
    for line in plan.lines():
        say(line)
    if not plan.to_switch:
        if not dry_run:
            ledger.nothing_to_do(inventory, "deploy", release=wanted.id)
        say(f"Release {wanted.id} serves on all {len(hosts)} nodes already. Nothing was changed.")
        return
    if dry_run:
        say("Dry run: nothing was changed.")
        return
    screen.confirm(f"Deploy {wanted.id} to {inventory.environment_name}?", yes=yes)
    _act_and_record(inventory, connections, actions, application, plan, say)


Services = Mapping[str, set[str]]  # as `release list` groups them: names by kind


def services_of(application: Application, has_pools: bool, has_queues: bool) -> Services:
    """What has to run on a node of these tiers."""
    return {
        "pools": set(application.http_pools) if has_pools else set(),
        "queues": set(application.queues) if has_queues else set(),
        "beat": {"beat"} if has_queues and application.beat else set(),
    }


def make_plan(
    application: Application,
    release: Release,
    listings: list[tuple[Host, Mapping[str, Any]]],
    services: Mapping[str, Services],
) -> Plan:
    drains = [pool.drain_deadline_seconds for pool in application.http_pools.values()]
    drains += [queue.drain_deadline_seconds for queue in application.queues.values()]
    return Plan(
        release=release,
        nodes=tuple(_node_state(host, listing, release, services[host.name]) for host, listing in listings),
        migrate=application.migrate or (),
        # The start of the new instance, the longest drain of the old one, and what systemd adds.
        switch_timeout_seconds=max((_start_deadline(host) for host, _ in listings), default=0)
        + max(drains, default=0)
        + 60,
    )


def _start_deadline(host: Host) -> int:
    return max(
        int(host.literal(f"{role}_start_deadline_seconds", START_DEADLINE_SECONDS))
        for role in ("gunicorn", "celery")
    )


def _node_state(host: Host, listing: Mapping[str, Any], release: Release, services: Services) -> NodeState:
    current = listing["current"]
    record = listing["releases"].get(release.id) or {}
    listed = {kind: listing.get(kind, {}) for kind in services}
    drained = listing.get("drained") is not None

    def runs(kind: str) -> dict[str, str]:
        return {} if drained and kind != "pools" else {str(current): "active/running"}

    return NodeState(
        host=host,
        current=current,
        sha256=record.get("sha256"),
        whole=all(set(listed[kind]) == names for kind, names in services.items())
        and all(
            state["running"] == runs(kind) and state["enabled"] == [current]
            for kind, states in listed.items()
            for state in states.values()
        ),
        has_pools=bool(services["pools"]),
        drained=drained,
    )


def _listing(connections: Connections, host: Host) -> Mapping[str, Any]:
    try:
        answer: Mapping[str, Any] = json.loads(connections.run(host, f"{PROGRAM} list").stdout)
    except CommandError as error:
        raise HostError(
            host.name,
            f"its releases cannot be listed: {error.reason}",
            mend="Converge it first: `ansible-playbook playbooks/site.yml`.",
        ) from None
    return answer


def _act_and_record(
    inventory: Inventory,
    connections: Connections,
    actions: Actions,
    application: Application,
    plan: Plan,
    say: Callable[[str], None],
) -> None:
    started = time.time()
    switched: list[str] = []
    before = {node.host.name: node.current for node in plan.nodes}
    with ledger.record(inventory, "deploy", release=plan.release.id, before=before) as record:
        try:
            _act(connections, actions, plan, switched, say, record, inventory, application)
        except KeyboardInterrupt:
            raise CancelledError(
                f"Interrupted; switched so far: {', '.join(switched) or 'no node'}. Every node serves.",
                mend=f"Go on: `fab deploy --release {plan.release.id}`.",
            ) from None
    say(f"Release {plan.release.id} serves on all {len(plan.nodes)} nodes ({time.time() - started:.0f} s).")


def _act(
    connections: Connections,
    actions: Actions,
    plan: Plan,
    switched: list[str],
    say: Callable[[str], None],
    record: ledger.Record,
    inventory: Inventory,
    application: Application,
) -> None:
    progress = Progress(plan.steps, say)
    if plan.to_ship:
        progress.step(_names(plan.to_ship), f"receive {plan.release.archive.name}")
        answers_of(
            connections.each(plan.to_ship, lambda host: _ship(connections, actions, host, plan.release)),
            doing="Shipping (no node was switched)",
        )
        record("shipped", hosts=[host.name for host in plan.to_ship])
    if plan.migrates:
        first = plan.to_switch[0]
        progress.step(first.name, " ".join(plan.migrate))
        _on_node(
            actions, first, f"migrate {plan.release.id}", MIGRATE_TIMEOUT_SECONDS, "No node was switched."
        )
        record("migrated", host=first.name)
    for host in plan.to_switch:
        progress.step(host.name, f"switch to {plan.release.id}")
        left = [other.name for other in plan.to_switch if other.name not in {*switched, host.name}]
        standing = (
            f"Switched before: {', '.join(switched) or 'none'}; not yet: {', '.join(left) or 'none'}. "
            f"What ran on {host.name} still does."
        )
        command = f"switch {plan.release.id} --sha256 {plan.release.manifest.sha256}"
        _on_node(actions, host, command, plan.switch_timeout_seconds, standing)
        switched.append(host.name)
        record("switched", host=host.name)
    progress.step("from outside", "every application node answers with the new release")
    prove_from_outside(inventory, application, plan, say)


def _ship(connections: Connections, actions: Actions, host: Host, release: Release) -> None:
    target = str(path_on_node(release))
    connections.put(host, release.archive, target, mode=0o600, timeout_seconds=RECEIVE_TIMEOUT_SECONDS)
    command = f"receive --id {release.id} --sha256 {release.manifest.sha256} --archive {shlex.quote(target)}"
    _on_node(actions, host, command, RECEIVE_TIMEOUT_SECONDS, "")


def _on_node(actions: Actions, host: Host, words: str, timeout_seconds: float, standing: str) -> None:
    answer = actions.run(host, f"{PROGRAM} {words}", timeout_seconds=timeout_seconds, check=False)
    if answer.code:
        said = (answer.stderr.strip() or answer.stdout.strip()).removeprefix("release: ")
        raise HostError(
            host.name,
            f"`release {words.split()[0]}` failed: {said}\n  {standing}".rstrip(),
            mend=f"Look: `{ssh_command(host)} sudo {PROGRAM} list`. When it is mended, `fab deploy` goes on.",
        )


def _names(hosts: list[Host]) -> str:
    return ", ".join(host.name for host in hosts) if len(hosts) <= 4 else f"{len(hosts)} nodes"


# --- from outside -------------------------------------------------------------------------------------------


def prove_from_outside(
    inventory: Inventory, application: Application, plan: Plan, say: Callable[[str], None]
) -> None:
    """Asks through each public address until every node has answered with the new release."""
    public = [each.address for each in inventory.virtual_addresses if each.kind == "public"]
    if not public:
        say("The inventory has no public virtual address: the nodes' own checks have to do.")
        return
    names = inventory.variables.get("public_names") or []
    context = ssl.create_default_context()
    context.load_verify_locations(cadata=str(inventory.variables["pki_ca_certificate"]))
    nodes = {node.host.name for node in plan.nodes if node.has_pools}
    for address in public:
        seen: dict[str, str] = {}
        said = "no answer"
        limit = time.monotonic() + OUTSIDE_DEADLINE_SECONDS
        while {name for name, release in seen.items() if release == plan.release.id} < nodes:
            if time.monotonic() > limit:
                missing = sorted(name for name in nodes if seen.get(name) != plan.release.id)
                raise FailedError(
                    f"Through {address} not every node answered with release {plan.release.id} within "
                    f"{OUTSIDE_DEADLINE_SECONDS} s: {', '.join(missing)} missing ({said}).",
                    mend="All nodes are switched and ready. See what the load balancers think: `fab status`.",
                )
            try:
                status, headers = _ask(
                    address, names[0] if names else address, application.health.ready, context
                )
            except (OSError, http.client.HTTPException) as error:
                said = f"{type(error).__name__}: {error}"
            else:
                said = f"the last answer was {status}"
                if status == 200 and not all(name in headers for name in ("X-Release", "X-Served-By")):
                    say(f"{address} answers 200; the application does not tell X-Release and X-Served-By.")
                    break
                if status == 200:
                    seen[headers["X-Served-By"]] = headers["X-Release"]
            time.sleep(POLL_SECONDS)  # between two looks at a condition


def _ask(address: str, name: str, path: str, context: ssl.SSLContext) -> tuple[int, http.client.HTTPMessage]:
    """One request on a connection of its own to an address, under the name that its certificate has."""
    connection = http.client.HTTPSConnection(name, timeout=5, context=context)
    raw = socket.create_connection((address, 443), timeout=5)
    try:
        connection.sock = context.wrap_socket(raw, server_hostname=name)
        connection.request("GET", path, headers={"Connection": "close"})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        raw.close()
        connection.close()


__all__ = ["Error", "NodeState", "Plan", "deploy", "make_plan", "prove_from_outside", "services_of"]
