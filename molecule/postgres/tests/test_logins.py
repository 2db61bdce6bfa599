"""Who gets in, from where and how."""

import json
import subprocess
from typing import Any

import pytest
import testinfra
from cluster import APPLICATION, MEMBERS, SECRETS, STATE, leader, rest, superuser

CONNECT = """
import json, sys, tempfile, psycopg2
settings = json.loads(sys.stdin.readline())
ca = tempfile.NamedTemporaryFile("w"); ca.write(settings.pop("authority")); ca.flush()
held = []
try:
    for _ in range(settings.pop("times")):
        held.append(psycopg2.connect(connect_timeout=5, sslrootcert=ca.name, **settings))
    with held[0].cursor() as cursor:
        cursor.execute("SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        print("in", cursor.fetchone()[0])
except psycopg2.Error as error:
    print("refused", len(held), error)
"""


def connect(origin: str = "client1", times: int = 1, **changes: Any) -> str:
    settings = {
        "host": MEMBERS[leader() or "db1"],
        "dbname": APPLICATION,
        "user": APPLICATION,
        "password": SECRETS["postgres_application_password"],
        "sslmode": "verify-full",
        **changes,
        "authority": SECRETS["pki_ca_certificate"],
        "times": times,
    }
    command = ["ssh", "-F", str(STATE / "ssh_config"), origin, f"python3 -c '{CONNECT}'"]
    run = subprocess.run(
        command, input=json.dumps(settings) + "\n", capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout


def test_the_application_gets_in_with_its_password_over_tls() -> None:
    assert connect() == "in TLSv1.3\n"


def test_not_without_tls() -> None:
    assert "no encryption" in connect(sslmode="disable")


def test_not_with_a_wrong_password() -> None:
    assert "password authentication failed" in connect(password="wrong")


@pytest.mark.parametrize("method", ["md5", "password", "none"])
def test_the_server_asks_for_no_weaker_proof_than_scram(method: str) -> None:
    assert "server requested SASL authentication" in connect(require_auth=method)
    assert connect(require_auth="scram-sha-256") == "in TLSv1.3\n"


def test_only_verifiers_are_stored() -> None:
    others = "SELECT count(*) FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256$%'"
    assert superuser("db1", others) == "0"
    assert superuser("db1", "SELECT rolpassword IS NULL FROM pg_authid WHERE rolname = 'postgres'") == "t"


def test_a_host_that_the_inventory_does_not_name_is_refused() -> None:
    other = next(member for member in MEMBERS if member != leader())
    assert "pg_hba.conf rejects connection" in connect(origin=other)


@pytest.mark.parametrize(
    ("user", "password"),
    [
        ("postgres", "any"),
        ("replicator", SECRETS["postgres_replication_password"]),
        ("rewinder", SECRETS["postgres_rewind_password"]),
    ],
)
def test_the_services_users_do_not_get_in_from_a_client(user: str, password: str) -> None:
    assert "pg_hba.conf rejects connection" in connect(user=user, dbname="postgres", password=password)


def test_the_application_sees_no_other_database() -> None:
    assert "pg_hba.conf rejects connection" in connect(dbname="postgres")


def test_the_application_owns_its_database_and_nothing_more() -> None:
    owner = f"SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = '{APPLICATION}'"
    assert superuser("db1", owner) == APPLICATION
    powers = "rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication"
    assert superuser("db1", f"SELECT {powers} FROM pg_roles WHERE rolname = '{APPLICATION}'") == "f"


def test_the_application_gets_the_connections_of_its_budget_and_no_more() -> None:
    limit = int(superuser("db1", f"SELECT rolconnlimit FROM pg_roles WHERE rolname = '{APPLICATION}'"))
    assert limit > 0
    assert connect(times=limit + 1).startswith(f"refused {limit} ")


@pytest.mark.parametrize(
    ("password", "certificate", "status"),
    [(None, True, 401), ("wrong", True, 401), (SECRETS["patroni_rest_password"], False, 403)],
)
def test_patroni_changes_nothing_without_password_and_certificate(
    password: str | None, certificate: bool, status: int
) -> None:
    assert rest("db1", "PATCH", "config", password=password, certificate=certificate) == status


def test_patroni_changes_something_with_both() -> None:
    assert rest("db1", "PATCH", "config", password=SECRETS["patroni_rest_password"], certificate=True) == 200


def test_no_password_is_in_a_journal_or_a_process_list() -> None:
    secret = [str(value) for name, value in SECRETS.items() if name.endswith("_password")]
    for member in MEMBERS:
        node = testinfra.get_host(f"ansible://{member}")
        seen = node.check_output("ps -eo args && journalctl --boot --output cat")
        assert not [each for each in secret if each in seen]
