"""Operations of brokers and workers while jobs run: no job is lost, and the screens say what is going on."""

import json
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from breaking import SSH_CONFIG, on_node, wait_until

RELEASE = "sudo /usr/local/lib/bulkhead/release"
DONE_SECONDS = 240


@pytest.fixture
def prefix() -> str:
    """Names that no earlier run has used."""
    return f"operation-{uuid.uuid4().hex[:8]}"


def jobs(host: str, prefix: str, which: str = "") -> int:
    """How many there are, or how many of one kind (`succeeded=True`)."""
    query = f"Job.objects.filter(key__startswith='{prefix} ', {which}).count()"
    script = f"import django; django.setup(); from forge.jobs.models import Job; print({query})"
    return int(on_node(host, f'{RELEASE} run python -c "{script}"'))


def making_jobs(host: str, prefix: str, options: str) -> subprocess.Popen[str]:
    """As web requests make them, beside whatever else the test does."""
    command = f"{RELEASE} run python manage.py forge_lab_jobs {prefix} {options}"
    return subprocess.Popen(
        ["ssh", "-F", str(SSH_CONFIG), host, command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_done(host: str, prefix: str, number: int) -> None:
    took = wait_until(
        lambda: jobs(host, prefix, "succeeded=True") == number, DONE_SECONDS, f"{number} jobs are done"
    )
    print(f"{prefix}: {number} of {jobs(host, prefix)} jobs done, {took:.1f} s after the last was made")


def queues(fab: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(fab("queues", "--json").stdout)
    return found


def consumers(fab: Any) -> set[int]:
    return {row["consumers"] for row in queues(fab)["queues"] if row["kind"] == "queue"}


def tells_of_drain(fab: Any, host: str) -> bool:
    told = fab("status")
    return told.returncode == 5 and f"{host} is drained" in told.stdout


@pytest.fixture
def workers(inventory: Any, fab: Any) -> Iterator[list[str]]:
    names = [host.name for host in inventory.hosts("workers")]
    yield names
    for name in names:
        assert fab("workers.undrain", name, "--yes").returncode == 0
    wait_until(lambda: fab("status").returncode == 0, 120, "all well again")


def test_a_worker_host_is_drained_and_comes_back_while_jobs_run(
    workers: list[str], fab: Any, prefix: str
) -> None:
    drained, other = workers
    stream = making_jobs(other, prefix, "--number 60 --seconds 2 --pause 0.2")
    wait_until(lambda: jobs(other, prefix, "started__isnull=False") >= 4, DONE_SECONDS, "jobs run on both")
    done = fab("workers.drain", drained, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Bring it back: fab workers.undrain {drained}" in done.stdout
    wait_until(lambda: consumers(fab) == {1}, 30, "the broker counts the other host alone")
    wait_until(
        lambda: tells_of_drain(fab, drained),
        60,
        "fab status tells of the drain, and of nothing that clients notice",
    )
    # Neither a converge nor the operator's own hands start what was drained.
    assert on_node(drained, f"{RELEASE} ensure") == "unchanged"
    units = on_node(drained, "systemctl list-units --all --plain --no-legend 'forge-queue-*' 'forge-beat@*'")
    assert " active " not in units, units
    refused = fab("workers.drain", other, "--yes")
    assert refused.returncode == 3
    assert "is the last host that serves" in refused.stderr
    done = fab("workers.undrain", drained, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until(lambda: consumers(fab) == {2}, 30, "the broker counts both hosts")
    assert stream.wait(DONE_SECONDS) == 0, stream.stderr and stream.stderr.read()
    wait_done(other, prefix, 60)


def test_every_broker_restarts_while_jobs_run(workers: list[str], fab: Any, prefix: str) -> None:
    stream = making_jobs(workers[0], prefix, "--number 300 --seconds 0.1 --pause 0.3")
    wait_until(lambda: jobs(workers[0], prefix, "succeeded=True") >= 4, DONE_SECONDS, "jobs run")
    done = fab("brokers.restart", "--yes")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "All 3 brokers were restarted." in done.stdout
    assert stream.wait(DONE_SECONDS) == 0, stream.stderr and stream.stderr.read()
    wait_done(workers[0], prefix, 300)
    wait_until(lambda: queues(fab)["exit_code"] == 0, 60, "every queue is well again")
