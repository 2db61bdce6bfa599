"""From the application's description and the inventory to what a role or an operation needs: pure functions.

The filters of plugins/filter/bulkhead.py are these functions under the same names.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Any

from bulkhead.application import Application, Pool, parse
from bulkhead.problem import Problem

# A queue's own process, which starts and watches those that work.
QUEUE_PARENT_MEGABYTES = 96
# A Django application has about as much before it does anything; with less it would be replaced at each task.
QUEUE_CHILD_MEGABYTES = 96


class InvalidError(ValueError):
    """The data is not fit to be shaped; the message is the list of problems."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))


def application_of(raw: Any) -> Application:
    if isinstance(raw, Application):
        return raw
    application, problems = parse(raw)
    if application is None or problems:
        raise InvalidError(problems)
    return application


def http_pools(raw: Any) -> list[dict[str, Any]]:
    """The HTTP pools as a list, each with its `name`, every field and its routes."""
    return [_named(name, pool) for name, pool in application_of(raw).http_pools.items()]


def _named(name: str, pool: Pool) -> dict[str, Any]:
    return {"name": name, **pool.model_dump(mode="json")}


def queues(raw: Any) -> list[dict[str, Any]]:
    """The queues as a list, each with its `name` and every field; the first is the application's default."""
    return [{"name": name, **queue.model_dump()} for name, queue in application_of(raw).queues.items()]


def schedules(raw: Any) -> list[dict[str, Any]]:
    """The schedules as a list, each with its `name` and every field."""
    return [{"name": name, **entry.model_dump()} for name, entry in application_of(raw).schedules.items()]


def queue_child_megabytes(queue: Mapping[str, Any]) -> int:
    """What each process of a queue may come to before it is replaced: its share of the queue's memory."""
    return int((queue["memory_megabytes"] - QUEUE_PARENT_MEGABYTES) // queue["concurrency"])


def node_servers(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Hosts as {name, address inside the cluster}: `groups[app_servers_group] | node_servers(hostvars)`."""
    return [
        {"name": host, "address": hostvars[host].get("node_address") or hostvars[host]["ansible_host"]}
        for host in hosts
    ]


def addresses_of_kind(virtual_addresses: Iterable[Mapping[str, Any]], kind: str) -> list[str]:
    """The virtual addresses of one kind, `public` or `internal`, as text."""
    return [each["address"] for each in virtual_addresses if each["kind"] == kind]


def interface_of(address: str, node_networks: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Where a host carries an address, as {interface, prefix, cidr}: in the narrowest such network."""
    wanted = ipaddress.ip_address(address)
    networks = [(ipaddress.ip_network(each["network"]), each["interface"]) for each in node_networks]
    matching = [each for each in networks if wanted in each[0]]
    if not matching:
        known = ", ".join(str(network) for network, _ in networks) or "none"
        raise ValueError(f"{address} is in none of the host's networks (node_networks: {known})")
    network, interface = max(matching, key=lambda each: each[0].prefixlen)
    return {"interface": interface, "prefix": network.prefixlen, "cidr": f"{wanted}/{network.prefixlen}"}


def database_connections(raw: Any, app_servers: int, workers: int = 0) -> dict[str, int]:
    """Connections that the application may hold at its worst moment, by cause, and their `total`.

    Every thread of a Gunicorn pool holds one, every process of a pool one more for its readiness check, and
    every process of a queue one, and the scheduler of a worker node two (its own and the outbox's). While a
    release is switched, one node at a time runs the new instances beside the old.
    """
    application = application_of(raw)
    node = sum(pool.workers * (pool.threads + 1) for pool in application.http_pools.values())
    worker = sum(queue.concurrency for queue in application.queues.values()) + (2 if application.beat else 0)
    switch = max(node if app_servers else 0, worker if workers else 0)
    parts = {"pools": node * app_servers, "switch": switch, "queues": worker * workers}
    return {**parts, "total": sum(parts.values())}


def postgres_sizing(node_memory_megabytes: int, max_connections: int) -> dict[str, int]:
    """PostgreSQL's memory settings in megabytes for a node that it has to itself, beside etcd and Patroni.

    A quarter of the memory for shared buffers and three quarters as the planner's idea of the page cache are
    the manual's advice. What is left of a quarter, divided by the connections, bounds the memory of one sort:
    all of them sorting at once, with two sorts each, still fit.
    """
    memory = int(node_memory_megabytes)
    return {
        "shared_buffers_megabytes": max(32, memory // 4),
        "effective_cache_size_megabytes": max(64, memory * 3 // 4),
        "maintenance_work_mem_megabytes": min(1024, max(16, memory // 16)),
        "work_mem_megabytes": max(1, memory // 4 // (2 * max(1, int(max_connections)))),
    }


FILTERS = (
    http_pools,
    queues,
    schedules,
    queue_child_megabytes,
    node_servers,
    addresses_of_kind,
    interface_of,
    database_connections,
    postgres_sizing,
)
