"""Ansible module: a node's private key and certificate, with nothing but the openssl program on the node.

It also makes the group that may read the key. Two states, one task each:

- `requested` makes the key if there is none, and says what the node lacks. `csr` is empty if the
  certificate there is good; `current` is true if nothing at all has to be installed.
- `installed` checks that key, certificate and authorities belong together, then writes them.

community.crypto signs on the controller; its modules for the node's half need python3-cryptography on
every node, cannot say anything under --check on a host without it, and take five round trips for what
is one here.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import re
import shutil
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

KEY, CERTIFICATE, AUTHORITIES = "node.key", "node.crt", "ca.crt"
MODES = {KEY: 0o640, CERTIFICATE: 0o644, AUTHORITIES: 0o644}
SECONDS_PER_DAY = 86400


class InputError(Exception):
    """The input cannot be used: said in one line, before anything was written."""


def canonical(name: str) -> str:
    """A name as a certificate request spells it: IP:... or DNS:..."""
    try:
        return f"IP:{ipaddress.ip_address(name)}"
    except ValueError:
        return f"DNS:{name.lower()}"


def names_in(extension: str) -> set[str]:
    """The names in what `openssl x509 -ext subjectAltName` prints."""
    found = re.findall(r"(?:DNS|IP Address):([^,\s]+)", extension)
    return {canonical(name) for name in found}


class Openssl:
    """The openssl program; what is secret reaches it on standard input only."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.program = shutil.which("openssl", path="/usr/local/bin:/usr/bin:/bin")
        self.reason = ""

    def __call__(self, *arguments: str, data: str | None = None) -> str | None:
        """What it printed, or None if it failed; why it failed is then in `reason`."""
        code, out, err = self.module.run_command(
            [self.program, *arguments],
            data=data,
            # The node's own openssl.cnf must not add extensions to a request.
            environ_update={"OPENSSL_CONF": "/dev/null", "LC_ALL": "C"},
        )
        said = re.search(r"lookup: ?(.+)", err) or re.search(r"(.+)", err)
        self.reason = said.group(1).strip() if said else f"exit code {code}"
        return out if code == 0 else None

    def key_of_certificate(self, certificate: str) -> str | None:
        return self("x509", "-noout", "-pubkey", data=certificate)

    def public_key(self, key: str) -> str | None:
        return self("pkey", "-pubout", data=key)

    def accepted(self, certificate: str, authorities: str) -> bool:
        """Whether a peer that trusts these authorities and no other accepts the certificate today."""
        with tempfile.TemporaryDirectory(dir=self.module.tmpdir) as name:
            chain, trusted = Path(name, "chain"), Path(name, "trusted")
            chain.write_text(certificate, encoding="utf-8")
            trusted.write_text(authorities, encoding="utf-8")
            only = ["-no-CApath", "-no-CAstore", "-CAfile", str(trusted), "-untrusted", str(chain)]
            return self("verify", *only, str(chain)) is not None


class Node:
    """The files in the node's directory, and whether writing them changed anything."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.directory = Path(module.params["directory"])
        self.group: str = module.params["group"]
        self.changed = False

    def read(self, name: str) -> str:
        path = self.directory / name
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def gid(self, group: str) -> int:
        try:
            return grp.getgrnam(group).gr_gid
        except KeyError:
            if not self.module.check_mode:
                raise
            return -1  # a first run would have made it by now

    def own(self, path: Path, mode: int, group: str) -> None:
        state, gid = path.stat(), self.gid(group)
        if (state.st_uid, state.st_gid, state.st_mode & 0o7777) == (0, gid, mode):
            return
        self.changed = True
        if not self.module.check_mode:
            os.chown(path, 0, gid)
            path.chmod(mode)

    def make_group(self) -> None:
        try:
            grp.getgrnam(self.group)
        except KeyError:
            self.changed = True
            if not self.module.check_mode:
                self.module.run_command(["groupadd", "--system", self.group], check_rc=True)

    def own_all(self) -> None:
        """The group, and owner and mode of what is there already."""
        self.make_group()
        if not self.directory.is_dir():
            self.changed = True
            if self.module.check_mode:
                return
            self.directory.mkdir(parents=True, mode=0o755)
        self.own(self.directory, 0o755, "root")
        for name, mode in MODES.items():
            if (self.directory / name).exists():
                self.own(self.directory / name, mode, self.group if name == KEY else "root")

    def write(self, name: str, text: str) -> None:
        if not text or self.read(name) == text:
            return
        self.changed = True
        if self.module.check_mode:
            return
        handle, path = tempfile.mkstemp(dir=self.directory, prefix=f".{name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.chown(path, 0, self.gid(self.group if name == KEY else "root"))
            Path(path).chmod(MODES[name])
            Path(path).rename(self.directory / name)
        except BaseException:
            Path(path).unlink()
            raise


def why_not(openssl: Openssl, node: Node, names: list[str], authority: str, days: int) -> str:
    """Why the node's certificate has to be made anew, or nothing."""
    key, certificate = node.read(KEY), node.read(CERTIFICATE)
    if not key or not certificate:
        return "there is none yet"
    if openssl.key_of_certificate(certificate) != openssl.public_key(key):
        return "it does not belong to the node's key"
    if not openssl.accepted(certificate, authority):
        return f"the authority refuses it: {openssl.reason}"
    if openssl("x509", "-noout", "-checkend", str(days * SECONDS_PER_DAY), data=certificate) is None:
        return f"it ends in less than {days} days"
    extension = openssl("x509", "-noout", "-ext", "subjectAltName", data=certificate) or ""
    if names_in(extension) != {canonical(name) for name in names}:
        return "its names are not the wanted ones"
    return ""


def request(openssl: Openssl, key: str, names: list[str]) -> str:
    """What the authority is asked to sign. The controller checks that it is no more than this."""
    extensions = {
        "subjectAltName": ",".join(canonical(name) for name in names),
        "basicConstraints": "critical,CA:FALSE",
        "keyUsage": "critical,digitalSignature",
        "extendedKeyUsage": "serverAuth,clientAuth",
    }
    added = [word for name, value in extensions.items() for word in ("-addext", f"{name}={value}")]
    text = openssl("req", "-new", "-key", "/dev/stdin", "-subj", f"/CN={names[0]}", *added, data=key)
    if text is None:
        raise InputError(f"openssl cannot make a request for {', '.join(names)}: {openssl.reason}")
    return text[text.index("-----BEGIN") :]


def requested(openssl: Openssl, node: Node) -> dict[str, object]:
    wanted = node.module.params
    node.own_all()
    key = node.read(KEY)
    reason = why_not(openssl, node, wanted["names"], wanted["authority"], wanted["renew_before_days"])
    if not key:
        key = openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256") or ""
        if not key:
            raise InputError(f"openssl cannot make a private key: {openssl.reason}")
        node.write(KEY, key)  # under --check it is thrown away, and its request signed all the same
    return {
        "csr": request(openssl, key, wanted["names"]) if reason else "",
        "reason": reason,
        "current": not reason and node.read(AUTHORITIES) == wanted["trusted"],
    }


def installed(openssl: Openssl, node: Node) -> dict[str, object]:
    wanted = node.module.params
    certificate = wanted["certificate"] or node.read(CERTIFICATE)
    key = wanted["private_key"] or node.read(KEY)
    certified = openssl.key_of_certificate(certificate)
    if certified is None:
        raise InputError("the certificate cannot be read: it has to be in PEM form")
    # After the throw-away key of a first run under --check there is nothing to compare.
    if key or not node.module.check_mode:
        public = openssl.public_key(key)
        if public is None:
            raise InputError("the private key cannot be read: it has to be in PEM form, without a password")
        if public != certified:
            raise InputError("the certificate does not belong to the private key")
    if not openssl.accepted(certificate, wanted["trusted"]):
        raise InputError(f"the authorities that the cluster trusts refuse the certificate: {openssl.reason}")
    node.own_all()
    node.write(KEY, wanted["private_key"] or "")
    node.write(CERTIFICATE, certificate)
    node.write(AUTHORITIES, wanted["trusted"])
    return {}


STATES = {"requested": requested, "installed": installed}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": list(STATES), "required": True},
            "directory": {"type": "path", "required": True},
            "group": {"type": "str", "required": True},
            "trusted": {"type": "str", "required": True},
            "names": {"type": "list", "elements": "str"},
            "authority": {"type": "str"},
            "renew_before_days": {"type": "int"},
            "certificate": {"type": "str"},
            "private_key": {"type": "str", "no_log": True},
        },
        required_if=[("state", "requested", ("names", "authority", "renew_before_days"))],
        supports_check_mode=True,
    )
    openssl, node = Openssl(module), Node(module)
    if openssl.program is None:
        # A bare host under --check: otherwise the role has just installed it.
        module.exit_json(changed=True, csr="", reason="there is none yet", current=False)
    try:
        result = STATES[module.params["state"]](openssl, node)
    except InputError as error:
        module.fail_json(msg=f"{error}. Nothing was written to {node.directory}.")
    module.exit_json(changed=node.changed, **result)


if __name__ == "__main__":
    main()
