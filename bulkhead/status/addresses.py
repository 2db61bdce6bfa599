"""Virtual addresses: who holds each, who should, and whether it serves."""

from __future__ import annotations

from dataclasses import dataclass

from bulkhead.inventory import VirtualAddress
from bulkhead.status.judge import UNKNOWN, Judge
from bulkhead.status.outside import Answer


@dataclass(frozen=True)
class Address:
    name: str
    address: str
    kind: str
    wanted: str
    owners: tuple[str, ...]
    answer: Answer | None


def addresses(judge: Judge) -> tuple[Address, ...]:
    balancers = judge.reached("load_balancers")
    silent = [node.host for node in judge.nodes("load_balancers") if node.addresses is None]
    rows = []
    for wanted in judge.inventory.virtual_addresses:
        owners = tuple(node.host for node in balancers if wanted.address in (node.addresses or ()))
        answer = judge.facts.answers.get(wanted.name)
        rows.append(Address(wanted.name, wanted.address, wanted.kind, wanted.owner, owners, answer))
        if len(owners) != 1:
            _not_one_owner(judge, wanted, owners, silent, answer)
        elif owners[0] != wanted.owner and _fit(judge, wanted.owner):
            what = f"{_named(wanted)} is on {owners[0]}, the inventory wants it on {wanted.owner}"
            judge.wrong(what, "fab lb.failback")
        if owners and answer is not None and not answer.good:
            said = answer.problem or f"it answered {answer.code}"
            path = judge.inventory.application.get("health", {}).get("ready", "/")
            target = f"[{wanted.address}]" if ":" in wanted.address else wanted.address
            judge.outage(f"{_named(wanted)} does not serve: {said}", f"curl -vk https://{target}{path}")
    return tuple(rows)


def _named(address: VirtualAddress) -> str:
    return f"{address.name} ({address.address})"


def _not_one_owner(
    judge: Judge, wanted: VirtualAddress, owners: tuple[str, ...], silent: list[str], answer: Answer | None
) -> None:
    name = _named(wanted)
    if owners:
        other = next((owner for owner in owners if owner != wanted.owner), owners[0])
        judge.outage(
            f"{name} has {len(owners)} owners: {' and '.join(owners)}",
            judge.on(other, "sudo systemctl restart keepalived"),
        )
        return
    if not silent:
        judge.outage(
            f"{name} has no owner", judge.on(wanted.owner, "sudo systemctl status keepalived haproxy")
        )
        return
    # One who does not answer may hold it; its clients know.
    mend = judge.on(silent[0], "ip address show")
    if answer is not None and answer.good:
        judge.wrong(f"{name} answers, and its owner is not known ({', '.join(silent)} may be)", mend)
    else:
        judge.outage(f"{name} has no owner that is known ({', '.join(silent)} may be)", mend)


def _fit(judge: Judge, host: str) -> bool:
    """Whether a load balancer could take an address. If not, that is the finding, and not where it is."""
    node = judge.facts.nodes.get(host)
    return node is not None and bool(node.alive) and node.services.get("keepalived.service") == "active"


def load_balancers(judge: Judge) -> tuple[str, ...]:
    for node in judge.reached("load_balancers"):
        if node.services.get("haproxy.service") == "active":
            if not node.alive:
                judge.wrong(
                    f"{node.host}: HAProxy runs and does not answer", judge.journal(node.host, "haproxy")
                )
            elif node.haproxy is None:
                reason = node.unknown.get("haproxy", UNKNOWN)
                judge.wrong(
                    f"{node.host}: HAProxy's runtime API: {reason}", judge.journal(node.host, "haproxy")
                )
        if node.holds:
            files = " ".join(f"/run/keepalived/hold/{hold}" for hold in node.holds)
            judge.wrong(
                f"{node.host} is held back from {', '.join(node.holds)}: an operation was cut short",
                judge.on(node.host, f"sudo rm {files}"),
            )
    return tuple(host.name for host in judge.inventory.hosts("load_balancers"))
