"""The cluster with HAProxy in front of its one server, and a first release that serves."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from releases import Cluster

from bulkhead.release import Release


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    pki = "/etc/bulkhead/pki"
    cluster.connections.run(
        cluster.builder,
        f"umask 077; cat {pki}/node.crt {pki}/node.key > {pki}/pair.pem; systemctl restart haproxy",
    )
    yield cluster
    cluster.connections.close()


@pytest.fixture(scope="session")
def first(cluster: Cluster) -> Release:
    return cluster.release("first")


@pytest.fixture(scope="session")
def second(cluster: Cluster) -> Release:
    return cluster.release("second")


@pytest.fixture
def serving(cluster: Cluster, first: Release) -> Release:
    """The release that serves when a test begins."""
    cluster.program(f"switch {first.id}")
    cluster.wait_serving(first.id)
    return first
