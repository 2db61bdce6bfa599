"""What makes a new certificate, what is refused, and that peers refuse what they should."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import testinfra.host
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

testinfra_hosts = ["ansible://pki1"]
project = Path(__file__).parents[3]
room = "/etc/bulkhead/pki"


class Pair:
    """A key and a certificate, signed by itself or by another pair."""

    def __init__(self, name: str, signer: Pair | None = None, days: int = 30) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        authority = x509.BasicConstraints(ca=signer is None, path_length=None)
        builder = (
            x509.CertificateBuilder(self.name if signer is None else signer.name, self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=365))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(authority, critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        self.signed = builder.sign((signer or self).key, hashes.SHA256())

    @property
    def certificate(self) -> str:
        return self.signed.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def private(self) -> str:
        form = serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


class Run:
    """One run of the scenario's playbook on pki1, with some variables set."""

    def __init__(self, directory: Path, *options: str, strategy: str = "", **variables: object) -> None:
        given = directory / "given.json"
        given.write_text(json.dumps(variables))
        self.process = subprocess.run(
            [
                "ansible-playbook",
                project / "molecule/pki/converge.yml",
                f"--extra-vars=@{given}",
                *(f"--inventory={each}" for each in os.environ["ANSIBLE_INVENTORY"].split(",")),
                *(options or ["--limit=pki1"]),
            ],
            env=os.environ | ({"ANSIBLE_STRATEGY": strategy} if strategy else {}),
            cwd=project,
            capture_output=True,
            text=True,
            timeout=600,
        )
        given.unlink()
        self.output = self.process.stdout + self.process.stderr
        self.failed = self.process.returncode != 0
        self.quiet = not self.failed and "changed=0" in self.output


@pytest.fixture(scope="module", autouse=True)
def as_converged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    assert not Run(tmp_path_factory.mktemp("end")).failed


def reloads(host: testinfra.host.Host) -> int:
    return int(host.check_output("wc -l < /run/reloads"))


def serial(host: testinfra.host.Host) -> str:
    return host.check_output(f"openssl x509 -in {room}/node.crt -noout -serial")


def files(host: testinfra.host.Host) -> str:
    return host.check_output(f"cat {room}/node.key {room}/node.crt {room}/ca.crt | sha256sum")


def test_peers_accept_each_other_and_refuse_strangers(host: testinfra.host.Host) -> None:
    peer = host.get_host("ansible://pki2")
    port = 18443
    host.check_output(
        f"systemd-run --quiet --collect --unit=try-server openssl s_server -quiet -www -port {port} "
        f"-cert {room}/node.crt -key {room}/node.key -CAfile {room}/ca.crt -Verify 1 -verify_return_error"
    )
    listens = f"ss -Hltn sport = {port} | grep -q ."
    host.check_output(f"timeout 10 bash -c 'until {listens}; do sleep 0.1; done'")
    stranger = Pair("stranger")
    for name, text in (("crt", stranger.certificate), ("key", stranger.private)):
        peer.check_output(f"printf '%s' '{text}' > /run/stranger.{name}")

    def ask(expect: str, certificate: str = f"{room}/node", trust: str = f"{room}/ca.crt") -> str:
        """Asks for the server's page, and answers with what openssl said."""
        kind = "-verify_ip" if expect[0].isdigit() else "-verify_hostname"
        return peer.run(
            f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout 10 openssl s_client -quiet -ign_eof "
            f"-connect 198.18.11.11:{port} -cert {certificate}.crt -key {certificate}.key "
            f"-CAfile {trust} -no-CApath -no-CAstore -verify_return_error {kind} {expect} 2>&1"
        ).stdout

    served = "HTTP/1.0 200"
    try:
        for name in ("pki1", "198.18.11.11", "198.18.11.101", "198.18.11.103", "forge.example"):
            assert served in ask(name), name
        assert "mismatch" in (said := ask("pki2"))
        assert served not in said
        assert "verify error" in (said := ask("pki1", trust="/run/stranger.crt"))
        assert served not in said
        assert "alert" in (said := ask("pki1", certificate="/run/stranger"))
        assert served not in said
    finally:
        host.check_output("systemctl stop try-server")


def test_a_certificate_that_ends_soon_is_renewed_once_and_services_are_told(
    host: testinfra.host.Host, tmp_path: Path
) -> None:
    host.check_output(f"rm {room}/node.crt")
    assert not Run(tmp_path, pki_validity_days=10, pki_renew_before_days=5).failed
    short, told = serial(host), reloads(host)
    key = host.check_output(f"sha256sum {room}/node.key")

    assert not Run(tmp_path).failed  # the defaults: 10 days are less than pki_renew_before_days
    assert serial(host) != short
    assert reloads(host) == told + 1
    assert host.check_output(f"sha256sum {room}/node.key") == key

    renewed = serial(host)
    again = Run(tmp_path, strategy="linear")
    assert again.quiet, again.output
    assert (serial(host), reloads(host)) == (renewed, told + 1)


def test_another_name_makes_another_certificate(host: testinfra.host.Host, tmp_path: Path) -> None:
    before = serial(host)
    assert not Run(tmp_path, pki_alternative_names=["198.18.11.111", "fd00::1", "Other.Example"]).failed
    text = host.check_output(f"openssl x509 -in {room}/node.crt -noout -ext subjectAltName")
    assert "IP Address:198.18.11.111, IP Address:FD00:0:0:0:0:0:0:1" in text
    assert "DNS:other.example" in text
    assert serial(host) != before


def test_another_authority_signs_anew_and_the_former_can_stay_trusted(
    host: testinfra.host.Host, tmp_path: Path
) -> None:
    former = host.check_output(f"cat {room}/ca.crt")
    old = host.check_output(f"cat {room}/node.crt")
    other = Pair("Another authority")
    run = Run(
        tmp_path,
        pki_ca_key=other.private,
        pki_ca_certificate=other.certificate,
        pki_trusted_certificates=[former],
        pki_validity_days=20,
        pki_renew_before_days=10,
    )
    assert not run.failed, run.output
    host.check_output(f"openssl verify -CAfile {room}/ca.crt {room}/node.crt")
    issuer = host.check_output(f"openssl x509 -in {room}/node.crt -noout -issuer")
    assert "Another authority" in issuer
    # A peer that was not converged yet still shows the former authority's certificate.
    host.run_expect([0], f"printf '%s' '{old}' | openssl verify -CAfile {room}/ca.crt")


def test_a_given_pair_is_installed(host: testinfra.host.Host, tmp_path: Path) -> None:
    authority = Pair("A public authority")
    given = Pair("forge.example", authority)
    told = reloads(host)
    variables = {
        "pki_certificate": given.certificate,
        "pki_private_key": given.private,
        "pki_trusted_certificates": [authority.certificate],
        "pki_ca_key": "",
    }
    assert not Run(tmp_path, **variables).failed
    assert host.check_output(f"cat {room}/node.crt") == given.certificate.strip()
    assert host.file(f"{room}/node.key").mode == 0o640
    assert reloads(host) == told + 1
    again = Run(tmp_path, **variables)
    assert again.quiet, again.output


def test_what_does_not_fit_is_refused_and_nothing_is_written(
    host: testinfra.host.Host, tmp_path: Path
) -> None:
    authority = Pair("A public authority")
    given, another = Pair("forge.example", authority), Pair("forge.example", authority)
    expired = Pair("forge.example", authority, days=-1)
    trusted = {"pki_trusted_certificates": [authority.certificate]}
    cases: dict[str, dict[str, object]] = {
        "does not belong to the private key": {
            "pki_certificate": given.certificate,
            "pki_private_key": another.private,
        },
        "certificate has expired": {
            "pki_certificate": expired.certificate,
            "pki_private_key": expired.private,
        },
        "in PEM form": {"pki_certificate": "no certificate", "pki_private_key": given.private},
        "pki_certificate is given without pki_private_key": {"pki_certificate": given.certificate},
        "pki_ca_key is empty": {"pki_ca_key": ""},
        "has to be less than pki_validity_days": {"pki_validity_days": 30},
    }
    # Each case is pki1 under another name, so that one run tries them all.
    hosts = {
        f"case{number}": {"ansible_host": "198.18.11.11", **trusted, **variables}
        for number, variables in enumerate(cases.values())
    }
    inventory = tmp_path / "cases.yml"
    inventory.write_text(yaml.safe_dump({"load_balancers": {"hosts": hosts}}))
    before = files(host)
    run = Run(tmp_path, "--inventory", str(inventory), "--limit=case*")
    said = " ".join(run.output.split())
    for number, message in enumerate(cases):
        assert f"fatal: [case{number}]: FAILED!" in said, said
        assert message in said, said
    assert given.private.splitlines()[1] not in run.output
    assert files(host) == before


def test_a_node_that_asks_for_another_node_s_name_gets_nothing(
    host: testinfra.host.Host, tmp_path: Path
) -> None:
    before = files(host)
    # Stands for a node in somebody else's hands: the program that makes the request lies.
    lie = '#!/bin/bash\\nexec /usr/bin/openssl "${@//DNS:pki1/DNS:pki2}"\\n'
    host.check_output(f"printf '{lie}' > /usr/local/bin/openssl && chmod 0755 /usr/local/bin/openssl")
    try:
        run = Run(tmp_path, pki_alternative_names=["198.18.11.112"])
        assert run.failed
        assert "pki1: refused to sign. The node asks for pki2" in " ".join(run.output.split()), run.output
        assert files(host) == before
    finally:
        host.check_output("rm /usr/local/bin/openssl")
