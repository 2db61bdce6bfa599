"""`fab status` on a cluster where all is well, against what the cluster itself says. Changes nothing."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from bulkhead.inventory import Inventory, VirtualAddress

Fab = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def status(fab_well: Fab) -> dict[str, Any]:
    done = fab_well("status", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def test_all_is_well(status: dict[str, Any]) -> None:
    assert status["findings"] == []
    assert status["unreachable"] == {}


def test_it_is_the_environment_that_was_asked_for(status: dict[str, Any], inventory: Inventory) -> None:
    assert status["environment"] == inventory.environment_name
    assert status["host_count"] == len(inventory.everyone)


def test_every_address_is_where_the_inventory_wants_it(status: dict[str, Any], inventory: Inventory) -> None:
    owners = {row["name"]: row["owners"] for row in status["addresses"]}
    assert owners == {address.name: [address.owner] for address in inventory.virtual_addresses}


def test_every_public_address_answers(
    outside: Any, public_addresses: list[VirtualAddress], inventory: Inventory
) -> None:
    path = inventory.application["health"]["ready"]
    for address in public_addresses:
        assert outside.get(path, address=address.address).status == 200, address.name


def test_every_load_balancer_sees_every_server_up(status: dict[str, Any], inventory: Inventory) -> None:
    balancers = {host.name for host in inventory.hosts("load_balancers")}
    servers = {host.name for host in inventory.hosts("app_servers")}
    pools = {pool["name"]: pool["servers"] for pool in status["pools"]}
    for name in inventory.application["pools"]:
        assert {server["name"] for server in pools[name]} == servers
        for server in pools[name]:
            assert server["states"] == dict.fromkeys(balancers, "up"), f"{name}/{server['name']}"


def test_one_member_leads_and_the_others_follow(status: dict[str, Any]) -> None:
    database = status["database"]
    roles = {member["name"]: member["role"] for member in database["members"]}
    assert [name for name, role in roles.items() if role == "leader"] == [database["leader"]]
    assert all(member["well"] for member in database["members"])
    assert sorted(member["etcd"] for member in database["members"]).count("leader") == 1


def test_the_databases_front_end_leads_to_the_leader(status: dict[str, Any]) -> None:
    primary = next(pool for pool in status["pools"] if pool["backend"] == "postgres_primary")
    for server in primary["servers"]:
        wanted = "up" if server["name"] == status["database"]["leader"] else "standby"
        assert set(server["states"].values()) == {wanted}, server["name"]


def test_one_release_runs_everywhere(status: dict[str, Any], inventory: Inventory) -> None:
    assert {row["host"] for row in status["releases"]} == {
        host.name for host in inventory.hosts("app_servers")
    }
    current = {row["current"] for row in status["releases"]}
    assert len(current) == 1
    for row in status["releases"]:
        for pool, running in row["pools"].items():
            assert list(running) == list(current), f"{row['host']}: {pool}"


def test_the_screen_fits_80_columns_and_has_no_colour_without_a_terminal(fab_well: Fab) -> None:
    done = fab_well("status")
    assert done.returncode == 0
    assert "ALL WELL" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert "\x1b" not in done.stdout


def test_addresses_that_are_home_stay_where_they_are(fab: Fab) -> None:
    done = fab("lb.failback", "--yes")
    assert done.returncode == 0, done.stderr
    assert "Nothing to do" in done.stdout
