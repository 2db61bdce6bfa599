"""Directories and files of a host, any number of them, in one task: all of them change, or none does.

Each task costs a process on the controller for each host, whether it has something to do or not, so a role's
files belong in one. Templates are rendered on the controller, as `ansible.builtin.template` does it, and one
call of `node_files` (plugins/modules) writes what differs. docs/adr/0015 has the figures and the reasons.

    files  a list of entries; an entry may be a list itself

An entry:

    path        where it is on the host, or a list of such places
    directory   true: a directory, with the parents that it lacks
    absent      true: no file
    template    rendered; `vars` are for it alone
    source      copied as it is, from the role's files
    content     the text itself
    owner, group  root unless they are given
    mode        has to be given, as text
    validate    a command that gets the new content's path as %s and fails if it will not do; not in a dry run
    block       the content stands between two marks of this name, and the rest of the file is left alone
    keep        true: what is there is left as it is
    secret      true: the content is in no diff and no log
    when        false: leave this entry out
    notify      handlers for a change of this entry; the task's own `notify` is for a change of any

`changed_paths` of the result names what has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleUndefinedVariable
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

KINDS = ("directory", "absent", "template", "source", "content")
HERE_ONLY = ("vars", "when", "notify")
PASSED_ON = ("path", "owner", "group", "mode", "validate", "block", "keep")
NAMES = {*KINDS, *HERE_ONLY, *PASSED_ON, "secret"}


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("files",))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        entries = [entry for entry in _entries(self._task.args.get("files")) if entry.get("when", True)]
        files = [self._file(entry, task_vars or {}) for entry in entries]
        result.update(self._execute_module("node_files", module_args={"files": files}, task_vars=task_vars))
        # Handlers are told by name when the task has ended: by then the task names those of what has changed.
        changed = set(result.get("changed_paths", ()))
        told = [
            name for entry in entries if entry["path"] in changed for name in _listed(entry.get("notify"))
        ]
        if told:
            self._task.notify = list(dict.fromkeys([*(self._task.notify or []), *told]))
        return result

    def _file(self, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """The entry as the module takes it: with its content, and without what is the controller's."""
        given = {name: entry[name] for name in PASSED_ON if name in entry}
        if entry.get("directory"):
            return {**given, "state": "directory"}
        if entry.get("absent"):
            return {**given, "state": "absent"}
        try:
            content = self._content(entry, task_vars)
        except (AnsibleError, OSError, UnicodeDecodeError) as error:
            if entry.get("secret") and not isinstance(error, AnsibleUndefinedVariable):
                # A filter may quote the value that it does not like.
                raise AnsibleActionFail(f"{entry['path']}: its secret content cannot be made") from None
            raise AnsibleActionFail(f"{entry['path']}: {error}") from error
        return {**given, "secret" if entry.get("secret") else "content": content}

    def _content(self, entry: Mapping[str, Any], task_vars: Mapping[str, Any]) -> str:
        if "content" in entry:
            return str(entry["content"])
        if "source" in entry:
            return Path(self._find_needle("files", entry["source"])).read_text(encoding="utf-8")
        template = self._find_needle("templates", entry["template"])
        places = [
            *task_vars.get("ansible_search_path", []),
            self._loader.get_basedir(),
            Path(template).parent,
        ]
        templar = self._templar.copy_with_new_env(
            searchpath=[str(path) for place in places for path in (Path(place, "templates"), place)],
            available_variables={
                "ansible_managed": constants.DEFAULT_MANAGED_STR,
                **task_vars,
                **entry.get("vars", {}),
            },
        )
        text = trust_as_template(self._loader.get_text_file_contents(template))
        rendered = templar.template(text, escape_backslashes=False, overrides={"trim_blocks": True})
        return "" if rendered is None else str(rendered)


def _entries(given: Any) -> Iterator[Mapping[str, Any]]:
    """One for each path."""
    if not isinstance(given, list):
        raise AnsibleActionFail(f"files has to be a list of entries, not {type(given).__name__}")
    for entry in given:
        if isinstance(entry, list):
            yield from _entries(entry)
        elif isinstance(entry, Mapping) and isinstance(entry.get("path"), list):
            yield from _entries([{**entry, "path": path} for path in entry["path"]])
        else:
            _refuse_misfits(entry)
            yield entry


def _refuse_misfits(entry: Any) -> None:
    """Raises AnsibleActionFail, with no content in its text: that may be secret."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        raise AnsibleActionFail("each entry of files has to be a mapping with a path")
    path = entry["path"]
    unknown = sorted(set(entry) - NAMES)
    if unknown:
        raise AnsibleActionFail(f"{path}: no entry of files has {', '.join(unknown)}; see bulkhead_files.py")
    for name in ("directory", "absent", "keep", "secret", "when"):
        if not isinstance(entry.get(name, False), bool):
            raise AnsibleActionFail(f"{path}: {name} has to be true or false, not {entry[name]!r}")
    kinds = [name for name in KINDS if entry.get(name, False) is not False]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        raise AnsibleActionFail(f"{path}: give one of {', '.join(KINDS)}, not {given}")
    if kinds != ["absent"] and not isinstance(entry.get("mode"), str):
        raise AnsibleActionFail(f'{path}: mode has to be given, as text: "0644"')


def _listed(names: Any) -> list[str]:
    return [names] if isinstance(names, str) else list(names or [])
