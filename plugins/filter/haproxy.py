"""Shapes the application's pools for the haproxy role, so that its templates hold only loops.

No other plugin knows HAProxy's syntax: what a value may contain, and how an address is written, is
decided here.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# Ansible loads this file by its path, so the library beside it is not on Python's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bulkhead.preflight.certificates import problems_of_pair

Pool = dict[str, Any]

# HAProxy drops request headers with other names (templates/haproxy/defaults.cfg.j2), so a route on one
# would never match.
HEADER_NAME = re.compile(r"[A-Za-z0-9-]+")

# An estimate with room, so that memory is never what runs out first: a session holds two buffers of 16 KiB
# and the state of TLS on both sides, and under HTTP/2 several streams.
KIBIBYTES_PER_CONNECTION = 160

# A replaced worker is ended this long after the longest drain deadline.
HARD_STOP_MARGIN_SECONDS = 60


def haproxy_pools(application: Mapping[str, Any], servers: Sequence[Mapping[str, str]]) -> list[Pool]:
    """Return the application's pools as the role takes them; `servers` are hosts with name and address."""
    health = application.get("health") or {}
    return [
        {
            "name": name,
            "kind": pool["kind"],
            "listen_port": pool.get("listen_port"),
            "routes": list(pool.get("routes") or []),
            "check_path": health.get("ready", "/"),
            "max_connections": pool["max_connections"],
            "server_timeout_seconds": pool["server_timeout_seconds"],
            "queue_timeout_seconds": pool["queue_timeout_seconds"],
            "drain_deadline_seconds": pool["drain_deadline_seconds"],
            "servers": [{**server, "port": pool["port"]} for server in servers],
        }
        for name, pool in application["pools"].items()
    ]


def haproxy_routes(pools: Sequence[Pool]) -> list[dict[str, str]]:
    """Return one entry per route, the most specific first: host, then the longer path, then header."""
    ranked = []
    for pool in pools:
        if pool["kind"] != "http":
            continue
        for route in pool["routes"]:
            rank = (not route.get("host"), -len(route.get("path") or "/"), not route.get("header"))
            ranked.append((rank, {"pool": pool["name"], "condition": _condition(pool["name"], route)}))
    return [entry for _, entry in sorted(ranked, key=lambda item: item[0])]


def _condition(pool: str, route: Mapping[str, Any]) -> str:
    parts = []
    if host := route.get("host"):
        parts.append(f"{{ req.hdr(host),host_only -m str -i -- {_quoted(pool, host)} }}")
    if header := route.get("header"):
        name = str(header["name"])
        if not HEADER_NAME.fullmatch(name):
            raise AnsibleFilterError(
                f"application.pools.{pool}: its route's header name {name!r} would never match, because the "
                "load balancers drop such headers. Use letters, digits and hyphens."
            )
        parts.append(f"{{ req.hdr({name}) -m str -- {_quoted(pool, header['value'])} }}")
    if (path := route.get("path") or "/") != "/":
        parts.append(f"{{ path_beg -- {_quoted(pool, path)} }}")
    return " ".join(parts) or "TRUE"


def _quoted(pool: str, value: object) -> str:
    """Quote a value so that HAProxy takes every character of it as it is."""
    text = str(value)
    if not text.isprintable():
        raise AnsibleFilterError(
            f"application.pools.{pool}: {text!r} of its route holds a control character. Take it out."
        )
    return "'" + text.replace("'", "'\\''") + "'"


def haproxy_queue_limit(pool: Pool) -> int:
    """Requests that may wait for the pool.

    At one second per request its servers serve `max_connections` each second; more than that times the
    queue timeout would only wait to be refused.
    """
    return max(1, int(pool["max_connections"]) * len(pool["servers"]) * int(pool["queue_timeout_seconds"]))


def haproxy_hard_stop_seconds(pools: Sequence[Pool]) -> int:
    """Return when a worker that was replaced is ended: above every drain deadline."""
    longest = max((pool["drain_deadline_seconds"] for pool in pools), default=0)
    return int(longest) + HARD_STOP_MARGIN_SECONDS


def haproxy_max_connections(memory_megabytes: int) -> int:
    """Return how many connections fit the memory that HAProxy may use."""
    return int(memory_megabytes) * 1024 // KIBIBYTES_PER_CONNECTION


def haproxy_endpoint(address: str, port: int) -> str:
    """Write address and port as HAProxy reads them, IPv4 and IPv6 alike."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError as error:
        raise AnsibleFilterError(f"{address!r} is not an IP address, so HAProxy cannot use it.") from error
    return f"[{parsed}]:{port}" if parsed.version == 6 else f"{parsed}:{port}"


def haproxy_certificate_problems(certificates: Sequence[Mapping[str, str]]) -> list[str]:
    """Return a sentence for each given certificate that cannot be served, none when all are well."""
    now = datetime.datetime.now(datetime.UTC)
    return [
        f"haproxy_certificates, name {given['name']!r}: {what}. {mend}"
        for given in certificates
        for what, _, mend in problems_of_pair(given["certificate"], given["key"], now)
    ]


def haproxy_certificate_files(
    certificates: Sequence[Mapping[str, str]], directory: str
) -> list[dict[str, object]]:
    """Return each given certificate as an entry of bulkhead_files; HAProxy wants the key in the same file."""
    return [
        {
            "path": f"{directory}/{given['name']}.pem",
            "content": f"{given['certificate']}\n{given['key']}\n",
            "secret": True,
            "mode": "0600",
            "notify": "Reload haproxy",
        }
        for given in certificates
    ]


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "haproxy_pools": haproxy_pools,
            "haproxy_routes": haproxy_routes,
            "haproxy_queue_limit": haproxy_queue_limit,
            "haproxy_hard_stop_seconds": haproxy_hard_stop_seconds,
            "haproxy_max_connections": haproxy_max_connections,
            "haproxy_endpoint": haproxy_endpoint,
            "haproxy_certificate_files": haproxy_certificate_files,
            "haproxy_certificate_problems": haproxy_certificate_problems,
        }
