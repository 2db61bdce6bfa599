"""Commands on hosts over SSH, as Ansible would reach them, with host keys enforced.

Fabric reads the SSH configuration and opens the connection. Commands then run on the SSH channel itself:
Fabric's own runner sends standard input one character per 10 ms.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeVar

import paramiko
from fabric import Config, Connection

from bulkhead.errors import (
    CommandError,
    Error,
    FailedError,
    HostError,
    SettingsError,
    TimedOutError,
    UnreachableError,
    UntrustedHostError,
)
from bulkhead.inventory import ROOT, Host, Inventory, load

CONNECT_TIMEOUT_SECONDS = 2.0
# For each step of SSH's own. A frozen host's kernel still accepts a connection: only its silence tells.
HANDSHAKE_TIMEOUT_SECONDS = 10.0
COMMAND_TIMEOUT_SECONDS = 60.0
PARALLEL_HOSTS = 20
CHUNK_BYTES = 64 * 1024

T = TypeVar("T")

# Whatever it has to say arrives here as an exception as well, and there it is told in words.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


@dataclass(frozen=True)
class Result:
    stdout: str
    stderr: str
    code: int


class Connections:
    """One connection per host, opened when first used, closed together. Safe to use from several threads."""

    def __init__(self, *, connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> None:
        self._connect_timeout_seconds = connect_timeout_seconds
        self._open: dict[str, Connection] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def __enter__(self) -> Connections:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        with self._guard:
            connections, self._open = list(self._open.values()), {}
        for connection in connections:
            connection.close()

    def run(
        self,
        host: Host,
        command: str,
        *,
        sudo: bool = True,
        input: str | bytes | IO[bytes] | None = None,
        shown: str = "",
        timeout_seconds: float = COMMAND_TIMEOUT_SECONDS,
        check: bool = True,
    ) -> Result:
        """Runs a shell command, as root unless told otherwise. `input` becomes its standard input and is not
        shown: a secret belongs there, never in the command. Errors tell of `shown` in the command's place.
        A code other than 0 is an error if `check`."""
        full = f"sudo -n -- sh -c {shlex.quote(command)}" if sudo else command
        stdout = bytearray()
        stderr, code = self._exchange(host, full, shown or command, input, stdout.extend, timeout_seconds)
        result = Result(stdout.decode(errors="replace"), stderr.decode(errors="replace"), code)
        if check and code != 0:
            raise self._failure(host, shown or command, result)
        return result

    def put(
        self,
        host: Host,
        source: Path | bytes,
        target: str,
        *,
        owner: str = "root",
        group: str = "root",
        mode: int = 0o644,
        timeout_seconds: float = 300,
    ) -> None:
        """Writes a file on a host, whole or not at all."""
        # It is private while it is written, and takes its place in one step.
        script = (
            'set -e; umask 077; new=$(mktemp -- "$1.XXXXXX"); trap \'rm -f -- "$new"\' EXIT; '
            'cat > "$new"; chown -- "$2" "$new"; chmod -- "$3" "$new"; mv -fT -- "$new" "$1"'
        )
        arguments = shlex.join([target, f"{owner}:{group}", f"{mode:04o}"])
        full = f"sudo -n -- sh -c {shlex.quote(script)} put {arguments}"
        shown = f"write {target}"
        if isinstance(source, bytes):
            stderr, code = self._exchange(host, full, shown, source, _ignore, timeout_seconds)
        else:
            with source.open("rb") as file:
                stderr, code = self._exchange(host, full, shown, file, _ignore, timeout_seconds)
        if code != 0:
            raise self._failure(host, shown, Result("", stderr.decode(errors="replace"), code))

    def get(self, host: Host, source: str, target: Path, *, timeout_seconds: float = 300) -> None:
        """Copies a file from a host, whole or not at all."""
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        try:
            with part.open("wb") as file:
                stderr, code = self._exchange(
                    host,
                    f"sudo -n -- cat -- {shlex.quote(source)}",
                    f"read {source}",
                    None,
                    file.write,
                    timeout_seconds,
                )
            if code != 0:
                raise self._failure(host, f"read {source}", Result("", stderr.decode(errors="replace"), code))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def each(
        self,
        hosts: Iterable[Host],
        function: Callable[[Host], T],
        *,
        timeout_seconds: float | None = None,
        patience_seconds: float | None = None,
    ) -> dict[str, T | Error]:
        """Calls the function for all hosts at once and returns its answers by host name, in the order given.
        A host whose call raised an Error has that Error for an answer; so does one that took too long."""
        return each(hosts, function, timeout_seconds=timeout_seconds, patience_seconds=patience_seconds)

    def _failure(self, host: Host, command: str, result: Result) -> HostError:
        if "sudo:" in result.stderr and "password is required" in result.stderr:
            return HostError(
                host.name,
                "sudo asks for a password, and operations cannot answer.",
                mend=f"Let the SSH user use sudo without one. Try `{ssh_command(host)} sudo -n id`.",
            )
        return CommandError(host.name, command, result.code, result.stderr or result.stdout)

    def _connection(self, host: Host) -> Connection:
        with self._guard:
            lock = self._locks.setdefault(host.name, threading.Lock())
        with lock:
            connection = self._open.get(host.name)
            if connection is None or not connection.is_connected:
                connection = connect(host, timeout_seconds=self._connect_timeout_seconds)
                with self._guard:
                    self._open[host.name] = connection
            return connection

    def _exchange(
        self,
        host: Host,
        full: str,
        shown: str,
        input: str | bytes | IO[bytes] | None,
        receive: Callable[[bytes], Any],
        timeout_seconds: float,
    ) -> tuple[bytes, int]:
        """Runs a command, feeds it, hands its output on as it comes, returns standard error and code."""
        deadline = time.monotonic() + timeout_seconds
        stderr = bytearray()
        lost = f"the connection was lost while `{shown}` ran"
        try:
            channel = self._connection(host).transport.open_session(timeout=timeout_seconds)
            try:
                channel.settimeout(timeout_seconds)
                channel.exec_command(full)
                # Three streams at once: a command that fills one while nobody reads it would wait for ever.
                helpers = [
                    threading.Thread(target=_feed, args=(channel, input), daemon=True),
                    threading.Thread(target=_drain, args=(channel, stderr), daemon=True),
                ]
                for helper in helpers:
                    helper.start()
                while True:
                    channel.settimeout(max(0.001, deadline - time.monotonic()))
                    data = channel.recv(CHUNK_BYTES)
                    if not data:
                        break
                    receive(data)
                if not channel.status_event.wait(max(0.001, deadline - time.monotonic())):
                    raise TimeoutError
                helpers[1].join(max(0.001, deadline - time.monotonic()))
                code = channel.recv_exit_status()
            finally:
                channel.close()
        except TimeoutError:
            late = f"`{shown}` did not end within {timeout_seconds:g} s; it may still be running there."
            raise TimedOutError(host.name, late) from None
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise UnreachableError(
                host.name,
                f"{lost} ({_words(error)}); it may still be running there.",
                mend=f"See how the host is: `{ssh_command(host)}`.",
            ) from None
        if code == -1:
            raise UnreachableError(host.name, f"{lost}; it may still be running there.")
        return bytes(stderr), code


@contextlib.contextmanager
def cluster() -> Iterator[tuple[Inventory, Connections]]:
    """The environment and the way to its hosts, for one operation."""
    inventory = load()
    with Connections() as connections:
        yield inventory, connections


def each(
    hosts: Iterable[Host],
    function: Callable[[Host], T],
    *,
    timeout_seconds: float | None = None,
    patience_seconds: float | None = None,
) -> dict[str, T | Error]:
    """`function` of every host, in parallel, within a time for all of them. When fewer than half answered by
    then, it is this machine that is slow: they have until `patience_seconds`."""
    wanted = list(hosts)
    waiting: queue.SimpleQueue[Host] = queue.SimpleQueue()
    answers: queue.SimpleQueue[tuple[str, T | Exception]] = queue.SimpleQueue()
    for host in wanted:
        waiting.put(host)

    def work() -> None:
        while True:
            try:
                host = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                answers.put((host.name, function(host)))
            except Exception as error:  # handed to the caller, who raises what is not an Error
                answers.put((host.name, error))

    # Daemon threads, so that a host that hangs cannot keep the whole program from ending.
    for _ in range(min(PARALLEL_HOSTS, len(wanted))):
        threading.Thread(target=work, daemon=True).start()
    began = time.monotonic()
    limit = timeout_seconds
    got: dict[str, T | Error] = {}
    while len(got) < len(wanted):
        try:
            left = None if limit is None else max(0.0, began + limit - time.monotonic())
            name, answer = answers.get(timeout=left)
        except queue.Empty:
            if patience_seconds is None or limit == patience_seconds or 2 * len(got) >= len(wanted):
                break
            limit = patience_seconds
            continue
        if isinstance(answer, Exception) and not isinstance(answer, Error):
            raise answer
        got[name] = answer
    late = f"it did not answer within {limit or 0:g} s."
    return {host.name: got.get(host.name, UnreachableError(host.name, late)) for host in wanted}


def answers_of(outcomes: Mapping[str, T | Error], *, doing: str) -> dict[str, T]:
    """The answers of all hosts, or one error that names every host that has none."""
    bad = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Error)}
    if bad:
        mends = list(dict.fromkeys(error.mend for error in bad.values() if error.mend))
        lines = "".join(f"\n  {error.message}" for error in bad.values())
        message = f"{doing} failed on {len(bad)} of {len(outcomes)} hosts:{lines}"
        raise FailedError(message, mend="\n  ".join(mends))
    return {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, Error)}


def connect(host: Host, *, timeout_seconds: float = CONNECT_TIMEOUT_SECONDS) -> Connection:
    """An open connection to a host whose key is the one on record."""
    settings = ssh_settings(host)
    connection = Connection(
        host.address,
        user=settings.user,
        port=settings.port,
        config=_fabric_config(settings.configuration),
        connect_timeout=HANDSHAKE_TIMEOUT_SECONDS,
        connect_kwargs={
            "banner_timeout": HANDSHAKE_TIMEOUT_SECONDS,
            "auth_timeout": HANDSHAKE_TIMEOUT_SECONDS,
            **({"key_filename": [str(settings.key)]} if settings.key else {}),
        },
    )
    files = _known_hosts_files(connection.ssh_config)
    trust(connection, files)
    try:
        if connection.gateway is None:
            # paramiko has one limit for the connection and for the handshake; a busy host is no dead one.
            where = (connection.host, connection.port)
            connection.connect_kwargs["sock"] = socket.create_connection(where, timeout=timeout_seconds)
        connection.open()
    except paramiko.BadHostKeyException as error:
        raise UntrustedHostError(
            host.name,
            f"its SSH host key is not the one on record in {_listed(files)}. Nothing was sent to it.",
            mend=_check_key(error.key),
        ) from None
    except UnknownKeyError as error:
        raise UntrustedHostError(
            host.name,
            f"its SSH host key is not on record in {_listed(files)}. Nothing was sent to it.",
            mend=_check_key(error.key),
        ) from None
    except paramiko.AuthenticationException as error:
        raise UnreachableError(
            host.name,
            f"it does not let {connection.user} in ({_words(error)}).",
            mend=f"Try by hand: `{ssh_command(host)}`.",
        ) from None
    except (paramiko.SSHException, OSError, EOFError, ValueError) as error:
        raise UnreachableError(
            host.name,
            f"no SSH session with {connection.host}:{connection.port} ({_words(error)}).",
            mend=f"Try by hand: `{ssh_command(host)}`.",
        ) from None
    return connection


def trust(connection: Connection, files: Iterable[Path]) -> None:
    """Only the host keys in these files are accepted. (Fabric's own default accepts any key.)"""
    connection.client.set_missing_host_key_policy(_Reject())
    for file in files:
        if file.is_file():
            connection.client.load_system_host_keys(str(file))


class UnknownKeyError(Exception):
    def __init__(self, key: paramiko.PKey) -> None:
        super().__init__("unknown host key")
        self.key = key


class _Reject:
    """What paramiko asks about a host that is in none of the files."""

    def missing_host_key(self, _client: paramiko.SSHClient, _hostname: str, key: paramiko.PKey) -> None:
        raise UnknownKeyError(key)


@dataclass(frozen=True)
class SshSettings:
    configuration: Path | None  # None: the user's own
    user: str | None
    port: int | None
    key: Path | None


def ssh_settings(host: Host) -> SshSettings:
    """How Ansible reaches the host, from the variables that say so."""
    arguments = shlex.split(str(host.literal("ansible_ssh_common_args", "")))
    configuration = None
    if arguments:
        if len(arguments) != 2 or arguments[0] != "-F":
            raise SettingsError(
                f"ansible_ssh_common_args of host {host.name} is {shlex.join(arguments)!r}; "
                "operations understand `-F FILE` and nothing else there.",
                mend="Put the options into an SSH configuration file and name that file with -F.",
            )
        configuration = ROOT / Path(arguments[1]).expanduser()
        if not configuration.is_file():
            raise SettingsError(
                f"{arguments[1]} is not there: SSH configuration of {host.name} (ansible_ssh_common_args).",
                mend="For the lab type `make up`; otherwise correct the path.",
            )
    user, port = host.literal("ansible_user"), host.literal("ansible_port")
    key = host.literal("ansible_ssh_private_key_file")
    return SshSettings(
        configuration=configuration,
        user=str(user) if user else None,
        port=int(port) if port else None,
        key=ROOT / Path(str(key)).expanduser() if key else None,
    )


def ssh_command(host: Host) -> str:
    """What a person types to get onto the host."""
    settings = ssh_settings(host)
    if settings.configuration is not None:
        file = settings.configuration
        return f"ssh -F {shlex.quote(_near(file))} {host.name if _names(file, host) else host.address}"
    target = f"{settings.user}@{host.address}" if settings.user else host.address
    port = ["-p", str(settings.port)] if settings.port else []
    key = ["-i", str(settings.key)] if settings.key else []
    return shlex.join(["ssh", *port, *key, target])


def _names(configuration: Path, host: Host) -> bool:
    """Whether the SSH configuration leads from the inventory's name to the host."""
    return bool(_parsed(configuration).lookup(host.name).get("hostname") == host.address)


_configurations: dict[Path, paramiko.SSHConfig] = {}
_parsing = threading.Lock()


def _parsed(file: Path) -> paramiko.SSHConfig:
    with _parsing:
        if file not in _configurations:
            try:
                _configurations[file] = paramiko.SSHConfig.from_path(str(file))
            except (paramiko.ConfigParseError, OSError, UnicodeDecodeError) as error:
                message = f"The SSH configuration {file} cannot be read: {error}"
                raise SettingsError(message, mend=f"Try `ssh -F {file} -G host`.") from None
        return _configurations[file]


def _fabric_config(file: Path | None) -> Config:
    """Fabric's settings with this SSH configuration, or with the user's own. The user's Fabric settings are
    not read: an operation works the same for everyone. Each connection has settings of its own, because
    Fabric changes them while others read."""
    config = Config(ssh_config=_parsed(file) if file is not None else None, lazy=True)
    config.load_ssh_config()
    return config


def _known_hosts_files(settings: Mapping[str, Any]) -> list[Path]:
    users = settings.get("userknownhostsfile", "~/.ssh/known_hosts ~/.ssh/known_hosts2")
    everyones = settings.get("globalknownhostsfile", "/etc/ssh/ssh_known_hosts")
    files = [Path(name).expanduser() for name in shlex.split(f"{users} {everyones}")]
    return [ROOT / file for file in files if file != Path("/dev/null")]


def _check_key(key: paramiko.PKey) -> str:
    return (
        f"It showed {key.get_name()} {key.fingerprint}. Compare on the host's console: "
        f"`ssh-keygen -lf /etc/ssh/ssh_host_{_short(key.get_name())}_key.pub`. If it is the same, "
        "put the key on record; if not, somebody answers in the host's place."
    )


def _short(key_type: str) -> str:
    return {"ssh-ed25519": "ed25519", "ssh-rsa": "rsa"}.get(key_type, "ecdsa")


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(_near(file) for file in files if file.is_file()) or "any known_hosts file"


def _near(file: Path) -> str:
    """The path as it is typed from the project's root."""
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)


def _words(error: BaseException) -> str:
    if isinstance(error, paramiko.ssh_exception.NoValidConnectionsError):
        error = next(iter(error.errors.values()))
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    said = str(error).rstrip(".") or type(error).__name__
    return "no answer in time" if said == "No existing session" else said  # paramiko's words for it


def _feed(channel: paramiko.Channel, input: str | bytes | IO[bytes] | None) -> None:
    try:
        if isinstance(input, str):
            channel.sendall(input.encode())
        elif isinstance(input, bytes):
            channel.sendall(input)
        elif input is not None:
            while chunk := input.read(CHUNK_BYTES):
                channel.sendall(chunk)
        channel.shutdown_write()
    except (OSError, paramiko.SSHException):
        # The command ended without reading everything, or the connection is gone: the reader tells.
        return


def _drain(channel: paramiko.Channel, into: bytearray) -> None:
    try:
        while data := channel.recv_stderr(CHUNK_BYTES):
            into.extend(data)
    except OSError:
        return


def _ignore(data: bytes) -> None:
    """Output that nobody wants."""
