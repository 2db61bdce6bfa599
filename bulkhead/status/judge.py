"""Collects findings: what is wrong and what to type.

A finding is a cause. What follows from a host that cannot be reached is shown on the screen, and found only
where the cluster as a whole is short of something.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from bulkhead.connections import ssh_command
from bulkhead.inventory import Inventory
from bulkhead.status.facts import Facts, Node

UNKNOWN = "?"


@dataclass(frozen=True)
class Finding:
    outage: bool  # clients notice it
    what: str
    mend: str


@dataclass
class Judge:
    inventory: Inventory
    facts: Facts
    findings: list[Finding] = field(default_factory=list)

    def outage(self, what: str, mend: str) -> None:
        self.findings.append(Finding(True, what, mend))

    def wrong(self, what: str, mend: str) -> None:
        self.findings.append(Finding(False, what, mend))

    @property
    def application(self) -> str:
        return str(self.inventory.application.get("name", ""))

    def nodes(self, group: str) -> list[Node]:
        """Those that were asked: `fab queues` does not ask everyone."""
        nodes = self.facts.nodes
        return [nodes[host.name] for host in self.inventory.hosts(group) if host.name in nodes]

    def reached(self, group: str) -> list[Node]:
        return [node for node in self.nodes(group) if node.unreachable is None]

    # --- what to type ---

    def on(self, host: str, command: str) -> str:
        return f"{ssh_command(self.inventory.host(host))} {command}"

    def journal(self, host: str, unit: str) -> str:
        return self.on(host, f"sudo journalctl -n 50 -u {unit}")

    def patronictl(self, host: str, words: str = "list") -> str:
        return self.on(host, f"sudo patronictl {words}")

    def converge(self, playbook: str, host: str) -> str:
        if self.in_lab:
            return "make up"
        return f"ansible-playbook playbooks/{playbook}.yml --limit {host}"

    @property
    def in_lab(self) -> bool:
        return str(self.inventory.variables.get("lab_state", "")).endswith("/.lab")
