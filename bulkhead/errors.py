"""The errors an operator sees, and the exit codes that scripts see (docs/operations.md lists them)."""

from __future__ import annotations


class Error(Exception):
    """What happened and where, in one sentence; `mend` says what to type or to change."""

    exit_code = 4

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}\n  {self.mend}" if self.mend else self.message


class SettingsError(Error):
    """The command line, the inventory or a file of the user is wrong. Nothing was touched."""

    exit_code = 2


class RefusedError(Error):
    """The cluster is not what the operation needs, or the operator said no. Nothing was changed."""

    exit_code = 3


class FailedError(Error):
    """The operation began and could not finish; the message says how things stand."""

    exit_code = 4


class HostError(FailedError):
    """A failure on one host; `host` is its inventory name."""

    def __init__(self, host: str, message: str, *, mend: str = "") -> None:
        super().__init__(f"{host}: {message}", mend=mend)
        self.host = host
        self.reason = message


class UnreachableError(HostError):
    """No SSH session with the host: it is down, cut off, or does not let this user in."""


class UntrustedHostError(UnreachableError):
    """The host showed a key that is not the one on record: nothing was sent to it."""

    exit_code = 2


class CommandError(HostError):
    """A command on a host ended with a code other than 0."""

    def __init__(self, host: str, command: str, code: int, output: str, *, mend: str = "") -> None:
        lines = [line for line in output.strip().splitlines() if line.strip()][-5:]
        shown = "".join(f"\n    {line}" for line in lines) or "\n    (no output)"
        super().__init__(host, f"`{command}` ended with code {code}:{shown}", mend=mend)
        self.command = command
        self.code = code
        self.output = output


class TimedOutError(HostError):
    """A command on a host did not end in its time; it may still be running there."""


class CancelledError(Error):
    """Ctrl-C; the message says how things stand."""

    exit_code = 130
