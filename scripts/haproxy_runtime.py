"""What the programs beside this file share: HAProxy's sockets on this node, a lock and safe files."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

ADMIN_SOCKET = "/run/haproxy/admin.sock"
MASTER_SOCKET = "/run/haproxy/master.sock"
LOCK_FILE = "/run/lock/bulkhead-haproxy"

Server = dict[str, str]
State = dict[str, Server]


class NotRunningError(Exception):
    """No HAProxy answers on the socket."""


def ask(path: str, command: str, seconds: float = 10) -> str:
    """Send one command to a socket of HAProxy and return the whole answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            connection.shutdown(socket.SHUT_WR)  # the master keeps the connection open otherwise
            return read_all(connection)
        except OSError as error:
            raise NotRunningError(f"HAProxy does not answer on {path}: {error}") from error


def read_all(connection: socket.socket) -> str:
    """Read until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts).decode()


def parse(text: str) -> State:
    """Read `show servers state`: one entry per server, by pool/server."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
        return {}
    columns = lines[1][2:].split()
    servers = [dict(zip(columns, line.split(), strict=True)) for line in lines[2:]]
    return {f"{server['be_name']}/{server['srv_name']}": server for server in servers}


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let one change of marks, kill switches or processes happen at a time."""
    with open(LOCK_FILE, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write(path: Path, text: str) -> None:
    """Replace a file so that a reader, or a power cut, finds the old or the new one whole."""
    replacement = path.with_name(f".{path.name}.new")
    with replacement.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    replacement.chmod(0o644)
    replacement.replace(path)
