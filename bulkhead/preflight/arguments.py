"""Every role's argument_specs, against every host that a play gives the role to.

Ansible does this too, when the role starts on a host; here it is done for all before the first is touched.
"""

import re
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem, listed, shown
from bulkhead.schema import plain
from bulkhead.secrets import NAMES as SECRET_NAMES

_SECRET = re.compile(r"password|secret|token|private|_key$")
_Found = tuple[str, str, str, str, str]  # role, where, what, value, mend


def check(cluster: Cluster) -> list[Problem]:
    hosts: dict[_Found, list[str]] = {}
    for role, host, given in _uses(cluster):
        for name, option in cluster.specs.get(role, {}).items():
            if name not in given and (host, name) not in cluster.broken:
                for found in _check(cluster, role, host, name, dict(option)):
                    hosts.setdefault(found, []).append(host)
    return [
        Problem(
            where or f"role {role} on {listed(on)}",
            f"{what} (role {role} on {listed(on)})" if where else what,
            value,
            mend,
        )
        for (role, where, what, value, mend), on in hosts.items()
    ]


def _uses(cluster: Cluster) -> Iterator[tuple[str, str, frozenset[str]]]:
    """Each role with each of its hosts once, and what a play gives it there."""
    given: dict[tuple[str, str], frozenset[str]] = {}
    for play in cluster.plays:
        for host in cluster.hosts_in(play):
            for role in play.roles:
                given[role, host] = given.get((role, host), frozenset()) | play.variables
    for (role, host), names in given.items():
        yield role, host, names


def _check(cluster: Cluster, role: str, host: str, name: str, option: dict[str, Any]) -> Iterator[_Found]:
    required = option.pop("required", False)
    if name not in cluster.hosts[host]:
        # A missing secret is said by the rules for secrets.
        if required and name not in SECRET_NAMES:
            yield role, "", f"the required variable {name} is missing", name, _how_to_set(option)
        return
    value = cluster.hosts[host][name]
    validator = ArgumentSpecValidator({name: option})
    errors = validator.validate({name: plain(value)}, validate_role_argument_spec=True).error_messages
    if not errors:
        return
    hidden = bool(option.get("no_log")) or name in SECRET_NAMES or _SECRET.search(name)
    seen = "a secret" if hidden else shown(plain(value))
    kind = option.get("type", "str")
    if option.get("choices"):
        wanted = f"one of {', '.join(map(str, option['choices']))}"
    else:
        wanted = f"of type {kind}" + (f" of {option['elements']}" if option.get("elements") else "")
    details = "" if hidden else "; ".join(errors)
    what = f"it is {seen}, and must be {wanted}"
    if details and option.get("options"):
        what = f"{what}: {details}"
    yield role, cluster.where(name, value), what, seen, f"Mend it: {_meaning(option)}"


def _how_to_set(option: dict[str, Any]) -> str:
    kind = option.get("type", "str")
    return f"Set it ({kind}) in the inventory's group_vars or host_vars: {_meaning(option)}"


def _meaning(option: dict[str, Any]) -> str:
    description = option.get("description", "see the role's argument_specs")
    return " ".join((description if isinstance(description, str) else " ".join(description)).split())
