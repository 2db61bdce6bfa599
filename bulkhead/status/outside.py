"""The cluster as its clients see it: a request through a virtual address, with the certificate checked."""

from __future__ import annotations

import http.client
import os
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from bulkhead.inventory import Inventory, VirtualAddress

ANSWER_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True)
class Answer:
    """What a public address answered, asked from here as a client would."""

    code: int | None
    milliseconds: int
    problem: str = ""

    @property
    def good(self) -> bool:
        return self.code == 200


def ask(inventory: Inventory, address: VirtualAddress) -> Answer:
    """GET of the readiness path through a virtual address, as a client of the cluster sees it."""
    names = inventory.variables.get("public_names") or [address.address]
    name = str(names[0])
    path = str(inventory.application.get("health", {}).get("ready", "/"))
    began = time.monotonic()
    try:
        connection = _Connection(address.address, name, client_context(inventory))
        connection.request("GET", path, headers={"Host": name, "User-Agent": "bulkhead-status"})
        code: int | None = connection.getresponse().status
        problem = ""
        connection.close()
    except (OSError, http.client.HTTPException) as error:
        code, problem = None, _words(error)
    return Answer(code, round((time.monotonic() - began) * 1000), problem)


def client_context(inventory: Inventory) -> ssl.SSLContext:
    """Trusts what the system trusts and the cluster's own CA; BULKHEAD_CA names another file for it."""
    context = ssl.create_default_context()
    file = os.environ.get("BULKHEAD_CA")
    authority = Path(file).read_text() if file else inventory.variables.get("pki_ca_certificate")
    if isinstance(authority, str) and "BEGIN CERTIFICATE" in authority:
        context.load_verify_locations(cadata=authority)
    return context


class _Connection(http.client.HTTPSConnection):
    """HTTPS to one address under the name that clients use."""

    def __init__(self, address: str, name: str, context: ssl.SSLContext) -> None:
        super().__init__(address, 443, timeout=ANSWER_TIMEOUT_SECONDS, context=context)
        self._name = name
        self._tls = context

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._tls.wrap_socket(self.sock, server_hostname=self._name)


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__
