"""`fab queues`, and what `fab status` says of its tiers, against what the nodes say. Changes nothing, so it
runs on live hosts too."""

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import testinfra

from bulkhead.inventory import Inventory

Fab = Callable[..., subprocess.CompletedProcess[str]]


def asked(fab_well: Fab, command: str) -> dict[str, Any]:
    done = fab_well(command, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    data: dict[str, Any] = json.loads(done.stdout)
    return data


@pytest.fixture(scope="module")
def queues(fab_well: Fab) -> dict[str, Any]:
    return asked(fab_well, "queues")


@pytest.fixture(scope="module")
def status(fab_well: Fab) -> dict[str, Any]:
    return asked(fab_well, "status")


def node(name: str) -> testinfra.host.Host:
    return testinfra.get_host(f"ansible://{name}")


def test_every_broker_runs_and_may_go(queues: dict[str, Any], inventory: Inventory) -> None:
    names = [host.name for host in inventory.hosts("brokers")]
    assert [row["name"] for row in queues["brokers"]] == names
    assert queues["told_by"] in names
    for row in queues["brokers"]:
        assert (row["state"], row["alarms"], row["needed_by"]) == ("running", [], []), row


def test_every_queue_is_told_with_its_consumers(queues: dict[str, Any], inventory: Inventory) -> None:
    told = {row["name"]: row for row in queues["queues"]}
    assert list(told)[: len(inventory.application["queues"])] == list(inventory.application["queues"])
    assert told["dead_letters"]["kind"] == "dead letters"
    for name in inventory.application["queues"]:
        assert told[name]["consumers"] == len(inventory.hosts("workers")), name
        assert told[name]["why"] == ""


def test_what_it_tells_is_what_the_broker_has(queues: dict[str, Any], inventory: Inventory) -> None:
    listed = node(queues["told_by"]).check_output(
        "rabbitmqctl --silent list_queues --vhost %s --formatter json name consumers",
        inventory.application["name"],
    )
    live = {row["name"]: row["consumers"] for row in json.loads(listed)}
    for row in queues["queues"]:
        assert live[row["name"]] == row["consumers"], row


def test_status_tells_the_same(status: dict[str, Any], queues: dict[str, Any]) -> None:
    assert [row["state"] for row in status["brokers"]] == [row["state"] for row in queues["brokers"]]
    assert [row["name"] for row in status["queues"]] == [row["name"] for row in queues["queues"]]


def test_it_names_the_scheduler_that_acts(status: dict[str, Any], inventory: Inventory) -> None:
    unit = f"{inventory.application['name']}-beat@*"
    said = {
        host.name: node(host.name).check_output("systemctl show --property=StatusText --value %s", unit)
        for host in inventory.hosts("workers")
    }
    assert [name for name, words in said.items() if words.startswith("holds the lease")] == [
        status["scheduler"]
    ]


def test_nobody_is_drained(status: dict[str, Any], inventory: Inventory) -> None:
    assert {row["host"]: row["drained"] for row in status["workers"]} == {
        host.name: None for host in inventory.hosts("workers")
    }


def test_the_screen_fits_80_columns(fab_well: Fab) -> None:
    done = fab_well("queues")
    assert done.returncode == 0, done.stdout
    assert "ALL WELL" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80


@pytest.mark.parametrize("command", ["brokers.restart", "workers.restart"])
def test_a_dry_run_shows_the_hosts_and_changes_nothing(
    command: str, fab_well: Fab, inventory: Inventory
) -> None:
    done = fab_well(command, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "nothing was changed" in done.stdout
    for host in inventory.hosts(command.partition(".")[0]):
        assert host.name in done.stdout
