"""What operations did, as JSON lines beside the releases: who, when, what was planned, what was done.

Each step is a line of its own and written when it is done, so an operation that was cut short has left what
it had done by then.
"""

from __future__ import annotations

import functools
import getpass
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from bulkhead.inventory import Inventory

FILE = "operations.jsonl"


def who() -> str:
    """The operator, as others will read it."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


class Record(Protocol):
    def __call__(self, event: str, **fields: Any) -> None: ...


@contextmanager
def record(inventory: Inventory, operation: str, **plan: Any) -> Iterator[Record]:
    """Writes that it began, each event that it is told of, and how it ended."""
    began = time.time()
    note = functools.partial(write, inventory, operation)
    note("began", **plan)
    try:
        yield note
    except BaseException as error:
        note("ended", result=type(error).__name__, said=str(error), seconds=round(time.time() - began, 1))
        raise
    note("ended", result="done", seconds=round(time.time() - began, 1))


def write(inventory: Inventory, operation: str, event: str, **fields: Any) -> None:
    from bulkhead.release import store_of  # loads what only a build needs

    store = store_of(inventory)
    store.mkdir(parents=True, exist_ok=True)
    entry = {
        "operation": operation,
        "environment": inventory.environment_name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "by": who(),
        "event": event,
        **fields,
    }
    with (store / FILE).open("a") as lines:
        lines.write(json.dumps(entry) + "\n")
