"""What the application may use against what the nodes have: database connections and memory."""

from collections.abc import Iterator

from bulkhead.application import Application
from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem, listed
from bulkhead.shape import (
    QUEUE_CHILD_MEGABYTES,
    QUEUE_PARENT_MEGABYTES,
    database_connections,
    queue_child_megabytes,
)

# What the system, sshd and the journal need beside the services.
SYSTEM_MEGABYTES = 256


def check(cluster: Cluster) -> list[Problem]:
    application = cluster.application
    if application is None:
        return []
    return [
        *_connections(cluster, application),
        *_memory(cluster, application),
        *_children(cluster, application),
    ]


def _connections(cluster: Cluster, application: Application) -> Iterator[Problem]:
    budget = database_connections(
        application, len(cluster.group("app_servers")), len(cluster.group("workers"))
    )
    for host in cluster.hosts_with("postgres"):
        limit = cluster.setting(host, "postgres", "postgres_max_connections")
        reserved = cluster.setting(host, "postgres", "postgres_reserved_connections")
        if not isinstance(limit, int) or not isinstance(reserved, int):
            continue
        needed = budget["total"] + reserved
        if needed > limit:
            yield Problem(
                cluster.where("postgres_max_connections", limit),
                f"postgres_max_connections is {limit}, and {needed} are needed: {budget['pools']} "
                f"for the pools, {budget['switch']} for the node that switches its release, "
                f"{budget['queues']} for the workers, {reserved} reserved",
                str(limit),
                "Raise it, or lower workers, threads or concurrency in the application.",
            )


def _memory(cluster: Cluster, application: Application) -> Iterator[Problem]:
    pools = sum(pool.memory_megabytes for pool in application.http_pools.values())
    queues = sum(queue.memory_megabytes for queue in application.queues.values())
    for host, variables in cluster.hosts.items():
        memory = variables.get("node_memory_megabytes")
        parts = []
        if host in cluster.group("app_servers"):
            parts.append((pools, f"the pools' {pools}"))
        if host in cluster.group("workers"):
            parts.append((queues, f"the queues' {queues}"))
            if application.beat:
                beat = cluster.setting(host, "celery", "celery_beat_memory_megabytes")
                beat = beat if isinstance(beat, int) else 0
                parts.append((beat, f"the scheduler's {beat}"))
        # While a release is switched, the old and the new instance run side by side.
        total = 2 * sum(megabytes for megabytes, _ in parts) + SYSTEM_MEGABYTES
        if parts and isinstance(memory, int) and total > memory:
            yield Problem(
                cluster.where(f"hosts.{host}.node_memory_megabytes", memory),
                f"{host} has {memory} megabytes, and {total} are needed: twice "
                f"{listed(what for _, what in parts)} (two instances while a release is switched) and "
                f"{SYSTEM_MEGABYTES} for the system",
                str(memory),
                "Lower memory_megabytes in the application, or give the host more.",
            )


def _children(cluster: Cluster, application: Application) -> Iterator[Problem]:
    for name, queue in application.queues.items():
        share = queue_child_megabytes(queue.model_dump())
        if share < QUEUE_CHILD_MEGABYTES:
            needed = QUEUE_PARENT_MEGABYTES + queue.concurrency * QUEUE_CHILD_MEGABYTES
            yield Problem(
                cluster.where(f"application.queues.{name}.memory_megabytes", queue.memory_megabytes),
                f"the queue {name} has {queue.memory_megabytes} megabytes for {queue.concurrency} processes: "
                f"each would have {max(share, 0)}, and needs {QUEUE_CHILD_MEGABYTES}",
                str(queue.memory_megabytes),
                f"Raise it to {needed} or more, or lower concurrency.",
            )
