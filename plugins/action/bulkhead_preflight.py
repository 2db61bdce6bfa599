"""Hands the inventory, as templated for each host, to bulkhead/preflight, and shows every problem at once.

It runs on the controller and connects to no host. Its one argument, `playbook`, is the playbook whose plays
say which roles go to which hosts, relative to the project's root.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.constants import COLOR_ERROR
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import Templar
from ansible.vars.hostvars import HostVars

# Ansible loads this file by its path, so the library beside it is not on Python's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bulkhead.environment import Environment, LoadBalancer, Node
from bulkhead.inventory import ROOT
from bulkhead.preflight.check import check
from bulkhead.preflight.cluster import Cluster
from bulkhead.preflight.plays import plays_of
from bulkhead.problem import Problem, listed
from bulkhead.secrets import NAMES as SECRET_NAMES

try:
    from ansible._internal._datatag._tags import Origin
except ImportError:  # ansible-core without origins (before 2.19, or after a move): places lack file and line
    Origin = None

# Variables that mean the same on every host: worked out once, and shared by the hosts that got the same text.
COMMON = {
    *Environment.model_fields,
    *SECRET_NAMES,
    *(
        f"{tier}_group"
        for tier in ("load_balancers", "app_servers", "databases", "builders", "workers", "brokers", "filers")
    ),
    "application",
}

# What the rules look at on every host. A role's options come on top, on the hosts that have the role.
NAMES = {
    *COMMON,
    *Node.model_fields,
    *LoadBalancer.model_fields,
    "ansible_port",
    "haproxy_certificates",
    "pki_certificate",
    "pki_private_key",
}


class ActionModule(ActionBase):
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec({"playbook": {"type": "str", "required": True}})
        try:
            problems = _problems(ROOT / arguments["playbook"], task_vars or {}, self._templar)
        except (OSError, yaml.YAMLError) as error:
            raise AnsibleActionFail(
                f"The playbooks or a role's argument_specs cannot be read: {error}"
            ) from error
        if not problems:
            return {"changed": False, "msg": "The inventory holds together."}
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        for problem in problems:
            self._display.display(f"- {problem}", color=COLOR_ERROR)
        return {
            "changed": False,
            "failed": True,
            "msg": f"{count} in the inventory, listed above; no host was touched.",
        }


def _problems(playbook: Path, task_vars: Mapping[str, Any], templar: Templar) -> list[Problem]:
    groups = {str(name): [str(host) for host in hosts] for name, hosts in task_vars["groups"].items()}
    plays = plays_of(playbook, ROOT)
    specs = {role: _options(role) for role in {role for play in plays for role in play.roles}}
    reading = _Reading(task_vars["hostvars"], templar)
    for host in groups.get("all", []):
        reading.add(host, NAMES)
    cluster = Cluster(reading.hosts, groups, plays, specs, _origin, reading.broken.keys())
    for play in plays:
        for host in cluster.hosts_in(play):
            for role in play.roles:
                reading.add(host, specs[role])
    problems = check(cluster)
    return [*reading.problems(problems), *problems]


class _Reading:
    """The values of the variables that matter, and the reasons why some cannot be worked out."""

    def __init__(self, hostvars: HostVars, templar: Templar) -> None:
        self.hostvars = hostvars
        self.templar = templar
        self.variables: dict[str, dict[str, Any]] = {}
        self.hosts: dict[str, dict[str, Any]] = {}
        self.shared: dict[tuple[str, int], Any] = {}
        self.broken: dict[tuple[str, str], str] = {}

    def add(self, host: str, names: Iterable[str]) -> None:
        values = self.hosts.setdefault(host, {})
        if host not in self.variables:
            # As a task on the host sees them: `hostvars[host]` lacks hostvars, which some templates ask.
            self.variables[host] = {**self.hostvars.raw_get(host), "hostvars": self.hostvars}
        variables = self.variables[host]
        templar = self.templar.copy_with_new_env(available_variables=variables)
        for name in sorted({*names} - values.keys()):
            if name in variables and (host, name) not in self.broken:
                raw = variables[name]
                shared = self.shared if name in COMMON else {}
                try:
                    if (name, id(raw)) not in shared:
                        shared[name, id(raw)] = templar.template(raw)
                    values[name] = shared[name, id(raw)]
                except AnsibleError as error:
                    self.broken[host, name] = " ".join(str(error).split())

    def problems(self, causes: Iterable[Problem]) -> list[Problem]:
        """One for each variable and reason, however many hosts have it, unless its cause is said already."""
        said = [text for cause in causes for text in (cause.what, *_names(cause))]
        hosts: dict[tuple[str, str], list[str]] = {}
        for (host, name), reason in self.broken.items():
            if not any(cause in reason for cause in said):
                hosts.setdefault((name, reason), []).append(host)
        mend = "Set what it refers to, or mend the template."
        return [
            Problem(f"{name} on {listed(on)}", f"its value cannot be worked out: {reason}", name, mend)
            for (name, reason), on in hosts.items()
        ]


def _names(cause: Problem) -> list[str]:
    """What an error that follows from this one would mention: its value, or a name that has no value."""
    names = cause.value.split(", ")
    quoted = [f"'{part}'" for name in names for part in name.split(".")]
    return [*(name for name in names if len(name) > 3), *quoted]


def _options(role: str) -> Mapping[str, Any]:
    for name in ("argument_specs.yml", "argument_specs.yaml"):
        path = ROOT / "roles" / role / "meta" / name
        if path.exists():
            specs = yaml.safe_load(path.read_text(encoding="utf-8"))
            return specs["argument_specs"]["main"].get("options") or {}
    return {}


def _origin(value: Any) -> str | None:
    """The file and line that a value was written in, by the tag that Ansible gives it."""
    tag = Origin.get_tag(value) if Origin is not None else None
    if tag is None or not tag.path:
        return None
    path = Path(tag.path)
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    return f"{shown}:{tag.line_num}" if tag.line_num else str(shown)
