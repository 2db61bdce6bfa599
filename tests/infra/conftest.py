"""What the suite needs to look at a cluster as its users and operators do: the lab, the scenario
`cluster` or live hosts. ANSIBLE_INVENTORY says which; BULKHEAD_URL and BULKHEAD_CA may name another way."""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bulkhead import inventory as inventories
from bulkhead.inventory import ROOT, Inventory, VirtualAddress
from bulkhead.status.outside import client_context

TIMEOUT_SECONDS = 15
# An environment may do without these tiers.
OPTIONAL = {"test_rabbitmq.py": "brokers", "test_queues.py": "brokers", "test_celery.py": "workers"}


@cache
def has(tier: str) -> bool:
    return bool(inventories.load().hosts(tier))


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    tier = OPTIONAL.get(collection_path.name)
    return True if tier and collection_path.parent == Path(__file__).parent and not has(tier) else None


@pytest.fixture(scope="session")
def inventory() -> Inventory:
    return inventories.load()


@pytest.fixture(scope="session")
def public_addresses(inventory: Inventory) -> list[VirtualAddress]:
    return [address for address in inventory.virtual_addresses if address.kind == "public"]


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class Outside:
    """A client of the cluster: HTTPS through a virtual address, with the certificate checked."""

    def __init__(self, address: str, port: int, name: str, context: ssl.SSLContext) -> None:
        self._address = address
        self._port = port
        self._name = name
        self._context = context

    def get(
        self, path: str, *, address: str | None = None, headers: dict[str, str] | None = None
    ) -> Response:
        """Asks for a path; `address` chooses a virtual address, and the first public one is the default."""
        connection = HTTPSConnection(self._name, self._port, timeout=TIMEOUT_SECONDS)
        try:
            plain = socket.create_connection((address or self._address, self._port), timeout=TIMEOUT_SECONDS)
            connection.sock = self._context.wrap_socket(plain, server_hostname=self._name)
            connection.request("GET", path, headers={"Host": self._name, **(headers or {})})
            answer = connection.getresponse()
            return Response(
                answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()


@pytest.fixture(scope="session")
def outside(inventory: Inventory, public_addresses: list[VirtualAddress]) -> Outside:
    names = inventory.variables.get("public_names") or []
    url = urlsplit(os.environ.get("BULKHEAD_URL") or f"https://{public_addresses[0].address}")
    address = str(url.hostname)
    return Outside(address, url.port or 443, str(names[0]) if names else address, client_context(inventory))


Fab = Callable[..., subprocess.CompletedProcess[str]]

SCREENS = 5


@pytest.fixture(scope="session")
def fab() -> Fab:
    """Runs `fab` as an operator does: from the project's root, without a terminal."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).parent / "fab", *words],
            cwd=ROOT,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=900,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def fab_well(fab: Fab) -> Fab:
    """`fab`, for screens of a cluster where all is well. They wait some seconds for a host and no longer,
    which may be too short while these tests keep the machine busy: then they are asked again."""

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        for _ in range(SCREENS):
            done = fab(*words)
            if done.returncode == 0:
                break
        return done

    return run
