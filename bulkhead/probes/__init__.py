"""Programs that operations send to a host on standard input: standard library only, nothing stays behind."""

from pathlib import Path


def source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.py").read_text()
