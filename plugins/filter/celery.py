"""What the role celery needs of the application's queues and schedules."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Ansible loads this file by its path, so the library beside it is not on Python's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bulkhead.shape import queue_child_megabytes


def celery_queues(queues: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The queues as the role takes them: `application | queues | celery_queues`."""
    return [{**queue, "child_megabytes": queue_child_megabytes(queue)} for queue in queues]


def celery_schedules(schedules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries as the role takes them, without the clock that an entry has not."""
    return [{name: value for name, value in entry.items() if value is not None} for entry in schedules]


def broker_addresses(brokers: Iterable[Mapping[str, str]], front_ends: Iterable[str], port: int) -> str:
    """The front ends that know which brokers live, then every broker: a client asks one after the other."""
    return ",".join(f"{address}:{port}" for address in [*front_ends, *(each["address"] for each in brokers)])


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {
            "celery_queues": celery_queues,
            "celery_schedules": celery_schedules,
            "broker_addresses": broker_addresses,
        }
