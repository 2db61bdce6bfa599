"""The scenario's cluster as a client sees it: etcd's JSON gateway, and its nodes' power switch."""

import base64
import json
import os
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests import scenario

STATE = Path(os.environ["BULKHEAD_STATE"])
SECRETS = yaml.safe_load((STATE / "inventory/group_vars/all/secrets.yml").read_text())
MEMBERS = {"etcd1": "198.18.14.41", "etcd2": "198.18.14.42", "etcd3": "198.18.14.43"}
TLS = ssl.create_default_context(cadata=SECRETS["pki_ca_certificate"])


class RefusedError(Exception):
    """etcd's own words."""


def encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def call(member: str, path: str, token: str | None = None, **body: Any) -> Any:
    request = urllib.request.Request(f"https://{MEMBERS[member]}:2379/v3/{path}", json.dumps(body).encode())
    if token:
        request.add_header("Authorization", token)
    try:
        with urllib.request.urlopen(request, timeout=5, context=TLS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RefusedError(json.loads(error.read())["message"]) from error


def sign_in(user: str, member: str = "etcd1", password: str | None = None) -> str:
    password = password or SECRETS[f"etcd_{user}_password"]
    return str(call(member, "auth/authenticate", name=user, password=password)["token"])


def put(token: str, key: str, value: str, member: str = "etcd1") -> None:
    call(member, "kv/put", token, key=encode(key), value=encode(value))


def get(token: str, key: str, member: str = "etcd1") -> str | None:
    pairs = call(member, "kv/range", token, key=encode(key)).get("kvs", [])
    return base64.b64decode(pairs[0]["value"]).decode() if pairs else None


def healthy(member: str) -> bool:
    try:
        with urllib.request.urlopen(
            f"https://{MEMBERS[member]}:2379/health", timeout=3, context=TLS
        ) as answer:
            return bool(json.load(answer)["health"] == "true")
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """How long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.2)  # between two looks at a condition
    return time.monotonic() - begun


def podman(action: str, member: str) -> None:
    subprocess.run(["podman", action, f"bulkhead-etcd-{member}"], check=True, capture_output=True, timeout=60)


converge = partial(scenario.converge, "etcd")
