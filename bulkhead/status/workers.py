"""Worker nodes: what consumes on them, who drained them, and which of them holds the scheduler's lease."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead.status.facts import Node, Release, queues_of
from bulkhead.status.judge import UNKNOWN, Judge

WELL = "active/running"
# What the scheduler tells systemd (docs/workers.md).
HOLDS = re.compile(r"holds the lease(?: with token (\d+))?")
STANDS_BY = re.compile(r"standby: (\S+) holds the lease")
NO_BROKER = "no broker"


@dataclass(frozen=True)
class Worker:
    host: str
    current: str | None
    queues: Mapping[str, Mapping[str, str]]  # queue -> release that runs -> systemd's state
    drained: Mapping[str, str] | None
    scheduler: str  # what it says of itself
    well: bool


def workers(judge: Judge) -> tuple[Worker, ...]:
    rows = []
    for node in judge.reached("workers"):
        found = node.release
        if found is None:
            what = f"{node.host}: its workers are not known: {node.unknown.get('release', UNKNOWN)}"
            judge.wrong(what, judge.converge("workers", node.host))
            continue
        before = len(judge.findings)
        _judge(judge, node, found)
        rows.append(
            Worker(
                host=node.host,
                current=found.current,
                queues=found.queues,
                drained=found.drained,
                scheduler=_scheduler(judge, found),
                well=len(judge.findings) == before,
            )
        )
    return tuple(rows)


def _judge(judge: Judge, node: Node, found: Release) -> None:
    if found.drained is not None:
        judge.wrong(
            f"{node.host} is drained, by {found.drained.get('by', UNKNOWN)} "
            f"since {found.drained.get('at', UNKNOWN)}",
            f"fab workers.undrain {node.host}",
        )
        return
    servers = {host.release.current for host in judge.reached("app_servers") if host.release is not None}
    if found.current is None:
        if servers != {None}:  # otherwise that is one finding for all: no release is deployed
            judge.wrong(f"{node.host} has no release", "fab deploy")
        return
    if servers and found.current not in servers:
        judge.wrong(f"{node.host} has another release than the application servers", "fab deploy")
    wanted = {name: found.queues.get(name, {}) for name in queues_of(judge.inventory)}
    for name, running in wanted.items():
        unit = f"{judge.application}-queue-{name}@{found.current}.service"
        if running.get(found.current) != WELL:
            state = running.get(found.current)
            # One that was stopped by hand has nothing to tell: it is started.
            mend = judge.journal(node.host, unit) if state else f"fab workers.undrain {node.host}"
            judge.wrong(f"{node.host}: the worker of queue {name} is {state or 'stopped'}", mend)
        elif found.said.get(unit, "").startswith(NO_BROKER):
            judge.wrong(
                f"{node.host}: the worker of queue {name} has no broker", judge.journal(node.host, unit)
            )
    unit = f"{judge.application}-beat@{found.current}.service"
    if judge.inventory.application.get("beat") and WELL not in found.beat.get("beat", {}).values():
        judge.wrong(f"{node.host}: the scheduler does not run", judge.journal(node.host, unit))


def _scheduler(judge: Judge, found: Release) -> str:
    return found.said.get(f"{judge.application}-beat@{found.current}.service", "")


def scheduler(judge: Judge) -> str | None:
    """The host whose scheduler acts, by its own word or, while it cannot be asked, by the others'."""
    if not judge.inventory.application.get("beat") or not judge.nodes("workers"):
        return None
    said = {
        node.host: _scheduler(judge, node.release)
        for node in judge.reached("workers")
        if node.release is not None
    }
    holders = {host: HOLDS.match(text) for host, text in said.items()}
    # One that was stopped and wakes up has said so before: the higher token counts.
    found = sorted((int(match[1] or 0), host) for host, match in holders.items() if match)
    if found:
        return found[-1][1]
    heard = [match[1] for text in said.values() if (match := STANDS_BY.match(text))]
    if heard:
        return heard[0]
    # One that is away, or has said nothing, may be the holder.
    everybody = len(said) == len(judge.nodes("workers"))
    if (everybody and any(_has_release(judge))) or any(said.values()):
        host = next(iter(said))
        unit = f"'{judge.application}-beat@*'"
        judge.wrong("no scheduler holds the lease: what is scheduled does not run", judge.journal(host, unit))
    return None


def _has_release(judge: Judge) -> list[bool]:
    nodes = judge.reached("workers")
    return [node.release is not None and node.release.current is not None for node in nodes]
