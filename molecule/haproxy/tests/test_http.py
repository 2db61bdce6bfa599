"""What clients and the application see: routing, TLS, headers, health, queues."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import socket
import ssl

import pytest
from haproxy_nodes import PUBLIC1, PUBLIC2, PUBLIC6, Client, Host, admin, log, now, servers, wait_until

WEB, API = 8001, 8002


@pytest.mark.parametrize(
    ("path", "headers", "port"),
    [
        ("/", {}, WEB),
        ("/apiary", {}, WEB),
        ("/api/x", {}, API),
        ("/api/x?y=/", {}, API),
        ("/", {"Host": "api.example"}, API),
        ("/", {"Host": "API.example:443"}, API),
        ("/", {"X-Kind": "it's#1"}, API),
        ("/", {"X-Kind": "it's#2"}, WEB),
    ],
)
def test_the_most_specific_route_wins(client: Client, path: str, headers: dict[str, str], port: int) -> None:
    assert client.get(path, headers).said["port"] == port


@pytest.mark.parametrize("address", [PUBLIC1, PUBLIC2])
def test_both_addresses_serve(client: Client, address: str) -> None:
    assert client.get(address=address).status == 200


def test_an_ipv6_address_serves(lb2: Host) -> None:
    """From the other node: the controller has no address in that network."""
    lb2.check_output("ip address replace fd00:18:12::12/64 dev eth0 nodad")
    program = (
        "import http.client, ssl; context = ssl.create_default_context(cafile='/etc/bulkhead/pki/ca.crt'); "
        f"c = http.client.HTTPSConnection('[{PUBLIC6}]', context=context); c.request('GET', '/'); "
        "print(c.getresponse().status)"
    )
    assert lb2.check_output("python3 -c %s", program) == "200"


def test_plain_http_is_redirected() -> None:
    connection = http.client.HTTPConnection(PUBLIC1, timeout=10)
    connection.request("POST", "/path?query=1", headers={"Host": "forge.example"})
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("Location")) == (308, "https://forge.example/path?query=1")


def test_http2_is_spoken(client: Client) -> None:
    """One request in frames by hand: the standard library knows no HTTP/2."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ssl.DER_cert_to_PEM_cert(client.context.get_ca_certs(True)[0]))
    context.set_alpn_protocols(["h2", "http/1.1"])
    head = bytes([0x82, 0x87, 0x84, 0x41, len(PUBLIC1)]) + PUBLIC1.encode()  # GET, https, /, authority
    with (
        socket.create_connection((PUBLIC1, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=PUBLIC1) as connection,
    ):
        assert connection.selected_alpn_protocol() == "h2"
        settings = b"\0\0\0\4\0\0\0\0\0"
        headers = len(head).to_bytes(3, "big") + b"\1\5\0\0\0\1" + head  # END_STREAM, END_HEADERS, stream 1
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings + headers)
        stream = connection.makefile("rb")
        while frame := stream.read(9):
            payload = stream.read(int.from_bytes(frame[:3], "big"))
            if frame[3] == 1:
                assert payload[0] == 0x88  # :status 200
                return
        pytest.fail("no HEADERS frame came")


def test_old_tls_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection((PUBLIC1, 443), timeout=10) as plain,
        pytest.raises(ssl.SSLError),
        context.wrap_socket(plain),
    ):
        pass


def test_a_client_cannot_say_who_it_is(client: Client) -> None:
    lies = {
        "X-Forwarded-For": "203.0.113.66",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
        "X_Forwarded_For": "203.0.113.66",
        "Forwarded": "for=203.0.113.66",
        "X-Real-IP": "203.0.113.66",
        "X-Request-ID": "mine",
    }
    answer = client.get("/", lies)
    assert answer.received("X-Forwarded-For") == ["198.18.12.1"]
    assert answer.received("X-Forwarded-Proto") == ["https"]
    assert answer.received("X-Request-ID") not in ([], ["mine"])
    assert "203.0.113.66" not in json.dumps(answer.said)
    assert "evil.example" not in json.dumps(answer.said)


PROXY_PROGRAM = """
import socket, ssl
context = ssl.create_default_context(cafile='/etc/bulkhead/pki/ca.crt')
plain = socket.create_connection(('198.18.12.101', 443), timeout=10)
plain.sendall(b'PROXY TCP4 203.0.113.9 198.18.12.101 4444 443\\r\\n')
secure = context.wrap_socket(plain, server_hostname='198.18.12.101')
secure.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
print(secure.makefile().read())
"""


def test_the_proxy_protocol_is_taken_from_a_named_upstream_only(back1: Host, back2: Host) -> None:
    named = back2.run("python3 -c %s", PROXY_PROGRAM)
    assert '["x-forwarded-for", "203.0.113.9"]' in named.stdout.lower()
    stranger = back1.run("python3 -c %s", PROXY_PROGRAM)
    assert stranger.rc != 0
    assert "203.0.113.9" not in stranger.stdout


@pytest.mark.usefixtures("well")
def test_an_unready_server_gets_nothing_and_comes_back(client: Client, lb1: Host, back1: Host) -> None:
    assert {client.get().said["server"] for _ in range(6)} == {"back1", "back2"}
    back1.check_output("touch /run/sample/unready")
    wait_until("back1 is down", lambda: servers(lb1)["pool_web/back1"] == "DOWN", 10)
    assert {client.get().said["server"] for _ in range(6)} == {"back2"}
    back1.check_output("rm /run/sample/unready")
    wait_until("back1 is up", lambda: servers(lb1)["pool_web/back1"] == "UP", 10)
    wait_until("back1 serves", lambda: client.get().said["server"] == "back1", 10)


@pytest.mark.usefixtures("well")
def test_a_server_that_dies_costs_no_read(client: Client, back1: Host) -> None:
    back1.check_output("systemctl stop sample")
    answers = [client.get() for _ in range(10)]
    assert [answer.status for answer in answers] == [200] * 10
    assert {answer.said["server"] for answer in answers} == {"back2"}


@pytest.mark.usefixtures("well")
def test_maintenance_is_said_when_no_server_is_left(
    client: Client, lb1: Host, back1: Host, back2: Host
) -> None:
    since = now(lb1)
    for back in (back1, back2):
        back.check_output("touch /run/sample/unready")
    wait_until(
        "both are down",
        lambda: {servers(lb1)["pool_web/back1"], servers(lb1)["pool_web/back2"]} == {"DOWN"},
        10,
    )
    answer = client.get("/maintained")
    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert b"maintenance" in answer.body
    line = wait_until(
        "the log", lambda: [one for one in log(lb1, since) if one.get("path") == "/maintained"]
    )[0]
    assert (line["reason"], line["server"]) == ("maintenance", "<NOSRV>")


def queued(host: Host, pool: str) -> int:
    """Requests that wait, in the pool's queue and in its servers'."""
    rows = (line.split(",") for line in admin(host, "show stat").splitlines())
    return sum(int(row[2] or 0) for row in rows if row[0] == pool)


@pytest.mark.usefixtures("well")
def test_a_full_pool_answers_503_and_leaves_the_other_pool_alone(client: Client, lb1: Host) -> None:
    """Two connections to each of two servers, and a queue of eight that is given up after two seconds."""
    since = now(lb1)
    with concurrent.futures.ThreadPoolExecutor(24) as many:
        slow = [many.submit(client.get, f"/flood?wait=4&n={n}") for n in range(24)]
        wait_until("the pool is full", lambda: queued(lb1, "pool_web") > 0)
        other = client.get("/api/")
        assert other.status == 200
        statuses = sorted(future.result().status for future in slow)
    assert statuses.count(200) == 4, statuses
    assert statuses.count(503) == 20, statuses
    lines = wait_until(
        "the log",
        lambda: len(found := [one for one in log(lb1, since) if one.get("path") == "/flood"]) == 24 and found,
    )
    full = [line for line in lines if line["reason"] == "queue_full"]
    waited = [line for line in lines if line["termination"] == "sQ"]
    assert len(full) >= 8
    assert len(waited) + len(full) == 20
    assert all(line["milliseconds_queue"] >= 1900 for line in waited)


def test_a_server_without_a_certificate_of_the_cluster_gets_nothing(back1: Host) -> None:
    """The other way round: only a load balancer, by its certificate, gets into a server."""
    program = (
        "import http.client, ssl; c = http.client.HTTPSConnection('198.18.12.21', 8001, "
        "context=ssl._create_unverified_context()); c.request('GET', '/'); print(c.getresponse().status)"
    )
    assert back1.run("python3 -c %s", program).rc != 0


def test_a_tcp_pool_passes_connections_on() -> None:
    with socket.create_connection((PUBLIC1, 2222), timeout=10) as connection:
        stream = connection.makefile("rw")
        assert stream.readline().strip() in ("back1", "back2")
        stream.write("hello\n")
        stream.flush()
        assert stream.readline() == "hello\n"
