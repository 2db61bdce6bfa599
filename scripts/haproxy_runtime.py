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


class NotRunningError(Exception):
    """No HAProxy answers on the socket."""


def ask(path: str, command: str, seconds: float = 10) -> str:
    """Send one command to a socket of HAProxy and return the whole answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(seconds)
        try:
            connection.connect(path)
            connection.sendall(command.encode() + b"\n")
            return read_all(connection)
        except OSError as error:
            raise NotRunningError(f"HAProxy does not answer on {path}: {error}") from error


def read_all(connection: socket.socket) -> str:
    """Read until the other side closes."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts).decode()


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let one change of marks, kill switches or processes happen at a time."""
    with open(LOCK_FILE, "w") as lock:  # noqa: PTH123 - the descriptor is what is locked
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
