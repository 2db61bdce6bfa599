"""PostgreSQL's members: one leads, the others follow in quorum. Changes nothing: for live hosts too."""

import json
from typing import Any

import pytest
import testinfra.host

testinfra_hosts = ["ansible://databases"]
CURL = "curl --silent --show-error --max-time 10 --cacert /etc/bulkhead/pki/ca.crt "


@pytest.fixture
def address(host: testinfra.host.Host) -> str:
    variables = host.ansible.get_variables()
    own = str(variables["node_address"])
    return str(variables["ansible_host"]) if "{{" in own else own  # the shared default is a template


def members(host: testinfra.host.Host, address: str) -> list[dict[str, Any]]:
    seen: list[dict[str, Any]] = json.loads(host.check_output(CURL + f"https://{address}:8008/cluster"))[
        "members"
    ]
    return seen


def psql(host: testinfra.host.Host, statement: str) -> str:
    return str(host.check_output("cd / && sudo -u postgres psql -qtA -c %s", statement)).strip()


def test_one_leads_and_the_others_stream(host: testinfra.host.Host, address: str) -> None:
    seen = members(host, address)
    assert [each["role"] for each in seen].count("leader") == 1
    assert {each["state"] for each in seen if each["role"] != "leader"} <= {"streaming"}
    assert len({each["timeline"] for each in seen}) == 1


def test_a_commit_waits_for_a_quorum(host: testinfra.host.Host, address: str) -> None:
    if psql(host, "SELECT pg_is_in_recovery()") == "f" and len(members(host, address)) > 1:
        assert psql(host, "SELECT DISTINCT sync_state FROM pg_stat_replication") == "quorum"
        assert psql(host, "SHOW synchronous_commit") == "on"


def test_pages_carry_checksums(host: testinfra.host.Host) -> None:
    assert psql(host, "SHOW data_checksums") == "on"


def test_pg_hba_has_no_line_that_postgresql_cannot_read(host: testinfra.host.Host) -> None:
    assert psql(host, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"


def test_over_the_network_nothing_but_scram_over_tls(host: testinfra.host.Host) -> None:
    lines = psql(host, "SELECT DISTINCT type, auth_method FROM pg_hba_file_rules WHERE type LIKE 'host%'")
    assert set(lines.split()) == {"hostssl|scram-sha-256", "host|reject"}


def test_nothing_waits_for_a_restart(host: testinfra.host.Host, address: str) -> None:
    assert not [each["name"] for each in members(host, address) if each.get("pending_restart")]


def test_the_data_and_the_settings_are_for_postgres_alone(host: testinfra.host.Host) -> None:
    data = host.file(psql(host, "SHOW data_directory"))
    assert (data.user, data.mode & 0o077) == ("postgres", 0)
    settings = host.file("/etc/patroni/config.yml")
    assert (settings.user, settings.group, settings.mode) == ("root", "postgres", 0o640)


def test_patroni_answers_over_tls_only(host: testinfra.host.Host, address: str) -> None:
    assert host.run(f"curl --silent --max-time 10 http://{address}:8008/health").rc != 0
