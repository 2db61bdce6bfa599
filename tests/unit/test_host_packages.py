"""scripts/host-packages on machines that cannot carry the lab: one line, and nothing done."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(os.getuid() != 0, reason="another file in place of the machine's takes a mount")
@pytest.mark.parametrize(
    ("place", "content", "told"),
    [
        (
            "/etc/os-release",
            'ID=fedora\nVERSION_ID=42\nPRETTY_NAME="Fedora 42"\n',
            "it runs Fedora 42, and Debian 12",
        ),
        (
            "/proc/meminfo",
            "MemAvailable:    1048576 kB\n",
            "1024 MiB of memory are free, and the nodes take 6144.",
        ),
    ],
    ids=["another distribution", "too little memory"],
)
def test_a_machine_that_cannot_carry_the_lab_is_told_in_one_line(
    place: str, content: str, told: str, tmp_path: Path
) -> None:
    instead = tmp_path / "instead"
    instead.write_text(content)
    # A copy of the program in a project with no lab: what is there already is not asked for again.
    program = tmp_path / "scripts/host-packages"
    program.parent.mkdir()
    program.write_text((ROOT / "scripts/host-packages").read_text())
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"mount --bind {instead} {place} && bash {program} check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("This machine cannot carry the lab: ")
    assert told in line
