"""What the tests share: releases of the forge on two worker nodes, its jobs, and the nodes' power switch."""

import dataclasses
import json
import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bulkhead import inventory as inventories
from bulkhead.connections import Connections, Result
from bulkhead.errors import HostError
from bulkhead.inventory import ROOT, Host
from bulkhead.release import Release, find_or_build, path_on_node

PROGRAM = "/usr/local/lib/bulkhead/release"
STATE = Path(os.environ["BULKHEAD_STATE"])
# Generous: the scenario shares its cores with others.
PATIENCE_SECONDS = 120.0


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """How long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)  # between two looks at a condition
    return time.monotonic() - begun


class Cluster:
    def __init__(self) -> None:
        self.inventory = inventories.load()
        self.connections = Connections()
        self.workers = [self.inventory.host("worker1"), self.inventory.host("worker2")]
        self.database = self.inventory.host("db1")
        self.broker = self.inventory.host("mq1")
        self._threads = ThreadPoolExecutor()

    # --- releases ---

    def release(self, name: str) -> Release:
        """The forge with a mark of its own, built (or out of the store) and received by both workers."""
        source = STATE / "sources" / name
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(
            ROOT / "examples/forge",
            source,
            ignore=shutil.ignore_patterns("staticfiles", "__pycache__", ".*_cache"),
        )
        (source / "name").write_text(name)
        application = {**self.inventory.application, "source": str(source.relative_to(ROOT))}
        inventory = dataclasses.replace(self.inventory, application=application)
        release = find_or_build(inventory, self.connections, print)
        for host in self.workers:
            archive = str(path_on_node(release))
            self.connections.put(host, release.archive, archive)
            self.program(
                host, f"receive --id {release.id} --sha256 {release.manifest.sha256} --archive {archive}"
            )
        return release

    # --- nodes ---

    def node(self, host: Host, command: str, check: bool = True) -> Result:
        return self.connections.run(host, command, check=check, timeout_seconds=600)

    def program(self, host: Host, words: str, check: bool = True) -> Result:
        return self.node(host, f"{PROGRAM} {words}", check=check)

    def listing(self, host: Host) -> dict[str, Any]:
        listing: dict[str, Any] = json.loads(self.program(host, "list").stdout)
        return listing

    def podman(self, action: str, host: Host) -> None:
        name = f"{self.inventory.variables['lab_name']}-{host.name}"
        subprocess.run(["podman", *action.split(), name], check=True, capture_output=True, timeout=120)

    def start_node(self, host: Host) -> None:
        self.podman("start", host)
        self.wait_reachable(host)

    def wait_reachable(self, host: Host) -> None:
        def reachable() -> bool:
            try:
                return bool(self.connections.run(host, "true").code == 0)
            except HostError:
                self.connections.close()
                return False

        self.connections.close()
        wait_until(reachable, f"{host.name} lets us in")

    def status_text(self, host: Host, service: str, release: Release) -> str:
        unit = f"forge-{service}@{release.id}"
        return self.node(host, f"systemctl show --property=StatusText --value {unit}").stdout.strip()

    def main_pid(self, host: Host, service: str, release: Release) -> str:
        unit = f"forge-{service}@{release.id}"
        return self.node(host, f"systemctl show --property=MainPID --value {unit}").stdout.strip()

    # --- jobs ---

    def sql(self, statement: str) -> list[list[str]]:
        psql = "sudo -u postgres psql --quiet --no-align --tuples-only --field-separator='|' forge"
        command = f"{psql} -c {shlex.quote(statement)}"
        lines = self.node(self.database, command).stdout.splitlines()
        return [line.split("|") for line in lines]

    def number(self, statement: str) -> int:
        return int(self.sql(statement)[0][0])

    def make_jobs(self, prefix: str, options: str, host: Host | None = None) -> str:
        """As a web request makes them; what the command says of it."""
        command = f"run python manage.py forge_lab_jobs {shlex.quote(prefix)} {options}"
        return self.program(host or self.workers[0], command).stdout

    def making_jobs(self, prefix: str, options: str) -> Future[str]:
        """The same, beside whatever else the test does. A connection of its own: the other ones may be
        busy."""

        def make() -> str:
            connections = Connections()
            try:
                words = f"{PROGRAM} run python manage.py forge_lab_jobs {shlex.quote(prefix)} {options}"
                return connections.run(self.workers[0], words, timeout_seconds=600).stdout
            finally:
                connections.close()

        return self._threads.submit(make)

    def jobs(self, prefix: str, condition: str = "true") -> int:
        return self.number(f"SELECT count(*) FROM jobs_job WHERE key LIKE '{prefix} %' AND {condition}")

    def wait_done(self, prefix: str, number: int) -> None:
        wait_until(lambda: self.jobs(prefix, "succeeded") == number, f"{number} jobs of {prefix!r} are done")

    def told(self, prefix: str) -> dict[str, int]:
        """How often the messages of these jobs came, beside how many jobs there are."""
        (row,) = self.sql(
            "SELECT count(*), sum(deliveries), count(*) FILTER (WHERE succeeded) "
            f"FROM jobs_job WHERE key LIKE '{prefix} %'"
        )
        told = dict(zip(("jobs", "deliveries", "done"), map(int, row), strict=True))
        print(f"{prefix}: {told}")
        return told

    # --- the scheduler ---

    def holder(self) -> str:
        """The host that wrote the last run."""
        rows = self.sql("SELECT holder FROM jobs_fence")
        return rows[0][0] if rows else ""

    def token(self) -> int:
        return self.number("SELECT token FROM jobs_fence")

    def runs(self) -> int:
        return self.number("SELECT count(*) FROM jobs_run WHERE job_id IS NOT NULL")

    @contextmanager
    def without(self, action: str, back: str, host: Host) -> Iterator[None]:
        self.podman(action, host)
        try:
            yield
        finally:
            self.podman(back, host)
            self.wait_reachable(host)
