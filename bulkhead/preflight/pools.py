"""What must hold between the pools, queues, schedules and volumes of the application."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bulkhead.application import Application, HttpPool, Pool, Queue
from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem, listed

# HAProxy gives a client up that has sent nothing for this long (templates/haproxy/defaults.cfg.j2).
CLIENT_TIMEOUT_SECONDS = 60
HTTP_PORTS = (80, 443)
# Settings that the roles work out; a second source would win in silence on some nodes.
DERIVED = ("DATABASE_", "BROKER_", "ETCD_")


@dataclass(frozen=True)
class Order:
    """The first time has to be shorter than the second."""

    shorter: str
    longer: str
    reason: str


# Without these the outer party gives up first: the client gets an error while the work goes on, unseen.
HTTP_ORDERS = (
    Order(
        "timeout_seconds",
        "server_timeout_seconds",
        "HAProxy would answer 504 while Gunicorn still works on the request",
    ),
    Order(
        "server_timeout_seconds",
        "drain_deadline_seconds",
        "a drain would cut requests that HAProxy still waits for",
    ),
)
QUEUE_ORDERS = (
    Order("soft_time_limit_seconds", "time_limit_seconds", "a task would be ended before it is asked to end"),
    Order(
        "time_limit_seconds", "drain_deadline_seconds", "a drain would end tasks that are within their limit"
    ),
)


def check(cluster: Cluster) -> list[Problem]:
    application = cluster.application
    if application is None:
        return list(cluster.parsed[1])
    rules: tuple[Callable[[Cluster, Application], Iterator[Problem]], ...] = (
        _routes,
        _ports,
        _times,
        _servers,
        _environment,
        _programs,
        _queues,
        _schedules,
        _volumes,
    )
    return [*cluster.parsed[1], *(problem for rule in rules for problem in rule(cluster, application))]


def _at(cluster: Cluster, *path: str | int) -> str:
    """Where a field stands, by its way through the raw description."""
    found: Any = cluster.variable("application")
    for part in path:
        found = found[part]
    return cluster.where(".".join(["application", *map(str, path)]), found)


def _routes(cluster: Cluster, application: Application) -> Iterator[Problem]:
    seen: dict[tuple[str, ...], str] = {}
    for name, pool in application.http_pools.items():
        for index, route in enumerate(pool.routes):
            first = seen.setdefault(route.key, name)
            if first != name:
                yield Problem(
                    _at(cluster, "pools", name, "routes", index),
                    f"the pools {first} and {name} have the same route, {route}",
                    str(route),
                    "Give each pool its own: another host, path or header.",
                )


def _ports(cluster: Cluster, application: Application) -> Iterator[Problem]:
    seen: dict[int, str] = {}
    listening: dict[int, str] = {}
    for name, pool in application.pools.items():
        first = seen.setdefault(pool.port, name)
        if first != name:
            yield Problem(
                _at(cluster, "pools", name, "port"),
                f"the pools {first} and {name} have the same port, {pool.port}",
                str(pool.port),
                "Give each pool a port of its own.",
            )
    for name, tcp in application.tcp_pools.items():
        first = listening.setdefault(tcp.listen_port, name)
        if first != name or tcp.listen_port in HTTP_PORTS:
            other = "HTTP and HTTPS" if tcp.listen_port in HTTP_PORTS else f"the pool {first}"
            yield Problem(
                _at(cluster, "pools", name, "listen_port"),
                f"the pool {name} listens on {tcp.listen_port}, which {other} has",
                str(tcp.listen_port),
                "Give it a port of the public addresses that is free.",
            )


def _times(cluster: Cluster, application: Application) -> Iterator[Problem]:
    for name, pool in application.pools.items():
        yield from _ordered(cluster, "pools", name, pool, HTTP_ORDERS if isinstance(pool, HttpPool) else ())
        if pool.queue_timeout_seconds >= CLIENT_TIMEOUT_SECONDS:
            yield Problem(
                _at(cluster, "pools", name, "queue_timeout_seconds"),
                f"queue_timeout_seconds is {pool.queue_timeout_seconds}, and must be less than HAProxy's "
                f"timeout for clients, {CLIENT_TIMEOUT_SECONDS}: who waits in the queue would be given up",
                str(pool.queue_timeout_seconds),
                f"Take less than {CLIENT_TIMEOUT_SECONDS}.",
            )
    for name, queue in application.queues.items():
        yield from _ordered(cluster, "queues", name, queue, QUEUE_ORDERS)


def _ordered(
    cluster: Cluster, kind: str, name: str, item: Pool | Queue, orders: tuple[Order, ...]
) -> Iterator[Problem]:
    for order in orders:
        shorter, longer = getattr(item, order.shorter), getattr(item, order.longer)
        if shorter >= longer:
            yield Problem(
                _at(cluster, kind, name, order.shorter),
                f"{order.shorter} is {shorter}, and must be less than {order.longer}, {longer}: "
                f"{order.reason}",
                str(shorter),
                f"Lower {order.shorter} or raise {order.longer}.",
            )


def _servers(cluster: Cluster, application: Application) -> Iterator[Problem]:
    count = len(cluster.group("app_servers"))
    for name, pool in application.pools.items():
        if count and pool.min_healthy > count:
            yield Problem(
                _at(cluster, "pools", name, "min_healthy"),
                f"min_healthy is {pool.min_healthy}, and there are {count} servers",
                str(pool.min_healthy),
                f"Take at most {count}, or add hosts to the group {cluster.group_name('app_servers')}.",
            )


def _environment(cluster: Cluster, application: Application) -> Iterator[Problem]:
    derived = cluster.variable("application_environment", {})
    sources: tuple[tuple[str, Mapping[str, Any]], ...] = (
        ("application.environment", application.environment),
        ("application_environment", derived if isinstance(derived, Mapping) else {}),
    )
    for path, settings in sources:
        for name in settings:
            if name.startswith(DERIVED):
                yield Problem(
                    f"{path}.{name}",
                    f"{name} is set, and {name.partition('_')[0]}_* come from the inventory",
                    name,
                    "Take it out: the application nodes get it by themselves.",
                )
            elif name in application.secrets:
                yield Problem(
                    f"{path}.{name}",
                    f"{name} is among the secrets too",
                    name,
                    "Take it out of one of the two.",
                )


def _programs(cluster: Cluster, application: Application) -> Iterator[Problem]:
    for field, kind, example in (
        ("celery", "queues", f"{application.name}.celery:app"),
        ("beat", "schedules", "[python, manage.py, beat]"),
    ):
        if getattr(application, kind) and getattr(application, field) is None:
            yield Problem(
                _at(cluster, kind),
                f"there are {kind}, and the application does not say what runs them",
                field,
                f"Give application.{field}, for example {example}.",
            )


def _queues(cluster: Cluster, application: Application) -> Iterator[Problem]:
    """Every queue has brokers that keep it and workers that serve it, all in one way."""
    for tier, what in (("workers", "no worker serves"), ("brokers", "no broker keeps")):
        if application.queues and not cluster.group(tier):
            yield Problem(
                _at(cluster, "queues"),
                f"{what} {listed(application.queues)}",
                "queues",
                f"Add hosts to the group {cluster.group_name(tier)}, or take the queues out.",
            )
    served: dict[str, list[tuple[str, Mapping[str, Any]]]] = {}
    for host in cluster.hosts_with("celery"):
        given = cluster.hosts[host].get("celery_queues")
        for queue in given if isinstance(given, list) else []:
            if isinstance(queue, Mapping) and "name" in queue:
                served.setdefault(str(queue["name"]), []).append((host, queue))
    for name in application.queues:
        on = served.get(name, [])
        if cluster.hosts_with("celery") and not on:
            yield Problem(
                _at(cluster, "queues", name),
                f"no worker serves {name}: celery_queues has it on none of "
                f"{listed(cluster.hosts_with('celery'))}",
                name,
                "Take celery_queues out of host_vars and group_vars: it comes from the application.",
            )
        for host, queue in on:
            first, as_first = on[0]
            differing = sorted(
                field for field in {*queue, *as_first} if queue.get(field) != as_first.get(field)
            )
            if differing:
                yield Problem(
                    cluster.where(f"hosts.{host}.celery_queues", queue),
                    f"the queue {name} is served with different limits: "
                    + ", ".join(
                        f"{field} is {as_first.get(field)} on {first} and {queue.get(field)} on {host}"
                        for field in differing
                    ),
                    name,
                    "Take celery_queues out of host_vars and group_vars: a queue has the limits of the "
                    "application on every worker.",
                )


def _schedules(cluster: Cluster, application: Application) -> Iterator[Problem]:
    for name, schedule in application.schedules.items():
        if schedule.queue not in application.queues:
            yield Problem(
                _at(cluster, "schedules", name, "queue"),
                f"the schedule {name} uses the queue {schedule.queue}, which is not there",
                schedule.queue,
                f"Name one of the queues ({listed(application.queues)}), or describe it.",
            )


def _volumes(cluster: Cluster, application: Application) -> Iterator[Problem]:
    filers = cluster.group("filers")
    seen: dict[tuple[str, ...], str] = {}
    for index, volume in enumerate(application.volumes):
        if volume.filer not in filers:
            yield Problem(
                _at(cluster, "volumes", index, "filer"),
                f"the filer {volume.filer} of the volume {volume.id} is not a host of the group of filers",
                volume.filer,
                f"Name a host of the group {cluster.group_name('filers')}: {listed(filers)}.",
            )
        for field, key in (
            ("id", ("id", volume.id)),
            ("device", ("device", volume.filer, volume.device)),
            ("export", ("export", volume.filer, volume.export)),
        ):
            if key in seen:
                yield Problem(
                    _at(cluster, "volumes", index, field),
                    f"the {field} {key[-1]} is that of two volumes"
                    + (f" on {volume.filer}, {seen[key]} and {volume.id}" if field != "id" else ""),
                    key[-1],
                    f"Give each volume its own {field}.",
                )
            seen.setdefault(key, volume.id)
