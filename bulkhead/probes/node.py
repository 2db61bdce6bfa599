"""Runs on every host for `fab status`: looks at the parts it is asked for and changes nothing.

The argument is JSON: {"parts": [names], "node_address": "...", "services": [units]}, on a broker also
"virtual_host" and "history". Secrets come to main(), whose call is added by who sends this. The answer is
JSON: {"parts": {name: what was found}, "errors": {name: why it is not known}}. Parts run at once and are
given up together after LIMIT_SECONDS, so that one that hangs hides nothing else.
"""

import base64
import http.client
import json
import os
import pathlib
import queue
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
from typing import Any

Settings = dict[str, Any]

LIMIT_SECONDS = 2.5  # a screen's; an operation that is to act on the answer waits longer ("limit_seconds")
# It answers in tens of milliseconds, or waits for a broker that is frozen: then metrics() has to do.
MANAGEMENT_SHARE = 0.4
PKI = "/etc/bulkhead/pki/"
HOLD = pathlib.Path("/run/keepalived/hold")
# What is asked of each queue.
COLUMNS = (
    "name,type,state,messages_ready,messages_unacknowledged,consumers,members,online,leader,head_message_timestamp,"
    "messages_ready_details,messages_unacknowledged_details,message_stats.publish_details,message_stats.ack_details"
)


def output(*command: str) -> str:
    """What a command prints; its own words if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise RuntimeError(f"{command[0]}: {words[-1]}")
    return done.stdout


def addresses(_settings: Settings) -> list[str]:
    links = json.loads(output("ip", "-json", "address", "show"))
    return [found["local"] for link in links for found in link.get("addr_info", []) if "local" in found]


def units(settings: Settings) -> dict[str, Any]:
    """Failed units of the whole host, and the state of the services that it should run."""
    failed = json.loads(output("systemctl", "list-units", "--failed", "--output=json"))
    wanted = settings["services"]
    # `is-active` ends with an error when one is not active: its words are what counts.
    states = subprocess.run(
        ["systemctl", "is-active", *wanted],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    ).stdout.split()
    return {"failed": [unit["unit"] for unit in failed], "services": dict(zip(wanted, states, strict=False))}


def haproxy(_settings: Settings) -> dict[str, str]:
    answers = {}
    for command in ("show info", "show stat", "show servers state"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(LIMIT_SECONDS)
            client.connect("/run/haproxy/admin.sock")
            client.sendall(command.encode() + b"\n")
            answer = bytearray()
            while data := client.recv(65536):
                answer.extend(data)
        answers[command] = answer.decode(errors="replace")
    return answers


def alive(_settings: Settings) -> int:
    """What keepalived asks: whether HAProxy answers, and not only runs."""
    connection = http.client.HTTPConnection("127.0.0.1", 8405, timeout=LIMIT_SECONDS)
    connection.request("GET", "/alive")
    return connection.getresponse().status


def holds(_settings: Settings) -> list[str]:
    """Addresses that keepalived is held back from: their file holds another number than 0."""
    files = sorted(HOLD.iterdir()) if HOLD.is_dir() else []
    return [file.name for file in files if file.read_text().strip() not in ("", "0")]


def fetch(
    settings: Settings,
    port: int,
    path: str,
    body: str | None = None,
    headers: dict[str, str] | None = None,
    share: float = 1.0,
) -> bytes:
    """An answer from a service of this node, asked with the node's own certificate."""
    context = ssl.create_default_context(cafile=PKI + "ca.crt")
    context.load_cert_chain(PKI + "node.crt", PKI + "node.key")
    limit = LIMIT_SECONDS * share
    connection = http.client.HTTPSConnection(settings["node_address"], port, timeout=limit, context=context)
    try:
        connection.request("POST" if body is not None else "GET", path, body=body, headers=headers or {})
        answer = connection.getresponse()
        if answer.status == http.client.UNAUTHORIZED:
            raise RuntimeError(f"port {port} does not take this user's password")
        return answer.read()
    except TimeoutError:
        raise RuntimeError(f"no answer within {limit:g} s") from None


def ask(settings: Settings, port: int, path: str, body: str | None = None) -> Any:
    return json.loads(fetch(settings, port, path, body))


def patroni(settings: Settings) -> dict[str, Any]:
    return {"member": ask(settings, 8008, "/patroni"), "cluster": ask(settings, 8008, "/cluster")}


def etcd(settings: Settings) -> dict[str, Any]:
    return {
        "health": ask(settings, 2379, "/health"),
        "status": ask(settings, 2379, "/v3/maintenance/status", "{}"),
    }


def operations(settings: Settings) -> dict[str, Any]:
    """The lock of the environment and the latest operation of its ledger, as etcd answers."""
    password = settings["secrets"].get("etcd_operator_password")
    if password is None:
        raise RuntimeError("etcd_operator_password is not in the inventory: python -m bulkhead.secrets")
    login = json.dumps({"name": "operator", "password": password})
    token = ask(settings, 2379, "/v3/auth/authenticate", login)["token"]

    def search(key: bytes, **more: Any) -> Any:
        body = json.dumps({"key": base64.b64encode(key).decode(), **more})
        return json.loads(fetch(settings, 2379, "/v3/kv/range", body, {"Authorization": token}))

    def below(prefix: bytes) -> dict[str, str]:
        end = prefix[:-1] + bytes([prefix[-1] + 1])  # the first key after all those that begin with it
        return {"range_end": base64.b64encode(end).decode()}

    ledger = b"/bulkhead/ledger/"
    last = search(ledger, **below(ledger), limit=1, sort_order="DESCEND", sort_target="KEY", keys_only=True)
    found: dict[str, Any] = {"lock": search(b"/bulkhead/lock"), "revision": None, "entries": []}
    for pair in last.get("kvs", []):
        one = base64.b64decode(pair["key"]).rpartition(b"/")[0] + b"/"
        entries = search(one, **below(one))["kvs"]
        found["revision"] = int(one.decode().split("/")[-2])
        found["entries"] = [json.loads(base64.b64decode(each["value"])) for each in entries]
    return found


def release(_settings: Settings) -> Any:
    program = "/usr/local/lib/bulkhead/release"
    if not pathlib.Path(program).exists():
        raise RuntimeError("this host was never converged as an application server or a worker node")
    return json.loads(output(program, "list"))


def manage(settings: Settings, path: str) -> Any:
    """The broker's management API, as the user who sees all and changes nothing."""
    password = settings["secrets"].get("rabbitmq_operator_password")
    if password is None:
        raise RuntimeError("rabbitmq_operator_password is not in the inventory: python -m bulkhead.secrets")
    login = f"operator:{password}"
    basic = "Basic " + base64.b64encode(login.encode()).decode()
    answer = fetch(settings, 15671, f"/api/{path}", headers={"Authorization": basic}, share=MANAGEMENT_SHARE)
    return json.loads(answer)


def members(settings: Settings) -> list[dict[str, Any]]:
    wanted = "name,running,being_drained,mem_alarm,disk_free_alarm,mem_used,mem_limit"
    found: list[dict[str, Any]] = manage(settings, f"nodes?columns={wanted}")
    return found


def queues(settings: Settings) -> list[dict[str, Any]]:
    host = urllib.parse.quote(settings["virtual_host"], safe="")
    age, step = settings["history"]
    window = "&".join(f"{kind}_age={age}&{kind}_incr={step}" for kind in ("lengths", "msg_rates"))
    found = manage(settings, f"queues/{host}?columns={COLUMNS}&{window}")
    if not isinstance(found, list):
        raise RuntimeError(f"the broker has no virtual host {settings['virtual_host']}")
    return found


def critical(settings: Settings) -> list[str]:
    """Queues that would have no majority without this broker. Their copies are asked for it, while what
    queues() tells of them may be from before the broker was cut off from the others."""
    answer = manage(settings, "health/checks/node-is-quorum-critical")
    status, listed = answer.get("status"), answer.get("queues")
    if status == "ok":
        return []
    # Without a list, its "failed" is about nothing that is known here.
    if status != "failed" or not listed:
        raise RuntimeError(f"the broker does not say which queues need it: {answer.get('reason', answer)}")
    # Parts of the broker are listed as well, in a virtual host that is none.
    return sorted(each["name"] for each in listed if each["virtual_host"] == settings["virtual_host"])


def metrics(settings: Settings) -> dict[str, Any]:
    """What this broker knows by itself: its alarms, and the depth of the queues that it leads. It answers
    that at once when its management interface waits for a broker that is frozen."""
    host = urllib.parse.quote(settings["virtual_host"], safe="")
    families = "family=queue_coarse_metrics&family=queue_consumer_count"
    detailed = fetch(settings, 15691, f"/metrics/detailed?vhost={host}&{families}").decode()
    line = r'^rabbitmq_detailed_queue_(messages_ready|messages_unacked|consumers)\{.*queue="([^"]*)"\} (\d+)'
    found: dict[str, dict[str, int]] = {}
    for what, name, value in re.findall(line, detailed, re.MULTILINE):
        found.setdefault(name, {})[what] = int(value)
    everything = fetch(settings, 15691, "/metrics").decode()
    alarm = r"^rabbitmq_alarms_(memory|free_disk)\w* 1$"
    return {"queues": found, "alarms": re.findall(alarm, everything, re.MULTILINE)}


PARTS = {
    "addresses": addresses,
    "units": units,
    "haproxy": haproxy,
    "alive": alive,
    "holds": holds,
    "patroni": patroni,
    "etcd": etcd,
    "operations": operations,
    "release": release,
    "members": members,
    "queues": queues,
    "critical": critical,
    "metrics": metrics,
}


def main(secrets: dict[str, str]) -> None:
    global LIMIT_SECONDS
    settings = {**json.loads(sys.argv[1]), "secrets": secrets}
    LIMIT_SECONDS = settings.get("limit_seconds", LIMIT_SECONDS)
    answers: queue.SimpleQueue[tuple[str, Any, str | None]] = queue.SimpleQueue()

    def look(name: str) -> None:
        try:
            answers.put((name, PARTS[name](settings), None))
        except subprocess.TimeoutExpired as error:
            answers.put((name, None, f"{error.cmd[0]} did not answer within {LIMIT_SECONDS} s"))
        except TimeoutError:
            answers.put((name, None, f"no answer within {LIMIT_SECONDS} s"))
        except Exception as error:
            words = getattr(error, "strerror", None) or str(error) or type(error).__name__
            answers.put((name, None, words))

    end = time.monotonic() + LIMIT_SECONDS
    parts: dict[str, Any] = {}
    errors: dict[str, str] = {}
    waiting = set(settings["parts"])
    for name in settings["parts"]:
        threading.Thread(target=look, args=(name,), daemon=True).start()
    while waiting:
        try:
            name, value, problem = answers.get(timeout=max(0, end - time.monotonic()))
        except queue.Empty:
            errors.update(dict.fromkeys(waiting, f"no answer within {LIMIT_SECONDS} s"))
            break
        waiting.discard(name)
        if problem is None:
            parts[name] = value
        else:
            errors[name] = problem
    print(json.dumps({"parts": parts, "errors": errors}), flush=True)
    # A part that hangs must not hold the answer up.
    os._exit(0)
