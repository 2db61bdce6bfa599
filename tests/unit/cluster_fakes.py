"""A cluster for tests of operations: the reference inventory, and facts of it with all well."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bulkhead import haproxy, patroni, rabbitmq
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
# The same with brokers and worker nodes.
TIERS: Mapping[str, list[str]] = {
    **HOSTS,
    "brokers": ["mq1", "mq2", "mq3"],
    "workers": ["worker1", "worker2"],
}
QUEUES = {
    name: {"time_limit_seconds": limit, "drain_deadline_seconds": limit + 10}
    for name, limit in (("default", 70), ("mail", 20))
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


def tiers(**variables: Any) -> Inventory:
    """An inventory with brokers and worker nodes, and an application that has queues and a scheduler."""
    found = listing(TIERS, **variables)
    for host in found["_meta"]["hostvars"].values():
        host["application"] = {**host["application"], "queues": QUEUES, "beat": ["beat"]}
    return from_data(found, sources="inventories/example")


def queue(name: str, **changes: Any) -> rabbitmq.Queue:
    """One that is empty, and whole."""
    names = tuple(TIERS["brokers"])
    base = rabbitmq.Queue(
        name, "quorum", ready=0, unacked=0, consumers=2, members=names, online=names, leader="mq1",
        in_per_second=0.0, out_per_second=0.0, backlog_seconds=0, held_seconds=0, silent_seconds=600,
    )  # fmt: skip
    return replace(base, **changes)


def all_queues(**changes: dict[str, Any]) -> tuple[rabbitmq.Queue, ...]:
    """Those of the application and the dead letters, with some of them changed."""
    names = [*QUEUES, rabbitmq.DEAD_LETTERS]
    letters = {rabbitmq.DEAD_LETTERS: {"consumers": 0}}
    return tuple(queue(name, **{**letters.get(name, {}), **changes.get(name, {})}) for name in names)


def broker_cluster(
    asked: str = "mq1", queues: tuple[rabbitmq.Queue, ...] | None = None, **changes: dict[str, Any]
) -> rabbitmq.Cluster:
    """As one broker sees it, with some members changed."""
    members = tuple(
        replace(
            rabbitmq.Member(name, True, memory_bytes=10**8, memory_limit_bytes=5 * 10**8),
            **changes.get(name, {}),
        )
        for name in TIERS["brokers"]
    )
    return rabbitmq.Cluster(asked, members, all_queues() if queues is None else queues)


def outdated(nodes: Mapping[str, Node], **critical: frozenset[str] | None) -> dict[str, Node]:
    """Each broker still says that mq2, which was cut off, has the only copy of `mail`; the copies say what is
    in `critical`, and where it has nothing that no queue needs this broker."""
    queues = all_queues(mail={"online": ("mq2",), "leader": "mq2"})
    return {
        name: replace(
            nodes[name], broker=broker_cluster(name, queues), critical=critical.get(name, frozenset())
        )
        for name in TIERS["brokers"]
    }


def said(release: str = RELEASE, scheduler: str = "standby: worker1 holds the lease") -> dict[str, str]:
    queues = {f"forge-queue-{name}@{release}.service": f"consumes {name} from 192.0.2.20" for name in QUEUES}
    return {**queues, f"forge-beat@{release}.service": scheduler}


def worker_release(**changes: Any) -> Release:
    """What a worker node runs while all is well."""
    running = {RELEASE: "active/running"}
    base = Release(
        current=RELEASE, previous=None, running={}, queues=dict.fromkeys(QUEUES, running),
        beat={"beat": running}, said=said(),
    )  # fmt: skip
    return replace(base, **changes)


DRAINED = {"by": "ann@desk", "at": "2026-11-22T20:00:00Z"}


def drained_release() -> Release:
    stopped: dict[str, dict[str, str]] = {name: {} for name in QUEUES}
    return worker_release(queues=stopped, beat={"beat": {}}, said={}, drained=DRAINED)


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
        *(server("rabbitmq", name) for name in hosts.get("brokers", [])),
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
    for name in hosts.get("brokers", []):
        nodes[name] = replace(
            nodes[name],
            services={"rabbitmq-server.service": "active"},
            broker=broker_cluster(name),
            metrics=rabbitmq.Metrics((), all_queues() if name == "mq1" else ()),
        )
    for name in hosts.get("workers", []):
        holds = {"said": said(scheduler="holds the lease with token 7")} if name == "worker1" else {}
        nodes[name] = replace(nodes[name], release=worker_release(**holds))
    nodes.update(changes)
    answers = {"public1": Answer(200, 12), "public2": Answer(200, 14)}
    return Facts(seconds=1.2, nodes=nodes, answers=answers)


def gone(name: str) -> Node:
    return Node(host=name, unreachable="no SSH session with 192.0.2.1:22 (no answer in time).")
