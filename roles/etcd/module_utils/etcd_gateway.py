"""etcd's JSON gateway, as much of it as the modules of this role need. Python's standard library only."""

from __future__ import annotations

import base64
import http.client
import json
import ssl

FAILED_PRECONDITION = 9  # gRPC's code; etcd gives it when authentication is not enabled
SECONDS = 30


class EtcdError(Exception):
    """An answer that says no, in one line."""

    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code


class UnreachableError(EtcdError):
    """No member answered."""


def encode(text):
    return base64.b64encode(text.encode()).decode()


def end_of(prefix):
    """The first key after all those that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class Gateway:
    """The first of the endpoints (address:port) that serves."""

    def __init__(self, endpoints, ca_path):
        self._context = ssl.create_default_context(cafile=ca_path)
        self._token = None
        self._endpoint = self._find(endpoints)

    def _find(self, endpoints):
        said = []
        for endpoint in endpoints:
            try:
                _, answer = self._ask(endpoint, "GET", "/health")
            except UnreachableError as error:
                said.append(str(error))
                continue
            if answer.get("health") == "true":
                return endpoint
            said.append(f"{endpoint}: not healthy")
        raise UnreachableError("no member of etcd serves; " + "; ".join(said))

    def _ask(self, endpoint, method, path, body=None, headers=None):
        connection = http.client.HTTPSConnection(endpoint, timeout=SECONDS, context=self._context)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, _json(answer.read())
        except (OSError, http.client.HTTPException) as error:
            raise UnreachableError(f"{endpoint}: {error}") from error
        finally:
            connection.close()

    def call(self, path, **body):
        headers = {"Authorization": self._token} if self._token else {}
        status, answer = self._ask(self._endpoint, "POST", f"/v3/{path}", json.dumps(body), headers)
        if status != http.client.OK:
            said = answer.get("message") or answer.get("error") or f"status {status}"
            raise EtcdError(f"{path}: {said}", answer.get("code"))
        return answer

    def token(self, user, password):
        """The user's token, or none if the password is wrong; EtcdError if authentication is off."""
        try:
            return self.call("auth/authenticate", name=user, password=password)["token"]
        except EtcdError as error:
            if "authentication failed" in str(error):
                return None
            raise

    def sign_in(self, password):
        """Go on as root. False if authentication is not enabled yet: everybody is root then."""
        try:
            self._token = self.token("root", password)
        except EtcdError as error:
            if error.code == FAILED_PRECONDITION:
                return False
            raise
        if self._token is None:
            raise EtcdError(
                "etcd's user root has another password than etcd_root_password. Put the old value "
                "back; to change it, type `etcdctl user passwd root` on a member, then put the new one into "
                "the vault"
            )
        return True


def _json(content):
    try:
        return json.loads(content)
    except ValueError:
        return {}
