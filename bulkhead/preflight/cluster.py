"""What preflight looks at: every host's variables, the groups, and the roles that the plays give to whom."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bulkhead.application import Application, parse
from bulkhead.preflight.plays import Play, hosts_of
from bulkhead.problem import Origin, Problem, origin_unknown, place

Options = Mapping[str, Mapping[str, Any]]  # a role's options, from its argument_specs


@dataclass(frozen=True)
class Cluster:
    hosts: Mapping[str, Mapping[str, Any]] = field(repr=False)  # holds secrets: never shown
    groups: Mapping[str, Sequence[str]]
    plays: Sequence[Play] = ()
    specs: Mapping[str, Options] = field(default_factory=dict)
    origin: Origin = origin_unknown
    # Variables that have a value which could not be worked out; that is a problem of its own, said once.
    broken: Set[tuple[str, str]] = frozenset()

    @cached_property
    def parsed(self) -> tuple[Application | None, list[Problem]]:
        described = self.variable("application")
        return parse(described, self.origin) if described is not None else (None, [])

    @property
    def application(self) -> Application | None:
        return self.parsed[0]

    def variable(self, name: str, default: Any = None) -> Any:
        """A variable that is the same on every host."""
        return next((variables[name] for variables in self.hosts.values() if name in variables), default)

    def is_broken(self, name: str) -> bool:
        return any(name == variable for _, variable in self.broken)

    def group_name(self, tier: str) -> str:
        return str(self.variable(f"{tier}_group", tier))

    def group(self, tier: str) -> Sequence[str]:
        """Hosts of a tier, by the project's own name for it: `load_balancers`."""
        return self.groups.get(self.group_name(tier), ())

    def hosts_with(self, role: str) -> list[str]:
        """Hosts that some play gives the role to."""
        found = [host for play in self.plays if role in play.roles for host in self.hosts_in(play)]
        return list(dict.fromkeys(found))

    def hosts_in(self, play: Play) -> list[str]:
        return hosts_of(play.pattern, self.groups, self.hosts, self.variable)

    def setting(self, host: str, role: str, name: str) -> Any:
        """A role's variable as the host will see it: its own value, or the role's default."""
        default = self.specs.get(role, {}).get(name, {}).get("default")
        return self.hosts[host].get(name, default)

    def where(self, path: str, value: Any) -> str:
        return place(path, self.origin(value))
