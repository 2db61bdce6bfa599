"""node_files: all of a task's files change or none does, each in one step, and a dry run tells the truth."""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "plugins/modules/node_files.py"
spec = importlib.util.spec_from_file_location("node_files", FILE)
assert spec is not None
assert spec.loader is not None
module = importlib.util.module_from_spec(spec)
sys.modules["node_files"] = module  # dataclasses look there
spec.loader.exec_module(module)

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


def entry(path: Path, **given: Any) -> dict[str, Any]:
    defaults = {name: option.get("default") for name, option in module.ENTRY.items()}
    return {**defaults, "path": str(path), "owner": USER, "group": GROUP, **given}


def node(check: bool = False) -> Any:
    def run_command(words: list[str]) -> tuple[int, str, str]:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return module.Node(SimpleNamespace(check_mode=check, run_command=run_command))


def apply(*entries: dict[str, Any], check: bool = False) -> Any:
    writer = node(check)
    try:
        for each in entries:
            writer.apply(each)
    except module.Refused:
        writer.take_back()
        raise
    return writer


def tree(path: Path) -> dict[str, tuple[str, int]]:
    return {
        str(each.relative_to(path)): (each.read_text() if each.is_file() else "", each.lstat().st_mode)
        for each in path.rglob("*")
    }


def test_a_new_file_has_its_content_and_mode_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    writer = apply(entry(path, content="a = 1\n", mode="0640"))
    assert path.read_text() == "a = 1\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert writer.changed_paths == [str(path)]
    assert list(tmp_path.iterdir()) == [path]
    [diff] = writer.diffs
    assert (diff["before"], diff["after"]) == ("", "a = 1\n")


def test_what_is_as_it_should_be_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "made/settings"
    wanted = [entry(path.parent, state="directory", mode="0750"), entry(path, content="a\n", mode="0600")]
    apply(*wanted)
    before = path.stat()
    writer = apply(*wanted)
    assert writer.changed_paths == writer.diffs == []
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_mode_alone_changes_without_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    apply(entry(path, content="a\n", mode="0644"))
    inode = path.stat().st_ino
    writer = apply(entry(path, content="a\n", mode="0600"))
    assert writer.changed_paths == [str(path)]
    assert writer.diffs == [
        {"before": {"path": str(path), "mode": "0644"}, "after": {"path": str(path), "mode": "0600"}}
    ]
    assert path.stat().st_ino == inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_an_owner_alone_changes_without_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    apply(entry(path, content="a\n"))
    writer = apply(entry(path, content="a\n", owner="daemon", group="daemon"))
    assert path.owner() == path.group() == "daemon"
    assert writer.diffs[0]["after"] == {"path": str(path), "owner": "daemon", "group": "daemon"}
    assert apply(entry(path, content="a\n", owner="daemon", group="daemon")).changed_paths == []


def test_a_directory_comes_with_the_parents_that_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "one/two/three"
    writer = apply(entry(path, state="directory", mode="0751"))
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, *path.parents[:2])] == [0o751] * 3
    assert writer.changed_paths == [str(path)]
    assert apply(entry(path, state="directory", mode="0751")).changed_paths == []


def test_a_dry_run_tells_what_a_run_then_does_and_writes_nothing(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.write_text("before\n")
    old.chmod(0o600)
    gone = tmp_path / "gone"
    gone.write_text("x\n")
    wanted = [
        entry(tmp_path / "made", state="directory", mode="0755"),
        entry(tmp_path / "made/new", content="new\n"),
        entry(old, content="after\n", mode="0644"),
        entry(gone, state="absent"),
    ]
    before = tree(tmp_path)
    told = apply(*wanted, check=True)
    assert tree(tmp_path) == before
    done = apply(*wanted)
    assert told.changed_paths == done.changed_paths == [each["path"] for each in wanted]
    assert told.diffs == done.diffs
    assert apply(*wanted, check=True).changed_paths == []


def test_a_dry_run_needs_no_user_that_an_earlier_task_would_have_made(tmp_path: Path) -> None:
    wanted = entry(tmp_path / "settings", content="a\n", owner="nobody-yet", group="nobody-yet")
    assert apply(wanted, check=True).changed_paths == [wanted["path"]]
    with pytest.raises(module.Refused, match="no owner nobody-yet; make it first"):
        apply(wanted)


def test_a_refused_file_leaves_everything_as_it_was(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("old\n")
    first.chmod(0o600)
    second.write_text("old\n")
    removed = tmp_path / "removed"
    removed.write_text("kept\n")
    before = tree(tmp_path)
    with pytest.raises(module.Refused) as refused:
        apply(
            entry(tmp_path / "made/deep", state="directory", mode="0755"),
            entry(tmp_path / "made/deep/new", content="new\n"),
            entry(first, content="new\n", mode="0644"),
            entry(removed, state="absent"),
            entry(second, content="bad\n", validate="sh -c 'echo no good: $0 >&2; ! grep bad $0' %s"),
        )
    assert tree(tmp_path) == before
    assert str(refused.value).startswith(f"{second}: the new content failed to validate")
    assert f"no good: {second}" in str(refused.value)  # and not the name that it had for the check


def test_the_check_sees_the_new_content_and_those_before_it(tmp_path: Path) -> None:
    names = tmp_path / "names"
    apply(
        entry(names, content="ada\n"),
        entry(tmp_path / "user", content="ada\n", validate=f"cmp %s {names}"),
    )
    with pytest.raises(module.Refused, match="failed to validate"):
        apply(entry(tmp_path / "user", content="eve\n", validate=f"cmp %s {names}"))
    assert (tmp_path / "user").read_text() == "ada\n"


def test_a_check_that_does_not_get_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(module.Refused, match="has to name the file as %s"):
        apply(entry(tmp_path / "settings", content="a\n", validate="true"))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings"
    path.write_text("old\n")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    for step in ("fsync", "fchmod", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(module.os, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                apply(entry(path, content="new\n"))
        assert tree(tmp_path).keys() == {"settings"}
        assert path.read_text() == "old\n"


def test_what_a_killed_run_left_beside_the_file_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    left = tmp_path / module.NEW.format("settings")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("mine\n")
    left.symlink_to(elsewhere)
    apply(entry(path, content="new\n"))
    assert path.read_text() == "new\n"
    assert elsewhere.read_text() == "mine\n"
    assert not left.is_symlink()


def test_a_link_is_refused_and_what_it_leads_to_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine\n")
    link = tmp_path / "settings"
    link.symlink_to(target)
    with pytest.raises(module.Refused, match=f"{link}: it is a link to {target}"):
        apply(entry(link, content="new\n"))
    assert target.read_text() == "mine\n"


def test_what_is_to_go_goes_as_a_link_too_and_comes_back_when_another_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("mine\n")
    link = tmp_path / "keys"
    link.symlink_to(target)
    with pytest.raises(module.Refused):
        apply(entry(link, state="absent"), entry(tmp_path / "x", content="", validate="false %s"))
    assert link.readlink() == target
    assert apply(entry(link, state="absent")).changed_paths == [str(link)]
    assert not link.is_symlink()
    assert target.read_text() == "mine\n"


def test_a_directory_may_be_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir(mode=0o700)
    (tmp_path / "releases").symlink_to(tmp_path / "volume")
    apply(entry(tmp_path / "releases", state="directory", mode="0750"))
    assert (tmp_path / "releases").is_symlink()
    assert stat.S_IMODE((tmp_path / "volume").stat().st_mode) == 0o750


def test_what_stands_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(module.Refused, match="directory: it is no file"):
        apply(entry(tmp_path / "directory", content=""))
    with pytest.raises(module.Refused, match="file: it is no directory"):
        apply(entry(tmp_path / "file/inside", state="directory", mode="0755"))
    with pytest.raises(module.Refused, match=f"there is no directory {tmp_path}/nowhere"):
        apply(entry(tmp_path / "nowhere/settings", content=""))


def test_what_is_to_be_kept_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "map"
    assert apply(entry(path, content="", keep=True)).changed_paths == [str(path)]
    path.write_text("an operator's\n")
    assert apply(entry(path, content="", keep=True)).changed_paths == []
    assert path.read_text() == "an operator's\n"


def test_a_secret_is_written_and_in_no_diff_and_no_message(tmp_path: Path) -> None:
    path = tmp_path / "password"
    writer = apply(entry(path, secret="hunter2\n", mode="0600"))
    assert path.read_text() == "hunter2\n"
    with pytest.raises(module.Refused) as refused:
        apply(entry(path, secret="hunter3\n", mode="0600", validate="sh -c 'cat $0; false' %s"))
    said = f"{writer.diffs} {refused.value}"
    assert "hunter" not in said
    assert str(path) in said
    assert path.read_text() == "hunter2\n"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n# BEGIN hosts\n10.0.0.1 a\n# END hosts\n"),
        ("127.0.0.1 localhost", "127.0.0.1 localhost\n# BEGIN hosts\n10.0.0.1 a\n# END hosts\n"),
        ("x\n# BEGIN hosts\nold\n# END hosts\ny\n", "x\n# BEGIN hosts\n10.0.0.1 a\n# END hosts\ny\n"),
        (None, "# BEGIN hosts\n10.0.0.1 a\n# END hosts\n"),
    ],
    ids=["none yet", "no newline at the end", "another one", "no file"],
)
def test_a_block_leaves_the_rest_of_the_file_alone(tmp_path: Path, old: str | None, new: str) -> None:
    path = tmp_path / "hosts"
    if old is not None:
        path.write_text(old)
    wanted = entry(path, content="10.0.0.1 a\n", block="hosts")
    apply(wanted)
    assert path.read_text() == new
    assert apply(wanted).changed_paths == []


def test_a_block_with_one_mark_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# BEGIN hosts\n10.0.0.1 a\n")
    with pytest.raises(module.Refused, match="one is missing"):
        apply(entry(path, content="10.0.0.1 a\n", block="hosts"))
    assert path.read_text() == "# BEGIN hosts\n10.0.0.1 a\n"
