"""What every operation says and asks on the terminal, and how it ends: one place, so that all read alike."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any, ParamSpec

import fabric
from invoke.exceptions import Exit
from rich.console import Console

from bulkhead.errors import CancelledError, Error, RefusedError

P = ParamSpec("P")


def console() -> Console:
    """Standard output: colour and width of a terminal, or plain text in 80 columns."""
    return Console(highlight=False, soft_wrap=False)


def operation(**options: str) -> Callable[[Callable[P, int | None]], Any]:
    """Makes a task of the fabfile; what each option means is given by its name.

    It ends as operators expect: an Error is a message and its exit code, with no traceback; what the function
    returns is the exit code. A traceback means a mistake in Bulkhead itself.
    """

    def make(function: Callable[P, int | None]) -> Any:
        @functools.wraps(function)
        def run(*arguments: P.args, **given: P.kwargs) -> None:
            try:
                code = function(*arguments, **given)
            except Error as error:
                raise Exit(f"Error: {error}", code=error.exit_code) from None
            except KeyboardInterrupt:
                raise Exit("Stopped (Ctrl-C).", code=CancelledError.exit_code) from None
            if code:
                raise Exit(code=code)

        return fabric.task(run, help=options)

    return make


class Steps:
    """Progress as lines that are as good in a log as on a screen: which of how many, elapsed, host, what."""

    def __init__(self, total: int, *, output: Console | None = None) -> None:
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._output = output or console()

    @property
    def elapsed_seconds(self) -> float:
        return time.monotonic() - self._began

    def step(self, what: str, *, host: str = "") -> None:
        """The next step begins."""
        self._done += 1
        self._line(f"[{self._done}/{self._total}]", what, host)

    def note(self, what: str, *, host: str = "") -> None:
        """Something to know about the step that runs."""
        self._line("", what, host)

    def _line(self, number: str, what: str, host: str) -> None:
        width = 2 * len(str(self._total)) + 3
        place = f"{host}  " if host else ""
        # No wrapping: a line of a log stays a line.
        self._output.print(
            f"{number:>{width}} {clock(self.elapsed_seconds)}  {place}{what}", markup=False, soft_wrap=True
        )


def clock(seconds: float) -> str:
    """Elapsed time as 0:07 or 12:30."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes:>2}:{rest:02}"


def confirm(question: str, *, yes: bool, answer: str = "yes") -> None:
    """Asks for a word to be typed. `yes` (--yes) skips the question. Anything else than the word refuses."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise RefusedError(
            "This needs an answer and there is no terminal to ask on.", mend="Add --yes to go on."
        )
    try:
        typed = input(f"{question} Type {answer} to go on: ")
    except EOFError:
        typed = ""
    if typed.strip() != answer:
        raise RefusedError("Not confirmed: nothing was changed.")
