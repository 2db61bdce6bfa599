"""What the program `release` tells of an instance that could not start."""

from __future__ import annotations

from node_programs import program

release = program("roles/release/files/release")


def test_of_each_traceback_the_innermost_frame_is_told_and_nothing_else_is_cut() -> None:
    journal = [
        "Booting worker",
        "  indented, and no traceback",
        "Traceback (most recent call last):",
        '  File "gunicorn/base.py", line 1, in load',
        "    load()",
        "    ~~~~^^",
        '  File "app/example.py", line 7, in <module>',
        "    raise SystemError('no such luck')",
        "SystemError: no such luck",
        "Worker exiting",
        '  File "cut/off.py", line 2',
        "    at_the_end()",
    ]
    assert release.without_frames(journal) == [*journal[:3], *journal[6:]]


def test_the_cause_outlives_the_tracebacks_that_follow_it() -> None:
    frames = [f'  File "gunicorn/arbiter.py", line {n}' for n in range(100)]
    journal = ["SystemError: no such luck", "Traceback (most recent call last):", *frames, "HaltServer: 3"]
    assert "SystemError: no such luck" in release.without_frames(journal)[-40:]
