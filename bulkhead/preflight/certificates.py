"""Certificates that the operator gave: each matches its key and is valid now."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from bulkhead.preflight.cluster import Cluster
from bulkhead.problem import Problem

_GIVE_PAIR = "Give the certificate and the key that were made together, in PEM form."


def check(cluster: Cluster, now: datetime | None = None) -> list[Problem]:
    now = now or datetime.now(UTC)
    found: dict[Problem, None] = {}
    for path, value, certificate, key in _pairs(cluster):
        for what, seen, mend in problems_of_pair(certificate, key, now):
            found[Problem(cluster.where(path, value), what, seen, mend)] = None
    return list(found)


def _pairs(cluster: Cluster) -> Iterator[tuple[str, Any, Any, Any]]:
    authority = cluster.variable("pki_ca_certificate"), cluster.variable("pki_ca_key")
    if authority[0] and authority[1]:
        yield "pki_ca_certificate", authority[0], *authority
    for host, variables in cluster.hosts.items():
        certificate, key = variables.get("pki_certificate"), variables.get("pki_private_key")
        if certificate or key:
            yield f"hosts.{host}.pki_certificate", certificate or key, certificate, key
        given = variables.get("haproxy_certificates")
        for index, pair in enumerate(given if isinstance(given, list) else []):
            if isinstance(pair, Mapping):
                path = f"haproxy_certificates.{index}"
                yield path, pair, pair.get("certificate"), pair.get("key")


def problems_of_pair(certificate: Any, key: Any, now: datetime) -> Iterator[tuple[str, str, str]]:
    """What is wrong, the value to show, and the mend. Of the key nothing is ever shown."""
    if not certificate or not key:
        missing = "private key" if certificate else "certificate"
        yield f"the {missing} of the pair is missing", missing, _GIVE_PAIR
        return
    try:
        leaf = x509.load_pem_x509_certificates(str(certificate).encode())[0]
    except ValueError:
        yield "it is not a certificate in PEM form", "a certificate", _GIVE_PAIR
        return
    name = leaf.subject.rfc4514_string() or f"serial {leaf.serial_number:x}"
    try:
        private = load_pem_private_key(str(key).encode(), password=None)
    except TypeError:
        mend = "Give the key without a passphrase, and encrypt the file with ansible-vault."
        yield f"the private key of {name} has a passphrase", name, mend
    except ValueError:
        yield f"the private key of {name} is not a key in PEM form", name, _GIVE_PAIR
    else:
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if private.public_key().public_bytes(*form) != leaf.public_key().public_bytes(*form):
            yield f"the certificate {name} does not match its private key", name, _GIVE_PAIR
    if now >= leaf.not_valid_after_utc:
        ended = f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        yield f"the certificate {name} has expired, at {ended}", name, "Give a new one."
    if now < leaf.not_valid_before_utc:
        begins = f"{leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
        yield (
            f"the certificate {name} is valid only from {begins}",
            name,
            "Check this machine's clock: `date`.",
        )
