"""How the application's settings become lines of an environment file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# What an instance of a pool is made of; the rest of a pool's description is the load balancers'.
_POOL_FIELDS = (
    "name",
    "port",
    "workers",
    "threads",
    "timeout_seconds",
    "drain_deadline_seconds",
    "memory_megabytes",
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def gunicorn_pools(http_pools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pools as the role takes them: `application | http_pools | gunicorn_pools`."""
    return [{field: pool[field] for field in _POOL_FIELDS} for pool in http_pools]


def environment_value(value: Any) -> str:
    """A value in double quotes, escaped as systemd's EnvironmentFile= and POSIX shells read it."""
    return '"' + re.sub(r'([\\"`$])', r"\\\1", str(value)) + '"'


def environment_misfits(environment: Mapping[str, Any]) -> list[str]:
    """Names of settings that no line of an environment file can carry; the values may be secret."""
    return sorted(
        name
        for name, value in environment.items()
        if not _NAME.fullmatch(name) or isinstance(value, bool | list | dict) or not str(value).isprintable()
    )


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "gunicorn_pools": gunicorn_pools,
            "environment_value": environment_value,
            "environment_misfits": environment_misfits,
        }
