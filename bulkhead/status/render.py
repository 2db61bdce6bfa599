"""The view as one screen of 80 columns or more; without a terminal as plain text."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bulkhead.status.addresses import Address
from bulkhead.status.brokers import RUNNING, Broker
from bulkhead.status.database import Database
from bulkhead.status.hosts import Releases
from bulkhead.status.judge import Finding
from bulkhead.status.pools import BROKERS, Pool
from bulkhead.status.queues import Queue
from bulkhead.status.units import byte_count, duration
from bulkhead.status.view import View
from bulkhead.status.workers import WELL, Worker

# A pool or a list of nodes longer than this shows those that are not well, and counts the others.
SHOWN_ROWS = 8

GOOD, BAD, QUIET = "green", "bold red", "dim"


def render(view: View, console: Console) -> None:
    console.print(screen(view), crop=False)


def screen(view: View) -> RenderableType:
    sections: list[RenderableType] = [_head(view)]
    if view.addresses:
        sections.append(section("ADDRESSES", _addresses(view)))
    if view.pools:
        sections.append(section("POOLS", _pools(view)))
    elif view.load_balancers:
        sections.append(section("POOLS", _line("not known: no load balancer tells its servers", BAD)))
    if view.database is not None:
        sections.append(section("DATABASE", _database(view.database)))
    if view.brokers:
        sections.append(section("BROKERS", broker_table(view.brokers)))
        sections.append(section("QUEUES", _queues(view.queues)))
    if view.workers:
        sections.append(section("WORKERS", _workers(view.workers, view.scheduler)))
    if view.app_servers:
        sections.append(section("RELEASES", _releases(view.releases)))
    sections.append(section("FAILED UNITS", _failed(view)))
    sections.append(verdict(view.findings))
    return Group(*sections)


def _head(view: View) -> RenderableType:
    answered = view.host_count - len(view.unreachable)
    head = Text()
    head.append(view.environment, style="bold")
    head.append(f"  {answered} of {view.host_count} hosts answer", style="" if not view.unreachable else BAD)
    head.append(f"  ({view.seconds:.1f} s)\n", style=QUIET)
    head.append(view.sources, style=QUIET)
    if view.operation:
        head.append(f"\n{view.operation}", style="bold")
    return head


def section(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(f"\n{title}", style="bold"), Padding(body, (0, 0, 0, 2)))


def columns(*headings: str) -> Table:
    """Columns with two spaces between them. Headings are shown if there are any."""
    table = Table(
        box=None, show_header=any(headings), header_style=QUIET, padding=(0, 2, 0, 0), pad_edge=False
    )
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style)


def _addresses(view: View) -> RenderableType:
    table = columns("", "", "", "", "")
    for row in view.addresses:
        table.add_row(row.name, row.address, _owner(row), _answer(row), _line(_wanted(row), QUIET))
    return table


def _owner(row: Address) -> Text:
    if not row.owners:
        return _line("NO OWNER", BAD)
    if len(row.owners) > 1:
        return _line(f"{len(row.owners)} OWNERS: {' '.join(row.owners)}", BAD)
    return _line(row.owners[0], GOOD if row.owners[0] == row.wanted else "yellow")


def _answer(row: Address) -> Text:
    if row.answer is None:
        return _line("")
    if row.answer.good:
        return _line(f"answers in {row.answer.milliseconds} ms")
    return _line(row.answer.problem or f"answers {row.answer.code}", BAD)


def _wanted(row: Address) -> str:
    return "" if row.owners == (row.wanted,) else f"wanted on {row.wanted}"


def _pools(view: View) -> RenderableType:
    seers = [
        name for name in view.load_balancers if any(name in s.states for p in view.pools for s in p.servers)
    ]
    table = columns("", "", *(f"on {name}" for name in seers), "sessions")
    for pool in view.pools:
        _pool(table, pool, seers)
    return table


def _pool(table: Table, pool: Pool, seers: list[str]) -> None:
    if pool.backend.startswith(("postgres_", BROKERS)):
        _internal_pool(table, pool, seers)
        return
    shown = pool.servers
    if len(shown) > SHOWN_ROWS:
        shown = tuple(server for server in pool.servers if not server.well)[:SHOWN_ROWS]
        rest = [server for server in pool.servers if server not in shown]
        table.add_row(
            pool.name,
            f"{len(rest)} servers",
            *(_counted(server.states.get(name, "?") for server in rest) for name in seers),
            str(sum(server.sessions for server in rest)),
        )
    first = len(shown) == len(pool.servers)
    for server in shown:
        table.add_row(
            pool.name if first else "",
            server.name,
            *(_state(server.states.get(name, "?")) for name in seers),
            str(server.sessions),
        )
        first = False


def _internal_pool(table: Table, pool: Pool, seers: list[str]) -> None:
    """Who serves is what there is to say: the others stand by."""
    style = GOOD if all(server.well for server in pool.servers) else BAD
    serving = [
        " ".join(server.name for server in pool.servers if server.states.get(seer) == "up") or "nobody"
        for seer in seers
    ]
    sessions = sum(server.sessions for server in pool.servers)
    table.add_row(pool.name, "", *(_line(names, style) for names in serving), str(sessions))


def _counted(states: Iterable[str]) -> Text:
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items(), key=lambda pair: -pair[1]))
    return _line(text, GOOD if set(counts) <= {"up", "standby"} else BAD)


def _state(state: str) -> Text:
    style = {"up": GOOD, "standby": QUIET, "drained": "yellow", "going up": "yellow", "maintenance": "yellow"}
    return _line(state, style.get(state, BAD))


def _database(database: Database) -> RenderableType:
    table = columns("", "role", "state", "lag", "timeline", "etcd")
    shown = database.members
    for row in shown:
        table.add_row(
            row.name,
            _line(row.role, "bold" if row.name == database.leader else ""),
            _line(row.state, GOOD if row.well else BAD),
            "" if row.name == database.leader else byte_count(row.lag_bytes),
            str(row.timeline) if row.timeline is not None else "?",
            _line(row.etcd, "" if row.etcd in ("leader", "member") else BAD),
        )
    above: list[RenderableType] = []
    if database.leader is None:
        above.append(_line("NO LEADER SEEN", BAD))
    if database.paused:
        above.append(_line("PAUSED: nothing fails over by itself", BAD))
    return Group(*above, table)


def broker_table(rows: tuple[Broker, ...]) -> RenderableType:
    table = columns("", "state", "memory", "alarms", "may it go?")
    for row in rows:
        limit = f" of {byte_count(row.memory_limit_bytes)}" if row.memory_limit_bytes else ""
        table.add_row(
            row.name,
            _line(row.state, GOOD if row.state == RUNNING else BAD),
            f"{byte_count(row.memory_bytes)}{limit}" if row.state == RUNNING else "",
            _line(", ".join(row.alarms) or "none", BAD if row.alarms else QUIET)
            if row.state == RUNNING
            else "",
            _may_go(row),
        )
    return table


def _may_go(row: Broker) -> Text:
    if row.state != RUNNING:
        return _line("")
    if row.needed_by is None:
        return _line("?", QUIET)
    if not row.needed_by:
        return _line("yes", QUIET)
    return _line(f"no, needed by {_few(list(row.needed_by), 'queues')}", "yellow")


def _few(names: list[str], what: str) -> str:
    return ", ".join(names) if len(names) <= 3 else f"{len(names)} {what}"


def _queues(rows: tuple[Queue, ...]) -> RenderableType:
    if not rows:
        return _line("none", QUIET)
    table = columns("", "ready", "unacked", "consumers", "state")
    shown = rows if len(rows) <= SHOWN_ROWS else [row for row in rows if not row.well or row.messages]
    for row in shown:
        table.add_row(row.name, number(row.ready), number(row.unacked), consumers(row), queue_state(row))
    if len(shown) < len(rows):
        table.add_row(f"{len(rows) - len(shown)} others", "0", "0", "", _line("idle", QUIET))
    return table


def number(value: float | None) -> str:
    if value is None:
        return "?"
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def rate(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def consumers(row: Queue) -> str:
    return "" if row.kind == "dead letters" else number(row.consumers)


def queue_state(row: Queue) -> Text:
    quiet = row.state in ("idle", "empty", "works")
    return _line(row.state, BAD if not row.well or row.ready is None else QUIET if quiet else "yellow")


def oldest(row: Queue) -> str:
    if not row.ready:
        return "" if row.ready == 0 else "?"
    if row.oldest_seconds is None:
        return "?"
    return f"{'over ' if row.oldest_is_least else ''}{duration(row.oldest_seconds)}"


def _workers(rows: tuple[Worker, ...], scheduler: str | None) -> RenderableType:
    table = columns("", "release", "takes from", "scheduler")
    alike: dict[tuple[str, str, str, bool], list[str]] = {}
    for row in rows:
        role = "acts" if row.host == scheduler else "stands by" if row.scheduler else ""
        key = (row.current or "none", _taking(row), role, row.well)
        alike.setdefault(key, []).append(row.host)
    for (current, taking, role, well), names in alike.items():
        table.add_row(
            _names(names),
            current,
            _line(taking, "" if well else BAD),
            _line(role, "bold" if role == "acts" else ""),
        )
    return table


def _taking(row: Worker) -> str:
    if row.drained is not None:
        return f"DRAINED by {row.drained.get('by', '?')}"
    told = []
    for name, running in row.queues.items():
        state = running.get(row.current or "", "")
        told.append(name if state == WELL else f"{name}: {state or 'stopped'}")
    return ", ".join(told) or "nothing"


def _releases(rows: tuple[Releases, ...]) -> RenderableType:
    if not rows:
        return _line("no application server answers", BAD)
    table = columns("", "", "")
    # Nodes that are alike share a line: two hundred on one release are one line.
    alike: dict[tuple[str, str], list[Releases]] = {}
    for row in rows:
        alike.setdefault((row.current or "none", _running(row)), []).append(row)
    for (current, running), members in alike.items():
        names = [row.host for row in members]
        well = all(row.well for row in members)
        table.add_row(
            _line(current, BAD if current == "none" or len(alike) > 1 else "bold"),
            _names(names),
            _line(running, "" if well else BAD),
        )
    return table


def _running(row: Releases) -> str:
    """What each pool runs, in words: the current release is not repeated."""
    told = []
    for pool, running in row.pools.items():
        if list(running) == [row.current]:
            state = running[row.current or ""]
            told.append(pool if state == "active/running" else f"{pool} {state}")
        else:
            told.append(f"{pool}: {', '.join(running) or 'nothing'}")
    return f"runs {', '.join(told)}" if told else ""


def _names(names: list[str]) -> str:
    return " ".join(names) if len(names) <= SHOWN_ROWS else f"{' '.join(names[:3])} ... {len(names)} nodes"


def _failed(view: View) -> RenderableType:
    if not view.failed_units:
        if len(view.unreachable) == view.host_count:
            return _line("not known: no host answers", BAD)
        return _line("none on the hosts that answer" if view.unreachable else "none", QUIET)
    table = columns("", "")
    for host, units in view.failed_units.items():
        table.add_row(host, _line(", ".join(units), BAD))
    return table


def verdict(findings: tuple[Finding, ...]) -> RenderableType:
    if not findings:
        return Text("\nALL WELL", style="bold green")
    outages = sum(finding.outage for finding in findings)
    title = "1 THING IS WRONG" if len(findings) == 1 else f"{len(findings)} THINGS ARE WRONG"
    if outages:
        title += ", AND CLIENTS NOTICE"
    lines: list[RenderableType] = [Text(f"\n{title}", style=BAD)]
    following = [finding.mend for finding in findings[1:]] + [""]
    for finding, next_mend in zip(findings, following, strict=True):
        lines += _finding(finding, told=finding.mend == next_mend)
    return Group(*lines)


def _finding(finding: Finding, told: bool) -> list[RenderableType]:
    mark = "!!" if finding.outage else " !"
    what = Table.grid(padding=(0, 1, 0, 0))
    what.add_row(_line(mark, BAD), _line(finding.what))
    if told:  # the next one has the same mend
        return [what]
    # A command stays on one line, however long: it is there to be copied.
    return [what, Text(f"   {finding.mend}", style="cyan", no_wrap=True, overflow="ignore")]
