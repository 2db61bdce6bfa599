"""What the haproxy role's templates are given."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

sys.path.insert(0, str(Path(__file__).parents[1] / "render"))

from haproxy_render import filters

TIMES = {"server_timeout_seconds": 35, "queue_timeout_seconds": 10, "drain_deadline_seconds": 60}


def pool(name: str, *routes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "http", "routes": list(routes), "max_connections": 16, **TIMES, **more}


def test_the_most_specific_route_comes_first() -> None:
    header = {"name": "X-Kind", "value": "bot"}
    routes = filters.haproxy_routes(
        [
            pool("rest", {"path": "/"}),
            pool("bots", {"header": header}),
            pool("api", {"path": "/api/"}, {"host": "api.example"}),
            pool("both", {"host": "api.example", "path": "/v2/"}, {"path": "/api/", "header": header}),
        ]
    )
    assert [route["pool"] for route in routes] == ["both", "api", "both", "api", "bots", "rest"]
    assert routes[-1]["condition"] == "TRUE"


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ({"path": "/a b#c"}, "'/a b#c'"),
        ({"path": "/it's"}, "'/it'\\''s'"),
        ({"header": {"name": "X-Kind", "value": "${HOME} {x}"}}, "'${HOME} {x}'"),
    ],
)
def test_values_are_quoted(route: dict[str, Any], expected: str) -> None:
    assert expected in filters.haproxy_routes([pool("web", route)])[0]["condition"]


def test_a_header_that_never_arrives_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match=r"application\.pools\.web: .*X_Kind.*would never match"):
        filters.haproxy_routes([pool("web", {"header": {"name": "X_Kind", "value": "x"}})])


def test_a_control_character_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="control character"):
        filters.haproxy_routes([pool("web", {"path": "/a\nuse_backend b"})])


@pytest.mark.parametrize("deadlines", [[60], [60, 3600, 5], []])
def test_an_old_worker_outlives_every_drain(deadlines: list[int]) -> None:
    pools = [pool("p", drain_deadline_seconds=seconds) for seconds in deadlines]
    assert filters.haproxy_hard_stop_seconds(pools) > max([*deadlines, 0])


def test_the_queue_has_a_limit_without_servers_too() -> None:
    servers = [{"name": "a", "address": "198.18.0.1", "port": 1}] * 2
    assert filters.haproxy_queue_limit(pool("p", servers=servers)) == 16 * 2 * 10
    assert filters.haproxy_queue_limit(pool("p", servers=[])) == 1


def test_endpoints() -> None:
    assert filters.haproxy_endpoint("198.18.0.1", 80) == "198.18.0.1:80"
    assert filters.haproxy_endpoint("FD00::1", 443) == "[fd00::1]:443"
    with pytest.raises(AnsibleFilterError, match="'lb1' is not an IP address"):
        filters.haproxy_endpoint("lb1", 80)


def key_and_certificate(days: int = 1) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "forge.example")])
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    certificate = (
        x509.CertificateBuilder(name, name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - datetime.timedelta(days=30))
        .not_valid_after(end)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def test_given_certificates_are_checked() -> None:
    key, certificate = key_and_certificate()
    expired_key, expired = key_and_certificate(days=-1)
    other_key, _ = key_and_certificate()
    assert filters.haproxy_certificate_problems([{"name": "a", "certificate": certificate, "key": key}]) == []
    problems = filters.haproxy_certificate_problems(
        [
            {"name": "mixed", "certificate": certificate, "key": other_key},
            {"name": "old", "certificate": expired, "key": expired_key},
            {"name": "text", "certificate": "hello", "key": key},
            {"name": "keyless", "certificate": certificate, "key": "hello"},
        ]
    )
    assert [problem.split(":")[0].split("'")[1] for problem in problems] == [
        "mixed",
        "old",
        "text",
        "keyless",
    ]
    assert "does not match" in problems[0]
    assert "has expired" in problems[1]
    assert key not in "".join(problems)


def test_a_given_certificate_is_one_file_with_its_key_and_in_no_diff() -> None:
    [entry] = filters.haproxy_certificate_files([{"name": "a", "certificate": "C", "key": "K"}], "/etc/c")
    assert (entry["path"], entry["content"]) == ("/etc/c/a.pem", "C\nK\n")
    assert entry["secret"] is True
    assert entry["mode"] == "0600"
