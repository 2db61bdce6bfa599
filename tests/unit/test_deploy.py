"""The plan of a deploy, and what it does and says when a host fails: with hosts that are played."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bulkhead import deploy as subject
from bulkhead import inventory as inventories
from bulkhead.connections import Result
from bulkhead.errors import Error, FailedError, HostError, RefusedError
from bulkhead.inventory import Host, Inventory
from bulkhead.release import Manifest, Release

ID = "0123456789ab"
OLD = "ba9876543210"
SHA256 = "a" * 64
POOL = {
    "kind": "http",
    "port": 8001,
    "routes": [{"path": "/"}],
    "workers": 1,
    "threads": 1,
    "timeout_seconds": 1,
    "server_timeout_seconds": 2,
    "queue_timeout_seconds": 1,
    "drain_deadline_seconds": 40,
    "max_connections": 1,
    "memory_megabytes": 64,
    "min_healthy": 0,
}
APPLICATION: dict[str, Any] = {
    "name": "shop",
    "source": "shop",
    "requirements": "requirements.txt",
    "wsgi": "shop:application",
    "migrate": ["python", "manage.py", "migrate"],
    "health": {"live": "/livez", "ready": "/readyz"},
    "pools": {"web": POOL},
}
QUEUE = {
    "concurrency": 1,
    "prefetch": 1,
    "soft_time_limit_seconds": 10,
    "time_limit_seconds": 20,
    "memory_megabytes": 256,
    "drain_deadline_seconds": 600,
}
WEB = {"pools": {"web"}, "queues": set[str](), "beat": set[str]()}


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    common = {
        "environment_name": "test",
        "virtual_addresses": [],
        "application": APPLICATION,
        "release_store": str(tmp_path),
    }
    hosts = {
        name: {"ansible_host": f"192.0.2.{number}", **common}
        for number, name in enumerate(["app1", "app2"], 1)
    }
    return inventories.from_data(
        {
            "_meta": {"hostvars": hosts},
            "all": {"children": ["app_servers"]},
            "app_servers": {"hosts": [*hosts]},
        },
        sources="here",
    )


@pytest.fixture(autouse=True)
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Release:
    archive = tmp_path / f"{ID}.tar.zst"
    archive.write_bytes(b"archive")
    release = Release(Manifest(ID, "shop", "abi", "debian-13", SHA256, 7, 10, "builder1", "today"), archive)
    monkeypatch.setattr(subject, "find_or_build", lambda *_: release)
    return release


class Nodes:
    """Plays the nodes: answers their program and keeps what was asked, in order."""

    def __init__(self, **current: str | None) -> None:
        self.current = current
        self.received = {host: {release} if release else set() for host, release in current.items()}
        self.asked: list[str] = []
        self.fails: dict[str, str] = {}

    def run(self, host: Host, command: str, **_: Any) -> Result:
        words = command.split()
        assert words[0] == subject.PROGRAM
        if words[1] != "list":
            self.asked.append(f"{host.name} {words[1]}")
        if (reason := self.fails.get(f"{host.name} {words[1]}")) is not None:
            return Result("", f"release: {reason}\n", 1)
        if words[1] == "list":
            return Result(json.dumps(self.listing(host.name)), "", 0)
        if words[1] == "receive":
            self.received[host.name].add(ID)
        if words[1] == "switch":
            self.current[host.name] = words[2]
        return Result("", "", 0)

    def listing(self, host: str) -> dict[str, Any]:
        current = self.current[host]
        pool = (
            {"running": {current: "active/running"}, "enabled": [current]}
            if current
            else {"running": {}, "enabled": []}
        )
        return {
            "application": "shop",
            "current": current,
            "previous": None,
            "pools": {"web": pool},
            "releases": {release: {"sha256": SHA256} for release in self.received[host]},
        }

    def put(self, host: Host, *_: Any, **__: Any) -> None:
        self.asked.append(f"{host.name} put")

    def each(self, hosts: Any, function: Any, **_: Any) -> dict[str, Any]:
        answers: dict[str, Any] = {}
        for host in hosts:
            try:
                answers[host.name] = function(host)
            except Error as error:
                answers[host.name] = error
        return answers


def run(inventory: Inventory, nodes: Nodes, **options: Any) -> list[str]:
    told: list[str] = []
    subject.deploy(inventory, nodes, say=told.append, **{"yes": True, **options})  # type: ignore[arg-type]  # played
    return told


def ledger(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "operations.jsonl").read_text().splitlines()]


def test_ships_everywhere_migrates_once_and_switches_one_node_at_a_time(
    inventory: Inventory, tmp_path: Path
) -> None:
    nodes = Nodes(app1=OLD, app2=OLD)
    told = run(inventory, nodes)
    assert nodes.asked == [
        "app1 put",
        "app1 receive",
        "app2 put",
        "app2 receive",
        "app1 migrate",
        "app1 switch",
        "app2 switch",
    ]
    assert any(line.startswith("[1/5]") for line in told)
    began, *steps, ended = ledger(tmp_path)
    assert began["before"] == {"app1": OLD, "app2": OLD}
    assert [each["event"] for each in steps] == ["shipped", "migrated", "switched", "switched"]
    assert [each["host"] for each in steps[2:]] == ["app1", "app2"]
    assert ended["result"] == "done"


def test_a_release_that_serves_everywhere_changes_nothing(inventory: Inventory, tmp_path: Path) -> None:
    nodes = Nodes(app1=ID, app2=ID)
    told = run(inventory, nodes)
    assert nodes.asked == []
    assert "Nothing was changed" in told[-1]
    (entry,) = ledger(tmp_path)
    assert (entry["event"], entry["result"]) == ("ended", "done")


def test_a_node_that_has_the_archive_is_not_sent_it_and_one_that_serves_it_is_left_alone(
    inventory: Inventory,
) -> None:
    nodes = Nodes(app1=ID, app2=OLD)
    nodes.received["app2"].add(ID)
    run(inventory, nodes)
    assert nodes.asked == ["app2 migrate", "app2 switch"]


def test_a_node_whose_archive_differs_is_sent_it_again(inventory: Inventory, release: Release) -> None:
    other = replace(release.manifest, sha256="b" * 64)
    plan = subject.make_plan(
        inventory.checked_application(),
        replace(release, manifest=other),
        [(inventory.host("app1"), Nodes(app1=ID).listing("app1"))],
        {"app1": WEB},
    )
    assert [host.name for host in plan.to_ship] == ["app1"]


@pytest.mark.parametrize(
    "pool",
    [
        {"running": {}, "enabled": [ID]},
        {"running": {ID: "activating/auto-restart"}, "enabled": [ID]},
        {"running": {ID: "active/running", OLD: "active/running"}, "enabled": [ID]},
        {"running": {ID: "active/running"}, "enabled": [OLD]},
    ],
    ids=["stopped", "restarting", "interrupted", "not at boot"],
)
def test_a_node_that_is_not_whole_is_switched_again(
    inventory: Inventory, release: Release, pool: dict[str, Any]
) -> None:
    listing = Nodes(app1=ID).listing("app1") | {"pools": {"web": pool}}
    plan = subject.make_plan(
        inventory.checked_application(), release, [(inventory.host("app1"), listing)], {"app1": WEB}
    )
    assert [host.name for host in plan.to_switch] == ["app1"]
    assert not plan.migrates


def test_a_dry_run_asks_and_changes_nothing(inventory: Inventory, tmp_path: Path) -> None:
    nodes = Nodes(app1=None, app2=OLD)
    told = run(inventory, nodes, yes=False, dry_run=True)
    assert nodes.asked == []
    assert any("app1: no release -> " in line for line in told)
    assert not (tmp_path / "operations.jsonl").exists()


def test_without_a_terminal_it_refuses_and_names_the_switch(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    nodes = Nodes(app1=OLD, app2=OLD)
    with pytest.raises(RefusedError, match="--yes"):
        run(inventory, nodes, yes=False)
    assert nodes.asked == []


def test_a_failing_migration_switches_nothing(inventory: Inventory, tmp_path: Path) -> None:
    nodes = Nodes(app1=OLD, app2=OLD)
    nodes.fails["app1 migrate"] = "no such column"
    with pytest.raises(HostError) as failure:
        run(inventory, nodes)
    assert "app1" in str(failure.value)
    assert "no such column" in str(failure.value)
    assert nodes.current == {"app1": OLD, "app2": OLD}
    assert ledger(tmp_path)[-1]["result"] == "HostError"


def test_a_failing_switch_stops_there_and_says_how_things_stand(inventory: Inventory) -> None:
    nodes = Nodes(app1=OLD, app2=OLD)
    nodes.fails["app2 switch"] = "not ready within 60 s"
    with pytest.raises(HostError) as failure:
        run(inventory, nodes)
    told = str(failure.value)
    for part in ("app2", "not ready within 60 s", "Switched before: app1", "fab deploy"):
        assert part in told


def test_every_host_that_cannot_receive_is_named_and_none_is_switched(inventory: Inventory) -> None:
    nodes = Nodes(app1=OLD, app2=OLD)
    nodes.fails["app1 receive"] = nodes.fails["app2 receive"] = "no space left"
    with pytest.raises(FailedError) as failure:
        run(inventory, nodes)
    assert "app1" in str(failure.value)
    assert "app2" in str(failure.value)
    assert not [asked for asked in nodes.asked if "switch" in asked or "migrate" in asked]


def test_an_inventory_without_application_nodes_is_refused(inventory: Inventory) -> None:
    with pytest.raises(RefusedError, match="app_servers"):
        run(replace(inventory, groups={"all": ("app1",)}), Nodes())


def test_the_time_for_a_switch_holds_the_longest_drain(inventory: Inventory, release: Release) -> None:
    listings = [(inventory.host("app1"), Nodes(app1=OLD).listing("app1"))]
    plan = subject.make_plan(inventory.checked_application(), release, listings, {"app1": WEB})
    assert plan.switch_timeout_seconds > 40 + subject.START_DEADLINE_SECONDS


def with_worker(inventory: Inventory) -> Inventory:
    """app1 has the pools, app2 the queue and the scheduler."""
    application = {**APPLICATION, "celery": "shop:app", "beat": ["beat"], "queues": {"slow": QUEUE}}
    return replace(
        inventory,
        groups={**inventory.groups, "app_servers": ("app1",), "workers": ("app2",)},
        application=application,
    )


def test_workers_are_switched_before_those_who_ask_for_new_tasks(inventory: Inventory) -> None:
    nodes = Nodes(app1=OLD, app2=OLD)
    run(with_worker(inventory), nodes)
    assert [asked for asked in nodes.asked if "switch" in asked] == ["app2 switch", "app1 switch"]


def test_a_worker_is_whole_when_its_queues_and_its_scheduler_run(
    inventory: Inventory, release: Release
) -> None:
    inventory = with_worker(inventory)
    application = inventory.checked_application()
    services = subject.services_of(application, has_pools=False, has_queues=True)
    assert services == {"pools": set(), "queues": {"slow"}, "beat": {"beat"}}
    runs = {"running": {ID: "active/running"}, "enabled": [ID]}
    base = Nodes(app2=ID).listing("app2") | {"pools": {}, "queues": {"slow": runs}}
    for beat, whole in (({"beat": runs}, True), ({}, False), ({"beat": {**runs, "running": {}}}, False)):
        listings = [(inventory.host("app2"), base | {"beat": beat})]
        plan = subject.make_plan(application, release, listings, {"app2": services})
        assert plan.nodes[0].whole is whole
        assert not plan.nodes[0].has_pools
    assert plan.switch_timeout_seconds > 600 + subject.START_DEADLINE_SECONDS


def test_a_drained_worker_is_whole_when_nothing_runs_on_it_and_the_plan_says_so(
    inventory: Inventory, release: Release
) -> None:
    application = with_worker(inventory).checked_application()
    services = {"app2": subject.services_of(application, False, True)}
    host = inventory.host("app2")

    def planned(current: str, running: dict[str, str]) -> subject.Plan:
        service = {"running": running, "enabled": [current]}
        listing = Nodes(app2=current).listing("app2") | {
            "pools": {},
            "queues": {"slow": service},
            "beat": {"beat": service},
            "drained": {"by": "ann@desk", "at": "today"},
        }
        return subject.make_plan(application, release, [(host, listing)], services)

    assert planned(ID, {}).to_switch == []
    assert "  app2: has it and is drained" in planned(ID, {}).lines()
    # Something runs there all the same: the switch ends it.
    assert planned(ID, {ID: "active/running"}).to_switch == [host]
    assert planned(OLD, {}).to_switch == [host]
    assert any("drained: its workers stay stopped" in line for line in planned(OLD, {}).lines())
