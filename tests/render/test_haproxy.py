"""templates/haproxy/ rendered for clusters of many kinds; HAProxy of the nodes' version reads each."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import haproxy_render
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Checker = Callable[..., "subprocess.CompletedProcess[str]"]

POOL = {
    "kind": "http",
    "port": 8001,
    "routes": [{"path": "/"}],
    "max_connections": 16,
    "server_timeout_seconds": 35,
    "queue_timeout_seconds": 10,
    "drain_deadline_seconds": 60,
}
API = {
    **POOL,
    "port": 8002,
    "routes": [
        {"path": "/api/"},
        {"host": "api.example.org"},
        {
            "host": "example.org",
            "path": "/v2$(x)/",
            "header": {"name": "X-Kind", "value": "it's #1 {x} %[y]"},
        },
    ],
}
SSH = {**POOL, "kind": "tcp", "routes": [], "port": 2222, "listen_port": 2200, "drain_deadline_seconds": 3600}


def nodes(name: str, count: int, network: str = "198.18.0.") -> list[dict[str, str]]:
    return [{"name": f"{name}{n}", "address": f"{network}{n + 20}"} for n in range(1, count + 1)]


def inputs(
    pools: dict[str, Any],
    servers: list[dict[str, str]],
    balancers: list[dict[str, str]] | None = None,
    **more: Any,
) -> dict[str, Any]:
    balancers = balancers or [
        {"name": "lb1", "address": "198.18.0.11"},
        {"name": "lb2", "address": "198.18.0.12"},
    ]
    application = {"health": {"ready": "/readyz"}, "pools": pools}
    return {
        "haproxy_node_name": balancers[0]["name"],
        "haproxy_node_address": balancers[0]["address"],
        "haproxy_load_balancers": balancers,
        "haproxy_public_addresses": ["198.18.0.101", "198.18.0.102"],
        "haproxy_internal_addresses": ["198.18.0.103"],
        "haproxy_postgres_servers": nodes("db", 3, "198.18.4."),
        "haproxy_rabbitmq_servers": nodes("mq", 3, "198.18.5."),
        "haproxy_pools": haproxy_render.filters.haproxy_pools(application, servers),
        "haproxy_check_host": "198.18.0.101",
        "haproxy_memory_megabytes": 256,
        "haproxy_stats_password": "not-a-secret",
        **more,
    }


IPV6 = [{"name": "lb1", "address": "fd00:18::11"}, {"name": "lb2", "address": "fd00:18::12"}]
CASES = {
    "lab": inputs({"web": POOL, "api": API}, nodes("app", 2)),
    "ipv6": inputs(
        {"web": POOL, "ssh": SSH},
        nodes("app", 2, "fd00:18::"),
        IPV6,
        haproxy_public_addresses=["fd00:18::101", "198.18.0.101"],
        haproxy_internal_addresses=["fd00:18::103"],
        haproxy_postgres_servers=nodes("db", 3, "fd00:18:4::"),
        haproxy_rabbitmq_servers=nodes("mq", 3, "fd00:18:5::"),
        haproxy_check_host="[fd00:18::101]",
    ),
    "no-app-servers": inputs({"web": POOL, "ssh": SSH}, []),
    "no-databases": inputs({"web": POOL}, nodes("app", 1), haproxy_postgres_servers=[]),
    "no-brokers": inputs({"web": POOL}, nodes("app", 1), haproxy_rabbitmq_servers=[]),
    "no-internal-address": inputs({"web": POOL}, nodes("app", 1), haproxy_internal_addresses=[]),
    "tcp-pool": inputs({"web": POOL, "ssh": SSH}, nodes("app", 2)),
    "fifty-servers": inputs({"web": POOL, "api": API}, nodes("app", 50)),
    "one-load-balancer": inputs({"web": POOL}, nodes("app", 2), [{"name": "lb1", "address": "198.18.0.11"}]),
    "every-option": inputs(
        {"web": POOL, "ssh": SSH},
        nodes("app", 2),
        haproxy_rate_limit_exempt=["198.18.0.1", "fd00::/8"],
        haproxy_proxy_protocol_sources=["198.18.9.0/24"],
        haproxy_certificates=[{"name": "first"}, {"name": "second"}],
        haproxy_site_name="Alice's <forge>",
    ),
}


def pair() -> tuple[str, str]:
    """Return a certificate that signed itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "node")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


def write(directory: Path, case: str, given: dict[str, Any]) -> None:
    """Lay a node's /etc/haproxy and /etc/bulkhead/pki out as /x/CASE."""
    room = directory / case
    for name in ("pki", "maps", "certificates"):
        (room / name).mkdir(parents=True)
    for name in ("client", "path", "repository"):
        (room / f"maps/{name}.map").touch()
    certificate, key = pair()
    (room / "pki/node.crt").write_text(certificate)
    (room / "pki/node.key").write_text(key)
    (room / "pki/ca.crt").write_text(certificate)
    for served in given.get("haproxy_certificates", []):
        (room / f"certificates/{served['name']}.pem").write_text(certificate + key)
    places = {"haproxy_directory": f"/x/{case}", "haproxy_pki_directory": f"/x/{case}/pki"}
    for name in ("haproxy.cfg", "users.cfg"):
        (room / name).write_text(haproxy_render.render(f"{name}.j2", {**given, **places}))


@pytest.mark.parametrize("case", CASES)
def test_haproxy_takes_the_configuration_without_a_warning(
    case: str, checker: Checker, checked_directory: Path
) -> None:
    write(checked_directory, case, CASES[case])
    result = checker("haproxy", "-c", "-dW", "-f", f"/x/{case}/haproxy.cfg", "-f", f"/x/{case}/users.cfg")
    assert result.returncode == 0, result.stderr


def test_the_check_can_fail(checker: Checker, checked_directory: Path) -> None:
    write(checked_directory, "broken", CASES["lab"])
    with (checked_directory / "broken/haproxy.cfg").open("a") as file:
        file.write("    no such keyword\n")
    result = checker("haproxy", "-c", "-dW", "-f", "/x/broken/haproxy.cfg", "-f", "/x/broken/users.cfg")
    assert result.returncode != 0
    assert "no such keyword" in result.stderr or "unknown keyword" in result.stderr


def test_a_configuration_can_be_shown_to_anyone() -> None:
    rendered = haproxy_render.render("haproxy.cfg.j2", CASES["lab"])
    assert "not-a-secret" not in rendered
