"""The cluster with a first release that works on both worker nodes."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from workers import Cluster

from bulkhead.release import Release


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    cluster.connections.close()


@pytest.fixture(scope="session")
def first(cluster: Cluster) -> Release:
    release = cluster.release("first")
    cluster.program(cluster.workers[0], f"migrate {release.id}")
    return release


@pytest.fixture(scope="session")
def second(cluster: Cluster) -> Release:
    return cluster.release("second")


@pytest.fixture
def working(cluster: Cluster, first: Release) -> Release:
    """The release that works on both nodes when a test begins."""
    for host in cluster.workers:
        cluster.program(host, f"switch {first.id}")
    return first
