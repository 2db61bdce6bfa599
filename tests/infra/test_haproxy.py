"""Every load balancer answers and agrees with the others. Changes nothing, so it runs on live hosts too."""

from __future__ import annotations

import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import testinfra.host

from bulkhead.inventory import Inventory

testinfra_hosts = ["ansible://load_balancers"]

SCHEMA = Path(__file__).parents[2] / "docs/haproxy-log.md"
TYPES = {"string": str, "number": int}

# Asks a port of the node itself over TLS; prints the status and the body.
ASK = """
import base64, http.client, json, ssl, sys
address, port, path, password, pair = json.loads(sys.stdin.read())
context = ssl.create_default_context(cafile='/etc/bulkhead/pki/ca.crt')
context.check_hostname = False
if pair:
    context.load_cert_chain('/etc/bulkhead/pki/node.crt', '/etc/bulkhead/pki/node.key')
connection = http.client.HTTPSConnection(address, port, context=context, timeout=10)
login = base64.b64encode(f'operator:{password}'.encode()).decode()
connection.request('GET', path, headers={'Authorization': 'Basic ' + login} if password else {})
answer = connection.getresponse()
print(answer.status)
print(answer.read().decode())
"""

# Sends one command to the read-only runtime API, with or without a certificate.
RUNTIME = """
import json, socket, ssl, sys
address, name, command, pair = json.loads(sys.stdin.read())
context = ssl.create_default_context(cafile='/etc/bulkhead/pki/ca.crt')
if pair:
    context.load_cert_chain('/etc/bulkhead/pki/node.crt', '/etc/bulkhead/pki/node.key')
plain = socket.create_connection((address, 9999), timeout=10)
connection = context.wrap_socket(plain, server_hostname=name)
connection.sendall(command.encode() + b'\\n')
print(connection.makefile().read())
"""


# Opens AMQP by an address that the broker's certificate has to name; prints the kind of frame that came back.
AMQP = """
import json, socket, ssl, sys
(address,) = json.loads(sys.stdin.read())
context = ssl.create_default_context(cafile='/etc/bulkhead/pki/ca.crt')
plain = socket.create_connection((address, 5671), timeout=10)
connection = context.wrap_socket(plain, server_hostname=address)
connection.sendall(b'AMQP' + bytes((0, 0, 9, 1)))
print(connection.recv(1)[0])
"""


def variables(host: testinfra.host.Host) -> dict[str, Any]:
    return dict(host.ansible.get_variables())


def run(host: testinfra.host.Host, program: str, *given: Any) -> Any:
    """Run a program on the node; what it is given, secrets too, goes in on its standard input."""
    with host.sudo():
        return host.run("printf %%s %s | python3 -c %s", json.dumps(given), program)


@pytest.fixture
def address(host: testinfra.host.Host, inventory: Inventory) -> str:
    """The node's internal address."""
    return inventory.host(str(variables(host)["inventory_hostname"])).node_address


def admin(host: testinfra.host.Host, command: str) -> str:
    program = (
        "import sys; sys.path.insert(0, '/usr/local/lib/bulkhead'); import haproxy_runtime as runtime; "
        "print(runtime.ask(runtime.ADMIN_SOCKET, sys.argv[1]))"
    )
    with host.sudo():
        return str(host.check_output("python3 -B -c %s %s", program, command))


def test_haproxy_runs_and_starts_at_boot(host: testinfra.host.Host) -> None:
    service = host.service("haproxy")
    assert service.is_running
    assert service.is_enabled


def test_it_answers_itself(host: testinfra.host.Host) -> None:
    program = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8405/alive', timeout=5).status)"
    assert host.check_output("python3 -c %s", program) == "200"


def test_the_written_configuration_is_valid(host: testinfra.host.Host) -> None:
    with host.sudo():
        said = host.run("haproxy -c -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/users.cfg")
    assert said.rc == 0, said.stderr


def test_it_listens_on_every_virtual_address_whoever_owns_it(host: testinfra.host.Host) -> None:
    listening = host.check_output("ss -Hltn")
    for each in variables(host)["virtual_addresses"]:
        address = f"[{each['address']}]" if ":" in each["address"] else each["address"]
        for port in (80, 443) if each["kind"] == "public" else (5432, 5433):
            assert f" {address}:{port} " in listening, f"nothing listens on {address}:{port}"


def test_statistics_and_metrics_need_the_password(host: testinfra.host.Host, address: str) -> None:
    assert run(host, ASK, address, 8404, "/metrics", "", False).stdout.split("\n")[0] == "401"
    password = variables(host)["haproxy_stats_password"]
    status, metrics = run(host, ASK, address, 8404, "/metrics", password, False).stdout.split("\n", 1)
    assert status == "200"
    assert "haproxy_server_status{" in metrics
    page = run(host, ASK, address, 8404, "/", password, False).stdout
    assert "Statistics Report" in page


def test_the_runtime_api_needs_a_certificate_and_only_reads(host: testinfra.host.Host, address: str) -> None:
    name = variables(host)["inventory_hostname"]
    assert "Name: HAProxy" in run(host, RUNTIME, address, name, "show info", True).stdout
    assert run(host, RUNTIME, address, name, "show info", False).rc != 0
    refused = run(host, RUNTIME, address, name, "set server pool_web/none state maint", True).stdout
    assert "Permission denied" in refused


def test_the_password_is_not_readable_by_others(host: testinfra.host.Host) -> None:
    with host.sudo():
        assert host.file("/etc/haproxy/users.cfg").mode == 0o600
        assert (
            variables(host)["haproxy_stats_password"]
            not in host.file("/etc/haproxy/haproxy.cfg").content_string
        )


def test_stick_tables_are_shared_over_tls(host: testinfra.host.Host) -> None:
    shown = admin(host, "show peers")
    for name in variables(host)["groups"]["load_balancers"]:
        if name != variables(host)["inventory_hostname"]:
            assert re.search(rf"id={name}\(remote,active\).*?last_status=ESTA", shown, re.DOTALL), shown


def test_all_load_balancers_have_the_same_marks(host: testinfra.host.Host) -> None:
    program = "/usr/local/lib/bulkhead/haproxy-marks show"
    with host.sudo():
        mine = host.check_output(program)
    for name in variables(host)["groups"]["load_balancers"]:
        other = host.get_host(f"ansible://{name}")
        with other.sudo():
            assert other.check_output(program) == mine


def test_no_line_of_the_log_was_dropped(host: testinfra.host.Host) -> None:
    assert "DroppedLogs: 0" in admin(host, "show info")


def test_its_sandbox_is_tight(host: testinfra.host.Host) -> None:
    with host.sudo():
        score = host.check_output("systemd-analyze security haproxy.service --no-pager")
    assert float(re.findall(r"level for haproxy\.service: ([\d.]+)", score)[0]) < 4


def documented() -> dict[str, dict[str, str]]:
    """Return each event's fields and types, from the tables of docs/haproxy-log.md."""
    events: dict[str, dict[str, str]] = {}
    event = ""
    for line in SCHEMA.read_text().splitlines():
        if line.startswith("#"):
            event = line.lstrip("# ")
        elif row := re.match(r"\| `(\w+)` \| (\w+) \|", line):
            events.setdefault(event, {})[row[1]] = row[2]
    return events


def logged(host: testinfra.host.Host) -> list[dict[str, Any]]:
    with host.sudo():
        text = host.check_output("journalctl -t haproxy-log -o cat -n 500")
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_the_log_is_as_documented(host: testinfra.host.Host, address: str) -> None:
    """A request of the test's own and whatever else is there."""
    path = f"/{uuid.uuid4()}"
    run(host, ASK, address, 8404, path, "", False)
    end = time.monotonic() + 10
    lines = logged(host)
    while not any(line.get("path") == path for line in lines):
        assert time.monotonic() < end, "the request is not in the log after 10 s"
        time.sleep(0.2)  # between two looks at a condition
        lines = logged(host)
    schema = documented()
    assert set(schema) == {"request", "connection", "failed_handshake"}
    for line in lines:
        fields = schema[line["event"]]
        assert line.keys() == fields.keys()
        wrong = {name: line[name] for name, kind in fields.items() if not isinstance(line[name], TYPES[kind])}
        assert not wrong, wrong


def test_brokers_take_clients_at_the_internal_address(
    host: testinfra.host.Host, inventory: Inventory
) -> None:
    if not inventory.hosts("brokers"):
        pytest.skip("this environment has no brokers, and so no front end for them")
    for each in inventory.virtual_addresses:
        if each.kind == "internal":
            assert run(host, AMQP, each.address).stdout.strip() == "1"  # a method: the broker begins to talk


def test_every_broker_is_up_in_the_front_end(host: testinfra.host.Host, inventory: Inventory) -> None:
    lines = [line.split(",") for line in admin(host, "show stat").splitlines()]
    columns = {name: index for index, name in enumerate(lines[0])}
    states = {
        line[columns["svname"]]: line[columns["status"]]
        for line in lines[1:]
        if line[0] == "rabbitmq" and line[columns["svname"]] not in ("FRONTEND", "BACKEND")
    }
    assert states == {broker.name: "UP" for broker in inventory.hosts("brokers")}
