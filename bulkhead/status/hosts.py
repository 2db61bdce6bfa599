"""Hosts: which answer, what they run, what has failed on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead.connections import ssh_command
from bulkhead.status.judge import UNKNOWN, Judge


@dataclass(frozen=True)
class Releases:
    host: str
    current: str | None
    pools: Mapping[str, Mapping[str, str]]  # pool -> release that runs -> systemd's state
    well: bool


def unreachable(judge: Judge) -> Mapping[str, str]:
    lost = {name: node.unreachable for name, node in judge.facts.nodes.items() if node.unreachable}
    if len(lost) == len(judge.facts.nodes):
        name = next(iter(lost))
        what = (
            f"no host can be reached; {name}: {lost[name].rstrip('.')}. Is this machine cut off, or too busy?"
        )
        judge.wrong(what, ssh_command(judge.inventory.host(name)))
        return lost
    for name, reason in lost.items():
        mend = "make up" if judge.in_lab else ssh_command(judge.inventory.host(name))
        judge.wrong(f"{name} cannot be reached: {reason.rstrip('.')}", mend)
    return lost


def releases(judge: Judge) -> tuple[Releases, ...]:
    rows = []
    for node in judge.reached("app_servers"):
        found = node.release
        if found is None:
            what = f"{node.host}: its releases are not known: {node.unknown.get('release', UNKNOWN)}"
            judge.wrong(what, judge.converge("app_servers", node.host))
            continue
        behind = [pool for pool in _http_pools(judge) if found.current not in found.running.get(pool, {})]
        if found.current is not None:
            for pool in behind:
                what = f"{node.host}: pool {pool} does not run the current release {found.current}"
                judge.wrong(what, judge.journal(node.host, f"'{judge.application}-{pool}@*'"))
        rows.append(Releases(node.host, found.current, found.running, not behind))
    current = {row.current for row in rows}
    if current == {None}:
        judge.outage("no release is deployed", "fab deploy")
    elif len(current) > 1:
        told = "; ".join(
            f"{release or 'none'} on {', '.join(row.host for row in rows if row.current == release)}"
            for release in sorted(current, key=str)
        )
        judge.wrong(f"nodes run different releases: {told}", "fab deploy")
    return tuple(rows)


def _http_pools(judge: Judge) -> list[str]:
    """The pools that Gunicorn serves."""
    pools = judge.inventory.application.get("pools", {})
    return [name for name, settings in pools.items() if settings.get("kind") == "http"]


def failed_units(judge: Judge) -> Mapping[str, tuple[str, ...]]:
    failed: dict[str, tuple[str, ...]] = {}
    for name, node in judge.facts.nodes.items():
        if node.unreachable is not None:
            continue
        if node.failed_units is None:
            what = f"{name}: systemd does not answer: {node.unknown.get('units', UNKNOWN)}"
            judge.wrong(what, judge.on(name, "systemctl --failed"))
            continue
        if node.failed_units:
            failed[name] = node.failed_units
            mend = judge.on(name, f"sudo systemctl status {node.failed_units[0]}")
            judge.wrong(f"{name}: failed: {', '.join(node.failed_units)}", mend)
        for service, state in node.services.items():
            if state != "active" and service not in node.failed_units:
                judge.wrong(
                    f"{name}: {service} is {state}", judge.on(name, f"sudo systemctl start {service}")
                )
    return failed
