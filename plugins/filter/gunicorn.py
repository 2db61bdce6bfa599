"""What the role gunicorn needs of the application's pools."""

from __future__ import annotations

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


def gunicorn_pools(http_pools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The pools as the role takes them: `application | http_pools | gunicorn_pools`."""
    return [{field: pool[field] for field in _POOL_FIELDS} for pool in http_pools]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"gunicorn_pools": gunicorn_pools}
