"""Filters of role postgres."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError

ITERATIONS = 4096  # PostgreSQL's own default (scram_iterations)
NO_LESS_THAN_LEADER = (
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_worker_processes",
)


def scram_verifier(password: str, salt_text: str) -> str:
    """What PostgreSQL stores of a password (RFC 5803), always the same for the same password and salt text.

    The salt is derived from a text that names cluster and role, so that a second run finds no difference.
    """
    if not password.isascii() or not password.isprintable():
        raise AnsibleFilterError(
            "PostgreSQL's passwords have to be of printable ASCII characters: others have several spellings"
        )
    salt = hashlib.sha256(salt_text.encode()).digest()[:16]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    salt_, stored_, server_ = (base64.b64encode(each).decode() for each in (salt, stored, server))
    return f"SCRAM-SHA-256${ITERATIONS}:{salt_}${stored_}:{server_}"


def host_network(address: str) -> str:
    """An address as pg_hba.conf wants it: with the length of its mask."""
    try:
        return str(ipaddress.ip_network(address))
    except ValueError as error:
        raise AnsibleFilterError(f"{address!r} is not an IP address, and pg_hba takes no names") from error


def restart_leader_first(members: list[dict[str, Any]]) -> bool:
    """Whether a setting of Patroni's /cluster that waits for a restart has to reach the leader first.

    A standby refuses to run with less of these than its leader: Patroni holds a smaller value back from it.
    """
    reasons = [each.get("pending_restart_reason", {}) for each in members]
    values = [reason[name] for reason in reasons for name in NO_LESS_THAN_LEADER if name in reason]
    return any(int(value["new_value"]) < int(value["old_value"]) for value in values)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "host_network": host_network,
            "restart_leader_first": restart_leader_first,
            "scram_verifier": scram_verifier,
        }
