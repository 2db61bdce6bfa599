"""One operation at a time: what happens to the next one, to a killed controller's, and to one that sleeps."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from breaking import wait_until

from bulkhead.connections import Connections
from bulkhead.errors import Error, RefusedError
from bulkhead.inventory import ROOT, Inventory
from bulkhead.lock import LEASE_SECONDS, Actions, Lock, OvertakenError, locked, now_seconds


def tells_of(operation: str, status: str) -> bool:
    findings = [finding["what"] for finding in json.loads(status)["findings"]]
    return any(f"began {operation} " in what and "did not end it" in what for what in findings)


def test_a_killed_controller_leaves_a_trace_and_no_lock_for_long(inventory: Inventory, fab: Any) -> None:
    worker = inventory.hosts("workers")[0].name
    drain = f"workers.drain {worker}"
    with subprocess.Popen(
        [Path(sys.executable).parent / "fab", *drain.split(), "--yes"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    ) as controller:
        assert controller.stdout
        for line in controller.stdout:
            if line.lstrip().startswith("[1/2]"):
                break
        controller.kill()
    refused = fab("workers.undrain", worker, "--yes")
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert f"runs {drain} since" in refused.stderr
    wait_until(
        lambda: tells_of(drain, fab("status", "--json").stdout),
        LEASE_SECONDS + 60,
        "fab status tells of what was cut short",
    )
    done = fab("workers.undrain", worker, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    told = [(each["name"], each["result"]) for each in json.loads(fab("ledger", "--json").stdout)]
    assert told[-2:] == [("workers.drain", "interrupted"), ("workers.undrain", "done")]
    wait_until(lambda: fab("status").returncode == 0, 120, "all well again")


class NoStore:
    """The sleeper has not asked etcd since it fell asleep."""

    def calls(self, *_calls: Any) -> list[dict[str, Any]]:
        raise Error("asleep")


def test_a_host_refuses_an_operation_that_slept_through_a_later_one(inventory: Inventory) -> None:
    app = inventory.hosts("app_servers")[0]
    with Connections() as connections:
        with locked(inventory, connections, "the sleeper") as actions:
            assert actions.lock
            token = actions.lock.token
            assert actions.run(app, "echo here", timeout_seconds=30).stdout == "here\n"
            with (
                pytest.raises(RefusedError, match="runs the sleeper since"),
                locked(inventory, connections, "another"),
            ):
                pass
        with locked(inventory, connections, "a later one") as later:
            later.run(app, "true", timeout_seconds=30)
        # It believes that the lock is still its own; the host knows better.
        sleeper = Actions(connections, Lock(NoStore(), "", token, now_seconds()))
        with pytest.raises(OvertakenError, match=app.name):
            sleeper.run(app, "touch /run/never", timeout_seconds=30)
        assert connections.run(app, "test -e /run/never", check=False).code == 1
