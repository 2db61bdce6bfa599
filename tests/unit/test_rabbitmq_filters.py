"""A host that another cluster has, or whose cookie is open, is refused with a reason and a mend."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path(__file__).parents[2] / "plugins/filter/rabbitmq.py"
spec = importlib.util.spec_from_file_location("rabbitmq_filters", PLUGIN)
assert spec is not None
assert spec.loader is not None
rabbitmq = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rabbitmq)

COOKIE = {
    "exists": True,
    "path": "/var/lib/rabbitmq/.erlang.cookie",
    "mode": "0400",
    "pw_name": "rabbitmq",
    "uid": 100,
}
NEW = {"exists": False}


def refusals(cookie: dict[str, Any], was_part_of: str) -> list[str]:
    found: list[str] = rabbitmq.rabbitmq_refusals(cookie, was_part_of, "bulkhead-lab", "mq2")
    return found


@pytest.mark.parametrize("cookie", [NEW, COOKIE, COOKIE | {"mode": "0600"}])
@pytest.mark.parametrize("was_part_of", ["", "bulkhead-lab"])
def test_a_new_host_and_one_of_this_cluster_are_taken(cookie: dict[str, Any], was_part_of: str) -> None:
    assert refusals(cookie, was_part_of) == []


@pytest.mark.parametrize("mode", ["0440", "0404", "0644", "0410", "1777"])
def test_a_cookie_that_others_can_read_is_refused(mode: str) -> None:
    (refusal,) = refusals(COOKIE | {"mode": mode}, "bulkhead-lab")
    assert refusal.startswith(
        f"mq2: /var/lib/rabbitmq/.erlang.cookie has mode {mode} and belongs to rabbitmq"
    )
    assert "chmod 0400 /var/lib/rabbitmq/.erlang.cookie" in refusal


@pytest.mark.parametrize(("owner", "shown"), [({"pw_name": "ada"}, "ada"), ({"pw_name": None}, "user 100")])
def test_a_cookie_of_somebody_else_is_refused(owner: dict[str, Any], shown: str) -> None:
    (refusal,) = refusals(COOKIE | owner, "")
    assert f"belongs to {shown}" in refusal


def test_a_second_clusters_node_of_the_same_name_is_refused() -> None:
    (refusal,) = refusals(COOKIE, "bulkhead-staging")
    assert refusal.startswith("mq2 has been a broker of the cluster bulkhead-staging, and the inventory says")
    assert "correct its ansible_host" in refusal
