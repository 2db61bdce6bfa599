"""Ansible module: RabbitMQ's virtual hosts, users, rights and dead letters; one call to look, one to act.

Definitions are compared with what the cluster has, and only what differs is sent. Queues and exchanges that
exist are left as they are. Passwords are compared by their salted hashes, and only a hash leaves this module.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets

from ansible.module_utils.basic import AnsibleModule

ALGORITHM = "rabbit_password_hashing_sha512"
HASHES = {"rabbit_password_hashing_sha256": hashlib.sha256, "rabbit_password_hashing_sha512": hashlib.sha512}
RIGHTS = ("configure", "write", "read")
UNWANTED = "guest"
INTERNAL = "rabbit_auth_backend_internal"
ACTOR = '<<"bulkhead">>'

OPTIONS = {
    "virtual_hosts": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "delivery_limit": {"type": "int", "required": True},
            "dead_letters": {"type": "str", "required": True},
        },
    },
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "tags": {"type": "list", "elements": "str", "default": []},
            "permissions": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {name: {"type": "str", "required": True} for name in ("virtual_host", *RIGHTS)},
            },
        },
    },
}


class BrokerError(Exception):
    """What the broker's tool said, in one line."""


def hash_of(password, salt, algorithm=ALGORITHM):
    digest = HASHES[algorithm](salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode()


def is_password(password, user):
    salt = base64.b64decode(user.get("password_hash", ""))[:4]
    algorithm = user.get("hashing_algorithm", ALGORITHM)
    return algorithm in HASHES and user.get("password_hash") == hash_of(password, salt, algorithm)


def wanted_policies(host):
    """A dead letter leaves its queue when the other has it (at-least-once; only with reject-publish)."""
    letters = host["dead_letters"]
    name = re.escape(letters)
    return [
        {
            "vhost": host["name"],
            "name": "quorum",
            "pattern": f"^(?!{name}$)",
            "apply-to": "quorum_queues",
            "priority": 0,
            "definition": {
                "dead-letter-exchange": letters,
                "dead-letter-strategy": "at-least-once",
                "delivery-limit": host["delivery_limit"],
                "overflow": "reject-publish",
            },
        },
        {
            # Looking at a dead letter and putting it back must never be what loses it.
            "vhost": host["name"],
            "name": "dead_letters",
            "pattern": f"^{name}$",
            "apply-to": "quorum_queues",
            "priority": 1,
            "definition": {"delivery-limit": -1},
        },
    ]


def wanted_topology(host):
    letters = host["dead_letters"]
    common = {"vhost": host["name"], "arguments": {}}
    exchange = {
        **common,
        "name": letters,
        "type": "fanout",
        "durable": True,
        "auto_delete": False,
        "internal": False,
    }
    queue = {
        **common,
        "name": letters,
        "durable": True,
        "auto_delete": False,
        "arguments": {"x-queue-type": "quorum"},
    }
    binding = {
        **common,
        "source": letters,
        "destination": letters,
        "destination_type": "queue",
        "routing_key": "",
    }
    return {"exchanges": exchange, "queues": queue, "bindings": binding}


def same(wanted, live):
    """Whether the live one has all that is wanted; the broker adds fields of its own."""
    return live is not None and all(live.get(key) == value for key, value in wanted.items())


def by(items, *keys):
    return {tuple(item.get(key) for key in keys): item for item in items}


def differences(virtual_hosts, users, live):
    """What has to be sent, {kind: [definition]}; what has to go, [expression]; and all of it in words."""
    send = {}
    drop = []
    words = []

    def add(kind, item, text):
        send.setdefault(kind, []).append(item)
        words.append(text)

    known = by(live.get("vhosts", []), "name")
    for host in virtual_hosts:
        metadata = known.get((host["name"],), {}).get("metadata", {})
        if (host["name"],) not in known or metadata.get("default_queue_type") != "quorum":
            item = {
                "name": host["name"],
                "default_queue_type": "quorum",
                "metadata": {"default_queue_type": "quorum"},
            }
            add("vhosts", item, f"virtual host {host['name']}")
    known = by(live.get("policies", []), "vhost", "name")
    for policy in (policy for host in virtual_hosts for policy in wanted_policies(host)):
        if not same(policy, known.get((policy["vhost"], policy["name"]))):
            add("policies", policy, f"policy {policy['name']} of {policy['vhost']}")
    for kind, keys in (
        ("exchanges", ("vhost", "name")),
        ("queues", ("vhost", "name")),
        ("bindings", ("vhost", "source", "destination", "destination_type", "routing_key")),
    ):
        known = by(live.get(kind, []), *keys)
        for item in (wanted_topology(host)[kind] for host in virtual_hosts):
            if tuple(item[key] for key in keys) not in known:
                add(kind, item, f"{kind[:-1]} {item.get('name', item.get('source'))} of {item['vhost']}")
    known = by(live.get("users", []), "name")
    for user in users:
        present = known.get((user["name"],), {})
        right = is_password(user["password"], present)
        if not right or sorted(present.get("tags", [])) != sorted(user["tags"]):
            item = {
                "name": user["name"],
                "password_hash": present["password_hash"]
                if right
                else hash_of(user["password"], secrets.token_bytes(4)),
                "hashing_algorithm": present["hashing_algorithm"] if right else ALGORITHM,
                "tags": user["tags"],
                "limits": {},
            }
            add("users", item, f"user {user['name']}" + ("" if right else " with a new password"))
    known = by(live.get("permissions", []), "user", "vhost")
    for user in users:
        given = {permission["virtual_host"]: permission for permission in user["permissions"]}
        for host, permission in given.items():
            item = {"user": user["name"], "vhost": host, **{right: permission[right] for right in RIGHTS}}
            if not same(item, known.get((user["name"], host))):
                add("permissions", item, f"what {user['name']} may do in {host}")
        for name, host in known:
            if name == user["name"] and host not in given:
                drop.append(f"{INTERNAL}:clear_permissions({text(name)}, {text(host)}, {ACTOR})")
                words.append(f"no permissions of {name} in {host}")
    if any(user["name"] == UNWANTED for user in live.get("users", [])) and not any(
        user["name"] == UNWANTED for user in users
    ):
        drop.append(f"{INTERNAL}:delete_user({text(UNWANTED)}, {ACTOR})")
        words.append(f"no user {UNWANTED}")
    return send, drop, words


def text(value):
    """An Erlang binary of any text, with nothing in it that could end it."""
    return f'base64:decode(<<"{base64.b64encode(value.encode()).decode()}">>)'


class Broker:
    """The broker of this host, by its tool; expressions go through standard input, which nobody sees."""

    def __init__(self, module):
        self._module = module

    def live(self):
        code, out, error = self._module.run_command(
            ["rabbitmqctl", "--silent", "export_definitions", "-", "--format", "json"], cwd="/"
        )
        if code != 0:
            raise BrokerError(f"rabbitmqctl export_definitions: {one_line(error or out)}")
        return json.loads(out[out.index("{") :])

    def do(self, expressions):
        code, out, error = self._module.run_command(
            ["rabbitmqctl", "eval"], data=", ".join(expressions) + ".\n", cwd="/"
        )
        if code != 0 or not re.search(r"^ok$", out, re.MULTILINE):
            raise BrokerError(f"RabbitMQ did not take the definitions: {one_line(error or out)}")


def one_line(answer):
    return " ".join(answer.split())[:500]


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    broker = Broker(module)
    try:
        send, drop, words = differences(module.params["virtual_hosts"], module.params["users"], broker.live())
        expressions = [f"ok = rabbit_definitions:import_raw({text(json.dumps(send))})"] if send else []
        if words and not module.check_mode:
            broker.do([*expressions, *drop, "ok"])
    except BrokerError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(words), done=words)


if __name__ == "__main__":
    main()
