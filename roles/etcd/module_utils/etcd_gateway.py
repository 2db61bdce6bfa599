"""etcd's JSON gateway, as much of it as the modules of this role need. Python's standard library only."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request

FAILED_PRECONDITION = 9  # gRPC's code; etcd gives it when authentication is not enabled
SECONDS = 10


class EtcdError(Exception):
    """An answer that says no, in one line."""

    def __init__(self, message, code=None):
        super().__init__(message)
        self.code = code


class Unreachable(EtcdError):
    """No member answered."""


def encode(text):
    return base64.b64encode(text.encode()).decode()


def end_of(prefix):
    """The first key after all those that begin with the prefix."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


class Gateway:
    """The first of the endpoints that serves."""

    def __init__(self, endpoints, ca_path):
        self._context = ssl.create_default_context(cafile=ca_path)
        self._token = None
        self._endpoint = self._find(endpoints)

    def _find(self, endpoints):
        said = []
        for endpoint in endpoints:
            try:
                with urllib.request.urlopen(
                    f"{endpoint}/health", timeout=SECONDS, context=self._context
                ) as answer:
                    if json.load(answer).get("health") == "true":
                        return endpoint
                said.append(f"{endpoint}: not healthy")
            except (OSError, ValueError) as error:
                said.append(f"{endpoint}: {error}")
        raise Unreachable("no member of etcd serves; " + "; ".join(said))

    def call(self, path, **body):
        request = urllib.request.Request(
            f"{self._endpoint}/v3/{path}", data=json.dumps(body).encode(), method="POST"
        )
        if self._token:
            request.add_header("Authorization", self._token)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=self._context) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = _json(error.read())
            message = said.get("message") or said.get("error") or str(error)
            raise EtcdError(f"{path}: {message}", said.get("code")) from error
        except OSError as error:
            raise Unreachable(f"{self._endpoint}: {error}") from error

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
                "etcd's user root has another password than etcd_root_password. Put the old value back; to change "
                "it, type `etcdctl user passwd root` on a member first, then set the new value in the vault"
            )
        return True


def _json(content):
    try:
        return json.loads(content)
    except ValueError:
        return {}
