"""What `release` tells of an instance that could not start, and what it does on a drained node."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
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


CURRENT = "0123456789ab"
SERVICE = {"start_deadline_seconds": 1, "drain_deadline_seconds": 1}


class Systemd:
    """Units that run or do not, and what was asked of them."""

    def __init__(self, *running: str) -> None:
        self.running = set(running)
        self.asked: list[tuple[str, ...]] = []
        self.result = "success"
        self.mark: Path | None = None
        self.marked_at_stop: bool | None = None

    def systemctl(self, *words: str, **_options: bool) -> str:
        verb, units = words[0], [word for word in words[1:] if not word.startswith("--")]
        if verb in ("start", "stop"):
            self.asked.append((verb, *units))
        if verb == "start":
            self.running |= set(units)
        if verb == "stop":
            self.marked_at_stop = self.mark is not None and self.mark.exists()
            self.running -= set(units)
        if verb == "show":
            state = "active" if set(units) & self.running else "inactive"
            return f"ActiveState={state}\nSubState=running\nStatusText=\nResult={self.result}\n"
        return ""

    def states(self, node: Any) -> dict[tuple[Any, str], tuple[str, str]]:
        return {
            (service, CURRENT): ("active", "running")
            for service in node.services
            if service.unit(CURRENT) in self.running
        }


UNITS = ["forge-web", "forge-queue-default", "forge-beat"]
WEB, QUEUE, BEAT = (f"{name}@{CURRENT}.service" for name in UNITS)


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    found = Systemd(WEB, QUEUE, BEAT)
    found.mark = tmp_path / "marks/drained"
    monkeypatch.setattr(release, "DRAIN_MARK", found.mark)
    monkeypatch.setattr(release, "POLL_SECONDS", 0)
    for name in ("systemctl", "states"):
        monkeypatch.setattr(release, name, getattr(found, name))
    monkeypatch.setattr(release, "enabled", lambda node: {(service, CURRENT) for service in node.services})
    monkeypatch.setattr(release.Pool, "is_accepting", lambda _pool, _release: True)
    return found


@pytest.fixture
def node(tmp_path: Path) -> Any:
    """A host that is application node and worker node at once."""
    kept = tmp_path / "releases" / CURRENT
    kept.mkdir(parents=True)
    (kept / "received.json").write_text(json.dumps({"sha256": "1", "received": 0}))
    (tmp_path / "current").symlink_to(f"releases/{CURRENT}")
    settings = {
        "application": "forge", "directory": str(tmp_path), "environment_file": "", "migrate": [],
        "migrate_deadline_seconds": 1, "groups": [],
    }  # fmt: skip
    roles = [
        {"pools": [{**SERVICE, "name": "web"}]},
        {"queues": [{**SERVICE, "name": "default"}], "beat": [{**SERVICE, "name": "beat"}]},
    ]
    return release.Node(settings, roles)


def test_a_drain_marks_the_node_first_and_leaves_the_pools(node: Any, systemd: Systemd) -> None:
    release.drain(node, "ann@desk")
    assert systemd.asked == [("stop", QUEUE, BEAT)]
    assert systemd.marked_at_stop
    assert node.drained["by"] == "ann@desk"
    assert systemd.running == {WEB}


@pytest.mark.parametrize(
    ("result", "words"), [("success", "ended what it had"), ("timeout", "killed at its deadline")]
)
def test_a_drain_says_how_each_ended(
    result: str, words: str, node: Any, systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    systemd.result = result
    release.drain(node, "ann@desk")
    assert words in capsys.readouterr().out


def test_who_drained_first_stays_on_the_mark(node: Any, systemd: Systemd) -> None:
    release.drain(node, "ann@desk")
    release.drain(node, "bob@desk")
    assert node.drained["by"] == "ann@desk"


def test_a_converge_of_a_drained_node_starts_its_pools_only(
    node: Any, systemd: Systemd, capsys: pytest.CaptureFixture[str]
) -> None:
    release.drain(node, "ann@desk")
    systemd.running.clear()
    systemd.asked.clear()
    release.ensure(node)
    assert systemd.asked == [("start", WEB)]
    capsys.readouterr()
    release.ensure(node)
    assert capsys.readouterr().out == "unchanged\n"


def test_a_deploy_to_a_drained_node_starts_its_pools_only(
    node: Any, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "wait_ready", lambda _services, _release: None)
    release.drain(node, "ann@desk")
    systemd.asked.clear()
    release.switch(node, CURRENT, None)
    assert systemd.asked == [("start", WEB)]


def test_undrain_starts_what_the_drain_stopped_and_waits(
    node: Any, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(
        release, "wait_ready", lambda services, name: waited.extend(each.unit(name) for each in services)
    )
    release.drain(node, "ann@desk")
    systemd.asked.clear()
    release.undrain(node)
    assert systemd.asked == [("start", QUEUE, BEAT)]
    assert waited == [QUEUE, BEAT]
    assert node.drained is None


def test_a_reload_of_some_kinds_leaves_the_others(
    node: Any, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "wait_ready", lambda _services, _release: None)
    release.reload(node, ["queues", "beat"])
    assert systemd.asked == [("stop", BEAT), ("start", BEAT), ("stop", QUEUE), ("start", QUEUE)]


def test_a_node_without_queues_is_not_drained(node: Any, systemd: Systemd) -> None:
    node.services = [each for each in node.services if each.kind == "pools"]
    with pytest.raises(release.Refusal, match="nothing to drain"):
        release.drain(node, "ann@desk")
    assert node.drained is None
