"""What the module sends to a cluster: what differs and nothing else, and never a password."""

import base64
import copy
import hashlib
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location(
    "rabbitmq_access", ROOT / "roles/rabbitmq/library/rabbitmq_access.py"
)
assert _spec
assert _spec.loader
access = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(access)

PASSWORD = "correct horse"
HOSTS = [{"name": "forge", "delivery_limit": 10, "dead_letters": "dead_letters"}]
RIGHTS = {"configure": "^forge.*$", "write": "^(forge.*|amq\\.default)$", "read": "^forge.*$"}
USERS = [
    {
        "name": "forge",
        "password": PASSWORD,
        "tags": [],
        "permissions": [{"virtual_host": "forge", **RIGHTS}],
    },
    {"name": "operator", "password": "staple", "tags": ["monitoring"], "permissions": []},
]


def differences(live: dict[str, Any], users: Any = USERS) -> tuple[dict[str, Any], list[str], list[str]]:
    found: tuple[dict[str, Any], list[str], list[str]] = access.differences(HOSTS, users, live)
    return found


@pytest.fixture
def settled() -> dict[str, Any]:
    """What a cluster has once the module was there, with what others have made."""
    send, drop, _ = differences({})
    assert drop == []
    live: dict[str, Any] = copy.deepcopy(send)
    live["queues"].append({"vhost": "forge", "name": "default", "arguments": {}})
    live["users"].append({"name": "ada", "password_hash": "", "tags": ["administrator"]})
    live["permissions"].append({"user": "ada", "vhost": "forge", "configure": "", "write": "", "read": ""})
    live["policies"].append({"vhost": "forge", "name": "ada's", "pattern": "x", "definition": {}})
    return live


def test_a_bare_cluster_gets_everything_and_no_password_is_in_it() -> None:
    send, _, words = differences({})
    assert set(send) == {
        "vhosts", "policies", "exchanges", "queues", "bindings", "users", "permissions",
    }  # fmt: skip
    assert PASSWORD not in json.dumps([send, words])
    assert send["vhosts"][0]["metadata"]["default_queue_type"] == "quorum"


def test_a_settled_cluster_gets_nothing(settled: dict[str, Any]) -> None:
    assert differences(settled) == ({}, [], [])


def test_fields_that_the_broker_adds_make_no_difference(settled: dict[str, Any]) -> None:
    for kind in settled.values():
        for item in kind:
            item["added"] = True
    assert differences(settled) == ({}, [], [])


@pytest.mark.parametrize(("algorithm", "function"), [("sha256", hashlib.sha256), ("sha512", hashlib.sha512)])
def test_a_password_is_known_by_its_hash_of_either_kind(
    settled: dict[str, Any], algorithm: str, function: Any
) -> None:
    salt = b"salt"
    digest = base64.b64encode(salt + function(salt + PASSWORD.encode()).digest()).decode()
    settled["users"][0].update(password_hash=digest, hashing_algorithm=f"rabbit_password_hashing_{algorithm}")
    assert differences(settled) == ({}, [], [])


def test_a_new_password_is_sent_as_a_hash_and_for_that_user_only(settled: dict[str, Any]) -> None:
    users = copy.deepcopy(USERS)
    users[0]["password"] = "another"
    send, _, words = differences(settled, users)
    assert [user["name"] for user in send["users"]] == ["forge"]
    assert words == ["user forge with a new password"]
    assert access.is_password("another", send["users"][0])
    assert "another" not in json.dumps(send)


def test_other_tags_keep_the_password(settled: dict[str, Any]) -> None:
    settled["users"][1]["tags"] = ["administrator"]
    send, _, words = differences(settled)
    assert send["users"][0]["tags"] == ["monitoring"]
    assert send["users"][0]["password_hash"] == settled["users"][1]["password_hash"]
    assert words == ["user operator"]


def test_rights_that_are_not_listed_go_and_other_peoples_stay(settled: dict[str, Any]) -> None:
    settled["permissions"].append({"user": "forge", "vhost": "/", "configure": "", "write": "", "read": ""})
    send, drop, words = differences(settled)
    assert (send, words) == ({}, ["no permissions of forge in /"])
    assert len(drop) == 1


def test_the_user_guest_goes(settled: dict[str, Any]) -> None:
    settled["users"].append({"name": "guest", "tags": ["administrator"]})
    assert differences(settled)[2] == ["no user guest"]


def test_a_changed_policy_is_sent_and_a_queue_that_exists_is_left(settled: dict[str, Any]) -> None:
    settled["policies"][0]["definition"] = {"delivery-limit": 3}
    settled["queues"][0]["arguments"] = {"x-queue-type": "classic"}
    send, _, words = differences(settled)
    assert list(send) == ["policies"]
    assert words == ["policy quorum of forge"]


def test_the_limit_of_deliveries_spares_the_dead_letters() -> None:
    quorum, letters = access.wanted_policies(HOSTS[0])
    assert re.search(quorum["pattern"], "default")
    assert re.search(quorum["pattern"], "dead_letters.2")
    assert not re.search(quorum["pattern"], "dead_letters")
    assert re.search(letters["pattern"], "dead_letters")
    assert letters["definition"] == {"delivery-limit": -1}


@pytest.mark.parametrize("value", ['">>), halt().', "ÿ", "\\"])
def test_a_name_cannot_end_the_expression_that_it_is_in(value: str) -> None:
    assert re.fullmatch(r'base64:decode\(<<"[A-Za-z0-9+/=]*">>\)', access.text(value))
