"""Virtual addresses and the hosts' own: each is in one place only, and where it can be carried."""

import ipaddress
from collections.abc import Iterator, Mapping
from typing import Any

from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem, listed


def check(cluster: Cluster) -> list[Problem]:
    return [*_hosts(cluster), *_virtual(cluster), *_own(cluster)]


def _hosts(cluster: Cluster) -> Iterator[Problem]:
    """Two hosts of one address are one host twice, or one that answers for the other."""
    for name, mend in (
        ("ansible_host", "Give each host the address that SSH reaches it at."),
        ("node_address", "Give each host an address of its own."),
    ):
        on: dict[tuple[str, Any], list[str]] = {}
        for host, variables in cluster.hosts.items():
            if isinstance(variables.get(name), str):
                port = variables.get("ansible_port") if name == "ansible_host" else None
                on.setdefault((variables[name], port), []).append(host)
        for (address, _), hosts in on.items():
            # A node_address that stands for ansible_host everywhere was said with that.
            same = name == "node_address" and all(
                cluster.hosts[host].get("ansible_host") == address for host in hosts
            )
            if len(hosts) > 1 and not same:
                where = cluster.where(f"hosts.{hosts[1]}.{name}", cluster.hosts[hosts[1]][name])
                yield Problem(where, f"{address} is the {name} of {listed(hosts)}", address, mend)


def _virtual(cluster: Cluster) -> Iterator[Problem]:
    addresses = cluster.variable("virtual_addresses")
    given = [each for each in addresses if _is_whole(each)] if isinstance(addresses, list) else []
    if not given:
        return
    balancers = cluster.group("load_balancers")
    of_hosts = {
        str(variables[name]): host
        for host, variables in cluster.hosts.items()
        for name in ("ansible_host", "node_address")
        if name in variables
    }
    names: set[str] = set()
    seen: dict[str, str] = {}
    for index, each in enumerate(given):
        path = f"virtual_addresses.{index}"
        name, address, owner = each["name"], str(each["address"]), each["owner"]
        if name in names:
            yield Problem(
                cluster.where(f"{path}.name", name),
                f"two virtual addresses are called {name}",
                name,
                "Rename one.",
            )
        names.add(name)
        if address in seen:
            yield Problem(
                cluster.where(f"{path}.address", each["address"]),
                f"{address} is the address of {seen[address]} and of {name}",
                address,
                "Give each virtual address an IP address of its own.",
            )
        seen.setdefault(address, name)
        if address in of_hosts:
            yield Problem(
                cluster.where(f"{path}.address", each["address"]),
                f"the virtual address {address} ({name}) is also that of host {of_hosts[address]}",
                address,
                "Take an address that no host has: this one moves between the load balancers.",
            )
        if owner not in balancers:
            yield Problem(
                cluster.where(f"{path}.owner", owner),
                f"the owner {owner} of {name} is not a load balancer",
                owner,
                f"Name a host of the group {cluster.group_name('load_balancers')}: {listed(balancers)}.",
            )
        without = [host for host in balancers if not _carries(cluster.hosts[host], address)]
        if without:
            yield Problem(
                cluster.where(f"{path}.address", each["address"]),
                f"the virtual address {address} ({name}) is in no network of {listed(without)}",
                address,
                f"Take an address of its node_networks ({_networks(cluster, without[0])}), or add one.",
            )
    for kind in ("public", "internal"):
        if kind not in [each["kind"] for each in given]:
            yield Problem(
                cluster.where("virtual_addresses", addresses),
                f"there is no virtual address of kind {kind}",
                kind,
                f"Add one with `kind: {kind}`.",
            )


def _own(cluster: Cluster) -> Iterator[Problem]:
    """keepalived speaks from the load balancer's own address, on the interface that is in its network."""
    for host in cluster.group("load_balancers"):
        variables = cluster.hosts[host]
        for name in ("node_address", "node_address_ipv6"):
            address = variables.get(name)
            if isinstance(address, str) and _is_address(address) and not _carries(variables, address):
                yield Problem(
                    cluster.where(f"hosts.{host}.{name}", address),
                    f"the {name} {address} of load balancer {host} is in no network of it",
                    address,
                    f"Add its network to node_networks ({_networks(cluster, host)}), or correct the address.",
                )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_whole(each: Any) -> bool:
    """Whether the schema has nothing to say of it; what it does say is reported there."""
    if not isinstance(each, Mapping) or not {"name", "address", "kind", "owner"} <= each.keys():
        return False
    return _is_address(str(each["address"]))


def _carries(variables: Mapping[str, Any], address: str) -> bool:
    # A missing or broken list is reported by the schema; here it has no say.
    networks = _parsed(variables)
    return networks is None or any(ipaddress.ip_address(address) in network for network in networks)


def _parsed(variables: Mapping[str, Any]) -> list[Any] | None:
    try:
        return [ipaddress.ip_network(str(each["network"])) for each in variables["node_networks"]]
    except (KeyError, TypeError, ValueError):
        return None


def _networks(cluster: Cluster, host: str) -> str:
    return ", ".join(map(str, _parsed(cluster.hosts[host]) or []))
