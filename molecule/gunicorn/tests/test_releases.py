"""A release takes over, fails to, comes back after a boot: on a node that may be thrown away.

The load goes through HAProxy with kept connections, and nothing in it asks twice: what is lost counts.
"""

import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from releases import PROGRAM, Cluster

from bulkhead.deploy import deploy
from bulkhead.errors import HostError
from bulkhead.release import Release, find_or_build
from tests.scenario import converge

testinfra_hosts = ["local://"]
# `make prove` takes longer to be surer.
ROUNDS = 5 if os.environ.get("BULKHEAD_PROOF") == "long" else 1


def test_a_swap_under_load_loses_nothing_and_a_stream_ends_whole(
    cluster: Cluster, serving: Release, second: Release
) -> None:
    with cluster.load() as seen:
        stream = cluster.stream(8)
        for release in [second, serving] * ROUNDS:
            cluster.program(f"switch {release.id}")
            assert cluster.running() == [release.id]
            assert cluster.listing()["current"] == release.id
        told = stream()
    assert told.endswith("whole\n")
    assert f"x-release: {serving.id}" in told.lower()
    assert seen.failures == []
    assert set(seen.releases) == {serving.id, second.id}
    assert seen.requests > 200 * ROUNDS


def test_a_reload_under_load_loses_nothing_and_brings_the_new_environment(
    cluster: Cluster, serving: Release
) -> None:
    before = set(cluster.pids("web", serving.id))
    value = f"set at {time.time()}"
    with cluster.load() as seen:
        cluster.node(f"""sed -i '/^EXAMPLE_ADDED/d; $aEXAMPLE_ADDED="{value}"' /etc/example/environment""")
        cluster.program("reload")
    assert cluster.get("/environment?name=EXAMPLE_ADDED").stdout.endswith(value)
    assert not before & set(cluster.pids("web", serving.id))
    assert seen.failures == []
    assert seen.requests > 100


def test_a_renewed_certificate_is_served_and_nothing_is_lost(cluster: Cluster, serving: Release) -> None:
    def shown() -> str:
        hello = "openssl s_client -connect 198.18.16.21:8001 </dev/null 2>/dev/null"
        return cluster.node(f"{hello} | openssl x509 -noout -serial").stdout.strip()

    before = shown()
    with cluster.load() as seen:
        cluster.node("rm /etc/bulkhead/pki/node.crt")
        done = converge("gunicorn", "--limit=app1")
    assert done.returncode == 0, done.stdout[-4000:]
    now = shown()
    assert now == cluster.node("openssl x509 -noout -serial -in /etc/bulkhead/pki/node.crt").stdout.strip()
    assert now != before
    assert seen.failures == []


def test_a_stopping_instance_ends_what_it_has_until_its_deadline_and_no_longer(
    cluster: Cluster, serving: Release
) -> None:
    unit = f"example-web@{serving.id}"
    long, short = cluster.stream(60), cluster.stream(5)
    started = time.monotonic()
    cluster.node(f"systemctl stop {unit}")
    took = time.monotonic() - started
    # 12 s is the pool's drain deadline; at 27 s systemd would have killed it.
    assert 10 < took < 25
    assert short().endswith("whole\n")
    assert not long().endswith("whole\n")
    # No instance, no socket: HAProxy is refused at once instead of waiting.
    refused = cluster.get(
        "/", where="https://app1:8001", options="--resolve app1:8001:198.18.16.21 --insecure"
    )
    assert "Could not connect" in refused.stderr or "Failed to connect" in refused.stderr
    assert cluster.program("ensure").stdout.endswith("changed\n")
    cluster.wait_serving(serving.id)
    assert cluster.program("ensure").stdout == "unchanged\n"


def test_an_unready_release_never_takes_a_request_and_the_old_one_stays(
    cluster: Cluster, serving: Release
) -> None:
    broken = cluster.release("broken", unready="")
    # The shortest way to the end of the deadline: the role's setting for this one run.
    shorter = 's/"start_deadline_seconds": 240/"start_deadline_seconds": 5/'
    cluster.node(f"sed -i.kept '{shorter}' /etc/bulkhead/release.d/gunicorn.json")
    try:
        with cluster.load() as seen:
            refused = cluster.program(f"switch {broken.id}", check=False)
    finally:
        cluster.node("mv /etc/bulkhead/release.d/gunicorn.json.kept /etc/bulkhead/release.d/gunicorn.json")
    assert refused.code == 1
    assert "the release says no" in refused.stderr
    assert f"@{broken.id}.service" in refused.stderr
    assert f"serving: {serving.id}" in refused.stdout
    assert seen.failures == []
    assert set(seen.releases) == {serving.id}
    listing = cluster.listing()
    assert listing["current"] == serving.id
    for pool in ("web", "api"):
        assert listing["pools"][pool] == {"running": {serving.id: "active/running"}, "enabled": [serving.id]}


def test_a_release_that_cannot_start_is_given_up_before_its_deadline(
    cluster: Cluster, serving: Release
) -> None:
    broken = cluster.release("crashing", **{"example.py": "raise SystemError('no such luck')\n"})
    refused = cluster.program(f"switch {broken.id}", check=False)
    assert re.search(r"it ended \d times", refused.stderr)
    assert refused.code == 1
    assert "no such luck" in refused.stderr
    assert cluster.serving() == serving.id


@pytest.mark.parametrize(
    "moment",
    [
        "systemctl --quiet is-active example-web@{id}",
        "test -e /etc/systemd/system/multi-user.target.wants/example-web@{id}.service",
        'test "$(readlink /srv/example/current)" = releases/{id}',
    ],
    ids=["started", "enabled", "current"],
)
def test_a_switch_that_is_killed_serves_all_the_time_and_the_next_ends_it(
    cluster: Cluster, serving: Release, second: Release, moment: str
) -> None:
    until = moment.format(id=second.id)
    with cluster.load() as seen:
        killed = cluster.node(
            f"{PROGRAM} switch {second.id} & until {until}; do sleep 0.05; done; kill -KILL $!; wait $!",
            check=False,
        )
        assert killed.code == 128 + 9
        assert cluster.serving() in (serving.id, second.id)
        cluster.program(f"switch {second.id}")
    assert seen.failures == []
    assert cluster.running() == [second.id]
    assert cluster.listing()["pools"]["web"]["enabled"] == [second.id]


def test_two_runs_at_once_are_refused(cluster: Cluster, serving: Release, second: Release) -> None:
    with ThreadPoolExecutor() as pool:
        running = pool.submit(cluster.program, f"switch {second.id}")
        begun = f"grep -q 'switch {second.id}' /run/lock/bulkhead-release.lock"
        cluster.node(f"until {begun}; do sleep 0.05; done")
        refused = cluster.program(f"switch {serving.id}", check=False)
        running.result()
    assert refused.code == 1
    assert "another run holds the lock" in refused.stderr


def test_a_wrong_digest_is_refused_with_both_values(cluster: Cluster, second: Release) -> None:
    fresh = find_or_build(cluster.inventory_of("digest"), cluster.connections, print)
    refused = cluster.receive(fresh, "0" * 64, check=False)
    assert refused.code == 1
    assert "0" * 64 in refused.stderr
    assert fresh.manifest.sha256 in refused.stderr
    assert fresh.id not in cluster.listing()["releases"]
    wrong = cluster.program(f"switch {second.id} --sha256 {'0' * 64}", check=False)
    assert wrong.code == 1
    assert second.manifest.sha256 in wrong.stderr


@pytest.mark.parametrize(
    "command",
    [
        "mkdir {id}; touch escaped; tar -cPf - {id} ../hostile/escaped",
        "mkdir {id}; ln -s /etc {id}/etc; tar -cf - {id}",
        "mkdir {id}; mknod {id}/zero c 1 5; tar -cf - {id}",
    ],
    ids=["path", "link", "device"],
)
def test_an_archive_that_reaches_outside_is_refused(cluster: Cluster, command: str) -> None:
    release = "0123456789ab"
    made = command.format(id=release)
    cluster.node(f"rm -rf /run/hostile; mkdir /run/hostile; cd /run/hostile; ({made}) | zstd -q -o archive")
    digest = cluster.node("sha256sum /run/hostile/archive").stdout.split()[0]
    refused = cluster.program(
        f"receive --id {release} --sha256 {digest} --archive /run/hostile/archive", check=False
    )
    assert refused.code == 1
    assert "the archive" in refused.stderr
    assert release not in cluster.listing()["releases"]
    assert cluster.node("ls -A /srv/example/releases | grep incoming", check=False).stdout == ""


@pytest.mark.usefixtures("serving")
def test_only_holders_of_a_cluster_certificate_get_in(cluster: Cluster) -> None:
    options = "--cacert /etc/bulkhead/pki/ca.crt --resolve app1:8001:198.18.16.21"
    pair = "--cert /etc/bulkhead/pki/node.crt --key /etc/bulkhead/pki/node.key"
    assert "200 OK" in cluster.get("/", where="https://app1:8001", options=f"{options} {pair}").stdout
    stranger = cluster.get("/", where="https://app1:8001", options=options)
    assert stranger.stdout == ""
    assert "certificate required" in stranger.stderr
    own = "/run/own"
    cluster.connections.run(
        cluster.builder,
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=app1 -days 1 "
        f"-keyout {own}.key -out {own}.crt 2>&1",
    )
    forged = cluster.get(
        "/", where="https://app1:8001", options=f"{options} --cert {own}.crt --key {own}.key"
    )
    assert forged.stdout == ""


def test_the_environment_arrives_as_it_was_written(cluster: Cluster, serving: Release) -> None:
    wanted = cluster.inventory.application["environment"]["EXAMPLE_QUOTING"]
    assert cluster.get("/environment?name=EXAMPLE_QUOTING").stdout.endswith(wanted)
    by_systemd = cluster.node(
        "systemd-run --quiet --pipe --wait --property=EnvironmentFile=/etc/example/environment"
        " printenv EXAMPLE_QUOTING"
    )
    assert by_systemd.stdout == f"{wanted}\n"
    assert cluster.get("/environment?name=RELEASE_ID").stdout.endswith(serving.id)


def test_the_client_is_who_the_load_balancer_says_and_secrets_are_on_no_command_line(
    cluster: Cluster, serving: Release
) -> None:
    secret = cluster.node(
        "sed -n 's/^DATABASE_PASSWORD=\"\\(.*\\)\"/\\1/p' /etc/example/environment"
    ).stdout.strip()
    assert secret
    assert secret not in cluster.node("cat /proc/*/cmdline 2>/dev/null | tr '\\0' ' '", check=False).stdout
    assert secret not in cluster.node(f"systemctl show 'example-web@{serving.id}'").stdout
    assert cluster.node("stat -c '%a %U %G' /etc/example/environment").stdout == "640 root example\n"


def test_restarted_sockets_and_a_boot_bring_the_current_release_back(
    cluster: Cluster, serving: Release
) -> None:
    cluster.node("systemctl restart example-web.socket")
    cluster.wait_serving(serving.id)
    cluster.program("restart")
    cluster.wait_serving(serving.id)
    name = f"{cluster.inventory.variables['lab_name']}-app1"
    subprocess.run(["podman", "restart", "--time", "20", name], check=True, capture_output=True)
    cluster.connections.close()
    cluster.wait_serving(serving.id, seconds=180)
    cluster.wait_ssh()
    assert cluster.running() == [serving.id]
    assert cluster.running("api") == [serving.id]


def test_a_killed_gunicorn_comes_back_by_itself(cluster: Cluster, serving: Release) -> None:
    unit = f"example-web@{serving.id}"
    cluster.node(f"systemctl kill --signal=KILL --kill-whom=all {unit}")
    cluster.wait_serving(serving.id)


def test_a_reload_starts_what_is_between_two_starts(cluster: Cluster, serving: Release) -> None:
    unit = f"example-web@{serving.id}"
    main = f"systemctl show --property=MainPID --value {unit}"
    told = cluster.node(
        f"systemctl kill --signal=KILL --kill-whom=all {unit}; "
        f'until test "$({main})" = 0; do sleep 0.01; done; {PROGRAM} reload'
    )
    assert f"restarted {unit}" in told.stdout
    cluster.wait_serving(serving.id)


@pytest.mark.usefixtures("serving")
def test_a_deploy_builds_once_ships_migrates_and_switches(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    inventory = cluster.inventory_of("deployed")
    deploy(inventory, cluster.connections, yes=True)
    told = capsys.readouterr().out
    assert "migrate" in told
    wanted = find_or_build(inventory, cluster.connections, print)
    cluster.wait_serving(wanted.id)
    deploy(inventory, cluster.connections, yes=True)
    assert "Nothing was changed" in capsys.readouterr().out
    assert cluster.get("/environment?name=RELEASE_ID").stdout.endswith(wanted.id)


def test_a_failing_migration_stops_the_deploy_with_nothing_switched(
    cluster: Cluster, serving: Release
) -> None:
    with pytest.raises(HostError) as failure:
        deploy(cluster.inventory_of("unmigratable", unmigratable=""), cluster.connections, yes=True)
    assert "app1" in str(failure.value)
    assert "the migration fails" in str(failure.value)
    assert cluster.serving() == serving.id


def test_equal_inputs_give_equal_bytes(cluster: Cluster, first: Release) -> None:
    kept = first.archive.rename(first.archive.with_suffix(".kept"))
    try:
        again = find_or_build(cluster.inventory_of("first"), cluster.connections, print)
        assert again.manifest.sha256 == first.manifest.sha256
    finally:
        kept.replace(first.archive)


def test_pruning_keeps_what_serves_and_what_served_before(
    cluster: Cluster, serving: Release, second: Release
) -> None:
    cluster.program(f"switch {second.id}")
    cluster.program("prune --keep 2")
    assert sorted(cluster.listing()["releases"]) == sorted([serving.id, second.id])


def test_systemd_rates_the_sandbox_under_four(cluster: Cluster, serving: Release) -> None:
    for pool in ("web", "api"):
        unit = f"example-{pool}@{serving.id}.service"
        told = cluster.node(f"systemd-analyze security --no-pager --threshold=39 {unit}", check=False)
        assert told.code == 0, told.stdout.splitlines()[-1]
