"""The environment's lock: one operation at a time, whichever machine it is started on.

It is a key in the cluster's etcd under a lease that the controller renews while the operation runs, so the
lock of a controller that died ends by itself. The revision at which etcd made the key only ever grows. Every
command that changes a host carries it, and the host refuses one that is older than the last it has seen: a
controller that slept in mid-operation and wakes up cannot go on behind the next one's back.
(Fencing tokens: Martin Kleppmann, "How to do distributed locking", 2016.)
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bulkhead import ledger, screen
from bulkhead.connections import Connections, Result
from bulkhead.errors import CommandError, Error, FailedError, HostError, RefusedError, SettingsError
from bulkhead.etcd import PREFIX, Etcd, SilentError, Store, decode, encode
from bulkhead.inventory import Host, Inventory

KEY = f"{PREFIX}lock"
LEASE_SECONDS = 60
RENEW_SECONDS = 15.0
# A command that begins now should have reached its host before the lease can end.
MARGIN_SECONDS = 10.0
OVERTAKEN = 77  # exit code of a host that has seen a later operation
# It goes on while a laptop sleeps, as the lease does. (macOS has no such clock; its monotonic one does that.)
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

# What the host has seen last, as "CLUSTER REVISION": revisions begin anew when etcd is made anew.
FENCE = """\
set -e; umask 022; mkdir -p /var/lib/bulkhead; cd /var/lib/bulkhead
exec 9>>fence.lock; flock 9; seen=$(cat fence 2>/dev/null || true)
case $seen in "{cluster} "*)
  if [ "${{seen#* }}" -gt {revision} ]; then
    echo "fence: revision ${{seen#* }} was here" >&2; exit {overtaken}
  fi
esac
if [ "$seen" != "{cluster} {revision}" ]; then echo "{cluster} {revision}" >fence.new; mv fence.new fence; fi
exec 9>&-; cd /; set +e
{command}"""


@dataclass(frozen=True)
class Holder:
    """Who holds the lock, as others read it."""

    id: str
    operation: str
    by: str
    since: str  # UTC

    def __str__(self) -> str:
        return f"{self.by} runs {self.operation} since {self.since}"


@dataclass(frozen=True)
class Token:
    """What tells an operation from those before and after it."""

    cluster: str
    revision: int

    def before(self, command: str) -> str:
        """The shell command, run only on a host that has seen no later operation."""
        return FENCE.format(
            cluster=self.cluster, revision=self.revision, overtaken=OVERTAKEN, command=command
        )


class LostError(FailedError):
    """The lease could not be renewed in time: somebody else may hold the lock by now."""


class OvertakenError(HostError):
    """The host has seen a later operation than this one."""


def now_seconds() -> float:
    return time.clock_gettime(CLOCK)


class Lock:
    """The lock, held. `keep` renews it until the `stop` event."""

    def __init__(self, store: Store, lease: str, token: Token, asked: float) -> None:
        self.token = token
        self._store = store
        self._lease = lease
        self._until = asked + LEASE_SECONDS
        self._said = ""
        self._ended = False

    def require(self) -> None:
        """Raises LostError unless the lock is surely still held, and will be when a command arrives."""
        if self._ended or now_seconds() > self._until - MARGIN_SECONDS:
            raise LostError(
                "The environment's lock was lost: "
                + (self._said or f"it was not renewed for {LEASE_SECONDS - MARGIN_SECONDS:g} s (asleep?)")
                + ". Nothing more was done.",
                mend="See how things stand, then start again: fab status",
            )

    def keep(self, stop: threading.Event, pause: Callable[[float], bool] | None = None) -> None:
        wait = pause or stop.wait
        while not wait(RENEW_SECONDS) and not self._ended:
            asked = now_seconds()
            try:
                (answer,) = self._store.calls(("lease/keepalive", {"ID": self._lease}))
            except Error as error:  # the next try may do better; require() knows the end
                self._said = f"it could not be renewed ({error.message.splitlines()[0]})"
                continue
            if int(answer.get("result", {}).get("TTL", 0)) <= 0:
                self._ended = True
                self._said = "it had ended before it could be renewed"
            else:
                self._until, self._said = asked + LEASE_SECONDS, ""

    def release(self) -> None:
        """Raises an Error when etcd cannot be told; then it ends by itself."""
        if not self._ended:
            self._store.calls(("lease/revoke", {"ID": self._lease}))


@dataclass(frozen=True)
class Held:
    """The lock as it is held now."""

    holder: Holder
    revision: int


def held(store: Store) -> Held | None:
    (answer,) = store.calls(("kv/range", {"key": encode(KEY)}))
    return parse(answer)


def parse(answer: Mapping[str, Any]) -> Held | None:
    """From etcd's answer to a range over the lock's key."""
    found = answer.get("kvs") or []
    return Held(_holder(found[0]), int(found[0]["create_revision"])) if found else None


def take(store: Store, operation: str) -> Lock:
    """Raises RefusedError when somebody else has it, SilentError when etcd cannot be asked."""
    mine = Holder(
        id=secrets.token_hex(8),
        operation=operation,
        by=ledger.who(),
        since=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    )
    asked = now_seconds()
    granted, answer = store.calls(
        ("lease/grant", {"TTL": LEASE_SECONDS}),
        (
            "kv/txn",
            {
                "compare": [
                    {"key": encode(KEY), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
                ],
                "success": [
                    {
                        "requestPut": {
                            "key": encode(KEY),
                            "value": encode(json.dumps(vars(mine))),
                            "lease": "$LEASE",
                        }
                    }
                ],
                "failure": [{"requestRange": {"key": encode(KEY)}}],
            },
        ),
    )
    cluster = str(answer["header"]["cluster_id"])
    if answer.get("succeeded"):
        return Lock(store, granted["ID"], Token(cluster, int(answer["header"]["revision"])), asked)
    found = answer["responses"][0]["response_range"]["kvs"][0]
    # The first try may have been made although its answer was lost on the way.
    if _holder(found) == mine:
        return Lock(store, found["lease"], Token(cluster, int(found["create_revision"])), asked)
    store.calls(("lease/revoke", {"ID": granted["ID"]}))
    raise _taken(_holder(found))


def _holder(entry: Mapping[str, Any]) -> Holder:
    return Holder(**json.loads(decode(entry["value"])))


def _taken(other: Holder) -> RefusedError:
    return RefusedError(
        f"Another operation holds the environment's lock: {other}.",
        mend="Wait for its end. When its controller is gone, the lock ends by itself within "
        f"{LEASE_SECONDS} s.",
    )


class Actions:
    """Commands that change hosts: only under the lock, and never after a later operation."""

    def __init__(self, connections: Connections, lock: Lock | None) -> None:
        self._connections = connections
        self.lock = lock

    def run(self, host: Host, command: str, *, timeout_seconds: float, check: bool = True) -> Result:
        if self.lock is None:
            return self._connections.run(host, command, timeout_seconds=timeout_seconds, check=check)
        self.lock.require()
        result = self._connections.run(
            host,
            self.lock.token.before(command),
            shown=command,
            timeout_seconds=timeout_seconds,
            check=False,
        )
        if result.code == OVERTAKEN and result.stderr.startswith("fence:"):
            raise OvertakenError(
                host.name,
                "a later operation was here, so this one does nothing more.",
                mend="See how things stand: fab status",
            )
        if check and result.code:
            raise CommandError(host.name, command, result.code, result.stderr or result.stdout)
        return result


@contextmanager
def locked(
    inventory: Inventory,
    connections: Connections,
    operation: str,
    *,
    dry_run: bool = False,
    without: str | None = None,
    may_go_without: bool = False,
) -> Iterator[Actions]:
    """The way to change hosts, for as long as one operation takes.

    `without` is the operator's reason to go on when etcd is down. A dry run changes nothing and takes no
    lock; an environment without databases has no etcd to keep one in.
    """
    if without is not None and not without.strip():
        raise SettingsError("--without-lock needs the reason, for those who read the ledger.")
    if without and not dry_run:
        ledger.write(inventory, operation, "without lock", reason=without)
    if dry_run or without or not inventory.hosts("databases"):
        yield Actions(connections, None)
        return
    try:
        lock = take(Etcd(inventory, connections), operation)
    except SilentError as error:
        again = f"fab {operation} --without-lock 'WHY'"
        raise RefusedError(
            f"The environment's lock cannot be taken: {error.message}",
            mend="Bring etcd back first (fab status)"
            + (f"; or, when nobody else operates now: {again}" if may_go_without else "."),
        ) from None
    stop = threading.Event()
    keeper = threading.Thread(target=lock.keep, args=(stop,), daemon=True)
    keeper.start()
    try:
        with ledger.shared(Etcd(inventory, connections), lock.token.revision):
            yield Actions(connections, lock)
    finally:
        stop.set()
        try:
            lock.release()
        except Error as error:
            screen.console().print(
                f"The environment's lock could not be given back ({error.message.splitlines()[0]}); "
                f"it ends by itself within {LEASE_SECONDS} s.",
                soft_wrap=True,
            )
