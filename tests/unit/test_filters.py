"""The shapes that roles ask for, by way of the filters themselves."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from test_application import QUEUE, changed

PLUGIN = Path(__file__).resolve().parents[2] / "plugins/filter/bulkhead.py"


@pytest.fixture(scope="module")
def filters() -> dict[str, Callable[..., Any]]:
    spec = importlib.util.spec_from_file_location("filter_plugin", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Callable[..., Any]] = module.FilterModule().filters()
    return found


Filters = dict[str, Callable[..., Any]]


def test_pools_come_as_lists_with_their_names(filters: Filters) -> None:
    assert [pool["name"] for pool in filters["http_pools"](changed())] == ["web", "api"]


def test_a_broken_application_is_refused_with_its_problems(filters: Filters) -> None:
    with pytest.raises(AnsibleFilterError, match=r"application\.pools\.web\.port: it is 70000"):
        filters["http_pools"](changed("pools", "web", "port", to=70000))


def test_servers_are_named_by_their_internal_address(filters: Filters) -> None:
    hostvars = {
        "app1": {"ansible_host": "203.0.113.21", "node_address": "192.0.2.21"},
        "app2": {"ansible_host": "192.0.2.22"},
    }
    assert filters["node_servers"](["app1", "app2"], hostvars) == [
        {"name": "app1", "address": "192.0.2.21"},
        {"name": "app2", "address": "192.0.2.22"},
    ]


def test_addresses_are_chosen_by_kind(filters: Filters) -> None:
    addresses = [{"address": "192.0.2.1", "kind": "public"}, {"address": "192.0.2.2", "kind": "internal"}]
    assert filters["addresses_of_kind"](addresses, "internal") == ["192.0.2.2"]


def test_the_narrowest_network_carries_an_address(filters: Filters) -> None:
    networks = [
        {"interface": "eth0", "network": "192.0.0.0/16"},
        {"interface": "eth1", "network": "192.0.2.0/24"},
    ]
    assert filters["interface_of"]("192.0.2.101", networks) == {
        "interface": "eth1",
        "prefix": 24,
        "cidr": "192.0.2.101/24",
    }
    with pytest.raises(AnsibleFilterError, match=r"203\.0\.113\.1 .*192\.0\.2\.0/24"):
        filters["interface_of"]("203.0.113.1", networks)


def test_connections_count_threads_processes_and_the_switch(filters: Filters) -> None:
    application = changed("queues", "default", to={**QUEUE, "concurrency": 3})
    # web has 2 workers of 4 threads, api 1 of 4, and a readiness check in each process: 15 on each node.
    assert filters["database_connections"](application, 2, 2) == {
        "pools": 30,
        "switch": 15,
        "queues": 10,
        "total": 55,
    }


def test_a_scheduler_holds_two_connections_on_each_worker_node(filters: Filters) -> None:
    application = {**changed("queues", "default", to={**QUEUE, "concurrency": 20}), "beat": ["beat"]}
    # Now a worker node that switches needs more than an application node: 20 and 2.
    budget = filters["database_connections"](application, 2, 2)
    assert (budget["queues"], budget["switch"]) == (44, 22)


def test_queues_and_schedules_come_as_lists_with_their_names(filters: Filters) -> None:
    application = changed()
    assert filters["queues"](application) == [{"name": "default", **QUEUE}]
    (schedule,) = filters["schedules"](application)
    assert (schedule["name"], schedule["every_seconds"], schedule["cron"]) == ("housekeeping", 3600, None)


def test_the_processes_of_a_queue_share_what_its_parent_leaves(filters: Filters) -> None:
    assert filters["queue_child_megabytes"](QUEUE) == (384 - 96) // 2


@pytest.mark.parametrize("megabytes", [512, 1024, 2048, 65536])
def test_postgres_fits_its_node_even_when_every_connection_sorts(filters: Filters, megabytes: int) -> None:
    connections = 100
    sizing = filters["postgres_sizing"](megabytes, connections)
    assert sizing["shared_buffers_megabytes"] == megabytes // 4
    worst = sizing["shared_buffers_megabytes"] + 2 * connections * sizing["work_mem_megabytes"]
    # Below 1 GiB the least that work_mem may sensibly be, 1 MB, is what rules.
    assert worst <= megabytes or sizing["work_mem_megabytes"] == 1
