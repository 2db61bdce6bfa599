"""From facts to all that the screen says. No I/O: it is tested with facts made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from bulkhead.inventory import Inventory
from bulkhead.status import addresses, brokers, database, hosts, operations, pools, queues, workers
from bulkhead.status.facts import Facts
from bulkhead.status.judge import Finding, Judge

ALL_WELL, SOMETHING_WRONG, OUTAGE = 0, 5, 6


def exit_code_of(findings: tuple[Finding, ...]) -> int:
    if any(finding.outage for finding in findings):
        return OUTAGE
    return SOMETHING_WRONG if findings else ALL_WELL


@dataclass(frozen=True)
class View:
    environment: str
    sources: str
    host_count: int
    unreachable: Mapping[str, str]
    operation: str | None
    load_balancers: tuple[str, ...]
    app_servers: tuple[str, ...]
    addresses: tuple[addresses.Address, ...]
    pools: tuple[pools.Pool, ...]
    database: database.Database | None
    brokers: tuple[brokers.Broker, ...]
    queues: tuple[queues.Queue, ...]
    workers: tuple[workers.Worker, ...]
    scheduler: str | None
    releases: tuple[hosts.Releases, ...]
    failed_units: Mapping[str, tuple[str, ...]]
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
    # Findings come in this order, those that clients notice before all others.
    shown: dict[str, Any] = {
        "unreachable": hosts.unreachable(judge),
        "operation": operations.operation(judge),
        "addresses": addresses.addresses(judge),
        "load_balancers": addresses.load_balancers(judge),
        "releases": hosts.releases(judge),
        "pools": pools.pools(judge),
        "database": database.database(judge),
        "brokers": brokers.brokers(judge),
        "queues": queues.queues(judge),
        "workers": workers.workers(judge),
        "scheduler": workers.scheduler(judge),
        "failed_units": hosts.failed_units(judge),
    }
    return View(
        environment=inventory.environment_name,
        sources=inventory.sources,
        host_count=len(facts.nodes),
        app_servers=tuple(host.name for host in inventory.hosts("app_servers")),
        findings=tuple(sorted(judge.findings, key=lambda finding: not finding.outage)),
        seconds=round(facts.seconds, 2),
        **shown,
    )
