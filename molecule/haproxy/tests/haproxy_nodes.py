"""A client of the scenario's addresses, and hands on its nodes."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import testinfra
import testinfra.host

PUBLIC1, PUBLIC2, PUBLIC6, INTERNAL = "198.18.12.101", "198.18.12.102", "fd00:18:12::101", "198.18.12.103"
MARKS = "/usr/local/lib/bulkhead/haproxy-marks"
BLOCK = "/usr/local/lib/bulkhead/haproxy-block"

Host = testinfra.host.Host


def node(name: str) -> Host:
    return testinfra.get_host(f"ansible://{name}")


def wait_until(what: str, condition: Callable[[], Any], seconds: float = 20) -> Any:
    """Wait for a condition and return what it gave; `what` names it when it does not come."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)  # between two looks at a condition
    return result


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def said(self) -> dict[str, Any]:
        """What the sample application says of the request."""
        return dict(json.loads(self.body))

    def received(self, name: str) -> list[str]:
        """Values of a header as the application got it."""
        return [value for key, value in self.said["headers"] if key.lower() == name.lower()]


class Client:
    """HTTPS with the certificate checked."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    def connect(self, address: str = PUBLIC1, timeout: float = 20) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(address, context=self.context, timeout=timeout)

    def get(
        self,
        path: str = "/",
        headers: dict[str, str] | None = None,
        address: str = PUBLIC1,
        method: str = "GET",
        timeout: float = 20,
    ) -> Answer:
        connection = self.connect(address, timeout)
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return Answer(
                answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()


def admin(host: Host, command: str, socket_path: str = "/run/haproxy/admin.sock") -> str:
    """Ask HAProxy on a node through its own programs' module."""
    program = (
        "import sys; sys.path.insert(0, '/usr/local/lib/bulkhead'); import haproxy_runtime as runtime; "
        "print(runtime.ask(*sys.argv[1:]))"
    )
    return str(host.check_output("python3 -B -c %s %s %s", program, socket_path, command))


def servers(host: Host) -> dict[str, str]:
    """Return the status of each pool/server as a load balancer sees it: UP, DOWN, DRAIN, MAINT."""
    rows = [line.split(",") for line in admin(host, "show stat").splitlines() if line.count(",") > 17]
    return {
        f"{row[0]}/{row[1]}": row[17].split(" ")[0] for row in rows if row[1] not in ("FRONTEND", "BACKEND")
    }


def marks(host: Host) -> dict[str, str]:
    """Return the servers that are marked."""
    lines = (line.split() for line in host.check_output(f"{MARKS} show").splitlines())
    return {name: mark for name, mark in lines if mark != "ready"}


def log(host: Host, since: str) -> list[dict[str, Any]]:
    """Return the JSON lines since a time that `now` gave."""
    text = host.check_output(f"journalctl -t haproxy-log -o cat --since '{since}'")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def now(host: Host) -> str:
    return str(host.check_output("date '+%Y-%m-%d %H:%M:%S.%6N'"))


def receive_line(connection: socket.socket) -> str:
    """Read one line; an empty one is the end."""
    line = b""
    while not line.endswith(b"\n") and (byte := connection.recv(1)):
        line += byte
    return line.decode().strip()


def pools_up(host: Host) -> bool:
    seen = servers(host)
    pools = {name: state for name, state in seen.items() if name.startswith("pool_")}
    return (
        set(pools.values()) == {"UP"}
        and seen["postgres_primary/back1"] == "UP"
        and seen["postgres_primary/back2"] == "DOWN"
        and seen["postgres_replica/back2"] == "UP"
    )


def container(host: str, *command: str) -> None:
    """Do to a node what no program on it can: freeze it, for one."""
    subprocess.run(["podman", *command, f"bulkhead-haproxy-{host}"], check=True, capture_output=True)
