"""RabbitMQ: an odd number of brokers, names that Erlang and clients take, a cookie, room in memory."""

import re
from collections.abc import Iterator, Mapping

from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem, listed

ROLE = "rabbitmq"
# A broker's name is rabbit@ and the host's name.
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")
_ADDRESS = re.compile(r"[0-9.]+")
_COOKIE = re.compile(r"[A-Za-z0-9]{32,255}")
# What a broker uses with nothing to do, and the share of its host beyond which the kernel may end it before
# its publishers have stopped.
LEAST_MEGABYTES = 256
GREATEST_SHARE = 0.7


def check(cluster: Cluster) -> list[Problem]:
    members = cluster.hosts_with(ROLE)
    if not members:
        return []
    return [
        *_number(cluster, members),
        *_names(cluster, members),
        *_resolvable(cluster, members),
        *_certificates(cluster, members),
        *_cookie(cluster, members),
        *_memory(cluster, members),
    ]


def _group(cluster: Cluster) -> str:
    return f"the hosts that a play gives {ROLE}, group {cluster.group_name('brokers')}"


def _number(cluster: Cluster, members: list[str]) -> Iterator[Problem]:
    if len(members) % 2 == 0:
        yield Problem(
            _group(cluster),
            f"there are {len(members)} brokers ({listed(members)}), and their number must be odd",
            str(len(members)),
            "Add a host to the group or take one out: of an even number both halves of a cut cluster stop.",
        )


def _names(cluster: Cluster, members: list[str]) -> Iterator[Problem]:
    for host in members:
        if not _NAME.fullmatch(host) or _ADDRESS.fullmatch(host):
            yield Problem(
                f"hosts.{host}",
                f"{host} can be no broker's name: the others find it by a host name",
                host,
                "Rename the host: letters, digits, hyphens, as in mq1; its address is ansible_host.",
            )
    long, short = [host for host in members if "." in host], [host for host in members if "." not in host]
    if long and short:
        yield Problem(
            _group(cluster),
            f"of the brokers {listed(members)} some have a dot in their name and some have none",
            long[0],
            "Name all in one way: Erlang does not connect the two kinds.",
        )
    seen: dict[str, str] = {}
    for host in members:
        other = seen.setdefault(host.lower(), host)
        if other != host:
            yield Problem(
                f"hosts.{host}",
                f"{other} and {host} are one name: host names are the same in any case",
                host,
                "Rename one of them.",
            )


def _resolvable(cluster: Cluster, members: list[str]) -> Iterator[Problem]:
    """Names need no DNS where role base writes /etc/hosts, from base_hosts."""
    with_base = cluster.hosts_with("base")
    blind: dict[str, list[str]] = {}
    for host in members:
        given = cluster.hosts[host].get("base_hosts")
        names = given if isinstance(given, list) else list(cluster.hosts)
        for other in members:
            if host not in with_base or other not in names:
                blind.setdefault(other, []).append(host)
    for other, hosts in blind.items():
        yield Problem(
            f"hosts.{other}",
            f"the broker {other} has a name that {listed(hosts)} cannot resolve",
            other,
            "Give every broker role base, which writes /etc/hosts, with every broker in base_hosts.",
        )


def _certificates(cluster: Cluster, members: list[str]) -> Iterator[Problem]:
    """Clients that come through the load balancers check a broker's certificate by the internal address."""
    addresses = cluster.variable("virtual_addresses")
    internal = [
        str(each["address"])
        for each in (addresses if isinstance(addresses, list) else [])
        if isinstance(each, Mapping) and each.get("kind") == "internal" and "address" in each
    ]
    for address in internal:
        lacking = [
            host
            for host in members
            # The names of a certificate that was given are what they are.
            if not cluster.hosts[host].get("pki_certificate")
            and (host, "pki_alternative_names") not in cluster.broken
            and address not in map(str, cluster.hosts[host].get("pki_alternative_names") or [])
        ]
        if lacking:
            yield Problem(
                f"pki_alternative_names on {listed(lacking)}",
                f"the brokers' certificates do not name the internal address {address}, at which "
                "clients reach them through the load balancers",
                address,
                "Leave it to inventories/shared/group_vars/brokers, or add the address.",
            )


def _cookie(cluster: Cluster, members: list[str]) -> Iterator[Problem]:
    cookies = {str(cluster.hosts[host].get("rabbitmq_erlang_cookie") or "") for host in members}
    if len(cookies) > 1:
        yield Problem(
            "rabbitmq_erlang_cookie",
            "the brokers have different cookies, and would refuse each other",
            "a secret",
            "Give it once, in group_vars/all/secrets.yml.",
        )
    for cookie in cookies:
        # A missing one is said by the rules for secrets.
        if cookie and not _COOKIE.fullmatch(cookie):
            yield Problem(
                "rabbitmq_erlang_cookie",
                f"it has {len(cookie)} characters, and must be 32 to 255 letters and digits",
                "a secret",
                "Take it out of the secrets' file and make it anew: python -m bulkhead.secrets.",
            )


def _memory(cluster: Cluster, members: list[str]) -> Iterator[Problem]:
    for host in members:
        memory = cluster.hosts[host].get("node_memory_megabytes")
        if not isinstance(memory, int):
            continue
        given = cluster.hosts[host].get("rabbitmq_memory_watermark_megabytes")
        watermark = given if isinstance(given, int) else memory // 2
        if LEAST_MEGABYTES <= watermark <= GREATEST_SHARE * memory:
            continue
        name = "rabbitmq_memory_watermark_megabytes" if isinstance(given, int) else "node_memory_megabytes"
        yield Problem(
            cluster.where(f"hosts.{host}.{name}", cluster.hosts[host][name]),
            f"{host} has {memory} megabytes and its broker's watermark is {watermark}; it must be at least "
            f"{LEAST_MEGABYTES} and at most {GREATEST_SHARE} of the host",
            str(watermark),
            "Publishers have to stop before the kernel ends the broker: change the watermark, or give the "
            "host more memory.",
        )
