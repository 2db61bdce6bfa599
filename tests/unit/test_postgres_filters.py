"""Filters of role postgres: stored passwords, pg_hba's addresses, the order of restarts."""

import base64
import hashlib
import hmac
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError

PLUGIN = Path(__file__).parents[2] / "plugins/filter/postgres.py"
spec = importlib.util.spec_from_file_location("postgres_filters", PLUGIN)
assert spec is not None
assert spec.loader is not None
postgres = importlib.util.module_from_spec(spec)
spec.loader.exec_module(postgres)


def proves(verifier: str, password: str) -> bool:
    """As a server checks a client (RFC 5802): the password's client key gives the stored key."""
    _, salting, keys = verifier.split("$")
    iterations, salt = salting.split(":")
    stored = base64.b64decode(keys.split(":")[0])
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    return hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest() == stored


def test_a_verifier_is_the_same_each_time_and_fits_one_password() -> None:
    verifier = postgres.scram_verifier("right", "lab/forge")
    assert verifier == postgres.scram_verifier("right", "lab/forge")
    assert verifier != postgres.scram_verifier("right", "production/forge")
    assert proves(verifier, "right")
    assert not proves(verifier, "wrong")


@pytest.mark.parametrize("password", ["pässword", "line\nbreak"])
def test_a_password_with_several_spellings_is_refused(password: str) -> None:
    with pytest.raises(AnsibleFilterError, match="printable ASCII"):
        postgres.scram_verifier(password, "lab/forge")


@pytest.mark.parametrize(
    ("address", "network"), [("198.18.0.1", "198.18.0.1/32"), ("fd00::1", "fd00::1/128")]
)
def test_an_address_gets_the_length_of_its_mask(address: str, network: str) -> None:
    assert postgres.host_network(address) == network


def test_a_name_is_no_address() -> None:
    with pytest.raises(AnsibleFilterError, match="'db1' is not an IP address"):
        postgres.host_network("db1")


def member(**reason: tuple[str, str]) -> dict[str, Any]:
    values = {name: {"old_value": old, "new_value": new} for name, (old, new) in reason.items()}
    return {"name": "db1", **({"pending_restart_reason": values} if values else {})}


def test_only_less_of_what_standbys_depend_on_sends_the_leader_first() -> None:
    assert postgres.restart_leader_first([member(), member(max_connections=("100", "90"))])
    assert not postgres.restart_leader_first([member(), member(max_connections=("90", "100"))])
    assert not postgres.restart_leader_first([member(shared_buffers=("256MB", "128MB"))])
    assert not postgres.restart_leader_first([member(), member()])
