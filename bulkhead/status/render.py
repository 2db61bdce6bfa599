"""The view as one screen of 80 columns or more; without a terminal as plain text."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bulkhead.status.addresses import Address
from bulkhead.status.database import Database
from bulkhead.status.hosts import Releases
from bulkhead.status.judge import Finding
from bulkhead.status.pools import Pool
from bulkhead.status.units import byte_count
from bulkhead.status.view import View

# A pool or a list of nodes longer than this shows those that are not well, and counts the others.
SHOWN_ROWS = 8

GOOD, BAD, QUIET = "green", "bold red", "dim"


def render(view: View, console: Console) -> None:
    console.print(screen(view), crop=False)


def screen(view: View) -> RenderableType:
    sections: list[RenderableType] = [_head(view)]
    if view.addresses:
        sections.append(_section("ADDRESSES", _addresses(view)))
    if view.pools:
        sections.append(_section("POOLS", _pools(view)))
    elif view.load_balancers:
        sections.append(_section("POOLS", _line("not known: no load balancer tells its servers", BAD)))
    if view.database is not None:
        sections.append(_section("DATABASE", _database(view.database)))
    if view.app_servers:
        sections.append(_section("RELEASES", _releases(view.releases)))
    sections.append(_section("FAILED UNITS", _failed(view)))
    sections.append(_verdict(view))
    return Group(*sections)


def _head(view: View) -> RenderableType:
    answered = view.host_count - len(view.unreachable)
    head = Text()
    head.append(view.environment, style="bold")
    head.append(f"  {answered} of {view.host_count} hosts answer", style="" if not view.unreachable else BAD)
    head.append(f"  ({view.seconds:.1f} s)\n", style=QUIET)
    head.append(view.sources, style=QUIET)
    return head


def _section(title: str, body: RenderableType) -> RenderableType:
    return Group(Text(f"\n{title}", style="bold"), Padding(body, (0, 0, 0, 2)))


def _table(*headings: str) -> Table:
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
    table = _table("", "", "", "", "")
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
    table = _table("", "", *(f"on {name}" for name in seers), "sessions")
    for pool in view.pools:
        _pool(table, pool, seers)
    return table


def _pool(table: Table, pool: Pool, seers: list[str]) -> None:
    if pool.backend.startswith("postgres_"):
        _postgres_pool(table, pool, seers)
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


def _postgres_pool(table: Table, pool: Pool, seers: list[str]) -> None:
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
    table = _table("", "role", "state", "lag", "timeline", "etcd")
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


def _releases(rows: tuple[Releases, ...]) -> RenderableType:
    if not rows:
        return _line("no application server answers", BAD)
    table = _table("", "", "")
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
    table = _table("", "")
    for host, units in view.failed_units.items():
        table.add_row(host, _line(", ".join(units), BAD))
    return table


def _verdict(view: View) -> RenderableType:
    if not view.findings:
        return Text("\nALL WELL", style="bold green")
    outages = sum(finding.outage for finding in view.findings)
    title = "1 THING IS WRONG" if len(view.findings) == 1 else f"{len(view.findings)} THINGS ARE WRONG"
    if outages:
        title += ", AND CLIENTS NOTICE"
    lines: list[RenderableType] = [Text(f"\n{title}", style=BAD)]
    following = [finding.mend for finding in view.findings[1:]] + [""]
    for finding, next_mend in zip(view.findings, following, strict=True):
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
