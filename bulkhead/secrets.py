"""The secrets of an environment: which there are, and how they are made.

    python -m bulkhead.secrets --output FILE            makes those that FILE lacks; keeps the others
    python -m bulkhead.secrets --output FILE --vault    the same, with FILE encrypted by ansible-vault

The environment is the one that ANSIBLE_INVENTORY names. With --vault the password comes as Ansible is
configured (ANSIBLE_VAULT_PASSWORD_FILE, vault_password_file), and nothing in clear text ever reaches the
disk. No secret is printed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import string
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from bulkhead import inventory
from bulkhead.application import parse
from bulkhead.errors import Error, FailedError, SettingsError
from bulkhead.problem import listed

APPLICATION_SECRETS = "application_secrets"
CA_DAYS = 3652  # ten years
PASSWORD_LENGTH = 64


@dataclass(frozen=True)
class Secret:
    name: str
    kind: Literal["password", "authority key", "authority certificate"]
    why: str


SECRETS = (
    Secret("pki_ca_key", "authority key", "signs the nodes' certificates, on the controller only"),
    Secret("pki_ca_certificate", "authority certificate", "what the nodes, and the lab's clients, trust"),
    Secret("etcd_root_password", "password", "etcd's root: makes its users and roles"),
    Secret("etcd_patroni_password", "password", "Patroni's user in etcd, prefix /service/"),
    Secret("etcd_operator_password", "password", "the operations' user in etcd, prefix /bulkhead/"),
    Secret("etcd_scheduler_password", "password", "the application's scheduler in etcd, prefix /scheduler/"),
    Secret("patroni_rest_password", "password", "Patroni's REST interface, for what changes something"),
    Secret("postgres_replication_password", "password", "standbys that follow the primary"),
    Secret("postgres_rewind_password", "password", "pg_rewind, after a failover"),
    Secret("postgres_application_password", "password", "the application's own role in its database"),
    Secret("rabbitmq_erlang_cookie", "password", "brokers and their tools, to each other"),
    Secret("rabbitmq_application_password", "password", "the application's own user of the brokers"),
    Secret(
        "rabbitmq_operator_password",
        "password",
        "the brokers' user operator, who sees all and changes nothing",
    ),
    Secret("haproxy_stats_password", "password", "HAProxy's statistics page and metrics"),
)
NAMES = frozenset({*(secret.name for secret in SECRETS), APPLICATION_SECRETS})

HEADER = "---\n# Made by `python -m bulkhead.secrets`, which adds what is missing and keeps what is here.\n"


def complete(present: dict[str, Any], environment: str, application_secrets: Sequence[str]) -> dict[str, Any]:
    """The secrets with those added that are missing. What is there already stays as it is."""
    full = dict(present)
    for secret in SECRETS:
        if not full.get(secret.name):
            full[secret.name] = _MAKE[secret.kind](full, environment)
    values = dict(full.get(APPLICATION_SECRETS) or {})
    for name in application_secrets:
        values[name] = values.get(name) or random_text(PASSWORD_LENGTH)
    full[APPLICATION_SECRETS] = values
    return full


def random_text(length: int) -> str:
    """Letters and digits only: nothing that a shell, a URL or a configuration file reads in another way."""
    alphabet = string.ascii_letters + string.digits
    return "".join(secrets.choice(alphabet) for _ in range(length))


def authority_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def authority_certificate(key_pem: str, environment: str) -> str:
    """A certificate authority for one environment's nodes: it signs them, and no further authorities."""
    key = load_pem_private_key(key_pem.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(
            "pki_ca_key is no elliptic curve key, and pki_ca_certificate is missing.",
            mend="Give the certificate that belongs to the key as pki_ca_certificate.",
        )
    name = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Bulkhead"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Bulkhead {environment} CA"),
        ]
    )
    # Nodes whose clock is a little behind have to take it as well.
    begin = datetime.now(UTC) - timedelta(hours=1)
    usage = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()


_MAKE: dict[str, Callable[[dict[str, Any], str], str]] = {
    "password": lambda _present, _environment: random_text(PASSWORD_LENGTH),
    "authority key": lambda _present, _environment: authority_key(),
    "authority certificate": lambda present, environment: authority_certificate(
        present["pki_ca_key"], environment
    ),
}


def is_vault(text: str) -> bool:
    return text.startswith("$ANSIBLE_VAULT;")


def read(path: Path) -> dict[str, Any]:
    """The secrets of the file, nothing if there is no file; an encrypted one is decrypted in memory."""
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    if is_vault(text):
        text = _vault("decrypt", text)
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        # The error itself would quote the file.
        found = text
    if found is not None and not isinstance(found, dict):
        raise SettingsError(
            f"{path} has no variables in it.", mend="Move it away, and type the command again."
        )
    return found or {}


def write(path: Path, values: dict[str, Any], *, vault: bool) -> None:
    """Replaces the file in one step: whoever reads meanwhile sees the old one or the new one, whole."""
    text = HEADER + yaml.dump(values, Dumper=_Dumper, sort_keys=False, width=200)
    if vault:
        text = _vault("encrypt", text)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A temporary file is made with mode 0600.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


class _Dumper(yaml.SafeDumper):
    """Certificates and keys as blocks of lines."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


def _vault(action: Literal["encrypt", "decrypt"], text: str) -> str:
    """ansible-vault as a filter. Only its password prompt and its errors reach the terminal."""
    program = Path(sys.executable).parent / "ansible-vault"
    done = subprocess.run(
        [str(program), action, "--output", "-", "-"],
        input=text,
        stdout=subprocess.PIPE,
        text=True,
        cwd=inventory.ROOT,
        check=False,
    )
    if done.returncode != 0 or is_vault(done.stdout) != (action == "encrypt"):
        raise FailedError(
            f"ansible-vault could not {action} the secrets; nothing was changed.",
            mend="Check the vault password: ANSIBLE_VAULT_PASSWORD_FILE names the file that has it.",
        )
    return done.stdout


def make(path: Path, *, vault: bool) -> list[str]:
    """Completes the file for the environment of the inventory; the names of what was made."""
    known = inventory.load()
    application, problems = parse(known.application)
    if application is None:
        raise SettingsError("The application is not described right.", mend="\n  ".join(map(str, problems)))
    encrypted = path.exists() and is_vault(path.read_text(encoding="utf-8"))
    present = read(path)
    full = complete(present, known.environment_name, application.secrets)
    if full != present or (vault and not encrypted):
        # A file that is encrypted stays so.
        write(path, full, vault=vault or encrypted)
    return sorted(_names(full) - _names(present))


def _names(values: Mapping[str, Any]) -> set[str]:
    own = {name for name, value in values.items() if value and name != APPLICATION_SECRETS}
    return own | {f"{APPLICATION_SECRETS}.{name}" for name in values.get(APPLICATION_SECRETS) or {}}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bulkhead.secrets", description="Makes what secrets are missing."
    )
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="where they are kept")
    parser.add_argument("--vault", action="store_true", help="encrypt the file with ansible-vault")
    options = parser.parse_args(arguments)
    try:
        made = make(options.output, vault=options.vault)
    except Error as error:
        print(f"secrets: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"secrets: {options.output} cannot be read or written: {error.strerror}.", file=sys.stderr)
        return SettingsError.exit_code
    print(f"{options.output}: {f'made {listed(made)}' if made else 'nothing was missing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
