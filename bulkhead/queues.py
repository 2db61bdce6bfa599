"""`fab queues`: what waits in every queue, what is stuck, why, and what to type. It changes nothing.

Brokers and worker nodes are asked at once, each in one SSH command; of the brokers that answer, the one that
sees the most of the others is believed. So it is right while any of them is down.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from bulkhead import screen
from bulkhead.connections import Connections, cluster
from bulkhead.errors import RefusedError
from bulkhead.inventory import Inventory
from bulkhead.status import brokers, hosts, queues, workers
from bulkhead.status.facts import Facts, look
from bulkhead.status.judge import Finding, Judge
from bulkhead.status.render import (
    QUIET,
    broker_table,
    columns,
    consumers,
    number,
    oldest,
    queue_state,
    rate,
    section,
    verdict,
)
from bulkhead.status.view import exit_code_of

GROUPS = ("brokers", "workers")


@dataclass(frozen=True)
class View:
    environment: str
    told_by: str | None  # the broker whose word this is
    brokers: tuple[brokers.Broker, ...]
    queues: tuple[queues.Queue, ...]
    findings: tuple[Finding, ...]
    seconds: float

    @property
    def exit_code(self) -> int:
        return exit_code_of(self.findings)

    def data(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "exit_code": self.exit_code}


def view(inventory: Inventory, facts: Facts) -> View:
    judge = Judge(inventory, facts)
    hosts.unreachable(judge)
    rows = brokers.brokers(judge)
    told = brokers.seen(judge)
    shown = queues.queues(judge)
    workers.workers(judge)
    hosts.failed_units(judge)
    return View(
        environment=inventory.environment_name,
        told_by=told.asked if told else None,
        brokers=rows,
        queues=shown,
        findings=tuple(sorted(judge.findings, key=lambda finding: not finding.outage)),
        seconds=round(facts.seconds, 2),
    )


def see(inventory: Inventory, connections: Connections) -> View:
    asked = {host.name: host for group in GROUPS for host in inventory.hosts(group)}
    if not inventory.hosts("brokers"):
        raise RefusedError(
            f"The inventory has no brokers ({inventory.sources}), so there are no queues.",
            mend="docs/brokers.md says what it takes to have them.",
        )
    began = time.monotonic()
    nodes = look(inventory, connections, list(asked.values()))
    return view(inventory, Facts(seconds=time.monotonic() - began, nodes=nodes, answers={}))


def run(*, as_json: bool = False) -> int:
    """Shows the queues; the exit code says how they are (docs/operations.md)."""
    with cluster() as (inventory, connections):
        seen = see(inventory, connections)
    if as_json:
        print(json.dumps(seen.data(), indent=2))
    else:
        screen.console().print(shown(seen), crop=False)
    return seen.exit_code


def shown(seen: View) -> RenderableType:
    head = Text()
    head.append(seen.environment, style="bold")
    head.append(f"  as {seen.told_by} tells" if seen.told_by else "  no broker answers")
    head.append(f"  ({seen.seconds:.1f} s)", style=QUIET)
    return Group(
        head,
        section("BROKERS", broker_table(seen.brokers)),
        section("QUEUES", _table(seen.queues)),
        verdict(seen.findings),
    )


def _table(rows: tuple[queues.Queue, ...]) -> RenderableType:
    table = columns("", "ready", "unacked", "consumers", "in/s", "out/s", "oldest", "state")
    for row in rows:
        table.add_row(
            row.name,
            number(row.ready),
            number(row.unacked),
            consumers(row),
            rate(row.in_per_second),
            rate(row.out_per_second),
            oldest(row),
            queue_state(row),
        )
    return table
