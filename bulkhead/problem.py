"""A mistake in what an operator wrote, as one line: where it stands, what is wrong and how to mend it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

# Says where a value was written ("inventories/lab/hosts.yml:12"), or nothing when that is not known.
Origin = Callable[[Any], str | None]

LONGEST_SHOWN = 80


def origin_unknown(_: Any) -> str | None:
    return None


@dataclass(frozen=True, order=True)
class Problem:
    where: str  # the path of the value, and the file and line it stands in
    what: str  # what is wrong, with the value
    value: str
    mend: str  # what to do, as a sentence

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.mend}"


def shown(value: Any) -> str:
    """The value as one short line. Callers keep secrets away from it."""
    line = " ".join(repr(value).split())
    return line if len(line) <= LONGEST_SHOWN else line[: LONGEST_SHOWN - 3] + "..."


def place(path: str, source: str | None) -> str:
    """A value's path, and the file and line it stands in when they are known."""
    return f"{path} ({source})" if source else path


def listed(names: Iterable[str]) -> str:
    """Names for a sentence: `a`, `a and b`, `a, b and c`; a long list is cut and counted."""
    words = list(names)
    if len(words) > 6:
        return f"{', '.join(words[:4])} and {len(words) - 4} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]])) or "none"
