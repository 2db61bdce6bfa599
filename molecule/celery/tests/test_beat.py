"""One scheduler acts, another takes over, and no run comes twice: also from one that slept past its lease."""

import pytest
from workers import Cluster, wait_until

from bulkhead.inventory import Host
from bulkhead.release import Release

testinfra_hosts = ["local://"]
pytestmark = pytest.mark.usefixtures("working")


def acting(cluster: Cluster) -> Host:
    return cluster.inventory.host(cluster.holder())


def other_than(cluster: Cluster, host: Host) -> Host:
    (other,) = [each for each in cluster.workers if each.name != host.name]
    return other


def wait_for_runs(cluster: Cluster, number: int = 2) -> None:
    """Runs come from here on."""
    before = cluster.runs()
    wait_until(lambda: cluster.runs() >= before + number, f"{number} more runs")


def told_as_rows(cluster: Cluster) -> None:
    """Each (entry, due) has one row, each row one job, each job one end: what the constraints promise,
    counted."""
    (row,) = cluster.sql(
        "SELECT count(*), count(DISTINCT (entry, due)), count(job_id), count(DISTINCT job_id) FROM jobs_run"
    )
    rows, times, jobs, distinct_jobs = map(int, row)
    print(f"{rows} runs at {times} times, {jobs} jobs")
    assert rows == times
    assert jobs == distinct_jobs
    # A job of an entry without a row would be a message that nobody may have sent.
    named = cluster.number("SELECT count(*) FROM jobs_job WHERE key ~ ' at [0-9]{4}-'")
    assert named == jobs


def test_one_acts_and_the_other_stands_by(cluster: Cluster, working: Release) -> None:
    wait_for_runs(cluster)
    holder = acting(cluster)
    assert "holds the lease" in cluster.status_text(holder, "beat", working)
    said = cluster.status_text(other_than(cluster, holder), "beat", working)
    assert said == f"standby: {holder.name} holds the lease"
    told_as_rows(cluster)


def test_runs_come_at_their_times_and_each_is_done(cluster: Cluster) -> None:
    wait_for_runs(cluster, 3)
    off = cluster.number(
        "SELECT count(*) FROM jobs_run WHERE entry = 'every_five' AND extract(epoch FROM due) % 5 <> 0"
    )
    assert off == 0
    wait_until(
        lambda: (
            cluster.number("SELECT count(*) FROM jobs_job WHERE key LIKE 'every_five at %' AND succeeded") > 2
        ),
        "scheduled jobs are done",
    )


def test_another_takes_over_when_the_holders_host_dies(cluster: Cluster) -> None:
    wait_for_runs(cluster)
    holder = acting(cluster)
    other, token = other_than(cluster, holder), cluster.token()
    cluster.podman("kill", holder)
    try:
        took = wait_until(lambda: cluster.holder() == other.name, f"{other.name} takes over")
        wait_for_runs(cluster)
    finally:
        cluster.start_node(holder)
    print(f"host of the scheduler killed: another one acted after {took:.1f} s")
    assert cluster.token() > token
    told_as_rows(cluster)


def test_one_that_is_stopped_past_its_lease_and_wakes_writes_nothing(
    cluster: Cluster, working: Release
) -> None:
    """Stopped again and again, at whatever instruction it happens to be, and woken when another one acts."""
    for _ in range(5):
        wait_for_runs(cluster, 1)
        holder = acting(cluster)
        other, token = other_than(cluster, holder), cluster.token()
        process = cluster.main_pid(holder, "beat", working)
        cluster.node(holder, f"kill -STOP {process}")
        try:
            took = wait_until(lambda name=other.name: cluster.holder() == name, f"{other.name} takes over")
        finally:
            cluster.node(holder, f"kill -CONT {process}")
        print(f"{holder.name} stopped: {other.name} acted after {took:.1f} s")
        wait_for_runs(cluster, 2)
        # The one that woke has written nothing since: rows carry the token under which they were written.
        last = cluster.number("SELECT token FROM jobs_run ORDER BY due DESC, id DESC LIMIT 1")
        assert last == cluster.token() > token
        told_as_rows(cluster)


def test_a_lower_token_is_refused_by_the_database(cluster: Cluster) -> None:
    """As a scheduler would that etcd, or its own clock, has told the wrong thing."""
    wait_for_runs(cluster, 1)
    before = cluster.token()
    script = (
        f"import django; django.setup(); from forge.jobs import beat; beat.act([], {before - 1}, 'the past')"
    )
    refused = cluster.program(cluster.workers[0], f'run python -c "{script}"', check=False)
    assert refused.code != 0
    assert f"token {before - 1} is refused" in refused.stderr
    assert cluster.token() == before


def test_a_scheduler_that_is_stopped_hands_its_lease_over_at_once(cluster: Cluster, working: Release) -> None:
    wait_for_runs(cluster)
    holder = acting(cluster)
    other = other_than(cluster, holder)
    unit = f"forge-beat@{working.id}"
    cluster.node(holder, f"systemctl stop {unit}")
    took = wait_until(lambda: cluster.holder() == other.name, f"{other.name} takes over")
    print(f"scheduler stopped: another one acted after {took:.1f} s")
    cluster.node(holder, f"systemctl start {unit}")
    told_as_rows(cluster)
