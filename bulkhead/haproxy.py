"""HAProxy's runtime API: its answers as data, and a client that asks over SSH."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from bulkhead import probes
from bulkhead.connections import Connections
from bulkhead.errors import FailedError
from bulkhead.inventory import Host

# Bits of srv_admin_state in `show servers state` (HAProxy's management guide, 9.3).
_MAINTENANCE = 0x01 | 0x02 | 0x04 | 0x20
_DRAIN = 0x08 | 0x10


@dataclass(frozen=True)
class Server:
    """A server of a backend, as one load balancer sees it."""

    backend: str
    name: str
    health: str  # up, down, going up, going down, unchecked
    drained: bool
    maintenance: bool
    weight: int
    sessions: int
    queued: int
    check: str  # why, in HAProxy's words: L7OK/200, L4CON ...
    seconds_in_state: int

    @property
    def serving(self) -> bool:
        """Whether it is given new requests."""
        healthy = self.health in ("up", "going down", "unchecked")
        return healthy and not self.drained and not self.maintenance and self.weight > 0

    @property
    def state(self) -> str:
        """One word or two for the screen."""
        if self.maintenance:
            return "maintenance"
        if self.drained or (self.weight == 0 and self.health != "down"):
            return "drained" if self.health != "down" else "down, drained"
        return self.health


@dataclass(frozen=True)
class Statistics:
    """All that a load balancer says about itself."""

    version: str
    uptime_seconds: int
    sessions: int
    servers: tuple[Server, ...]

    def backend(self, name: str) -> dict[str, Server]:
        return {server.name: server for server in self.servers if server.backend == name}

    @property
    def backends(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(server.backend for server in self.servers))


def parse(info: str, stat: str, servers_state: str) -> Statistics:
    """The answers to `show info`, `show stat` and `show servers state`."""
    facts = dict(line.split(": ", 1) for line in info.splitlines() if ": " in line)
    rows = [row for row in _table(stat, ",") if row["svname"] not in ("FRONTEND", "BACKEND")]
    admin = {(row["be_name"], row["srv_name"]): row for row in _table(_without_version(servers_state), " ")}
    return Statistics(
        version=facts.get("Version", ""),
        uptime_seconds=_number(facts.get("Uptime_sec")),
        sessions=_number(facts.get("CurrConns")),
        servers=tuple(_server(row, admin.get((row["pxname"], row["svname"]), {})) for row in rows),
    )


def _server(row: Mapping[str, str], admin: Mapping[str, str]) -> Server:
    status = row["status"]
    flags = _number(admin.get("srv_admin_state"))
    check = row.get("check_status", "").removeprefix("* ")
    if check and row.get("check_code"):
        check = f"{check}/{row['check_code']}"
    return Server(
        backend=row["pxname"],
        name=row["svname"],
        health=_health(status, admin),
        drained=bool(flags & _DRAIN) or status.startswith("DRAIN"),
        maintenance=bool(flags & _MAINTENANCE) or status.startswith("MAINT"),
        weight=_number(row.get("weight")),
        sessions=_number(row.get("scur")),
        queued=_number(row.get("qcur")),
        check=check,
        seconds_in_state=_number(row.get("lastchg")),
    )


def _health(status: str, admin: Mapping[str, str]) -> str:
    """HAProxy writes `UP`, `UP 1/3` (checks begin to fail), `DOWN`, `DOWN 1/2` (checks begin to pass)."""
    word, _, rest = status.partition(" ")
    moving = "/" in rest
    if word == "no":  # "no check"
        return "unchecked"
    if word == "UP":
        return "going down" if moving else "up"
    if word == "DOWN":
        return "going up" if moving else "down"
    # A drained server, or one in maintenance: 0 is stopped, 2 running (srv_op_state).
    return "down" if admin.get("srv_op_state") == "0" else "up"


def _without_version(text: str) -> str:
    """`show servers state` begins with the version of its format."""
    first, _, rest = text.partition("\n")
    return rest if first.strip().isdigit() else text


def _table(text: str, separator: str) -> list[dict[str, str]]:
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or not lines[0].startswith("# "):
        return []
    lines[0] = lines[0].removeprefix("# ")
    return [
        {key: value or "" for key, value in row.items() if key}
        for row in csv.DictReader(io.StringIO("\n".join(lines)), delimiter=separator)
    ]


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


class RuntimeApi:
    """The runtime API of load balancers, through SSH and the socket on the node."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def commands(self, host: Host, *commands: str) -> list[str]:
        """Sends commands one after the other and returns HAProxy's answers. It answers errors as text too."""
        result = self._connections.run(
            host,
            f"python3 - {shlex.join(commands)}",
            input=probes.source("runtime_api"),
            timeout_seconds=15,
        )
        answers: list[str] = json.loads(result.stdout)
        return answers

    def statistics(self, host: Host) -> Statistics:
        info, stat, servers_state = self.commands(host, "show info", "show stat", "show servers state")
        found = parse(info, stat, servers_state)
        if not found.servers:
            raise FailedError(
                f"{host.name}: HAProxy's runtime API gave no servers.",
                mend=f"Converge it: `ansible-playbook playbooks/load_balancers.yml --limit {host.name}`.",
            )
        return found
