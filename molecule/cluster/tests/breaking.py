"""Breaks nodes of the scenario's own cluster, asks them, and waits."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

PODMAN_SECONDS = 60
PASSWORD = "a-long-enough-one"  # of the account that the tests make
SSH_CONFIG = Path(os.environ["BULKHEAD_STATE"]) / "ssh_config"


def on_node(host: str, command: str, *, given: str = "") -> str:
    done = subprocess.run(
        ["ssh", "-F", str(SSH_CONFIG), host, command],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{host}: {command}: {done.stderr}"
    return done.stdout.strip()


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
        self._frozen: set[str] = set()

    def _podman(self, *words: str) -> str:
        done = subprocess.run(
            ["podman", *words], capture_output=True, text=True, timeout=PODMAN_SECONDS, check=True
        )
        return done.stdout

    def kill(self, host: str) -> None:
        """As if its power were cut."""
        self._touched.add(host)
        self._podman("kill", self._prefix + host)

    def freeze(self, host: str) -> None:
        """Its processes stand still; its kernel still answers."""
        self._touched.add(host)
        self._podman("pause", self._prefix + host)
        self._frozen.add(host)

    def start(self, host: str) -> None:
        self._podman("start", self._prefix + host)

    def heal(self) -> None:
        for host in sorted(self._frozen):
            self._podman("unpause", self._prefix + host)
        for host in sorted(self._touched - self._frozen):
            self.start(host)

    @property
    def was_touched(self) -> bool:
        return bool(self._touched)
