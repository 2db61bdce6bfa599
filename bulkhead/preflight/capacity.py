"""What the application may use against what the nodes have: database connections and memory."""

from collections.abc import Iterator

from bulkhead.application import Application
from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem
from bulkhead.shape import database_connections

# Of PostgreSQL's connections: three that only superusers get (its default), and what Patroni, a monitor,
# a backup and an operator at night need beside the application.
RESERVED_CONNECTIONS = 10
# What the system, sshd and the journal need beside the services.
SYSTEM_MEGABYTES = 256


def check(cluster: Cluster) -> list[Problem]:
    application = cluster.application
    if application is None:
        return []
    return [*_connections(cluster, application), *_memory(cluster, application)]


def _connections(cluster: Cluster, application: Application) -> Iterator[Problem]:
    budget = database_connections(
        application, len(cluster.group("app_servers")), len(cluster.group("workers"))
    )
    needed = budget["total"] + RESERVED_CONNECTIONS
    found: dict[str, int] = {}
    for host in cluster.hosts_with("postgres"):
        limit = cluster.setting(host, "postgres", "postgres_max_connections")
        if isinstance(limit, int):
            found[cluster.where("postgres_max_connections", limit)] = limit
    for where, limit in found.items():
        if needed > limit:
            yield Problem(
                where,
                f"postgres_max_connections is {limit}, and {needed} are needed: {budget['pools']} "
                f"for the pools, {budget['switch']} for the node that switches its release, "
                f"{budget['queues']} for the queues, {RESERVED_CONNECTIONS} reserved",
                str(limit),
                "Raise it, or lower workers, threads or concurrency in the application.",
            )


def _memory(cluster: Cluster, application: Application) -> Iterator[Problem]:
    pools = sum(pool.memory_megabytes for pool in application.http_pools.values())
    queues = sum(queue.memory_megabytes for queue in application.queues.values())
    for tier, needed, reason in (
        # While a release is switched, the old and the new instance run side by side.
        ("app_servers", 2 * pools, f"twice the pools' {pools} (two instances while a release is switched)"),
        ("workers", queues, f"the queues' {queues}"),
    ):
        total = needed + SYSTEM_MEGABYTES
        for host in cluster.group(tier):
            memory = cluster.hosts[host].get("node_memory_megabytes")
            if isinstance(memory, int) and total > memory:
                yield Problem(
                    cluster.where(f"hosts.{host}.node_memory_megabytes", memory),
                    f"{host} has {memory} megabytes, and {total} are needed: {reason} and "
                    f"{SYSTEM_MEGABYTES} for the system",
                    str(memory),
                    "Lower memory_megabytes in the application, or give the host more.",
                )
