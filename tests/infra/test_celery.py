"""Worker nodes consume every queue, and one scheduler acts. Changes nothing, so it runs on live hosts too."""

import json
from typing import Any

import pytest
import testinfra.host

testinfra_hosts = ["ansible://workers"]


@pytest.fixture
def application(host: testinfra.host.Host) -> dict[str, Any]:
    application: dict[str, Any] = host.ansible.get_variables()["application"]
    return application


@pytest.fixture
def releases(host: testinfra.host.Host) -> dict[str, Any]:
    listing: dict[str, Any] = json.loads(host.check_output("/usr/local/lib/bulkhead/release list"))
    return listing


def status_text(host: testinfra.host.Host, unit: str) -> str:
    return str(host.check_output("systemctl show --property=StatusText --value %s", unit)).strip()


def test_every_queue_and_the_scheduler_run_the_current_release_and_no_other(
    releases: dict[str, Any], application: dict[str, Any]
) -> None:
    current = releases["current"]
    assert current, "no release is current: fab deploy"
    assert set(releases["queues"]) == set(application["queues"])
    for service in (*releases["queues"].values(), *releases["beat"].values()):
        assert service == {"running": {current: "active/running"}, "enabled": [current]}


def test_every_queue_is_consumed(
    host: testinfra.host.Host, releases: dict[str, Any], application: dict[str, Any]
) -> None:
    for queue in application["queues"]:
        unit = f"{application['name']}-queue-{queue}@{releases['current']}"
        assert status_text(host, unit).startswith(f"consumes {queue} from "), unit


def test_the_scheduler_acts_or_knows_who_does(
    host: testinfra.host.Host, releases: dict[str, Any], application: dict[str, Any]
) -> None:
    said = status_text(host, f"{application['name']}-beat@{releases['current']}")
    names = host.ansible.get_variables()["groups"]["workers"]
    assert said.startswith("holds the lease") or said in [
        f"standby: {name} holds the lease" for name in names
    ]


def test_the_workers_are_not_root_and_their_sandbox_is_tight(
    host: testinfra.host.Host, releases: dict[str, Any], application: dict[str, Any]
) -> None:
    name, current = application["name"], releases["current"]
    services = [f"{name}-queue-{queue}" for queue in application["queues"]] + [f"{name}-beat"]
    for service in services:
        unit = f"{service}@{current}.service"
        main = host.check_output("systemctl show --property=MainPID --value %s", unit)
        assert host.check_output("stat --format=%%U /proc/%s", main) == name
        rated = host.run("systemd-analyze security --no-pager --threshold=39 %s", unit)
        assert rated.rc == 0, rated.stdout.splitlines()[-1]
