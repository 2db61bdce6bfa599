"""The command line: its names, and how commands end."""

import subprocess
import sys
from pathlib import Path

import pytest
from invoke.exceptions import Exit

import fabfile
from bulkhead import errors, screen
from bulkhead.inventory import ROOT


def test_the_commands() -> None:
    assert set(fabfile.namespace.task_names) == {
        "status", "queues", "ledger", "deploy", "lb.failback", "brokers.restart",
        "workers.drain", "workers.undrain", "workers.restart",
    }  # fmt: skip


def test_each_command_and_option_says_what_it_does() -> None:
    for name in fabfile.namespace.task_names:
        command = fabfile.namespace[name]
        first = (command.__doc__ or "").splitlines()[0]
        assert 20 < len(first) < 70, f"{name}: `fab --list` shows {first!r}"
        assert set(command.help) == {argument.name for argument in command.get_arguments()}, name


def test_names_and_options_only() -> None:
    lines = Path(fabfile.__file__).read_text().splitlines()
    assert len(lines) < 150
    assert not [line for line in lines if line.strip().startswith(("if ", "for ", "while ", "try:"))]


def ends(outcome: BaseException | int | None) -> tuple[int, str]:
    """How a command ends that returns or raises this."""

    def task(_context: object) -> int | None:
        """A task that is long enough to be described."""
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    made = screen.operation()(task)
    try:
        made.body(None)
    except Exit as end:
        return end.code, end.message or ""
    return 0, ""


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (None, 0),
        (0, 0),
        (5, 5),
        (errors.SettingsError("x"), 2),
        (errors.RefusedError("x"), 3),
        (errors.FailedError("x"), 4),
        (errors.UnreachableError("app1", "x"), 4),
        (errors.CancelledError("x"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(outcome: BaseException | int | None, code: int) -> None:
    assert ends(outcome)[0] == code


def test_an_error_is_its_message_and_what_to_type() -> None:
    assert (
        ends(errors.RefusedError("app1 is down.", mend="ssh app1"))[1] == "Error: app1 is down.\n  ssh app1"
    )


def test_a_mistake_in_bulkhead_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        ends(ZeroDivisionError())


def test_a_user_mistake_ends_without_traceback(tmp_path: Path) -> None:
    missing = tmp_path / "no-such-inventory"
    done = subprocess.run(
        [Path(sys.executable).parent / "fab", "status"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "ANSIBLE_INVENTORY": str(missing)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert str(missing) in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("typed", "goes_on"), [("yes", True), (" yes ", True), ("y", False), ("", False)])
def test_a_question_wants_the_whole_word(typed: str, goes_on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: typed)
    if goes_on:
        screen.confirm("Go?", yes=False)
    else:
        with pytest.raises(errors.RefusedError, match="nothing was changed"):
            screen.confirm("Go?", yes=False)


def test_without_a_terminal_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(errors.RefusedError, match="--yes"):
        screen.confirm("Go?", yes=False)
    screen.confirm("Go?", yes=True)


def test_steps_say_which_of_how_many_and_where(capsys: pytest.CaptureFixture[str]) -> None:
    steps = screen.Steps(2)
    steps.step("switch", host="app1")
    steps.note("ready [after 2 s]")
    steps.step("switch", host="app2")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[1/2]")
    assert lines[0].endswith("app1  switch")
    assert "ready [after 2 s]" in lines[1]
    assert lines[2].startswith("[2/2]")


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00"), (61.9, "1:01"), (600, "10:00")])
def test_elapsed_time(seconds: float, words: str) -> None:
    assert screen.clock(seconds).strip() == words
