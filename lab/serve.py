"""The last steps of `make up`: addresses to their owners, the release of examples/forge, the proof.

`fab lb.failback` and `fab deploy` do the same. Here they share one reading of the inventory, which is a third
of what a lab with nothing to do would wait for. Run by scripts/lab: `python -m lab.serve FIRST_STEP STEPS`.
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

from bulkhead.connections import cluster
from bulkhead.deploy import deploy
from bulkhead.errors import CancelledError, Error, FailedError
from bulkhead.failback import failback
from bulkhead.inventory import Inventory
from bulkhead.screen import clock

PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.5


def main(first: int, steps: int) -> int:
    began = float(os.environ["BULKHEAD_BEGAN"])  # seconds since the epoch

    def say(step: int, what: str) -> None:
        print(f"[{first + step}/{steps}] {clock(time.time() - began)}  {what}", flush=True)

    try:
        with cluster() as (inventory, connections):
            say(0, "addresses to their owners")
            failback(inventory, connections, yes=True)
            say(1, "release of examples/forge")
            deploy(inventory, connections, yes=True)
            say(2, "proof from outside")
            prove(inventory, Path(os.environ["BULKHEAD_STATE"]))
    except Error as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Stopped (Ctrl-C). `make up` goes on from here.", file=sys.stderr)
        return CancelledError.exit_code
    return 0


def prove(inventory: Inventory, state: Path) -> None:
    """Writes the state directory's `env`, `ca.crt` and `next-steps`; raises FailedError when an address does
    not answer within PATIENCE_SECONDS."""
    secrets = yaml.safe_load((state / "inventory/group_vars/all/secrets.yml").read_text())
    authority = state / "ca.crt"
    authority.write_text(secrets["pki_ca_certificate"])
    public = [address.address for address in inventory.virtual_addresses if address.kind == "public"]
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
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
