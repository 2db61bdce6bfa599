"""Shapes the inventory's virtual addresses into the keepalived role's instances."""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# Ansible loads this file by its path, so the library beside it is not on Python's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bulkhead.shape import interface_of

Networks = Sequence[Mapping[str, Any]]

FIRST_PRIORITY = 250
LARGEST_STEP = 20
LAST_ROUTER_ID = 255
# The host variable with a load balancer's own address, for virtual addresses of the same family.
OWN_ADDRESS = {4: "node_address", 6: "node_address_ipv6"}


def router_ids(addresses: Iterable[str]) -> list[int]:
    """A number for each address, which stays when others come and go: load balancers that differ in it for a
    moment would both own the address. Its last byte, or the next free number where that is taken or 0."""
    taken: list[int] = []
    for address in addresses:
        number = ipaddress.ip_address(address).packed[-1] or 1
        while number in taken:
            number = number % LAST_ROUTER_ID + 1
        taken.append(number)
    return taken


def priority(host: str, owner: str, load_balancers: Sequence[str]) -> int:
    """The owner is first, then those after it in the inventory's order, around. The steps keep two that miss
    an owner from taking its address in the same instant; large ones only make the last wait longer."""
    rank = (load_balancers.index(host) - load_balancers.index(owner)) % len(load_balancers)
    step = max(1, min(LARGEST_STEP, (FIRST_PRIORITY - 1) // len(load_balancers)))
    return FIRST_PRIORITY - rank * step


def own_address(host: str, family: int, name: str, hostvars: Mapping[str, Mapping[str, Any]]) -> str:
    variable = OWN_ADDRESS[family]
    address = hostvars[host].get(variable)
    if not address:
        raise ValueError(
            f"the virtual address {name} is an IPv{family} one, and load balancer {host} has no {variable}. "
            f"Give each load balancer its own IPv{family} address in the inventory, as {variable}"
        )
    return str(address)


def vrrp_interface(host: str, address: str, peers: Mapping[str, str], networks: Networks) -> str:
    """Where the load balancers hear one another. keepalived sends from this interface and no other, and who
    is behind a router is not heard: each would take every address."""
    try:
        where = interface_of(address, networks)
    except ValueError as error:
        raise ValueError(
            f"load balancer {host} tells the others from its own address that it lives, but {error}. "
            "Add the network and its interface to node_networks, or correct the address"
        ) from None
    network = ipaddress.ip_interface(where["cidr"]).network
    for peer, theirs in peers.items():
        if ipaddress.ip_address(theirs) not in network:
            raise ValueError(
                f"load balancers {host} ({address}) and {peer} ({theirs}) have to hear each other without a "
                f"router, and {theirs} is not in {network}. Give them own addresses in one network"
            )
    return str(where["interface"])


def keepalived_instances(
    virtual_addresses: Sequence[Mapping[str, Any]],
    host: str,
    load_balancers: Sequence[str],
    hostvars: Mapping[str, Mapping[str, Any]],
    node_networks: Networks,
) -> list[dict[str, Any]]:
    """One VRRP instance for each virtual address, as this host sees it."""
    instances = []
    ids = router_ids(each["address"] for each in virtual_addresses)
    for entry, router_id in zip(virtual_addresses, ids, strict=True):
        name, owner = entry["name"], entry["owner"]
        if owner not in load_balancers:
            known = ", ".join(load_balancers)
            raise ValueError(
                f"the owner {owner} of {name} is no load balancer (they are {known}). Name one of them"
            )
        family = ipaddress.ip_address(entry["address"]).version
        where = interface_of(entry["address"], node_networks)
        source = own_address(host, family, name, hostvars)
        peers = {peer: own_address(peer, family, name, hostvars) for peer in load_balancers if peer != host}
        instances.append(
            {
                "name": name,
                "address": where["cidr"],
                "interface": where["interface"],
                "vrrp_interface": vrrp_interface(host, source, peers, node_networks),
                "router_id": router_id,
                "priority": priority(host, owner, load_balancers),
                "source": source,
                "peers": list(peers.values()),
            }
        )
    return instances


class FilterModule:
    def filters(self) -> dict[str, Any]:
        def filtered(*arguments: Any) -> list[dict[str, Any]]:
            try:
                return keepalived_instances(*arguments)
            except ValueError as error:
                raise AnsibleFilterError(f"virtual_addresses: {error}.") from error

        return {"keepalived_instances": filtered}
