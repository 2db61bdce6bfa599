"""Which roles the playbooks give to which hosts, read from the playbooks themselves."""

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_IMPORT_PLAYBOOK = ("ansible.builtin.import_playbook", "import_playbook")
_USE_ROLE = ("ansible.builtin.import_role", "ansible.builtin.include_role", "import_role", "include_role")
_SECTIONS = ("pre_tasks", "tasks", "post_tasks", "block", "rescue", "always")
_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*(?:\|\s*default\(\s*['\"]([^'\"]*)['\"]\s*\)\s*)?\}\}")


@dataclass(frozen=True)
class Play:
    file: str
    pattern: str
    roles: tuple[str, ...]
    # Variables that the play gives the roles, and their values; a host's own do not count for these.
    variables: frozenset[str] = frozenset()


def plays_of(playbook: Path, root: Path) -> list[Play]:
    """Every play of a playbook and of those that it imports, in their order."""
    found: list[Play] = []
    for entry in yaml.safe_load(playbook.read_text(encoding="utf-8")) or []:
        imported = next((entry[key] for key in _IMPORT_PLAYBOOK if key in entry), None)
        if imported is not None:
            found += plays_of(playbook.parent / imported, root)
        else:
            found.append(_play(entry, str(playbook.relative_to(root))))
    return found


def _play(entry: Mapping[str, Any], file: str) -> Play:
    hosts = entry.get("hosts", "")
    uses = list(_uses(entry))
    return Play(
        file=file,
        pattern=hosts if isinstance(hosts, str) else ",".join(hosts),
        roles=tuple(dict.fromkeys(name for name, _ in uses)),
        variables=frozenset(entry.get("vars") or {}).union(*(variables for _, variables in uses)),
    )


def _uses(entry: Mapping[str, Any]) -> Iterator[tuple[str, Iterable[str]]]:
    for role in entry.get("roles") or []:
        if isinstance(role, str):
            yield role, ()
        else:
            yield role.get("role") or role["name"], {*role, *(role.get("vars") or {})}
    for section in _SECTIONS:
        for task in entry.get(section) or []:
            for key in _USE_ROLE:
                if key in task:
                    yield task[key]["name"], task.get("vars") or {}
            yield from _uses(task)


def hosts_of(
    pattern: str,
    groups: Mapping[str, Sequence[str]],
    hosts: Iterable[str],
    variable: Callable[[str, Any], Any],
) -> list[str]:
    """The hosts that Ansible's pattern means: names, wildcards, `a:b`, `a,b`, `a:&b`, `a:!b`."""
    known = list(hosts)
    parts = [part.strip() for part in re.split(r"[:,]", rendered(pattern, variable)) if part.strip()]
    chosen: list[str] = []
    for part in sorted(parts, key=lambda each: "&!".find(each[0])):
        matching = _matching(part.lstrip("&!"), groups, known)
        if part[0] == "&":
            chosen = [host for host in chosen if host in matching]
        elif part[0] == "!":
            chosen = [host for host in chosen if host not in matching]
        else:
            chosen += [host for host in matching if host not in chosen]
    return chosen


def rendered(pattern: str, variable: Callable[[str, Any], Any]) -> str:
    """The pattern with the names of groups that variables stand for."""
    return _VARIABLE.sub(lambda match: str(variable(match[1], match[2] or "")), pattern)


def _matching(name: str, groups: Mapping[str, Sequence[str]], hosts: list[str]) -> list[str]:
    if name in ("all", "*"):
        return hosts
    of_groups = [host for group in fnmatch.filter(groups, name) for host in groups[group]]
    return [host for host in hosts if host in of_groups or fnmatch.fnmatchcase(host, name)]
