"""The scenario's cluster as clients and operators see it, and the power switch of its nodes."""

import base64
import json
import os
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import testinfra
import yaml

from tests import scenario

STATE = Path(os.environ["BULKHEAD_STATE"])
SECRETS = yaml.safe_load((STATE / "inventory/group_vars/all/secrets.yml").read_text())
MEMBERS = {"mq1": "198.18.17.51", "mq2": "198.18.17.52", "mq3": "198.18.17.53"}
NODES = {f"rabbit@{member}" for member in MEMBERS}
APPLICATION = "forge"
LONG = os.environ.get("BULKHEAD_PROOF") == "long"
TLS = ssl.create_default_context(cadata=SECRETS["pki_ca_certificate"])


def ask(member: str, path: str, user: str = "operator", password: str | None = None) -> Any:
    """The management interface's answer, or the status of its refusal, or nothing."""
    password = password or SECRETS["rabbitmq_operator_password"]
    request = urllib.request.Request(f"https://{MEMBERS[member]}:15671/api/{path}")
    request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=5, context=TLS) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def running(member: str) -> set[str]:
    """The brokers that run, as this one sees it."""
    nodes = ask(member, "nodes")
    return {each["name"] for each in nodes if each["running"]} if isinstance(nodes, list) else set()


def sees_all(member: str) -> bool:
    nodes = ask(member, "nodes")
    return (
        isinstance(nodes, list)
        and {each["name"] for each in nodes if each["running"]} == NODES
        and not any(each.get("mem_alarm") for each in nodes)
    )


def replicas_are_whole() -> bool:
    """Every quorum queue has a copy on every broker, and all of them are online."""
    queues = ask("mq1", f"queues/{APPLICATION}")
    return isinstance(queues, list) and all(
        set(each.get("online", [])) == NODES for each in queues if each["type"] == "quorum"
    )


def whole() -> bool:
    return all(map(sees_all, MEMBERS)) and replicas_are_whole()


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> float:
    """How long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, f"{what}: not within {seconds} s"
        time.sleep(0.5)  # between two looks at a condition
    return time.monotonic() - begun


def wait_until_whole() -> float:
    return wait_until(whole, 180, "all brokers run, and every queue has its copies")


def node(member: str) -> Any:
    return testinfra.get_host(f"ansible://{member}")


def podman(action: str, member: str) -> None:
    subprocess.run(
        ["podman", action, f"bulkhead-rabbitmq-{member}"], check=True, capture_output=True, timeout=60
    )


converge = partial(scenario.converge, "rabbitmq")


@dataclass
class Numbers:
    """What the publisher was told is safe, and what the consumer got."""

    confirmed: int = 0
    result: dict[str, Any] = field(default_factory=dict)

    def go_on(self, more: int = 50, seconds: float = 90) -> float:
        """Waits until so many more were confirmed; how long that took."""
        goal = self.confirmed + more
        return wait_until(lambda: self.confirmed >= goal, seconds, f"{more} more confirmed messages")

    def stand_still(self, looks: int = 6, seconds: float = 60) -> None:
        """Waits until nothing was confirmed between that many looks."""
        seen: list[int] = []

        def stands() -> bool:
            seen.append(self.confirmed)
            return len(seen) > looks and len(set(seen[-looks:])) == 1

        wait_until(stands, seconds, "publishers wait")


@contextmanager
def numbering(name: str) -> Iterator[Numbers]:
    """A publisher and a consumer on client1, for as long as the block runs; then nothing may be missing."""
    settings = {
        "hosts": list(MEMBERS.values()),
        "queue": f"{APPLICATION}.{name}",
        "user": APPLICATION,
        "password": SECRETS["rabbitmq_application_password"],
        "virtual_host": APPLICATION,
        "authority": SECRETS["pki_ca_certificate"],
    }
    numbers = Numbers()
    with (STATE / "log" / f"{name}.stderr").open("w") as errors:
        client = subprocess.Popen(
            ["ssh", "-F", str(STATE / "ssh_config"), "client1", "/usr/local/bin/number-messages"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        )  # fmt: skip
        assert client.stdin
        assert client.stdout

        def read() -> None:
            assert client.stdout
            for line in client.stdout:
                told = json.loads(line)
                if isinstance(told, int):
                    numbers.confirmed = told
                else:
                    numbers.result = told

        reader = threading.Thread(target=read)
        reader.start()
        client.stdin.write(json.dumps(settings) + "\n")
        client.stdin.flush()
        try:
            numbers.go_on()
            yield numbers
        finally:
            client.stdin.close()
            reader.join(180)
            client.wait(10)
    print(f"\n{name}: {numbers.result}")
    assert numbers.result["confirmed"] >= 50
    assert numbers.result["missing"] == []


# Connects, does what the settings say, and prints what came of it.
TRY = """
import amqp, json, sys
given = json.loads(sys.stdin.readline())
tls = None
if given["tls"]:
    context = {"cadata": given["authority"], "check_hostname": True}
    tls = {"context": context, "server_hostname": given["host"]}
connection = amqp.Connection(
    host="%s:%d" % (given["host"], given["port"]), userid=given["user"], password=given["password"],
    virtual_host=given["virtual_host"], ssl=tls, login_method=given["mechanism"],
    connect_timeout=10, read_timeout=10, write_timeout=10,
)
try:
    connection.connect()
    channel = connection.channel()
    for name, arguments in given["calls"]:
        getattr(channel, name)(**arguments)
    if given["refuse"]:  # publishes a message, and gives it back as often as it comes
        channel.basic_publish_confirm(amqp.Message("x"), routing_key=given["refuse"])
        while message := channel.basic_get(given["refuse"]):
            channel.basic_reject(message.delivery_tag, True)
    print("in")
    connection.close()
except Exception as error:
    print("refused", type(error).__name__, error)
"""


def attempt(*calls: tuple[str, dict[str, Any]], **changes: Any) -> str:
    """What a client on client1 gets for these calls of a channel."""
    settings = {
        "host": MEMBERS["mq1"],
        "port": 5671,
        "tls": True,
        "user": APPLICATION,
        "password": SECRETS["rabbitmq_application_password"],
        "virtual_host": APPLICATION,
        "mechanism": "PLAIN",
        "authority": SECRETS["pki_ca_certificate"],
        "calls": calls,
        "refuse": None,
        **changes,
    }
    command = ["ssh", "-F", str(STATE / "ssh_config"), "client1", f"python3 -c '{TRY}'"]
    run = subprocess.run(
        command, input=json.dumps(settings) + "\n", capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.strip()
