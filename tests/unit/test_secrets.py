"""Secrets: all that are needed, made once, kept, the owner's only, and never in clear beside a vault."""

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from bulkhead import secrets
from bulkhead.errors import FailedError, SettingsError

NAMES = ["DJANGO_SECRET_KEY"]


@pytest.fixture(scope="module")
def made() -> dict[str, object]:
    return secrets.complete({}, "lab", NAMES)


def test_every_secret_of_the_table_is_made(made: dict[str, object]) -> None:
    assert made.keys() == secrets.NAMES
    passwords = [str(made[secret.name]) for secret in secrets.SECRETS if secret.kind == "password"]
    assert all(len(password) >= 40 and password.isalnum() for password in passwords)
    assert len(set(passwords)) == len(passwords)


def test_what_is_there_is_kept_and_what_is_missing_is_added(made: dict[str, object]) -> None:
    present = {name: value for name, value in made.items() if name != "haproxy_stats_password"}
    again = secrets.complete(present, "lab", [*NAMES, "MORE"])
    assert {name: again[name] for name in present if name != secrets.APPLICATION_SECRETS} == {
        name: value for name, value in present.items() if name != secrets.APPLICATION_SECRETS
    }
    assert again["haproxy_stats_password"]
    assert again["haproxy_stats_password"] != made["haproxy_stats_password"]
    assert again[secrets.APPLICATION_SECRETS].keys() == {"DJANGO_SECRET_KEY", "MORE"}
    assert (
        again[secrets.APPLICATION_SECRETS]["DJANGO_SECRET_KEY"]
        == made["application_secrets"]["DJANGO_SECRET_KEY"]
    )


def test_the_authority_signs_nodes_only_for_ten_years_in_the_environments_name(
    made: dict[str, object],
) -> None:
    certificate = x509.load_pem_x509_certificate(str(made["pki_ca_certificate"]).encode())
    key = load_pem_private_key(str(made["pki_ca_key"]).encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp256r1"
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    assert "lab" in certificate.subject.rfc4514_string()
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=3640) < left < timedelta(days=3660)
    certificate.verify_directly_issued_by(certificate)


def test_the_file_is_the_owners_and_comes_back_whole(tmp_path: Path, made: dict[str, object]) -> None:
    path = tmp_path / "group_vars" / "all" / "secrets.yml"
    secrets.write(path, made, vault=False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secrets.read(path) == made
    assert [each.name for each in path.parent.iterdir()] == ["secrets.yml"]


def test_an_authority_that_is_not_ours_needs_its_certificate(made: dict[str, object]) -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    with pytest.raises(SettingsError, match="pki_ca_certificate"):
        secrets.complete({**made, "pki_ca_key": pem, "pki_ca_certificate": ""}, "lab", NAMES)


def test_a_vault_is_written_and_read_without_clear_text_on_disk(
    tmp_path: Path, made: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse")
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(password))
    path = tmp_path / "vault" / "secrets.yml"
    secrets.write(path, made, vault=True)
    text = path.read_text()
    assert text.startswith("$ANSIBLE_VAULT;")
    assert "PRIVATE KEY" not in text
    assert "password" not in text
    assert secrets.read(path) == made
    password.write_text("wrong")
    with pytest.raises(FailedError, match="decrypt"):
        secrets.read(path)


def inventory(tmp_path: Path) -> Path:
    """An environment of one host, with the project's own example application."""
    root = Path(__file__).resolve().parents[2]
    shared = root / "inventories/shared/group_vars/all/application.yml"
    application = yaml.safe_load(shared.read_text())["application"]
    hosts = {
        "all": {
            "hosts": {"app1": {"ansible_host": "192.0.2.21"}},
            "vars": {
                "environment_name": "trial",
                "application": application,
                "virtual_addresses": [
                    {"name": "public1", "address": "192.0.2.101", "kind": "public", "owner": "app1"}
                ],
            },
        }
    }
    path = tmp_path / "hosts.yml"
    path.write_text(json.dumps(hosts))
    return path


def test_the_command_makes_what_is_missing_once_and_prints_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANSIBLE_INVENTORY", str(inventory(tmp_path)))
    path = tmp_path / "secrets.yml"
    command = [sys.executable, "-m", "bulkhead.secrets", "--output", str(path)]
    root = Path(__file__).resolve().parents[2]
    first = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stderr
    values = yaml.safe_load(path.read_text())
    assert "made" in first.stdout
    assert not any(str(value) in first.stdout + first.stderr for value in values.values())
    before = path.stat().st_ino
    second = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert "nothing was missing" in second.stdout
    assert path.stat().st_ino == before


def test_a_file_that_holds_no_variables_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.yml"
    for text in ("- a list\n", "hunter2: [\n"):
        path.write_text(text)
        with pytest.raises(SettingsError) as raised:
            secrets.read(path)
        assert str(path) in str(raised.value)
        assert "hunter2" not in str(raised.value)
        assert path.read_text() == text
