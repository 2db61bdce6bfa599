"""Fixtures of the cluster scenario. Those of the infra suite are here as well: one file serves both."""

import os
from collections.abc import Iterator

import pytest
from breaking import PASSWORD, Nodes, on_node, wait_until

pytest_plugins = ["tests.infra.conftest"]


@pytest.fixture(scope="session")
def long_form() -> bool:
    return os.environ.get("BULKHEAD_PROOF") == "long"


@pytest.fixture(scope="session")
def token() -> str:
    """The API token of the forge's account `writer`."""
    manage = "sudo /usr/local/lib/bulkhead/release run python manage.py"
    on_node("app1", f"{manage} forge_account writer", given=f"{PASSWORD}\n")
    return on_node("app1", f"{manage} forge_token writer")


@pytest.fixture
def nodes(inventory, fab) -> Iterator[Nodes]:  # type: ignore[no-untyped-def]  # fixtures of another conftest
    found = Nodes(str(inventory.variables["lab_name"]))
    yield found
    found.heal()

    if not found.was_touched:
        return
    # Placement is an operation: a node that comes back takes nothing by itself.
    wait_until(lambda: fab("lb.failback", "--yes").returncode == 0, 60, "every address back at its owner")
    # A broker that comes back fetches what its queues have got meanwhile.
    wait_until(lambda: fab("status").returncode == 0, 180, "all well again")
