"""What operations did: who, when, what was planned, what was done.

Each step is an entry of its own and written when it is done, so an operation that was cut short has left what
it had done by then. Entries are lines of JSON beside the releases; while an operation holds the environment's
lock they go to etcd as well, where every operator reads them (`fab ledger`) and no laptop's loss takes them.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from bulkhead import etcd
from bulkhead.errors import Error
from bulkhead.etcd import Call, Store, decode, encode, end_of
from bulkhead.inventory import Inventory

FILE = "operations.jsonl"
PREFIX = f"{etcd.PREFIX}ledger/"
KEPT = 200  # operations, in etcd
END_SECONDS = 20
RETRY_SECONDS = 1.0


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


def nothing_to_do(inventory: Inventory, operation: str, **plan: Any) -> None:
    """It is as it should be: that ends what an operation before may have left open."""
    write(inventory, operation, "ended", result="done", seconds=0, **plan)


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
    shared = _shared.get()
    if shared is not None:
        shared.put(entry)


# --- the part that everybody reads --------------------------------------------------------------------------


def key_of(revision: int, number: int | None = None) -> str:
    """Keys in the order of the operations, and of each one's entries."""
    operation = f"{PREFIX}{revision:020}/"
    return operation if number is None else f"{operation}{number:06}"


class Shared:
    """Writes entries to etcd from a thread of its own, so that no step waits for it.

    Only the first one is waited for: whatever happens next, there is a trace of who began what. When etcd is
    away for a while the entries wait; at the end they have END_SECONDS, and what could not be written is only
    in the file.
    """

    def __init__(self, store: Store, revision: int) -> None:
        self._store = store
        self._revision = revision
        self._waiting: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def put(self, entry: dict[str, Any]) -> None:
        self._waiting.put(entry)
        self._begun.wait(END_SECONDS)

    def close(self) -> bool:
        """Whether all entries are there."""
        self._waiting.put(None)
        self._thread.join(END_SECONDS)
        return not self._thread.is_alive()

    def _write(self) -> None:
        number = 0
        while (entry := self._waiting.get()) is not None:
            number += 1
            put = {"key": encode(key_of(self._revision, number)), "value": encode(json.dumps(entry))}
            while not self._try(("kv/put", put)):
                time.sleep(RETRY_SECONDS)  # between two tries
            self._begun.set()
        if number:
            self._prune()

    def _try(self, call: Call) -> bool:
        try:
            self._store.calls(call)
        except Error:
            return False
        return True

    def _prune(self) -> None:
        with contextlib.suppress(Error):
            operations = list(read(self._store, keys_only=True))
            if len(operations) > KEPT:
                end = key_of(operations[-KEPT])
                self._store.calls(
                    ("kv/deleterange", {"key": encode(PREFIX), "range_end": encode(end)}),
                )


def read(store: Store, *, keys_only: bool = False) -> dict[int, list[dict[str, Any]]]:
    """The entries of each operation, by the revision of its lock, the oldest first."""
    request = {"key": encode(PREFIX), "range_end": encode(end_of(PREFIX)), "keys_only": keys_only}
    (answer,) = store.calls(("kv/range", request))
    found: dict[int, list[dict[str, Any]]] = {}
    for pair in answer.get("kvs", []):
        operation = int(decode(pair["key"]).removeprefix(PREFIX).partition("/")[0])
        found.setdefault(operation, [])
        if not keys_only:
            found[operation].append(json.loads(decode(pair["value"])))
    return found


@contextmanager
def shared(store: Store, revision: int) -> Iterator[None]:
    """Entries that are written meanwhile go to etcd too."""
    mirror = Shared(store, revision)
    token = _shared.set(mirror)
    try:
        yield
    finally:
        _shared.reset(token)
        if not mirror.close():
            print(f"etcd did not take the whole ledger of this operation; it is in {FILE} here.")


_shared: ContextVar[Shared | None] = ContextVar("shared", default=None)
