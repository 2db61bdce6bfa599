"""A release's id follows from its inputs alone, and the store never hands out a damaged archive."""

import io
import json
import subprocess
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bulkhead.application import Application, parse
from bulkhead.errors import FailedError, RefusedError, SettingsError
from bulkhead.release import (
    Manifest,
    Platform,
    file_digest,
    release_id,
    require_stored,
    source_archive,
    source_files,
    stored,
)

PLATFORM = Platform(python_abi="cpython-313-x86_64-linux-gnu", system="debian-13-x86_64")


def application(**changes: Any) -> Application:
    pool = {
        "kind": "http",
        "port": 8001,
        "routes": [{"path": "/"}],
        "workers": 1,
        "threads": 1,
        "timeout_seconds": 1,
        "server_timeout_seconds": 2,
        "queue_timeout_seconds": 1,
        "drain_deadline_seconds": 3,
        "max_connections": 1,
        "memory_megabytes": 64,
        "min_healthy": 0,
    }
    raw = {
        "name": "shop",
        "source": "shop",
        "requirements": "requirements.txt",
        "wsgi": "shop:application",
        "health": {"live": "/livez", "ready": "/readyz"},
        "pools": {"web": pool},
        **changes,
    }
    found, problems = parse(raw)
    assert found is not None, problems
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "shop"
    (source / "package").mkdir(parents=True)
    (source / "requirements.txt").write_text("gunicorn==27.0.1\n")
    (source / "package/module.py").write_text("one = 1\n")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o755)
    (source / "link").symlink_to("package/module.py")
    return source


def identify(source: Path, app: Application | None = None, platform: Platform = PLATFORM) -> str:
    return release_id(app or application(), source_files(source), platform)


def test_equal_inputs_give_the_same_id_whatever_their_times_and_places(source: Path, tmp_path: Path) -> None:
    before = identify(source)
    moved = source.rename(tmp_path / "elsewhere")
    (moved / "run").touch()
    (moved / "package/__pycache__").mkdir()
    (moved / "package/__pycache__/module.cpython-313.pyc").write_bytes(b"bytecode")
    (moved / "requirements.txt").chmod(0o600)  # who may read a file here says nothing about the nodes
    assert identify(moved) == before
    assert len(before) == 12


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (source / "package/module.py").write_text("one = 2\n"),
        lambda source: (source / "requirements.txt").write_text("gunicorn==27.0.2\n"),
        lambda source: (source / "package/module.py").rename(source / "package/other.py"),
        lambda source: (source / "run").chmod(0o644),
        lambda source: (source / "new").touch(),
    ],
    ids=["content", "requirements", "path", "mode", "file"],
)
def test_any_change_of_the_source_is_another_release(source: Path, change: Any) -> None:
    before = identify(source)
    (source / "link").unlink()
    (source / "link").symlink_to("requirements.txt")
    linked = identify(source)
    assert linked != before
    change(source)
    assert identify(source) != linked


def test_build_commands_interpreter_and_system_are_inputs(source: Path) -> None:
    ids = [
        identify(source),
        identify(source, application(build=[["python", "-m", "build"]])),
        identify(source, application(environment={"THEME": "dark"})),
        identify(source, platform=Platform("cpython-314-x86_64-linux-gnu", PLATFORM.system)),
        identify(source, platform=Platform(PLATFORM.python_abi, "debian-13-aarch64")),
    ]
    assert len(set(ids)) == len(ids)


def test_what_only_a_node_uses_is_no_input(source: Path) -> None:
    assert identify(source, application(migrate=["python", "manage.py", "migrate"])) == identify(source)


def test_git_decides_what_belongs_to_a_source_that_it_knows(source: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(source)], check=True)
    (source / ".gitignore").write_text("*.log\n")
    (source / "debug.log").write_text("noise")
    (source / "untracked.py").write_text("")
    paths = [file.path for file in source_files(source)]
    assert "untracked.py" in paths
    assert "debug.log" not in paths
    assert not [path for path in paths if path.startswith(".git/")]


def test_a_git_that_does_not_answer_is_no_reason_to_take_everything(source: Path) -> None:
    (source / ".git").write_text("gitdir: /nowhere\n")
    with pytest.raises(SettingsError, match="git does not list the files of"):
        source_files(source)


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside"])
def test_a_link_that_leaves_the_source_is_refused(source: Path, target: str) -> None:
    (source / "leak").symlink_to(target)
    with pytest.raises(SettingsError) as refusal:
        source_files(source)
    assert str(source / "leak") in str(refusal.value)
    assert target in str(refusal.value)


def test_the_source_travels_as_it_is(source: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(source_archive(source_files(source)))) as tar:
        entries = {entry.name: entry for entry in tar.getmembers()}
        module = tar.extractfile("package/module.py")
        assert module is not None
        assert module.read() == b"one = 1\n"
    assert entries["run"].mode == 0o755
    assert entries["requirements.txt"].mode == 0o644
    assert entries["link"].linkname == "package/module.py"


def put_in_store(store: Path, content: bytes = b"archive") -> Manifest:
    store.mkdir(exist_ok=True)
    archive = store / "0123456789ab.tar.zst"
    archive.write_bytes(content)
    manifest = Manifest(
        id="0123456789ab",
        application="shop",
        python_abi=PLATFORM.python_abi,
        system=PLATFORM.system,
        sha256=file_digest(archive),
        bytes=len(content),
        unpacked_bytes=10,
        built_on="builder1",
        built_at="2026-01-01T00:00:00Z",
    )
    (store / "0123456789ab.json").write_text(json.dumps(asdict(manifest)))
    return manifest


def test_the_store_gives_back_what_was_put_in(tmp_path: Path) -> None:
    manifest = put_in_store(tmp_path)
    found = require_stored(tmp_path, "0123456789ab")
    assert found.manifest == manifest


def test_a_damaged_archive_is_refused_with_both_digests_and_the_mend(tmp_path: Path) -> None:
    manifest = put_in_store(tmp_path)
    archive = tmp_path / "0123456789ab.tar.zst"
    archive.write_bytes(b"damaged")
    with pytest.raises(FailedError) as failure:
        stored(tmp_path, "0123456789ab")
    for part in (manifest.sha256, file_digest(archive), "Remove"):
        assert part in str(failure.value)


def test_half_a_release_counts_as_none(tmp_path: Path) -> None:
    put_in_store(tmp_path)
    (tmp_path / "0123456789ab.json").unlink()
    assert stored(tmp_path, "0123456789ab") is None


def test_a_release_that_is_nowhere_is_refused_by_naming_those_that_are(tmp_path: Path) -> None:
    put_in_store(tmp_path)
    with pytest.raises(RefusedError) as refusal:
        require_stored(tmp_path, "ba9876543210")
    assert "0123456789ab" in str(refusal.value)


def test_a_word_that_is_no_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'latest' is no release id"):
        require_stored(tmp_path, "latest")
