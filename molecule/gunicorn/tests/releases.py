"""What the tests share: releases made of the example, the node's program, and a load through HAProxy."""

import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bulkhead import inventory as inventories
from bulkhead.connections import Connections, Result
from bulkhead.errors import UnreachableError
from bulkhead.inventory import ROOT, Inventory
from bulkhead.release import Release, find_or_build, path_on_node

PROGRAM = "/usr/local/lib/bulkhead/release"
STATE = Path(os.environ["BULKHEAD_STATE"])
LOAD_SECONDS_LIMIT = 600


@dataclass
class Load:
    """What the clients saw."""

    requests: int = 0
    failures: list[str] = field(default_factory=list)
    releases: dict[str, int] = field(default_factory=dict)
    slowest_seconds: float = 0.0


class Cluster:
    def __init__(self) -> None:
        self.inventory = inventories.load()
        self.connections = Connections()
        self.app = self.inventory.host("app1")
        self.builder = self.inventory.host("builder1")

    # --- releases ---

    def inventory_of(self, name: str, **files: str) -> Inventory:
        """The inventory with a source of its own: the example and the given files."""
        source = STATE / "sources" / name
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(ROOT / self.inventory.application["source"], source)
        (source / "name").write_text(name)
        for file, text in files.items():
            (source / file).write_text(text)
        application = {**self.inventory.application, "source": str(source.relative_to(ROOT))}
        return dataclasses.replace(self.inventory, application=application)

    def release(self, name: str, **files: str) -> Release:
        """Built (or out of the store) and received by the node."""
        release = find_or_build(self.inventory_of(name, **files), self.connections, print)
        self.receive(release, release.manifest.sha256)
        return release

    def receive(self, release: Release, sha256: str, check: bool = True) -> Result:
        archive = str(path_on_node(release))
        self.connections.put(self.app, release.archive, archive)
        return self.program(f"receive --id {release.id} --sha256 {sha256} --archive {archive}", check=check)

    # --- the node ---

    def node(self, command: str, check: bool = True, timeout_seconds: float = 300) -> Result:
        return self.connections.run(self.app, command, check=check, timeout_seconds=timeout_seconds)

    def program(self, words: str, check: bool = True) -> Result:
        return self.node(f"{PROGRAM} {words}", check=check)

    def listing(self) -> dict[str, Any]:
        listing: dict[str, Any] = json.loads(self.program("list").stdout)
        return listing

    def running(self, pool: str = "web") -> list[str]:
        return sorted(self.listing()["pools"][pool]["running"])

    # --- the outside ---

    def get(self, path: str, where: str = "http://127.0.0.1:8080", options: str = "") -> Result:
        return self.connections.run(
            self.builder,
            f"curl --silent --show-error --include --max-time 60 {options} '{where}{path}'",
            check=False,
        )

    def stream(self, seconds: int) -> Callable[[], str]:
        """A long response that has begun; what is returned waits for its end and gives all that came."""
        curl = f"curl --silent --include --no-buffer 'http://127.0.0.1:8080/stream?seconds={seconds}'"
        command = ["ssh", "-F", str(STATE / "ssh_config"), "builder1", curl]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        began = process.stdout.readline()

        def rest() -> str:
            told = began + process.stdout.read()
            process.wait()
            return told

        return rest

    def serving(self) -> str:
        """The release that answers through HAProxy, or what went wrong."""
        answer = self.get("/")
        lines = [line for line in answer.stdout.splitlines() if line.lower().startswith("x-release:")]
        return lines[0].partition(":")[2].strip() if lines else answer.stdout + answer.stderr

    def wait_serving(self, release: str, seconds: float = 90) -> None:
        limit = time.monotonic() + seconds
        while (found := self.serving()) != release:
            assert time.monotonic() < limit, f"{release} does not serve, but: {found}"
            time.sleep(0.2)

    def wait_ssh(self, seconds: float = 60) -> None:
        """After a boot: sshd may come later than the application."""
        limit = time.monotonic() + seconds
        while True:
            try:
                self.node("true")
            except UnreachableError:
                assert time.monotonic() < limit, "app1 does not answer on SSH"
            else:
                return

    def pids(self, pool: str, release: str) -> list[str]:
        main = self.node(f"systemctl show --property=MainPID --value example-{pool}@{release}").stdout.strip()
        return self.node(f"cat /proc/{main}/task/{main}/children").stdout.split()

    @contextmanager
    def load(self) -> Iterator[Load]:
        """Clients with kept and with new connections while the block lasts; the figures are there after."""
        seen = Load()
        self.connections.put(self.builder, Path(__file__).parent / "load.py", "/run/load.py")
        program = f"exec python3 /run/load.py {LOAD_SECONDS_LIMIT}"
        command = ["ssh", "-F", str(STATE / "ssh_config"), "builder1", program]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin
            assert process.stdout
            assert process.stdout.readline() == "running\n"
            try:
                yield seen
            finally:
                process.stdin.close()  # the load ends with its input
                told = json.loads(process.stdout.read())
                process.wait(timeout=30)
        for name, value in told.items():
            setattr(seen, name, value)
        print(
            f"{seen.requests} requests, {len(seen.failures)} lost, "
            f"slowest {seen.slowest_seconds:.2f} s, {seen.releases}"
        )
