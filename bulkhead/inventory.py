"""The environment, as Ansible knows it: hosts, groups, addresses and the application.

`ansible-inventory` answers in about a second and does not render templates. So the values that operations
read are literal in the inventory, and one that is not gets an error that names it.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bulkhead.errors import SettingsError

if TYPE_CHECKING:
    from bulkhead.application import Application

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_SECONDS = 60

Variables = Mapping[str, Any]


@dataclass(frozen=True)
class Host:
    name: str
    address: str  # where SSH reaches it
    node_address: str  # where the other nodes reach it
    variables: Variables = field(repr=False)  # holds secrets: never shown

    def literal(self, variable: str, default: Any = None) -> Any:
        """The value of a variable; an error if it is a template."""
        value = self.variables.get(variable, default)
        if _is_template(value):
            raise SettingsError(
                f"{variable} of host {self.name} is a template ({_first_template(value)}), "
                "and operations read literal values only.",
                mend=f"Write {variable} out in the inventory, without {{{{ }}}}.",
            )
        return value


@dataclass(frozen=True)
class VirtualAddress:
    name: str
    address: str
    kind: str  # public or internal
    owner: str  # the load balancer that holds it while all is well


@dataclass(frozen=True)
class Inventory:
    environment_name: str
    sources: str  # as given to Ansible, for the screen
    virtual_addresses: tuple[VirtualAddress, ...]
    application: Variables  # the raw description; bulkhead.application checks it
    everyone: Mapping[str, Host] = field(repr=False)
    groups: Mapping[str, tuple[str, ...]]
    variables: Variables = field(repr=False)  # those of the first host; holds secrets: never shown

    def hosts(self, group: str) -> list[Host]:
        """The hosts of a group, in inventory order, none if it has none. The name is the project's own
        (`databases`); an inventory that calls the group otherwise says so in `databases_group`."""
        name = self.variables.get(f"{group}_group", group)
        return [self.everyone[host] for host in self.groups.get(str(name), ())]

    def host(self, name: str) -> Host:
        if name not in self.everyone:
            raise SettingsError(
                f"There is no host {name!r} in the inventory ({self.sources}).",
                mend=f"Its hosts are: {', '.join(self.everyone)}.",
            )
        return self.everyone[name]

    def checked_application(self) -> Application:
        """The application's description, typed and checked; an error that lists what is wrong with it."""
        from bulkhead.application import parse  # loads pydantic, which a status screen can do without

        application, problems = parse(self.application)
        if application is None or problems:
            raise SettingsError(
                f"`application` in the inventory is wrong ({self.sources}):"
                + "".join(f"\n  {problem}" for problem in problems),
                mend="Correct it, then try again.",
            )
        return application

    def groups_of(self, host: str) -> tuple[str, ...]:
        return tuple(group for group, members in self.groups.items() if host in members)


def load() -> Inventory:
    """Reads the inventory that ansible.cfg or ANSIBLE_INVENTORY names."""
    data = _run_ansible_inventory()
    return from_data(data, sources=_sources())


def from_data(data: Mapping[str, Any], *, sources: str) -> Inventory:
    """The inventory from the output of `ansible-inventory --list`."""
    hostvars: Mapping[str, Variables] = data.get("_meta", {}).get("hostvars", {})
    groups = _groups(data)
    names = [name for name in groups.get("all", ()) if not _is_controller(name, hostvars.get(name, {}))]
    if not names:
        raise SettingsError(
            f"The inventory has no hosts ({sources}).",
            mend="For the lab type `make up`; otherwise set ANSIBLE_INVENTORY to your environment.",
        )
    everyone = {name: _host(name, hostvars.get(name, {})) for name in names}
    first = everyone[names[0]]
    if "lab_name" in first.variables and "lab_state" not in first.variables:
        raise _no_lab()
    environment_name = _required(first, "environment_name", str)
    return Inventory(
        environment_name=environment_name,
        sources=sources,
        virtual_addresses=_virtual_addresses(first),
        application=_required(first, "application", dict),
        everyone=everyone,
        groups={
            group: tuple(name for name in members if name in everyone) for group, members in groups.items()
        },
        variables=first.variables,
    )


def _run_ansible_inventory() -> Mapping[str, Any]:
    beside = Path(sys.executable).parent / "ansible-inventory"
    program = str(beside) if beside.exists() else shutil.which("ansible-inventory")
    if program is None:
        raise SettingsError("ansible-inventory is not installed here.", mend="Type `make env` first.")
    # A source that is missing must not look like an empty one.
    environment = {**os.environ, "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "true", "ANSIBLE_NOCOLOR": "1"}
    try:
        done = subprocess.run(
            [program, "--list"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"ansible-inventory did not answer within {TIMEOUT_SECONDS} s ({_sources()}).",
            mend="Try `ansible-inventory --list` by hand. A dynamic inventory or the vault may be waiting.",
        ) from None
    if done.returncode != 0:
        raise _explained(done.stderr)
    try:
        data: Mapping[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        # The output is not shown: it may hold secrets.
        raise SettingsError(
            f"ansible-inventory answered with something that is not JSON ({error}).",
            mend="Try it by hand: `ansible-inventory --list`.",
        ) from None
    return data


def _explained(stderr: str) -> SettingsError:
    """One clear error from what ansible-inventory wrote before it gave up."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line for line in lines if "ERROR" in line] or lines[-1:] or ["(it wrote nothing)"]
    message = errors[0].removeprefix("[ERROR]:").strip()
    if "parse inventory source" in message and ".lab" in message:
        return _no_lab()
    if "vault" in message.lower():
        return SettingsError(
            f"The inventory's secrets cannot be read: {message}",
            mend="Name the file with the vault's password: export ANSIBLE_VAULT_PASSWORD_FILE=...",
        )
    return SettingsError(
        f"ansible-inventory failed: {message}",
        mend=f"Its sources are {_sources()} (ANSIBLE_INVENTORY chooses others).",
    )


def _no_lab() -> SettingsError:
    return SettingsError(
        "The lab is not there: it has no keys and no secrets yet.", mend="Type `make up` first."
    )


def _sources() -> str:
    """The inventory's sources, as they are typed from the project's root."""
    given = os.environ.get("ANSIBLE_INVENTORY")
    if given:
        return given.replace(f"{ROOT}/", "")
    configuration = ROOT / "ansible.cfg"
    lines = configuration.read_text().splitlines() if configuration.exists() else []
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "inventory":
            return value.strip()
    return "Ansible's default inventory"


def _groups(data: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Every group with its hosts, those of its children included, each once and in inventory order."""

    def members(group: str, seen: frozenset[str]) -> list[str]:
        entry = data.get(group, {})
        found: list[str] = list(entry.get("hosts", []))
        for child in entry.get("children", []):
            if child not in seen:
                found += members(child, seen | {child})
        return found

    return {
        group: tuple(dict.fromkeys(members(group, frozenset({group}))))
        for group in ("all", *(name for name in data if name not in ("_meta", "all")))
    }


def _is_controller(name: str, variables: Variables) -> bool:
    return name == "localhost" or variables.get("ansible_connection") == "local"


def _host(name: str, variables: Variables) -> Host:
    host = Host(name=name, address="", node_address="", variables=variables)
    address = str(host.literal("ansible_host", name))
    # inventories/shared says that a host has one address unless it names another: the one known template.
    own = str(variables.get("node_address", address)).replace(" ", "")
    node_address = address if own == "{{ansible_host}}" else str(host.literal("node_address", address))
    return Host(name=name, address=address, node_address=node_address, variables=variables)


def _required(host: Host, variable: str, kind: type[Any]) -> Any:
    if variable not in host.variables:
        raise SettingsError(
            f"{variable} is not set for host {host.name}.",
            mend=f"Set it in the inventory's group_vars/all (for the lab: `make up`). Sources: {_sources()}.",
        )
    value = host.literal(variable)
    if not isinstance(value, kind):
        raise SettingsError(
            f"{variable} of host {host.name} is {type(value).__name__}, and must be "
            f"{'a mapping' if kind is dict else 'a list' if kind is list else 'text'}.",
            mend="Correct it in the inventory's group_vars/all.",
        )
    return value


def _virtual_addresses(host: Host) -> tuple[VirtualAddress, ...]:
    entries = _required(host, "virtual_addresses", list)
    found = []
    for index, entry in enumerate(entries):
        place = f"virtual_addresses[{index}] of host {host.name}"
        keys = ("name", "address", "kind", "owner")
        if not isinstance(entry, dict) or any(not isinstance(entry.get(key), str) for key in keys):
            raise SettingsError(
                f"{place} does not have name, address, kind and owner, each as text.",
                mend="Example: {name: public1, address: 192.0.2.10, kind: public, owner: lb1}.",
            )
        try:
            # In its one standard form, as nodes tell it.
            address = str(ipaddress.ip_address(entry["address"]))
        except ValueError:
            raise SettingsError(
                f"{place}: {entry['address']!r} is not an IP address.", mend="Correct it in the inventory."
            ) from None
        found.append(VirtualAddress(entry["name"], address, entry["kind"], entry["owner"]))
    return tuple(found)


def _is_template(value: Any) -> bool:
    return _first_template(value) is not None


def _first_template(value: Any) -> str | None:
    """The first text within a value that holds a template."""
    if isinstance(value, str):
        return value if "{{" in value or "{%" in value else None
    children: list[Any] = []
    if isinstance(value, Mapping):
        children = list(value.values())
    elif isinstance(value, list | tuple):
        children = list(value)
    return next((found for child in children if (found := _first_template(child)) is not None), None)
