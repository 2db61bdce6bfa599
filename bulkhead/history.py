"""`fab ledger`: the operations of this environment, the latest last. It changes nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bulkhead import ledger, lock, screen
from bulkhead.connections import cluster
from bulkhead.errors import RefusedError
from bulkhead.etcd import Etcd, Store
from bulkhead.inventory import Inventory

SHOWN = 20

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """One operation, from its entries."""

    name: str
    by: str
    began: str  # UTC
    what: str  # what it was about: a release, hosts
    result: str  # done, running, interrupted, or the error that ended it
    last: str  # the last step that it did
    said: str
    seconds: float | None


def operation(entries: Sequence[Entry], *, running: bool) -> Operation:
    """`running`: the lock is held by it still, so an end that is missing may yet come."""
    first, last = entries[0], entries[-1]
    steps = [entry for entry in entries if entry["event"] not in ("began", "ended")]
    ended = last if last["event"] == "ended" else None
    if ended is not None:
        result = ENDS.get(str(ended["result"]), "failed")
    else:
        result = "running" if running else "interrupted"
    return Operation(
        name=str(first["operation"]),
        by=str(first["by"]),
        began=str(first["at"]),
        what=about(first),
        result=result,
        last=" ".join([str(steps[-1]["event"]), about(steps[-1])]).strip() if steps else "",
        said=str(ended.get("said", "")).splitlines()[0] if ended and ended.get("said") else "",
        seconds=float(ended["seconds"]) if ended else None,
    )


# The classes of bulkhead.errors, as the ledger has them.
ENDS = {"done": "done", "CancelledError": "stopped (Ctrl-C)", "RefusedError": "refused"}


def about(entry: Entry) -> str:
    """What an entry names: a release, a host or hosts."""
    hosts = entry.get("hosts") or ([entry["host"]] if entry.get("host") else [])
    shown = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
    return " ".join(part for part in (str(entry.get("release") or ""), shown) if part)


def again(first: Entry) -> str:
    """What to type to end an operation that was cut short."""
    release, host = first.get("release"), first.get("host")
    options = (f" --release {release}" if release else "") + (f" {host}" if host else "")
    return f"fab {first['operation']}{options}"


def read(store: Store) -> list[Operation]:
    found = ledger.read(store)
    held = lock.held(store)
    return [
        operation(entries, running=held is not None and held.revision == revision)
        for revision, entries in found.items()
    ]


def run(*, as_json: bool = False) -> int:
    with cluster() as (inventory, connections):
        if not inventory.hosts("databases"):
            raise RefusedError(
                f"The inventory has no databases ({inventory.sources}), and the ledger is in their etcd.",
                mend=f"What this machine did is in {ledger.FILE} of the release store.",
            )
        operations = read(Etcd(inventory, connections))[-SHOWN:]
    if as_json:
        print(json.dumps([asdict(each) for each in operations], indent=2))
    else:
        screen.console().print(shown(inventory, operations), crop=False)
    return 0


def shown(inventory: Inventory, operations: Sequence[Operation]) -> RenderableType:
    head = Text(f"{inventory.environment_name}  ", style="bold")
    if not operations:
        return head.append("nothing was done yet", style="")
    head.append(f"the last {len(operations)} operations, in UTC", style="")
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("began", "by", "operation", "took", "result"):
        table.add_column(title, overflow="fold")
    for each in operations:
        took = "" if each.seconds is None else screen.clock(each.seconds).strip()
        table.add_row(
            each.began.replace("T", " ").removesuffix("Z"),
            each.by,
            f"{each.name} {each.what}".strip(),
            took,
            _result(each),
        )
    return Group(head, Text(""), table)


def _result(each: Operation) -> Text:
    well = each.result in ("done", "running")
    told = Text(each.result, style="green" if well else "bold red")
    if each.result == "interrupted":
        told.append(f", after: {each.last or 'nothing'}", style="")
    elif each.said and not well:
        told.append(f": {each.said}", style="")
    return told
