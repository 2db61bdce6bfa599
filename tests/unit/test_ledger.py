"""The ledger in etcd, what it tells of an operation, and what fab status makes of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from cluster_fakes import facts, tiers
from rich.console import Console

from bulkhead import history, ledger
from bulkhead.errors import CancelledError, FailedError
from bulkhead.etcd import SilentError, decode, encode
from bulkhead.status.facts import Node, Operations, parse_node
from bulkhead.status.view import View, view

BEGAN = {"operation": "workers.drain", "by": "ann@laptop", "at": "2026-11-23T04:00:00Z", "event": "began"}
ENDED = {**BEGAN, "event": "ended", "seconds": 4.0}


class Store:
    """Keys and values; it can be away for a while."""

    def __init__(self) -> None:
        self.pairs: dict[str, str] = {}
        self.silent_for = 0

    def calls(self, *calls: tuple[str, Any]) -> list[dict[str, Any]]:
        if self.silent_for:
            self.silent_for -= 1
            raise SilentError("etcd does not answer")
        (call,) = calls
        path, body = call
        key = decode(body["key"])
        if path == "kv/put":
            self.pairs[key] = body["value"]
            return [{}]
        end = decode(body["range_end"])
        if path == "kv/deleterange":
            self.pairs = {name: value for name, value in self.pairs.items() if not key <= name < end}
            return [{}]
        found = [(name, value) for name, value in sorted(self.pairs.items()) if key <= name < end]
        return [{"kvs": [{"key": encode(name), "value": value} for name, value in found]}]


def test_entries_are_in_etcd_in_their_order_also_when_it_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "RETRY_SECONDS", 0)
    store = Store()
    store.silent_for = 3
    inventory = tiers(release_store=str(tmp_path))

    def operate() -> None:
        with ledger.record(inventory, "workers.drain", host="worker1") as record:
            record("drained", host="worker1")
            raise CancelledError("Stopped (Ctrl-C).")

    with ledger.shared(store, 77), pytest.raises(CancelledError):
        operate()
    (entries,) = ledger.read(store).values()
    assert [entry["event"] for entry in entries] == ["began", "drained", "ended"]
    assert entries == [json.loads(line) for line in (tmp_path / "operations.jsonl").read_text().splitlines()]
    # What is written afterwards is no part of it.
    ledger.write(inventory, "lb.failback", "without lock")
    assert len(ledger.read(store)) == 1


def test_the_first_entry_is_there_before_anything_is_done(tmp_path: Path) -> None:
    store = Store()
    inventory = tiers(release_store=str(tmp_path))
    with ledger.shared(store, 77), ledger.record(inventory, "workers.drain"):
        assert [entry["event"] for entry in ledger.read(store)[77]] == ["began"]


def test_what_etcd_does_not_take_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ledger, "END_SECONDS", 0)
    store = Store()
    store.silent_for = 1000
    with ledger.shared(store, 77):
        ledger.write(tiers(release_store=str(tmp_path)), "deploy", "began")
    store.silent_for = 0  # lets the writer end
    assert "did not take the whole ledger" in capsys.readouterr().out


def test_the_oldest_operations_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "KEPT", 2)
    store = Store()
    for revision in (9, 10, 100):
        with ledger.shared(store, revision):
            ledger.write(tiers(release_store=str(tmp_path)), "deploy", "began")
            ledger.write(tiers(release_store=str(tmp_path)), "deploy", "ended")
    assert {revision: len(entries) for revision, entries in ledger.read(store).items()} == {10: 2, 100: 2}


@pytest.mark.parametrize(
    ("entries", "running", "result", "last"),
    [
        ([BEGAN, {**ENDED, "result": "done"}], False, "done", ""),
        ([{**ENDED, "result": "done", "seconds": 0}], False, "done", ""),
        ([BEGAN], True, "running", ""),
        ([BEGAN, {**BEGAN, "event": "drained", "host": "worker1"}], False, "interrupted", "drained worker1"),
        ([BEGAN, {**ENDED, "result": "CancelledError"}], False, "stopped (Ctrl-C)", ""),
        ([BEGAN, {**ENDED, "result": "HostError", "said": "db1: no\n  look"}], False, "failed", ""),
    ],
)
def test_how_an_operation_ended(entries: list[dict[str, Any]], running: bool, result: str, last: str) -> None:
    told = history.operation(entries, running=running)
    assert (told.result, told.last) == (result, last)
    assert "\n" not in told.said


@pytest.mark.parametrize(
    ("entry", "about", "again"),
    [
        ({"host": "worker1"}, "worker1", "fab workers.drain worker1"),
        ({"release": "abc"}, "abc", "fab workers.drain --release abc"),
        ({"hosts": ["a", "b", "c", "d", "e"]}, "a, b, c and 2 more", "fab workers.drain"),
    ],
)
def test_what_an_operation_was_about(entry: dict[str, Any], about: str, again: str) -> None:
    assert history.about(entry) == about
    assert history.again({**BEGAN, **entry}) == again


# --- on fab status ------------------------------------------------------------------------------------------


def lock_answer(operation: str) -> dict[str, Any]:
    holder = {"id": "1", "operation": operation, "by": "ann@laptop", "since": "04:00"}
    return {"kvs": [{"value": encode(json.dumps(holder)), "create_revision": "9"}]}


def told(lock: dict[str, Any], entries: list[dict[str, Any]], revision: int | None) -> Operations:
    part = {"lock": lock, "entries": entries, "revision": revision}
    operations = parse_node("db2", {"parts": {"operations": part}, "errors": {}}).operations
    assert operations is not None
    return operations


def seen(operations: Operations) -> View:
    # The first member is down; another tells.
    db1, db2 = Node(host="db1", unreachable="no answer"), Node(host="db2", operations=operations)
    return view(tiers(), facts(db1=db1, db2=db2))


def interrupted(shown: View) -> list[str]:
    return [finding.mend for finding in shown.findings if "did not end it" in finding.what]


def test_status_names_who_operates_now() -> None:
    shown = seen(told(lock_answer("deploy"), [BEGAN], 9))
    assert shown.operation == "ann@laptop runs deploy since 04:00"
    assert interrupted(shown) == []


@pytest.mark.parametrize("lock", [{}, lock_answer("another")])
def test_status_tells_of_what_was_cut_short(lock: dict[str, Any]) -> None:
    shown = seen(told(lock, [{**BEGAN, "host": "worker1"}], 8))
    (mend,) = interrupted(shown)
    assert mend.startswith("fab workers.drain worker1 ")


def test_nothing_was_done_yet() -> None:
    shown = seen(told({}, [], None))
    assert (shown.operation, interrupted(shown)) == (None, [])


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    operations = [
        history.operation([BEGAN, {**ENDED, "result": "done"}], running=False),
        history.operation([{**BEGAN, "host": "worker1"}], running=False),
        history.operation([BEGAN, {**ENDED, "result": "HostError", "said": "db1: no"}], running=False),
    ]
    console = Console(width=120)
    console.print(history.shown(tiers(), operations))
    console.print(history.shown(tiers(), []))
    text = capsys.readouterr().out
    assert "2026-11-23 04:00:00" in text
    assert "0:04" in text
    assert "interrupted, after: nothing" in " ".join(text.split())
    assert "failed: db1: no" in " ".join(text.split())
    assert "nothing was done yet" in text


def test_a_failure_is_kept_with_its_words(tmp_path: Path) -> None:
    def operate() -> None:
        with ledger.record(tiers(release_store=str(tmp_path)), "deploy"):
            raise FailedError("It broke.", mend="Mend it.")

    with pytest.raises(FailedError):
        operate()
    last = json.loads((tmp_path / "operations.jsonl").read_text().splitlines()[-1])
    assert (last["result"], last["said"].splitlines()[0]) == ("FailedError", "It broke.")
