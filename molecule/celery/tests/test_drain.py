"""A drained worker node stays drained, whatever would start its workers, until it is undrained."""

import uuid
from collections.abc import Iterator

import pytest
from workers import Cluster, wait_until

from bulkhead.inventory import Host
from bulkhead.release import Release

testinfra_hosts = ["local://"]


@pytest.fixture
def drained(cluster: Cluster, working: Release) -> Iterator[Host]:
    host = cluster.workers[1]
    assert cluster.listing(host)["current"] == working.id
    told = cluster.program(host, "drain --by ann@desk").stdout
    assert told.count("ended what it had") == 3, told
    yield host
    cluster.program(host, "undrain")
    cluster.program(host, f"switch {working.id}")


def runs(cluster: Cluster, host: Host) -> set[str]:
    """The releases of queues and scheduler that run there."""
    listing = cluster.listing(host)
    services = (*listing["queues"].values(), *listing["beat"].values())
    return {release for service in services for release in service["running"]}


def test_it_outlasts_a_boot_a_converge_and_a_deploy(cluster: Cluster, drained: Host, second: Release) -> None:
    mark = cluster.listing(drained)["drained"]
    assert mark["by"] == "ann@desk"
    cluster.podman("restart --time 10", drained)
    cluster.wait_reachable(drained)
    cluster.node(drained, "systemctl is-system-running --wait", check=False)
    assert runs(cluster, drained) == set()
    assert cluster.program(drained, "ensure").stdout == "unchanged\n"
    cluster.program(drained, "reload")
    cluster.program(drained, f"switch {second.id}")
    assert runs(cluster, drained) == set()
    listing = cluster.listing(drained)
    assert listing["current"] == second.id
    assert listing["drained"] == mark
    # Every instance that the boot would start is of the new release.
    assert {tuple(service["enabled"]) for service in listing["queues"].values()} == {(second.id,)}


def test_undrained_it_serves_the_release_that_came_meanwhile(
    cluster: Cluster, drained: Host, second: Release
) -> None:
    cluster.program(drained, f"switch {second.id}")
    told = cluster.program(drained, "undrain").stdout
    assert told.endswith(f"undrained, on {second.id}\n")
    assert runs(cluster, drained) == {second.id}
    for queue in ("default", "hasty"):
        said = cluster.status_text(drained, f"queue-{queue}", second)
        assert said.startswith(f"consumes {queue}"), said


def test_the_other_host_schedules_and_works_meanwhile(cluster: Cluster, drained: Host) -> None:
    other = cluster.workers[0]
    wait_until(lambda: cluster.holder() == other.name, f"{other.name} schedules instead of {drained.name}")
    prefix = f"while drained {uuid.uuid4().hex[:8]}"
    cluster.make_jobs(prefix, "--number 4", other)
    cluster.wait_done(prefix, 4)
