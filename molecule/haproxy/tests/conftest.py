"""What every test of the scenario starts from."""

from __future__ import annotations

import ssl
from collections.abc import Iterator

import pytest
from haproxy_nodes import BLOCK, MARKS, Client, Host, node, pools_up, wait_until


@pytest.fixture(scope="session")
def lb1() -> Host:
    return node("lb1")


@pytest.fixture(scope="session")
def lb2() -> Host:
    return node("lb2")


@pytest.fixture(scope="session")
def back1() -> Host:
    return node("back1")


@pytest.fixture(scope="session")
def back2() -> Host:
    return node("back2")


@pytest.fixture(scope="session")
def client(lb1: Host) -> Client:
    authority = lb1.file("/etc/bulkhead/pki/ca.crt").content_string
    return Client(ssl.create_default_context(cadata=authority))


@pytest.fixture
def well(lb1: Host, lb2: Host, back1: Host, back2: Host) -> Iterator[None]:
    """Begin with everything in service, and leave it so."""
    yield
    for back, role in ((back1, "primary"), (back2, "replica")):
        back.check_output(
            f"rm -f /run/sample/unready; echo {role} > /run/sample/role; systemctl start sample"
        )
    for balancer in (lb1, lb2):
        balancer.check_output(f"systemctl start haproxy && {MARKS} ready back1 back2")
        balancer.check_output(f"{BLOCK} list | while read -r kind key _; do {BLOCK} remove $kind $key; done")
    for balancer in (lb1, lb2):
        wait_until("all pools are up", lambda host=balancer: pools_up(host))
