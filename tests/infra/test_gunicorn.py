"""Application nodes serve one release, to the cluster only. Changes nothing, so it runs on live hosts too."""

import json
from typing import Any

import pytest
import testinfra.host

testinfra_hosts = ["ansible://app_servers"]
PKI = "/etc/bulkhead/pki"


@pytest.fixture
def application(host: testinfra.host.Host) -> dict[str, Any]:
    application: dict[str, Any] = host.ansible.get_variables()["application"]
    return application


@pytest.fixture
def pools(application: dict[str, Any]) -> dict[str, Any]:
    return {name: pool for name, pool in application["pools"].items() if pool["kind"] == "http"}


@pytest.fixture
def releases(host: testinfra.host.Host) -> dict[str, Any]:
    listing: dict[str, Any] = json.loads(host.check_output("/usr/local/lib/bulkhead/release list"))
    return listing


def ask(host: testinfra.host.Host, port: int, path: str, *options: str) -> Any:
    variables = host.ansible.get_variables()
    name, address = variables["inventory_hostname"], variables["ansible_host"]
    where = f"--resolve {name}:{port}:{address} https://{name}:{port}{path}"
    return host.run(
        f"curl --silent --show-error --max-time 10 --cacert {PKI}/ca.crt {' '.join(options)} {where}"
    )


def test_every_pool_runs_the_current_release_and_no_other(
    releases: dict[str, Any], pools: dict[str, Any]
) -> None:
    current = releases["current"]
    assert current, "no release is current: fab deploy"
    assert set(releases["pools"]) == set(pools)
    for pool in releases["pools"].values():
        assert pool == {"running": {current: "active/running"}, "enabled": [current]}


def test_every_pool_is_ready_for_holders_of_a_cluster_certificate(
    host: testinfra.host.Host, application: dict[str, Any], pools: dict[str, Any]
) -> None:
    for pool in pools.values():
        pair = f"--cert {PKI}/node.crt --key {PKI}/node.key"
        answer = ask(host, pool["port"], application["health"]["ready"], pair, "--fail", "--output /dev/null")
        assert answer.rc == 0, answer.stderr


def test_a_stranger_gets_no_answer(
    host: testinfra.host.Host, application: dict[str, Any], pools: dict[str, Any]
) -> None:
    for pool in pools.values():
        answer = ask(host, pool["port"], application["health"]["live"])
        assert answer.rc != 0
        assert "certificate required" in answer.stderr
        assert answer.stdout == ""


def test_the_application_is_not_root_and_cannot_change_itself(
    host: testinfra.host.Host, application: dict[str, Any], pools: dict[str, Any], releases: dict[str, Any]
) -> None:
    name, current = application["name"], releases["current"]
    for pool in pools:
        unit = f"{name}-{pool}@{current}.service"
        main = host.check_output("systemctl show --property=MainPID --value %s", unit)
        assert host.check_output("stat --format=%%U /proc/%s", main) == name
        rated = host.run("systemd-analyze security --no-pager --threshold=39 %s", unit)
        assert rated.rc == 0, rated.stdout.splitlines()[-1]
    written = host.check_output("find /srv/%s -user %s -print -quit", name, name)
    assert written == ""


def test_secrets_are_for_the_application_only(host: testinfra.host.Host, application: dict[str, Any]) -> None:
    environment = host.file(f"/etc/{application['name']}/environment")
    assert (environment.user, environment.group, environment.mode) == ("root", application["name"], 0o640)
