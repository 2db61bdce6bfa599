"""Proves the lab from outside, as a user would meet it, and says what to type next.

Run by `make up` as its last step: `python -m lab.proof`.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

from bulkhead import inventory
from bulkhead.errors import Error, FailedError

PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.5


def main() -> int:
    try:
        prove(Path(os.environ["BULKHEAD_STATE"]))
    except Error as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def prove(state: Path) -> None:
    """Writes the state directory's `env`, `ca.crt` and `next-steps`; raises FailedError when an address does
    not answer within PATIENCE_SECONDS."""
    cluster = inventory.load()
    secrets = yaml.safe_load((state / "inventory/group_vars/all/secrets.yml").read_text())
    authority = state / "ca.crt"
    authority.write_text(secrets["pki_ca_certificate"])
    public = [address.address for address in cluster.virtual_addresses if address.kind == "public"]
    for address in public:
        wait_until_ready(url(address), authority)
    (state / "env").write_text(
        f"export BULKHEAD_URL={url(public[0])}\n"
        f"export BULKHEAD_CA={authority}\n"
        f"export BULKHEAD_SSH_CONFIG={state / 'ssh_config'}\n"
    )
    (state / "next-steps").write_text(
        f"  address   {' and '.join(url(address) for address in public)}\n"
        f"  CA file   {authority}\n\n"
        "What to type next:\n"
        "  . .lab/env && curl --cacert $BULKHEAD_CA $BULKHEAD_URL/readyz\n"
        "  make status                       one screen: addresses, pools, PostgreSQL, releases\n"
        "  ssh -F .lab/ssh_config app1       log in to a node, as in production\n"
        "  make down                         remove it all\n"
    )


def url(address: str) -> str:
    shown = f"[{address}]" if ipaddress.ip_address(address).version == 6 else address
    return f"https://{shown}"


def wait_until_ready(base: str, authority: Path) -> None:
    context = ssl.create_default_context(cafile=str(authority))
    # The lab's addresses are on this machine: a proxy of the host's has nothing to do with them.
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    deadline = time.monotonic() + PATIENCE_SECONDS
    said = "no answer"
    while time.monotonic() < deadline:
        try:
            with opener.open(f"{base}/readyz?strict=1", timeout=5) as answer:
                node = answer.headers.get("X-Served-By", "?")
                release = answer.headers.get("X-Release", "?")
                print(f"      {base}/readyz  {answer.status}  answered by {node}, release {release}")
                return
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code}"
        except OSError as error:
            said = str(error)
        time.sleep(PAUSE_SECONDS)  # between two looks at a condition
    raise FailedError(
        f"{base}/readyz did not become ready within {PATIENCE_SECONDS} s: {said}.",
        mend="Type `make status`: it says what is wrong.",
    )


if __name__ == "__main__":
    sys.exit(main())
