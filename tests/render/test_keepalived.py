"""The keepalived role's configuration for clusters of several kinds, read by the nodes' keepalived."""

from __future__ import annotations

import importlib.util
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from conftest import IMAGE

ROLE = Path(__file__).resolve().parents[2] / "roles/keepalived"
PROGRAMS = "/usr/local/lib/bulkhead"
Check = Callable[[str], "subprocess.CompletedProcess[str]"]

spec = importlib.util.spec_from_file_location(
    "keepalived_filters", ROLE.parents[1] / "plugins/filter/keepalived.py"
)
assert spec is not None
assert spec.loader is not None
plugin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plugin)


def podman(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["podman", *arguments], input=text, capture_output=True, text=True, check=False)


def balancers(count: int) -> dict[str, dict[str, str]]:
    return {
        f"lb{n}": {"node_address": f"192.0.2.{n}", "node_address_ipv6": f"2001:db8::{n:x}"}
        for n in range(1, count + 1)
    }


# The nodes' own addresses are in the first two.
NETWORKS = {"192.0.2.0/24": "eth0", "2001:db8::/64": "eth0", "198.51.100.0/24": "eth1"}


def inputs(addresses: dict[str, str], count: int = 2, **more: Any) -> dict[str, Any]:
    networks = [{"interface": interface, "network": network} for network, interface in NETWORKS.items()]
    members = balancers(count)
    entries = [
        {"name": name, "address": address, "kind": "public", "owner": f"lb{1 + number % count}"}
        for number, (name, address) in enumerate(addresses.items())
    ]
    instances = plugin.keepalived_instances(entries, "lb1", list(members), members, networks)
    return {"keepalived_instances": instances, **more}


LAB = {"public1": "192.0.2.101", "public2": "192.0.2.102", "internal": "192.0.2.103"}
CASES = {
    "lab": inputs(LAB),
    "ipv6": inputs({"public": "192.0.2.101", "public6": "2001:db8::101"}),
    "many": inputs({f"public{n}": f"192.0.2.{n}" for n in range(201, 251)}, 20),
    "two networks": inputs({"internal": "192.0.2.101", "public": "198.51.100.101"}),
    "ordinary": inputs(LAB, keepalived_realtime_priority=0, keepalived_advertisement_seconds=0.3),
}


def render(case: dict[str, Any]) -> str:
    environment = jinja2.Environment(  # noqa: S701 - a configuration file, not a page from strangers
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    given = {name: yaml.safe_load((ROLE / name / "main.yml").read_text()) for name in ("defaults", "vars")}
    own = {"ansible_managed": "rendered by a test", "keepalived_node_name": "lb1"}
    return environment.get_template("keepalived.conf.j2").render(
        {**given["defaults"], **given["vars"], **own, **case}
    )


@pytest.fixture(scope="module")
def keepalived() -> Iterator[Check]:
    """Checks a configuration in a container with the interface, program, user and directory of a node."""
    limits = ["--cap-add=NET_ADMIN", "--network=none"]
    started = podman("run", "--detach", "--rm", *limits, IMAGE, "sleep", "600")
    assert started.returncode == 0, f"{started.stderr}\nThe image is made by `make image`."
    container = started.stdout.strip()
    prepare = (
        "ip link add eth0 type veth peer name eth1 && useradd --system keepalived_script && "
        f"mkdir -p /run/keepalived/hold {PROGRAMS} && cat > {PROGRAMS}/haproxy-answers && "
        f"chmod 0755 {PROGRAMS}/haproxy-answers"
    )
    try:
        done = podman(
            "exec", "-i", container, "sh", "-c", prepare, text=(ROLE / "files/haproxy-answers").read_text()
        )
        assert done.returncode == 0, done.stderr
        check = "cat > /etc/keepalived/keepalived.conf && keepalived --config-test"
        yield lambda text: podman("exec", "-i", container, "sh", "-c", check, text=text)
    finally:
        podman("rm", "--force", "--time=0", container)


@pytest.mark.parametrize("name", CASES)
def test_keepalived_reads_it_without_a_word(name: str, keepalived: Check) -> None:
    said = keepalived(render(CASES[name]))
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_it_speaks_where_the_peers_are_and_watches_the_other_interface_too() -> None:
    internal, public = render(CASES["two networks"]).split("vrrp_instance ")[1:]
    assert "    interface eth0\n" in internal
    assert "    interface eth0\n" in public
    assert "198.51.100.101/24 dev eth1\n" in public
    assert "track_interface" not in internal
    assert "    track_interface {\n        eth1\n    }\n" in public


def test_an_edit_that_does_not_parse_is_refused(keepalived: Check) -> None:
    said = keepalived(render(CASES["lab"]).replace("    nopreempt\n", "    nopre_empt\n", 1))
    assert said.returncode != 0
    assert "nopre_empt" in said.stdout + said.stderr
