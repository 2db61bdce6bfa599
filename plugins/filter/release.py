"""How the application's settings become lines of an environment file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def environment_value(value: Any) -> str:
    """A value in double quotes, escaped as systemd's EnvironmentFile= and POSIX shells read it."""
    return '"' + re.sub(r'([\\"`$])', r"\\\1", str(value)) + '"'


def environment_misfits(environment: Mapping[str, Any]) -> list[str]:
    """Names of settings that no line of an environment file can carry; the values may be secret."""
    return sorted(
        name
        for name, value in environment.items()
        if not _NAME.fullmatch(name) or isinstance(value, bool | list | dict) or not str(value).isprintable()
    )


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"environment_value": environment_value, "environment_misfits": environment_misfits}
