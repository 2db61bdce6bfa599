"""Programs that operations send to a host on standard input: standard library only, nothing stays behind."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.py").read_text()


def with_secrets(name: str, secrets: Mapping[str, str]) -> str:
    """A program whose main() takes secrets: they come with it, and so are on no command line."""
    return f"{source(name)}\n\nmain({dict(secrets)!r})\n"
