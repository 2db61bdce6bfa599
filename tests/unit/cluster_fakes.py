"""A cluster for tests of operations: the reference inventory, and facts of it with all well."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bulkhead import haproxy, patroni
from bulkhead.inventory import Inventory, from_data
from bulkhead.status.facts import Etcd, Facts, Node, Release
from bulkhead.status.outside import Answer

RELEASE, OLDER = "0123456789ab", "ba9876543210"

HOSTS: Mapping[str, list[str]] = {
    "load_balancers": ["lb1", "lb2"],
    "app_servers": ["app1", "app2"],
    "databases": ["db1", "db2", "db3"],
    "builders": ["builder1"],
}
ADDRESSES = [
    {"name": "public1", "address": "192.0.2.101", "kind": "public", "owner": "lb1"},
    {"name": "public2", "address": "192.0.2.102", "kind": "public", "owner": "lb2"},
    {"name": "internal", "address": "192.0.2.103", "kind": "internal", "owner": "lb1"},
]
POOL = {"kind": "http", "port": 8001, "routes": [{"path": "/"}], "min_healthy": 1}


def listing(
    hosts: Mapping[str, list[str]] = HOSTS, by_host: Mapping[str, Any] | None = None, **variables: Any
) -> dict[str, Any]:
    """The output of `ansible-inventory --list`."""
    common = {
        "environment_name": "example",
        "virtual_addresses": ADDRESSES,
        "application": {
            "name": "forge",
            "health": {"live": "/livez", "ready": "/readyz"},
            "pools": {"web": dict(POOL), "api": {**POOL, "port": 8002, "routes": [{"path": "/api/"}]}},
        },
        "ansible_user": "bulkhead",
        "node_address": "{{ ansible_host }}",
        **variables,
    }
    names = [name for members in hosts.values() for name in members]
    hostvars = {
        name: {**common, "ansible_host": f"192.0.2.{number}", **(by_host or {}).get(name, {})}
        for number, name in enumerate(names, start=11)
    }
    return {
        "_meta": {"hostvars": hostvars},
        "all": {"children": ["ungrouped", *hosts]},
        **{group: {"hosts": list(members)} for group, members in hosts.items()},
    }


def inventory(hosts: Mapping[str, list[str]] = HOSTS, **variables: Any) -> Inventory:
    return from_data(listing(hosts, **variables), sources="inventories/example")


def server(backend: str, name: str, health: str = "up", **changes: Any) -> haproxy.Server:
    base = haproxy.Server(
        backend=backend,
        name=name,
        health=health,
        drained=False,
        maintenance=False,
        weight=1,
        sessions=0,
        queued=0,
        check="L7OK/200",
        seconds_in_state=60,
    )
    return replace(base, **changes)


def statistics(servers: list[haproxy.Server]) -> haproxy.Statistics:
    return haproxy.Statistics(version="3.0", uptime_seconds=60, sessions=0, servers=tuple(servers))


def all_servers(hosts: Mapping[str, list[str]] = HOSTS, leader: str = "db1") -> list[haproxy.Server]:
    return [
        *(server(f"pool_{pool}", name) for pool in ("web", "api") for name in hosts["app_servers"]),
        *(
            server("postgres_primary", name, "up" if name == leader else "down")
            for name in hosts["databases"]
        ),
        *(
            server("postgres_replica", name, "down" if name == leader else "up")
            for name in hosts["databases"]
        ),
    ]


def cluster_of(names: list[str], leader: str | None = "db1") -> patroni.Cluster:
    return patroni.Cluster(
        members=tuple(
            patroni.Member(
                name=name,
                role="leader" if name == leader else "quorum_standby",
                state="running" if name == leader else "streaming",
                timeline=3,
                lag_bytes=None if name == leader else 0,
                pending_restart=False,
            )
            for name in names
        ),
        paused=False,
        scheduled_switchover=None,
    )


def facts(hosts: Mapping[str, list[str]] = HOSTS, **changes: Node) -> Facts:
    """All well, with some nodes changed."""
    nodes = {name: Node(host=name, failed_units=()) for members in hosts.values() for name in members}
    for name in hosts["load_balancers"]:
        nodes[name] = replace(
            nodes[name],
            addresses=frozenset(
                {f"192.0.2.{name}"} | {entry["address"] for entry in ADDRESSES if entry["owner"] == name}
            ),
            services={"haproxy.service": "active", "keepalived.service": "active"},
            haproxy=statistics(all_servers(hosts)),
            alive=True,
        )
    for name in hosts["app_servers"]:
        running = {pool: {RELEASE: "active/running"} for pool in ("web", "api")}
        nodes[name] = replace(nodes[name], release=Release(current=RELEASE, previous=None, running=running))
    for name in hosts["databases"]:
        leads = name == "db1"
        nodes[name] = replace(
            nodes[name],
            services={"patroni.service": "active", "etcd.service": "active"},
            patroni=patroni.Node(
                "primary" if leads else "replica", "running", cluster_of(hosts["databases"])
            ),
            etcd=Etcd(healthy=True, leads=leads, reason=""),
        )
    nodes.update(changes)
    answers = {"public1": Answer(200, 12), "public2": Answer(200, 14)}
    return Facts(seconds=1.2, nodes=nodes, answers=answers)


def gone(name: str) -> Node:
    return Node(host=name, unreachable="no SSH session with 192.0.2.1:22 (no answer in time).")
