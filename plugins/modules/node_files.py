"""Ansible module: directories and files of a node, any number in one call: the node's half of bulkhead_files.

All of them change, or none does: when one cannot be written, or its check refuses it, those before it get
back what they had. A file is replaced in one step: whoever reads it sees the old one or the new one, whole.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule

ENTRY: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["file", "directory", "absent"], "default": "file"},
    "content": {"type": "str"},
    "secret": {"type": "str", "no_log": True},  # the content of a file that no diff may show
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "mode": {"type": "str", "default": "0644"},
    "validate": {"type": "str"},
    "block": {"type": "str"},
    "keep": {"type": "bool", "default": False},
}

# Directories are full of programs that read what is in them; names that begin with a dot they pass over.
NEW = ".{}.bulkhead-new"


class Refused(Exception):
    """It cannot be written: said in one line, with the path."""


@dataclass(frozen=True)
class Attributes:
    """None: no such user or group yet, which only a dry run may meet."""

    uid: int | None
    gid: int | None
    mode: int

    def told(self) -> dict[str, str]:
        return {
            "owner": _name_of(self.uid, lambda uid: pwd.getpwuid(uid).pw_name),
            "group": _name_of(self.gid, lambda gid: grp.getgrgid(gid).gr_name),
            "mode": f"{self.mode:04o}",
        }


def _name_of(number: int | None, ask: Callable[[int], str]) -> str:
    if number is None:
        return "not there yet"
    try:
        return ask(number)
    except KeyError:
        return str(number)


def attributes_of(status: os.stat_result) -> Attributes:
    return Attributes(status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode))


class Node:
    """Writes entries, and remembers how to take each of them back."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.check = bool(module.check_mode)
        self.undo: list[Callable[[], None]] = []
        self.changed_paths: list[str] = []
        self.diffs: list[dict[str, Any]] = []

    def apply(self, entry: dict[str, Any]) -> None:
        try:
            {"file": self.file, "directory": self.directory, "absent": self.absent}[entry["state"]](entry)
        except OSError as error:
            raise Refused(f"{entry['path']}: {error.strerror or error}") from error

    def take_back(self) -> str:
        """What could not be taken back, for the end of the message."""
        left = []
        while self.undo:
            try:
                self.undo.pop()()
            except OSError as error:
                left.append(f"; {error.filename} could not be taken back: {error.strerror}")
        return "".join(left)

    def file(self, entry: dict[str, Any]) -> None:
        path = entry["path"]
        if entry["keep"] and os.path.lexists(path):
            return
        before = read(path)
        secret = entry["secret"] is not None
        text = entry["secret"] if secret else entry["content"] or ""
        old = before[0] if before else b""
        new = with_block(path, old, entry["block"], text) if entry["block"] else text.encode()
        wanted = self.wanted(entry)
        if before is None or old != new:
            self.note(path, content_diff(path, None if before is None else old, new, secret))
            if not self.check:
                self.replace(path, new, wanted, entry["validate"], secret)
                self.undo.append(lambda: put_back(path, before))
        if before and before[1] != wanted:
            self.note(path, attributes_diff(path, before[1], wanted))
            if not self.check and old == new:
                self.undo.append(lambda: set_attributes(path, before[1]))
                set_attributes(path, wanted)

    def replace(
        self, path: str, content: bytes, wanted: Attributes, validate: str | None, secret: bool
    ) -> None:
        directory = os.path.dirname(path)
        if not os.path.isdir(directory):
            raise Refused(f"{path}: there is no directory {directory} on this host; make it first")
        new = write_new(path, content, wanted)
        try:
            if validate:
                self.validated(path, new, validate, secret)
            os.replace(new, path)
        except BaseException:
            os.unlink(new)
            raise

    def validated(self, path: str, new: str, validate: str, secret: bool) -> None:
        if "%s" not in validate:
            raise Refused(f"{path}: validate has to name the file as %s: {validate}")
        code, out, err = self.module.run_command([word.replace("%s", new) for word in shlex.split(validate)])
        if code != 0:
            # A checker quotes what it does not like.
            said = "its content is secret" if secret else (err or out).replace(new, path).strip()
            raise Refused(
                f"{path}: the new content failed to validate, nothing was changed (exit code {code}): {said}"
            )

    def directory(self, entry: dict[str, Any]) -> None:
        path = entry["path"].rstrip("/")
        wanted = self.wanted(entry)
        missing = []
        there = path
        while not os.path.lexists(there):
            missing.append(there)
            there = os.path.dirname(there)
        if not os.path.isdir(there):
            raise Refused(f"{there}: it is no directory; look what it is, and move it out of the way")
        if missing:
            self.note(entry["path"], state_diff(entry["path"], "absent", "directory"))
            for each in () if self.check else reversed(missing):
                os.mkdir(each, 0o700)
                self.undo.append(lambda each=each: os.rmdir(each))
                set_attributes(each, wanted)
            return
        before = attributes_of(os.stat(path))
        if before != wanted:
            self.note(entry["path"], attributes_diff(entry["path"], before, wanted))
            if not self.check:
                self.undo.append(lambda: set_attributes(path, before))
                set_attributes(path, wanted)

    def absent(self, entry: dict[str, Any]) -> None:
        path = entry["path"]
        if os.path.islink(path):  # it goes, and what it leads to stays
            target = os.readlink(path)
            self.remove(path, lambda: os.symlink(target, path))
        elif before := read(path):
            self.remove(path, lambda: put_back(path, before))

    def remove(self, path: str, put_it_back: Callable[[], None]) -> None:
        self.note(path, state_diff(path, "there", "absent"))
        if not self.check:
            os.unlink(path)
            self.undo.append(put_it_back)

    def note(self, path: str, diff: dict[str, Any]) -> None:
        if path not in self.changed_paths:
            self.changed_paths.append(path)
        self.diffs.append(diff)

    def wanted(self, entry: dict[str, Any]) -> Attributes:
        try:
            mode = int(entry["mode"], 8)
        except ValueError:
            raise Refused(f"{entry['path']}: mode {entry['mode']} is no octal number") from None
        return Attributes(
            self.number_of(entry, "owner", lambda name: pwd.getpwnam(name).pw_uid),
            self.number_of(entry, "group", lambda name: grp.getgrnam(name).gr_gid),
            mode,
        )

    def number_of(self, entry: dict[str, Any], kind: str, ask: Callable[[str], int]) -> int | None:
        try:
            return ask(entry[kind])
        except KeyError:
            if self.check:
                return None  # a task before this one would have made it
            raise Refused(f"{entry['path']}: this host has no {kind} {entry[kind]}; make it first") from None


def read(path: str) -> tuple[bytes, Attributes] | None:
    """None if there is nothing. What is no file is refused: a link may lead where nobody should write."""
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISLNK(status.st_mode):
        raise Refused(f"{path}: it is a link to {os.readlink(path)}; remove it, and run this again")
    if not stat.S_ISREG(status.st_mode):
        raise Refused(f"{path}: it is no file; look what it is, and move it out of the way")
    with open(path, "rb") as file:
        return file.read(), attributes_of(status)


def write_new(path: str, content: bytes, wanted: Attributes) -> str:
    """Writes it beside the live one, on the disk for good; answers where."""
    new = os.path.join(os.path.dirname(path), NEW.format(os.path.basename(path)))
    if os.path.lexists(new):
        os.unlink(new)  # of a run that was cut off
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchown(file.fileno(), wanted.uid, wanted.gid)
            os.fchmod(file.fileno(), wanted.mode)  # after the owner, whose change takes away setuid
            os.fsync(file.fileno())
    except BaseException:
        os.unlink(new)
        raise
    return new


def put_back(path: str, before: tuple[bytes, Attributes] | None) -> None:
    if before is None:
        os.unlink(path)
    else:
        os.replace(write_new(path, *before), path)


def set_attributes(path: str, wanted: Attributes) -> None:
    os.chown(path, wanted.uid, wanted.gid)
    os.chmod(path, wanted.mode)


def with_block(path: str, old: bytes, name: str, text: str) -> bytes:
    """The old content with the block in its place, or at its end if there is none yet."""
    begin, end = f"# BEGIN {name}", f"# END {name}"
    lines = old.decode(errors="surrogateescape").splitlines()
    block = [begin, *text.strip("\n").splitlines(), end]
    first, last = (lines.index(mark) if mark in lines else None for mark in (begin, end))
    if first is None and last is None:
        lines += block
    elif first is None or last is None or last < first:
        raise Refused(f"{path}: of its lines '{begin}' and '{end}' one is missing, or the first comes last")
    else:
        lines[first : last + 1] = block
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def content_diff(path: str, old: bytes | None, new: bytes, secret: bool) -> dict[str, Any]:
    if secret:
        return {"prepared": f"{path}: {'is new' if old is None else 'changes'}; its content is secret\n"}
    return {
        "before_header": path if old is not None else f"{path} (not there)",
        "after_header": path,
        "before": (old or b"").decode(errors="replace"),
        "after": new.decode(errors="replace"),
    }


def attributes_diff(path: str, before: Attributes, after: Attributes) -> dict[str, Any]:
    old, new = before.told(), after.told()
    names = [name for name in old if old[name] != new[name]]
    return {
        "before": {"path": path, **{name: old[name] for name in names}},
        "after": {"path": path, **{name: new[name] for name in names}},
    }


def state_diff(path: str, before: str, after: str) -> dict[str, Any]:
    return {"before": {"path": path, "state": before}, "after": {"path": path, "state": after}}


def main() -> None:
    # no_log: the journal of the node is no place for the content of its files, on every run.
    module = AnsibleModule(
        argument_spec={"files": {"type": "list", "elements": "dict", "required": True, "options": ENTRY}},
        supports_check_mode=True,
        no_log=True,
    )
    node = Node(module)
    told = {"invocation": {"module_args": {"files": [entry["path"] for entry in module.params["files"]]}}}
    try:
        for entry in module.params["files"]:
            node.apply(entry)
    except Refused as refused:
        module.fail_json(msg=f"{refused}{node.take_back()}", **told)
    except BaseException:
        node.take_back()
        raise
    diff = {"diff": node.diffs} if module._diff else {}
    module.exit_json(changed=bool(node.changed_paths), changed_paths=node.changed_paths, **diff, **told)


if __name__ == "__main__":
    main()
