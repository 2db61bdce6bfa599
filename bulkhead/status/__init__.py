"""`fab status`: facts -> view -> screen. It changes nothing, and is right when parts are down."""

from __future__ import annotations

import json

from bulkhead import screen
from bulkhead.connections import cluster
from bulkhead.status.facts import gather
from bulkhead.status.render import render
from bulkhead.status.view import View, view


def see() -> View:
    """The cluster as it is now."""
    with cluster() as (inventory, connections):
        return view(inventory, gather(inventory, connections))


def run(*, as_json: bool = False) -> int:
    """Shows the cluster; the exit code says how it is (docs/operations.md)."""
    seen = see()
    if as_json:
        print(json.dumps(seen.data(), indent=2))
    else:
        render(seen, screen.console())
    return seen.exit_code
