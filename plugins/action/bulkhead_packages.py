"""Debian packages that have to be there: asks dpkg first, and apt only for what is missing.

Apt opens its whole index to answer that nothing is to be done, about a second of a core for each role and
host; dpkg answers in some hundredths. What is installed is never upgraded, as with `state: present`.

    name         the packages, a list or one name
    policy_rc_d  the exit code of policy-rc.d while they are installed: 101 keeps their services from starting
"""

from __future__ import annotations

import shlex
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

INSTALLED = "installed"

# A new index costs three seconds of a core for each role and host, so one of today is tried first. It may be
# wrong all the same (a fresh image has none at all, an old one names versions that are gone): then a new one
# is fetched.
DAY_SECONDS = 86_400


class ActionModule(ActionBase):
    _requires_connection = True
    _supports_check_mode = True
    _VALID_ARGS = frozenset(("name", "policy_rc_d"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        name = self._task.args.get("name")
        names = [name] if isinstance(name, str) else name
        if not names or not all(isinstance(each, str) for each in names):
            raise AnsibleActionFail(f"name has to be a package's name or a list of them, not {name!r}")
        query = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package}\\n", *names]
        # dpkg-query ends with 1 when it does not know one of them.
        told = self._low_level_execute_command(shlex.join(query))["stdout_lines"]
        if set(names) <= {line.partition(" ")[2] for line in told if line.partition(" ")[0] == INSTALLED}:
            result["changed"] = False
            return result
        arguments = {"install_recommends": False, "update_cache": True, **self._task.args}
        for valid_seconds in (DAY_SECONDS, 0):
            said = self._execute_module(
                "ansible.builtin.apt",
                module_args={**arguments, "cache_valid_time": valid_seconds},
                task_vars=task_vars,
            )
            if not said.get("failed"):
                break
        result.update(said)
        return result
