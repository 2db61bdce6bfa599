"""etcd's members: together, encrypted, closed. Changes nothing, so it runs on live hosts too."""

import json

import pytest
import testinfra.host

testinfra_hosts = ["ansible://databases"]
CURL = "curl --silent --show-error --max-time 10 --cacert /etc/bulkhead/pki/ca.crt "


@pytest.fixture
def address(host: testinfra.host.Host) -> str:
    variables = host.ansible.get_variables()
    own = str(variables["node_address"])
    return str(variables["ansible_host"]) if "{{" in own else own  # the shared default is a template


def test_the_member_serves(host: testinfra.host.Host, address: str) -> None:
    assert host.service("etcd").is_enabled
    assert json.loads(host.check_output(CURL + f"https://{address}:2379/health"))["health"] == "true"


def test_the_members_have_one_leader(host: testinfra.host.Host, address: str) -> None:
    metrics = host.check_output(CURL + f"https://{address}:2381/metrics")
    assert "etcd_server_has_leader 1" in metrics.splitlines()


def test_nobody_enters_without_a_name(host: testinfra.host.Host, address: str) -> None:
    answer = host.check_output(CURL + f'https://{address}:2379/v3/kv/range --data \'{{"key": "AA=="}}\'')
    assert "user name is empty" in json.loads(answer)["message"]


def test_a_member_port_wants_a_certificate_of_the_cluster(host: testinfra.host.Host, address: str) -> None:
    assert host.run(CURL + f"https://{address}:2380/version").rc != 0
    with_certificate = "--http1.1 --cert /etc/bulkhead/pki/node.crt --key /etc/bulkhead/pki/node.key "
    assert host.run(CURL + with_certificate + f"https://{address}:2380/version").rc == 0


def test_the_data_are_for_etcd_alone(host: testinfra.host.Host) -> None:
    data = host.file("/var/lib/etcd/default/member")
    assert (data.user, data.mode & 0o077) == ("etcd", 0)
