"""No job is lost and none is written twice, whatever dies: on nodes that may be thrown away."""

import re
import time
import uuid

import pytest
from workers import PATIENCE_SECONDS, Cluster, wait_until

from bulkhead.release import Release

testinfra_hosts = ["local://"]


@pytest.fixture
def prefix() -> str:
    """Names that no earlier run has used."""
    return f"test {uuid.uuid4().hex[:8]}"


def slowest(said: str) -> float:
    found = re.search(r"slowest ([0-9.]+) s", said)
    assert found, said
    return float(found[1])


def test_a_worker_is_ready_when_the_broker_has_it_as_a_consumer(cluster: Cluster, working: Release) -> None:
    list_queues = "rabbitmqctl --quiet list_queues --vhost forge name type consumers"

    def consumed() -> bool:
        listed = cluster.node(cluster.broker, list_queues).stdout.splitlines()
        return {"default\tquorum\t2", "hasty\tquorum\t2"} <= set(listed)

    # The broker's list is some seconds old: the test before this one may have ended in between.
    wait_until(consumed, "the broker lists the workers of both hosts")
    for queue in ("default", "hasty"):
        for host in cluster.workers:
            said = cluster.status_text(host, f"queue-{queue}", working)
            assert said == f"consumes {queue} from 198.18.18.31"
    for host in cluster.workers:
        listing = cluster.listing(host)
        for service in (*listing["queues"].values(), listing["beat"]["beat"]):
            assert service == {"running": {working.id: "active/running"}, "enabled": [working.id]}


@pytest.mark.usefixtures("working")
def test_a_worker_killed_in_mid_task_costs_a_delivery_and_no_job(cluster: Cluster, prefix: str) -> None:
    cluster.make_jobs(prefix, "--number 12 --seconds 4")
    wait_until(lambda: cluster.jobs(prefix, "started IS NOT NULL") >= 4, "tasks run on both nodes")
    cluster.podman("kill", cluster.workers[1])
    try:
        cluster.wait_done(prefix, 12)
    finally:
        cluster.start_node(cluster.workers[1])
    told = cluster.told(prefix)
    assert (told["jobs"], told["done"]) == (12, 12)
    assert told["deliveries"] > 12, "nothing was killed in mid-task"
    wait_until(lambda: both_consume(cluster), "the killed node consumes again")


def both_consume(cluster: Cluster) -> bool:
    listed = cluster.node(
        cluster.broker, "rabbitmqctl --quiet list_queues --vhost forge name consumers", check=False
    ).stdout
    return "default\t2" in listed and "hasty\t2" in listed


def test_a_warm_stop_ends_what_it_can_and_returns_the_rest_at_the_deadline(
    cluster: Cluster, working: Release, prefix: str
) -> None:
    one, other = cluster.workers
    unit = f"forge-queue-hasty@{working.id}"
    cluster.node(other, f"systemctl stop {unit}")
    short, long = f"{prefix} short", f"{prefix} long"
    cluster.make_jobs(short, "--queue hasty --seconds 4")
    cluster.make_jobs(long, "--queue hasty --seconds 20")
    wait_until(lambda: cluster.jobs(prefix, "started IS NOT NULL") == 2, "both tasks run")
    cluster.node(one, f"systemctl stop {unit}")
    assert (cluster.jobs(short, "succeeded"), cluster.jobs(long, "succeeded")) == (1, 0)
    ready = "rabbitmqctl --quiet list_queues --vhost forge name messages_ready"
    # Celery answers for what ended in a warm stop when all of it has: the short task's message is back too.
    wait_until(lambda: "hasty\t2\n" in cluster.node(cluster.broker, ready).stdout, "the messages are back")
    cluster.node(other, f"systemctl start {unit}")
    cluster.wait_done(prefix, 2)
    cluster.node(one, f"systemctl start {unit}")
    told = cluster.told(prefix)
    assert (told["jobs"], told["done"]) == (2, 2)
    assert cluster.told(long)["deliveries"] == 2


@pytest.mark.usefixtures("working")
@pytest.mark.parametrize("action", ["stop", "pause"], ids=["stopped", "frozen"])
def test_without_a_broker_a_request_is_bounded_and_its_job_is_kept(
    cluster: Cluster, prefix: str, action: str
) -> None:
    cluster.make_jobs(f"before {prefix}", "--number 5")
    back = {"stop --time 30": "start", "pause": "unpause"}
    way = next(each for each in back if each.startswith(action))
    with cluster.without(way, back[way], cluster.broker):
        said = cluster.make_jobs(prefix, "--number 20")
        print(f"broker {action}: {said.splitlines()[-1]}")
        assert cluster.jobs(prefix, "sent IS NULL") == 20
        # A request waits for the broker once, 3 s at most, and the next ones not at all.
        assert slowest(said) < PATIENCE_SECONDS / 10
    cluster.wait_done(prefix, 20)
    told = cluster.told(prefix)
    assert (told["jobs"], told["done"]) == (20, 20)
    wait_until(lambda: both_consume(cluster), "both nodes consume again")


def test_a_blocked_broker_costs_a_request_a_bounded_time(cluster: Cluster, prefix: str) -> None:
    cluster.node(cluster.broker, "rabbitmqctl set_vm_memory_high_watermark absolute 1MB")
    try:
        said = cluster.make_jobs(prefix, "--number 20")
        print(f"broker blocked: {said.splitlines()[-1]}")
        assert slowest(said) < PATIENCE_SECONDS / 10
    finally:
        cluster.node(cluster.broker, "rabbitmqctl set_vm_memory_high_watermark 0.6")
    cluster.wait_done(prefix, 20)
    assert cluster.told(prefix)["jobs"] == 20


def test_a_release_takes_over_under_a_stream_of_tasks(
    cluster: Cluster, working: Release, second: Release, prefix: str
) -> None:
    stream = cluster.making_jobs(prefix, "--number 300 --seconds 0.3 --pause 0.1")
    for release in (second, working):
        for host in cluster.workers:
            print(cluster.program(host, f"switch {release.id}").stdout)
            listing = cluster.listing(host)
            for service in (*listing["queues"].values(), listing["beat"]["beat"]):
                assert service == {"running": {release.id: "active/running"}, "enabled": [release.id]}
    print(stream.result())
    cluster.wait_done(prefix, 300)
    told = cluster.told(prefix)
    assert (told["jobs"], told["done"]) == (300, 300)
    for release in (working, second):
        assert cluster.jobs(prefix, f"words LIKE '%{release.id}'") > 0


def test_a_release_whose_worker_cannot_start_is_refused(cluster: Cluster, working: Release) -> None:
    host = cluster.workers[0]
    broken = cluster.release("second")
    listing = cluster.listing(host)
    cluster.node(host, f"mv /srv/forge/releases/{broken.id}/app/forge/celery.py /run/celery.py")
    try:
        refused = cluster.program(host, f"switch {broken.id}", check=False)
    finally:
        cluster.node(host, f"mv /run/celery.py /srv/forge/releases/{broken.id}/app/forge/celery.py")
    assert refused.code == 1
    assert "is refused" in refused.stderr
    assert "No module named 'forge.celery'" in refused.stderr
    assert cluster.listing(host) == listing
    assert cluster.status_text(host, "queue-default", working).startswith("consumes default")


def test_systemd_rates_the_sandbox_under_four_and_nothing_runs_as_root(
    cluster: Cluster, working: Release
) -> None:
    host = cluster.workers[0]
    for service in ("queue-default", "queue-hasty", "beat"):
        unit = f"forge-{service}@{working.id}.service"
        told = cluster.node(host, f"systemd-analyze security --no-pager --threshold=39 {unit}", check=False)
        assert told.code == 0, told.stdout.splitlines()[-1]
        main = cluster.main_pid(host, service, working)
        assert cluster.node(host, f"stat --format=%U /proc/{main}").stdout.strip() == "forge"


def test_secrets_are_on_no_command_line(cluster: Cluster, working: Release) -> None:
    host = cluster.workers[0]
    lines = cluster.node(host, "cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '", check=False).stdout
    shown = cluster.node(host, f"systemctl show 'forge-queue-default@{working.id}'").stdout
    secrets = cluster.node(
        host, "sed -n 's/^[A-Z_]*_\\(PASSWORD\\|KEY\\)=\"\\(.*\\)\"/\\2/p' /etc/forge/environment"
    )
    found = secrets.stdout.split()
    assert len(found) == 4
    for secret in found:
        assert secret not in lines
        assert secret not in shown


def test_a_repository_is_announced_and_counted(cluster: Cluster, working: Release) -> None:
    """The forge's own tasks, from the promise to the page's rows."""
    name = f"r{time.time():.0f}"
    script = (
        "import django; django.setup(); "
        "from forge.accounts.models import Account; from forge.repositories.forms import RepositoryForm; "
        "owner, _ = Account.objects.get_or_create(username='tester'); "
        f"form = RepositoryForm({{'name': '{name}', 'kind': 'git'}}, owner=owner); "
        "assert form.is_valid(), form.errors; print(form.save_unless_taken())"
    )
    cluster.program(cluster.workers[0], f'run python -c "{script}"')
    found = f"SELECT count(*) FROM repositories_activity WHERE words = 'made tester/{name}'"
    wait_until(lambda: cluster.number(found) == 1, "the activity feed has it")
