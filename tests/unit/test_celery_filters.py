"""What the role celery is given."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from test_application import QUEUE, SCHEDULE

PLUGIN = Path(__file__).resolve().parents[2] / "plugins/filter/celery.py"


@pytest.fixture(scope="module")
def filters() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("celery_filters", PLUGIN)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.FilterModule().filters()
    return found


def test_each_queue_knows_what_its_processes_may_come_to(filters: dict[str, Any]) -> None:
    (queue,) = filters["celery_queues"]([{"name": "default", **QUEUE}])
    assert queue == {"name": "default", **QUEUE, "child_megabytes": 144}


def test_an_entry_has_one_clock(filters: dict[str, Any]) -> None:
    (entry,) = filters["celery_schedules"]([{"name": "housekeeping", **SCHEDULE, "cron": None}])
    assert entry == {"name": "housekeeping", **SCHEDULE}


def test_clients_ask_the_front_end_first_and_know_every_broker(filters: dict[str, Any]) -> None:
    brokers = [{"name": "mq1", "address": "192.0.2.31"}, {"name": "mq2", "address": "192.0.2.32"}]
    assert filters["broker_addresses"](brokers, ["192.0.2.103"], 5671) == (
        "192.0.2.103:5671,192.0.2.31:5671,192.0.2.32:5671"
    )
