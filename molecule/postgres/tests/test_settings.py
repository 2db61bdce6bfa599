"""Changes that the role brings to a running cluster."""

import json
import ssl
import subprocess
from typing import Any

import pytest
import testinfra
from cluster import (
    APPLICATION,
    MEMBERS,
    Numbers,
    ask,
    converge,
    leader,
    numbering,
    superuser,
    wait_until,
    wait_until_whole,
)

STARTED = "SELECT extract(epoch FROM pg_postmaster_start_time())"


def started() -> dict[str, float]:
    return {member: float(superuser(member, STARTED)) for member in MEMBERS}


def databases(connections: int) -> list[dict[str, Any]]:
    """The inventory's, with another budget: in practice it grows together with max_connections."""
    done = subprocess.run(["ansible-inventory", "--host", "db1"], check=True, capture_output=True, text=True)
    return [{**each, "connections": connections} for each in json.loads(done.stdout)["postgres_databases"]]


def change(connections: int) -> tuple[str | None, dict[str, float], Numbers]:
    """Who led, when each member had started, and what a client was told meanwhile."""
    wait_until_whole()
    old, before = leader(), started()
    with numbering(f"restart{connections}") as numbers:
        variables = {
            "postgres_max_connections": connections,
            "postgres_databases": databases(connections // 4),
        }
        run = converge("--tags", "postgres", "--extra-vars", json.dumps(variables))
    assert run.returncode == 0, run.stdout[-4000:]
    wait_until_whole()
    print(f"\n{len(numbers.acknowledged)} rows acknowledged, longest gap {numbers.longest_gap:.1f} s")
    assert not [each for each in ask("cluster")["members"] if "pending_restart" in each]
    assert {superuser(member, "SHOW max_connections") for member in MEMBERS} == {str(connections)}
    limit = f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{APPLICATION}'"
    assert superuser(leader() or "", limit) == str(connections // 4)
    assert numbers.missing(leader() or "") == set()
    assert numbers.longest_gap < 20
    return old, before, numbers


def test_more_connections_reach_the_standbys_first_and_the_leader_hands_over() -> None:
    old, before, _ = change(120)
    after = started()
    assert all(after[member] > before[member] for member in MEMBERS)
    assert max(after, key=after.__getitem__) == old  # the last of all
    assert leader() != old


def test_fewer_connections_reach_the_leader_first() -> None:
    old, before, _ = change(100)
    after = started()
    assert all(after[member] > before[member] for member in MEMBERS)
    assert min(after, key=after.__getitem__) == old
    assert leader() == old


@pytest.mark.parametrize("member", ["db2"])
def test_a_new_certificate_is_served_without_a_restart(member: str) -> None:
    wait_until_whole()
    node = testinfra.get_host(f"ansible://{member}")

    def served(port: int) -> str:
        if port == 8008:
            try:
                return ssl.get_server_certificate((MEMBERS[member], port), ca_certs=None)
            except OSError as error:  # Patroni opens this listener anew to take a certificate
                return f"none: {error}"
        handshake = f"openssl s_client -starttls postgres -connect {MEMBERS[member]}:{port} </dev/null"
        return str(node.check_output(f"{handshake} 2>/dev/null | openssl x509"))

    before, old = started()[member], served(8008)
    node.check_output("rm /etc/bulkhead/pki/node.crt")
    run = converge("--tags", "pki,postgres", "--limit", member)
    assert run.returncode == 0, run.stdout[-4000:]
    new = node.file("/etc/bulkhead/pki/node.crt").content_string
    assert new.strip() != old.strip()
    for port in (8008, 5432):
        wait_until(lambda at=port: served(at).strip() in new, 15, f"port {port} serves the new certificate")
    assert started()[member] == before
