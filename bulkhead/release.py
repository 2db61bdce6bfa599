"""Releases: built once on a builder, kept in a store on the controller, known by a digest of their inputs."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from bulkhead.application import Application
from bulkhead.connections import Connections
from bulkhead.errors import FailedError, HostError, RefusedError, SettingsError
from bulkhead.inventory import ROOT, Host, Inventory

BUILD_PROGRAM = ROOT / "roles/builder/files/build-release"
ON_BUILDER = "/usr/local/lib/bulkhead/build-release"
DEFAULT_STORE = ".releases"
BUILD_TIMEOUT_SECONDS = 900
RELEASE_ID = re.compile(r"[0-9a-f]{12}")
# Left out where the source is in no Git work tree; in one, .gitignore decides.
NEVER_SOURCE = {".git", ".hg", ".venv", "__pycache__", "node_modules"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Platform:
    """What an archive runs on: the interpreter's binary interface and the system."""

    python_abi: str
    system: str


@dataclass(frozen=True)
class Manifest:
    """What stands beside an archive in the store."""

    id: str
    application: str
    python_abi: str
    system: str
    sha256: str
    bytes: int
    unpacked_bytes: int
    built_on: str
    built_at: str


@dataclass(frozen=True)
class Release:
    manifest: Manifest
    archive: Path

    @property
    def id(self) -> str:
        return self.manifest.id


@dataclass(frozen=True)
class SourceFile:
    path: str  # relative to the source, with slashes
    mode: str  # x: executable, f: plain, l: symbolic link
    content: bytes  # of a link: where it leads


# --- what goes in -------------------------------------------------------------------------------------------


def source_files(source: Path) -> list[SourceFile]:
    """Every file of the source that is meant to be in a release, sorted by path."""
    files = []
    for path in sorted(_source_paths(source)):
        full = source / path
        if full.is_symlink():
            target = str(full.readlink())
            inside = (full.parent / target).resolve().is_relative_to(source.resolve())
            if Path(target).is_absolute() or not inside:
                raise SettingsError(
                    f"{full} is a link to {target}, outside of the application's source.",
                    mend="A release holds everything it needs: copy the file into the source.",
                )
            files.append(SourceFile(path, "l", target.encode()))
        else:
            files.append(SourceFile(path, "x" if os.access(full, os.X_OK) else "f", full.read_bytes()))
    return files


def _source_paths(source: Path) -> Iterator[str]:
    names = _git_paths(source)
    if names:
        # A file that is listed and gone was deleted in the work tree.
        return (name for name in dict.fromkeys(names) if name and os.path.lexists(source / name))
    # No work tree, or a directory that git ignores: whoever copied the files here chose them.
    return (
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if (path.is_file() or path.is_symlink())
        and path.suffix != ".pyc"
        and not NEVER_SOURCE & set(path.relative_to(source).parts)
    )


def _git_paths(source: Path) -> list[str]:
    """What git would take along. Never a guess when it does not answer: ignored files hold secrets."""
    if not any((place / ".git").exists() for place in (source.resolve(), *source.resolve().parents)):
        return []
    words = ["git", "-C", str(source), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(words, capture_output=True, check=True)
    except FileNotFoundError:
        raise SettingsError(
            f"{source} is in a git work tree, and git is not installed here.", mend="apt install git"
        ) from None
    except subprocess.CalledProcessError as error:
        raise SettingsError(
            f"git does not list the files of {source}: {error.stderr.decode().strip()}",
            mend=f"Try it by hand: {' '.join(words)}",
        ) from None
    return listed.stdout.decode().split("\0")[:-1]


def release_id(application: Application, files: list[SourceFile], platform: Platform) -> str:
    """Equal inputs give the same id, wherever and whenever they are looked at."""
    digest = hashlib.sha256()
    inputs = {
        "name": application.name,
        "requirements": application.requirements,
        "environment": dict(application.environment),
        "build": [list(command) for command in application.build],
        "platform": asdict(platform),
        # A release built another way is another release.
        "build_program": hashlib.sha256(BUILD_PROGRAM.read_bytes()).hexdigest(),
    }
    digest.update(json.dumps(inputs, sort_keys=True).encode())
    for file in files:
        line = [file.path, file.mode, hashlib.sha256(file.content).hexdigest()]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:12]


def source_archive(files: list[SourceFile]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for file in files:
            entry = tarfile.TarInfo(file.path)
            entry.mode = 0o755 if file.mode == "x" else 0o644
            if file.mode == "l":
                entry.type, entry.linkname = tarfile.SYMTYPE, file.content.decode()
                tar.addfile(entry)
            else:
                entry.size = len(file.content)
                tar.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


# --- the store ----------------------------------------------------------------------------------------------


def store_of(inventory: Inventory) -> Path:
    return ROOT / str(inventory.variables.get("release_store", DEFAULT_STORE))


def stored(store: Path, release: str) -> Release | None:
    """The release if it is in the store and its archive is whole."""
    note, archive = store / f"{release}.json", store / f"{release}.tar.zst"
    if not note.exists() or not archive.exists():
        return None
    try:
        manifest = Manifest(**json.loads(note.read_text()))
    except (TypeError, ValueError) as error:
        raise FailedError(
            f"{note} cannot be read ({error}).", mend=f"Remove {note} and {archive}, then deploy again."
        ) from None
    found = file_digest(archive)
    if found != manifest.sha256:
        raise FailedError(
            f"{archive} has sha256 {found}, its manifest says {manifest.sha256}: it was damaged.",
            mend=f"Remove {note} and {archive}; `fab deploy` builds it anew.",
        )
    return Release(manifest, archive)


def require_stored(store: Path, release: str) -> Release:
    if not RELEASE_ID.fullmatch(release):
        raise SettingsError(
            f"{release!r} is no release id: those have 12 hexadecimal digits.",
            mend="Without an id, `fab deploy` builds the release of the source as it is now.",
        )
    found = stored(store, release)
    if found is None:
        notes = sorted(store.glob("*.json"), key=lambda note: note.stat().st_mtime, reverse=True)
        known = ", ".join(note.stem for note in notes[:10]) or "none"
        raise RefusedError(
            f"Release {release} is not in the store {store} (there: {known}).",
            mend="Check out the source it came from and type `fab deploy`: equal inputs give the same id.",
        )
    return found


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- the builder --------------------------------------------------------------------------------------------


def builder_of(inventory: Inventory) -> Host:
    builders = inventory.hosts("builders")
    if not builders:
        raise SettingsError(
            f"The inventory has no builder ({inventory.sources}), so nothing can be built.",
            mend="Put one host of the application nodes' platform into the group `builders`.",
        )
    return builders[0]


def platform_of(connections: Connections, builder: Host) -> Platform:
    try:
        answer = connections.run(builder, f"{ON_BUILDER} platform")
    except HostError as error:
        raise HostError(
            builder.name,
            f"the builder does not say what it runs on: {error.reason}",
            mend=error.mend or "Converge it: `ansible-playbook playbooks/builders.yml`.",
        ) from None
    return Platform(**json.loads(answer.stdout))


def find_or_build(inventory: Inventory, connections: Connections, say: Say) -> Release:
    """The release of the source as it is now, out of the store if it was built before."""
    application = inventory.checked_application()
    source = ROOT / application.source
    if not source.is_dir():
        raise SettingsError(
            f"The application's source {source} is not there.",
            mend="Correct application.source in the inventory.",
        )
    files = source_files(source)
    if application.requirements not in {file.path for file in files}:
        raise SettingsError(
            f"{application.requirements} is not among the files of {source}.",
            mend="Lock the application's packages there with hashes (`uv pip compile --generate-hashes`).",
        )
    builder = builder_of(inventory)
    wanted = release_id(application, files, platform_of(connections, builder))
    store = store_of(inventory)
    found = stored(store, wanted)
    if found:
        say(f"release {wanted} is in the store")
        return found
    say(f"release {wanted} is built on {builder.name}")
    return build(application, files, wanted, builder, connections, store, say)


def build(
    application: Application,
    files: list[SourceFile],
    release: str,
    builder: Host,
    connections: Connections,
    store: Path,
    say: Say,
) -> Release:
    started = time.monotonic()
    user = str(builder.variables.get("builder_user", "bulkhead-build"))
    home = str(builder.variables.get("builder_directory", "/var/lib/bulkhead-build"))
    source = f"{home}/{release}.source.tar.gz"
    order = {
        "application": application.name,
        "id": release,
        "source": source,
        "requirements": application.requirements,
        "environment": dict(application.environment),
        "build": [list(command) for command in application.build],
    }
    connections.put(builder, source_archive(files), source)
    try:
        answer = connections.run(
            builder,
            f"HOME={home} setpriv --reuid={user} --regid={user} --clear-groups {ON_BUILDER} build",
            input=json.dumps(order),
            timeout_seconds=BUILD_TIMEOUT_SECONDS,
            check=False,
        )
        if answer.code:
            raise HostError(
                builder.name,
                f"release {release} could not be built:\n  {answer.stderr.strip()}",
                mend="Nothing was changed on any node. Mend it, then type `fab deploy` again.",
            )
        told: Mapping[str, Any] = json.loads(answer.stdout)
        store.mkdir(parents=True, exist_ok=True)
        archive = store / f"{release}.tar.zst"
        connections.get(builder, told["archive"], archive)
    finally:
        connections.run(builder, f"rm -f {source} {home}/{release}.tar.zst")
    manifest = Manifest(
        id=release,
        application=application.name,
        python_abi=told["python_abi"],
        system=told["system"],
        sha256=told["sha256"],
        bytes=told["bytes"],
        unpacked_bytes=told["unpacked_bytes"],
        built_on=builder.name,
        built_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    )
    found = file_digest(archive)
    if found != manifest.sha256:
        archive.unlink()
        raise HostError(
            builder.name,
            f"the archive came with sha256 {found} and left with {manifest.sha256}.",
            mend="Type `fab deploy` again.",
        )
    # The note comes last: an archive without one was never whole.
    part = store / f".{release}.json.part"
    part.write_text(json.dumps(asdict(manifest), indent=2) + "\n")
    part.replace(store / f"{release}.json")
    say(f"built in {time.monotonic() - started:.0f} s, {manifest.bytes / 1e6:.1f} MB")
    return Release(manifest, archive)


def path_on_node(release: Release) -> PurePosixPath:
    return PurePosixPath("/var/tmp") / f"{release.manifest.application}-{release.id}.tar.zst"  # noqa: S108 - root's put() makes it under a name of its own and renames
