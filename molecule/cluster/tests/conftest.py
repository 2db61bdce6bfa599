"""Breaks nodes of the scenario's own cluster and watches it from outside. The fixtures of the infra suite are
here as well (one file serves both)."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

pytest_plugins = ["tests.infra.conftest"]

PODMAN_SECONDS = 60


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """Seconds until the condition held; fails the test when it did not within `seconds`."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        if condition():
            return time.monotonic() - began
        time.sleep(0.2)  # between two looks at the condition
    pytest.fail(f"{what}: not within {seconds:.0f} s")


class Nodes:
    """The containers of this scenario, and of no other."""

    def __init__(self, lab_name: str) -> None:
        self._prefix = f"{lab_name}-"
        self._touched: set[str] = set()

    def _podman(self, *words: str) -> str:
        done = subprocess.run(
            ["podman", *words], capture_output=True, text=True, timeout=PODMAN_SECONDS, check=True
        )
        return done.stdout

    def kill(self, host: str) -> None:
        """As if its power were cut."""
        self._touched.add(host)
        self._podman("kill", self._prefix + host)

    def start(self, host: str) -> None:
        self._podman("start", self._prefix + host)

    def heal(self) -> None:
        for host in sorted(self._touched):
            self.start(host)

    @property
    def was_touched(self) -> bool:
        return bool(self._touched)


@pytest.fixture(scope="session")
def long_form() -> bool:
    return os.environ.get("BULKHEAD_PROOF") == "long"


@pytest.fixture
def nodes(inventory, fab) -> Iterator[Nodes]:  # type: ignore[no-untyped-def]  # fixtures of another conftest
    found = Nodes(str(inventory.variables["lab_name"]))
    yield found
    found.heal()

    if not found.was_touched:
        return
    # Placement is an operation: a node that comes back takes nothing by itself.
    wait_until(lambda: fab("lb.failback", "--yes").returncode == 0, 60, "every address back at its owner")
    wait_until(lambda: fab("status").returncode == 0, 90, "all well again")
