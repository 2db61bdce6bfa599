"""Checks rendered configurations with the programs of the nodes, in one container for the whole run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

IMAGE = "localhost/bulkhead-check:latest"

Checker = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def checked_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the controller; the container sees it as /x, read-only."""
    return tmp_path_factory.mktemp("rendered")


@pytest.fixture(scope="session")
def checker(checked_directory: Path) -> Iterator[Checker]:
    """Run a command beside the rendered files: `checker("haproxy", "-c", "-f", "/x/lab/haproxy.cfg")`."""
    if "CONTAINERS_CONF" not in os.environ:
        pytest.fail(
            "Run it as `scripts/with-environment lab pytest tests/render`: podman needs its settings."
        )
    volume = f"--volume={checked_directory}:/x:ro"
    started = subprocess.run(
        ["podman", "run", "--detach", "--rm", "--network=none", volume, IMAGE, "sleep", "600"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert started.returncode == 0, f"{started.stderr}\nThe image is made by `make image`."
    container = started.stdout.strip()

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["podman", "exec", container, *command], capture_output=True, text=True, check=False
        )

    yield run
    subprocess.run(["podman", "rm", "--force", "--time=0", container], capture_output=True, check=True)
