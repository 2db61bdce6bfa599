"""A lease in etcd, through its JSON gateway: held by one process at a time, with a token that only ever
grows."""

import base64
import http.client
import json
import logging
import ssl
import threading
import time
from collections.abc import Sequence

log = logging.getLogger("forge.beat")

# The host of a holder dies: the lease ends TTL_SECONDS after its last renewal, and the others ask every
# RENEW_SECONDS. An election of etcd in the same moment adds a few seconds; all of it is below 15.
TTL_SECONDS = 6
RENEW_SECONDS = 1.0
ANSWER_SECONDS = 1.0
# etcd's code for a token of authentication that has expired.
UNAUTHENTICATED = 16


class EtcdError(Exception):
    """What was said, in one line."""


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Etcd:
    """The member that answered last; when it does not, the next one."""

    def __init__(self, addresses: Sequence[str], user: str, password: str, ca_file: str) -> None:
        self._addresses = list(addresses)
        self._login = {"name": user, "password": password}
        self._context = ssl.create_default_context(cafile=ca_file)
        self._token = ""

    def call(self, path: str, **body: object) -> dict:
        said = []
        for _ in range(len(self._addresses)):
            try:
                return self._call_signed(path, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                said.append(f"{self._addresses[0]}: {error or type(error).__name__}")
                self._addresses.append(self._addresses.pop(0))
                self._token = ""
        raise EtcdError("; ".join(said))

    def _call_signed(self, path: str, body: dict) -> dict:
        for _ in range(2):
            if not self._token:
                status, answer = self._ask("auth/authenticate", self._login)
                if status != http.client.OK:
                    raise EtcdError(f"signing in as {self._login['name']}: {answer.get('message', status)}")
                self._token = answer["token"]
            status, answer = self._ask(path, body)
            if status == http.client.OK:
                return answer
            if answer.get("code") != UNAUTHENTICATED:
                break
            self._token = ""
        raise EtcdError(f"{path}: {answer.get('message') or answer.get('error') or status}")

    def _ask(self, path: str, body: dict) -> tuple[int, dict]:
        connection = http.client.HTTPSConnection(
            self._addresses[0], timeout=ANSWER_SECONDS, context=self._context
        )
        try:
            headers = {"Authorization": self._token} if self._token else {}
            connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"{}")
            if response.status >= http.client.INTERNAL_SERVER_ERROR:
                # This member cannot serve now; another one may.
                raise http.client.HTTPException(f"{path}: {answer.get('message', response.status)}")
            return response.status, answer
        finally:
            connection.close()


class Lease:
    """Tries to hold one key for as long as the process lives, in a thread of its own.

    The key's revision at its creation is the token: every later holder's is higher. What is done under the
    lease still has to check the token where it is done, since a process may be stopped between any two
    instructions.
    """

    def __init__(self, etcd: Etcd, key: str, holder: str) -> None:
        self._etcd = etcd
        self._key = key
        self._holder = holder
        self._lease = ""
        self._token = 0
        self._until = 0.0
        self._stopping = threading.Event()
        self.said = "etcd was not asked yet"
        self.answered = False

    def token(self) -> int | None:
        """The token, if the lease is surely still ours."""
        return self._token if self._token and time.monotonic() < self._until else None

    def run(self) -> None:
        while not self._stopping.is_set():
            before = self.said
            try:
                if self.token():
                    self._renew()
                else:
                    self._acquire()
                self.answered = True
            except EtcdError as error:
                self.said = f"etcd does not answer: {error}"
            if before != self.said:
                log.info("lease: %s", self.said)
            self._stopping.wait(RENEW_SECONDS)

    def stop(self) -> None:
        """Gives the lease up, so that nobody has to wait for its end."""
        self._stopping.set()
        lease, self._token = self._lease, 0
        if lease:
            try:
                self._etcd.call("lease/revoke", ID=lease)
            except EtcdError as error:
                log.warning("the lease could not be given up and ends by itself: %s", error)

    def _renew(self) -> None:
        asked = time.monotonic()
        answer = self._etcd.call("lease/keepalive", ID=self._lease).get("result", {})
        if int(answer.get("TTL", 0)) <= 0:
            self._token, self.said = 0, "the lease has ended"
            return
        self._holds(asked)

    def _holds(self, asked: float) -> None:
        self._until = asked + TTL_SECONDS
        # Also after a renewal: the one before it may have said that etcd does not answer.
        self.said = f"holds the lease with token {self._token}"

    def _acquire(self) -> None:
        self._token = 0
        # Asked before a lease is made, so that those who wait leave no leases behind.
        found = self._etcd.call("kv/range", key=encode(self._key)).get("kvs", [])
        if found:
            self.said = f"standby: {base64.b64decode(found[0]['value']).decode()} holds the lease"
            return
        asked = time.monotonic()
        self._lease = self._etcd.call("lease/grant", TTL=TTL_SECONDS)["ID"]
        answer = self._etcd.call(
            "kv/txn",
            compare=[
                {"key": encode(self._key), "target": "CREATE", "result": "EQUAL", "create_revision": "0"}
            ],
            success=[
                {
                    "requestPut": {
                        "key": encode(self._key),
                        "value": encode(self._holder),
                        "lease": self._lease,
                    }
                }
            ],
        )
        if not answer.get("succeeded"):
            self._etcd.call("lease/revoke", ID=self._lease)
            return
        self._token = int(answer["header"]["revision"])
        self._holds(asked)
