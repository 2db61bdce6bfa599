"""The cluster's etcd, as far as operations need it: their lock and their ledger live there.

It is reached through SSH and a member of its own, so that nothing but SSH has to be open to operators.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from bulkhead import probes
from bulkhead.connections import Connections
from bulkhead.errors import CommandError, FailedError, HostError
from bulkhead.inventory import Inventory

LOGIN = "etcd_operator_password"
PREFIX = "/bulkhead/"  # what etcd lets the operations' user read and write
ANSWER_SECONDS = 12.0
REFUSED = 3  # exit code of the probe

Call = tuple[str, Mapping[str, Any]]


class SilentError(FailedError):
    """No member of etcd answers, or they have no majority."""


class Store(Protocol):
    """Calls of etcd's JSON gateway; tests have one of their own."""

    def calls(self, *calls: Call) -> list[dict[str, Any]]: ...


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def decode(text: str) -> str:
    return base64.b64decode(text).decode()


def end_of(prefix: str) -> str:
    """The first key after all those that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class Etcd:
    """The member that answered last; when it does not, the next one."""

    def __init__(self, inventory: Inventory, connections: Connections) -> None:
        self._connections = connections
        self._hosts = inventory.hosts("databases")

    def calls(self, *calls: Call) -> list[dict[str, Any]]:
        """Calls made one after the other by one member, and its answers.

        Raises SilentError if no member can, FailedError if etcd refuses one of them.
        """
        said = []
        for host in list(self._hosts):
            password = str(host.literal(LOGIN, ""))
            if not password:
                raise FailedError(
                    f"{LOGIN} is not in the inventory, so operations cannot take their lock.",
                    mend="Make it: python -m bulkhead.secrets, then converge playbooks/databases.yml.",
                )
            request = json.dumps({"node_address": host.node_address, "calls": calls})
            program = probes.with_secrets("etcd", {"password": password, "request": request})
            try:
                answer = self._connections.run(
                    host, "python3 -", input=program, timeout_seconds=ANSWER_SECONDS
                )
                found: list[dict[str, Any]] = json.loads(answer.stdout)
            except CommandError as error:
                words = error.output.strip().splitlines() or ["it said nothing"]
                if error.code == REFUSED:
                    raise _refused(host.name, words[-1]) from None
                said.append(f"{host.name}: {words[-1]}")
            except (HostError, ValueError) as error:
                said.append(str(error.args[0]) if error.args else type(error).__name__)
            else:
                return found
            self._hosts.append(self._hosts.pop(0))
        raise SilentError("etcd does not answer:" + "".join(f"\n  {line}" for line in said))


def _refused(host: str, words: str) -> FailedError:
    if "authentication failed" in words or "permission denied" in words:
        return FailedError(
            f"{host}: etcd does not let the operations' user in ({words}).",
            mend="Its password there is not the inventory's: ansible-playbook playbooks/databases.yml",
        )
    return FailedError(f"{host}: etcd refused: {words}.", mend="See how etcd is: fab status")


def reading(prefix: str) -> Sequence[Call]:
    return (("kv/range", {"key": encode(prefix), "range_end": encode(end_of(prefix))}),)
