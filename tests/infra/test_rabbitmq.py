"""RabbitMQ's brokers: together, encrypted, closed. Changes nothing, so it runs on live hosts too."""

import json
import os
from typing import Any

import pytest
import testinfra.host

testinfra_hosts = [f"ansible://{os.environ.get('BULKHEAD_BROKERS_GROUP', 'brokers')}"]
CURL = "curl --silent --show-error --max-time 10 --cacert /etc/bulkhead/pki/ca.crt "


@pytest.fixture
def address(host: testinfra.host.Host) -> str:
    variables = host.ansible.get_variables()
    own = str(variables["node_address"])
    return str(variables["ansible_host"]) if "{{" in own else own  # the shared default is a template


def members(host: testinfra.host.Host) -> dict[str, Any]:
    seen: dict[str, Any] = json.loads(host.check_output("/usr/local/lib/bulkhead/rabbitmq-member status"))
    return seen


def test_the_brokers_are_one_cluster_of_those_in_the_inventory(host: testinfra.host.Host) -> None:
    assert host.service("rabbitmq-server").is_enabled
    variables = host.ansible.get_variables()
    group = variables["groups"][variables.get("brokers_group", "brokers")]
    seen = members(host)
    assert seen["members"] == seen["running"] == sorted(f"rabbit@{name}" for name in group)
    assert seen["metadata"] == "khepri"  # a majority decides on users, rights and queues too
    assert not any(seen["alarms"])


def test_nothing_listens_without_tls_or_on_another_address(host: testinfra.host.Host, address: str) -> None:
    lines = host.check_output("ss --no-header --listening --tcp --numeric").splitlines()
    listening = {line.split()[3] for line in lines}
    ports = ("4369", "5671", "5672", "15671", "15672", "15691", "15692", "25672")
    assert {each for each in listening if each.rpartition(":")[2] in ports} == {
        "127.0.0.1:4369",
        *(f"{address}:{port}" for port in (4369, 5671, 15671, 15691, 25672)),
    }
    for port in (5671, 15671, 15691):
        assert (
            host.run(CURL + f"https://{address}:{port}/").rc != 60
        )  # 60: a certificate that is not believed


def test_the_metrics_answer(host: testinfra.host.Host, address: str) -> None:
    assert "rabbitmq_identity_info" in host.check_output(CURL + f"https://{address}:15691/metrics")


def test_the_management_interface_wants_a_name(host: testinfra.host.Host, address: str) -> None:
    status = "--output /dev/null --write-out '%{http_code}' "
    assert host.check_output(CURL + status + f"https://{address}:15671/api/overview") == "401"
    assert (
        host.check_output(CURL + status + f"--user guest:guest https://{address}:15671/api/overview") == "401"
    )


def test_no_queue_has_lost_its_majority(host: testinfra.host.Host) -> None:
    assert host.run("rabbitmq-diagnostics --silent check_local_alarms").rc == 0
    assert host.run("rabbitmq-diagnostics --silent check_if_node_is_quorum_critical").rc == 0


def test_the_cookie_and_the_data_are_for_rabbitmq_alone(host: testinfra.host.Host) -> None:
    cookie = host.file("/var/lib/rabbitmq/.erlang.cookie")
    assert (cookie.user, cookie.mode) == ("rabbitmq", 0o400)
    data = host.file("/var/lib/rabbitmq/mnesia")
    assert (data.user, data.mode & 0o007) == ("rabbitmq", 0)


def test_a_bad_setting_is_refused_before_a_broker_reads_it(host: testinfra.host.Host) -> None:
    check = "/usr/local/lib/bulkhead/rabbitmq-check-configuration"
    assert host.run(f"{check} /etc/rabbitmq/rabbitmq.conf").rc == 0
    for line in ("no.such.setting = 1", "heartbeat = often"):
        answer = host.run(
            f"echo '{line}' > /run/trial.conf; {check} /run/trial.conf; rc=$?; rm /run/trial.conf; exit $rc"
        )
        assert answer.rc == 1
        assert "/run/trial.conf" in answer.stderr
