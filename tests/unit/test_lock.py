"""The environment's lock: who gets it, how it is kept and lost, and what a host lets through."""

import json
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from cluster_fakes import inventory as plain_inventory
from cluster_fakes import tiers

from bulkhead import lock
from bulkhead.connections import Result
from bulkhead.errors import CommandError, RefusedError, SettingsError
from bulkhead.etcd import SilentError, decode
from bulkhead.lock import Actions, Holder, Lock, LostError, OvertakenError, Token, locked, take


class Store:
    """etcd with one key, as the gateway tells of it."""

    def __init__(self) -> None:
        self.revision = 10
        self.lease = 0
        self.held: dict[str, Any] | None = None
        self.revoked: list[str] = []
        self.renewed = 0
        self.silent = False

    def calls(self, *calls: tuple[str, Any]) -> list[dict[str, Any]]:
        if self.silent:
            raise SilentError("etcd does not answer:\n  db1: it is down")
        answers: list[dict[str, Any]] = []
        for path, body in calls:
            if path == "lease/grant":
                self.lease += 1
                answers.append({"ID": str(self.lease)})
            elif path == "lease/revoke":
                self.revoked.append(body["ID"])
                if self.held and self.held["lease"] == body["ID"]:
                    self.held = None
                answers.append({})
            elif path == "lease/keepalive":
                self.renewed += 1
                alive = self.held is not None and self.held["lease"] == body["ID"]
                answers.append({"result": {"TTL": "60"} if alive else {}})
            else:
                assert path == "kv/txn"
                answers.append(self.transaction(body))
        return answers

    def transaction(self, body: dict[str, Any]) -> dict[str, Any]:
        if self.held is None:
            self.revision += 1
            put = body["success"][0]["requestPut"]
            self.held = {
                "value": put["value"],
                "lease": str(self.lease),
                "create_revision": str(self.revision),
            }
            return {"succeeded": True, "header": self.header()}
        return {"header": self.header(), "responses": [{"response_range": {"kvs": [self.held]}}]}

    def header(self) -> dict[str, str]:
        return {"cluster_id": "77", "revision": str(self.revision)}


def test_it_is_taken_once_and_the_next_one_hears_who_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkhead.ledger.who", lambda: "ann@laptop")
    store = Store()
    held = take(store, "deploy")
    with pytest.raises(RefusedError, match=r"ann@laptop runs deploy since .* UTC") as refused:
        take(store, "workers.drain worker1")
    assert "within 60 s" in refused.value.mend
    assert store.revoked == ["2"]  # no lease is left behind by who was refused
    held.release()
    assert take(store, "workers.drain worker1").token.revision > held.token.revision


def test_an_answer_that_was_lost_on_the_way_is_no_other_holder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _size: "same")
    monkeypatch.setattr("bulkhead.lock.time.strftime", lambda *_: "now")
    store = Store()
    first = take(store, "deploy")
    again = take(store, "deploy")  # as if the first answer had never come
    assert again.token == first.token
    again.release()
    assert store.held is None


def clocked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(lock, "now_seconds", lambda: clock[0])
    return clock


def test_it_is_kept_while_it_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clocked(monkeypatch)
    store = Store()
    held = take(store, "deploy")

    def pause(_seconds: float) -> bool:
        clock[0] += 40
        return store.renewed == 3

    held.keep(threading.Event(), pause)
    assert clock[0] == 1160
    held.require()


@pytest.mark.parametrize("cause", ["asleep", "silent", "ended"])
def test_it_is_lost_when_it_was_not_renewed(monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    clock = clocked(monkeypatch)
    store = Store()
    held = take(store, "deploy")
    store.silent = cause == "silent"
    if cause == "ended":
        store.held = None
    turns = iter([False, True])
    if cause != "asleep":
        held.keep(threading.Event(), lambda _seconds: next(turns))
    if cause != "ended":
        held.require()
        clock[0] += lock.LEASE_SECONDS - lock.MARGIN_SECONDS + 1
    told = {"asleep": "asleep", "silent": "could not be renewed", "ended": "had ended"}
    with pytest.raises(LostError, match=told[cause]):
        held.require()


class Connections:
    """Runs commands in a shell of this machine, with a directory in the host's place."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def run(self, _host: Any, command: str, *, check: bool = True, **_options: Any) -> Result:
        here = command.replace("/var/lib/bulkhead", str(self.directory))
        done = subprocess.run(["sh", "-c", here], capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0
        return Result(done.stdout, done.stderr, done.returncode)


def actions(directory: Path, revision: int, cluster: str = "77") -> Actions:
    held = Lock(Store(), "1", Token(cluster, revision), lock.now_seconds())
    return Actions(Connections(directory), held)  # type: ignore[arg-type]  # played


def run(by: Actions, command: str = "echo done") -> str:
    return by.run(plain_inventory().host("app1"), command, timeout_seconds=5).stdout


def test_a_host_refuses_who_comes_after_a_later_operation(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    assert run(actions(directory, 9)) == "done\n"
    assert run(actions(directory, 12)) == "done\n"
    assert run(actions(directory, 12)) == "done\n"
    with pytest.raises(OvertakenError, match="app1: a later operation was here"):
        run(actions(directory, 9), f"touch {tmp_path}/never")
    assert not (tmp_path / "never").exists()
    assert (directory / "fence").read_text() == "77 12\n"


def test_etcd_made_anew_counts_anew(tmp_path: Path) -> None:
    run(actions(tmp_path, 500))
    assert run(actions(tmp_path, 3, cluster="78")) == "done\n"


def test_a_command_that_fails_tells_of_itself_and_not_of_the_fence(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"`echo no >&2; false` ended with code 1") as error:
        run(actions(tmp_path, 9), "echo no >&2; false")
    assert "fence" not in str(error.value)


def test_a_command_may_end_with_the_fences_code(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="code 77"):
        run(actions(tmp_path, 9), "exit 77")


def test_nothing_is_done_without_the_lock_that_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = clocked(monkeypatch)
    late = actions(tmp_path, 9)
    clock[0] += 3600
    with pytest.raises(LostError):
        run(late, f"touch {tmp_path}/never")
    assert not (tmp_path / "never").exists()


# --- an operation under it ----------------------------------------------------------------------------------


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    store = Store()
    monkeypatch.setattr(lock, "Etcd", lambda *_: store)
    return store


def test_it_is_given_back_when_the_operation_fails(store: Store) -> None:
    def fail() -> None:
        with locked(tiers(), None, "deploy"):  # type: ignore[arg-type]  # unused
            assert store.held is not None
            assert Holder(**json.loads(decode(store.held["value"]))).operation == "deploy"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.held is None


def test_a_dry_run_takes_none(store: Store) -> None:
    with locked(tiers(), None, "deploy", dry_run=True):  # type: ignore[arg-type]  # unused
        assert store.held is None


def test_without_etcd_only_what_must_be_possible_offers_to_go_on(store: Store) -> None:
    store.silent = True
    with pytest.raises(RefusedError) as error, locked(tiers(), None, "deploy"):  # type: ignore[arg-type]
        pass
    assert "--without-lock" not in str(error.value)
    with (
        pytest.raises(RefusedError, match=r"fab workers\.drain worker1 --without-lock 'WHY'"),
        locked(tiers(), None, "workers.drain worker1", may_go_without=True),  # type: ignore[arg-type]
    ):
        pass


def test_going_on_without_it_takes_a_reason_that_the_ledger_keeps(store: Store, tmp_path: Path) -> None:
    store.silent = True
    inventory = tiers(release_store=str(tmp_path))
    with (
        pytest.raises(SettingsError, match="needs the reason"),
        locked(inventory, None, "lb.failback", without=" "),  # type: ignore[arg-type]  # unused
    ):
        pass
    with locked(inventory, None, "lb.failback", without="etcd burns"):  # type: ignore[arg-type]  # unused
        pass
    (line,) = (tmp_path / "operations.jsonl").read_text().splitlines()
    assert json.loads(line)["reason"] == "etcd burns"


def test_a_lock_that_cannot_be_given_back_is_told(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tiers(), None, "deploy"):  # type: ignore[arg-type]  # unused
        store.silent = True
    assert "ends by itself within 60 s" in capsys.readouterr().out
