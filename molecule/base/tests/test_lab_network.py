"""The lab's network, which no node has a say in."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
STATE = os.environ["BULKHEAD_STATE"]


def podman(*words: str) -> str:
    done = subprocess.run(["podman", *words], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_this_machine_keeps_its_address_when_a_node_dies() -> None:
    """Whichever of the nodes has the port with the lowest address, it is one of them."""
    (network,) = json.loads(
        podman("network", "ls", "--filter", f"label=bulkhead.state={STATE}", "--format", "json")
    )
    file = Path("/sys/class/net", network["network_interface"], "address")
    address = file.read_text()
    nodes = json.loads(podman("ps", "--filter", f"label=bulkhead.state={STATE}", "--format", "json"))
    assert len(nodes) > 1  # with the last port the bridge would go
    for node in nodes:
        podman("kill", node["Id"])
        try:
            assert file.read_text() == address
        finally:
            podman("start", node["Id"])
        (at,) = json.loads(podman("inspect", node["Id"]))[0]["NetworkSettings"]["Networks"].values()
        subprocess.run([ROOT / "lab/wait-for-ssh", f"{node['Names'][0]}={at['IPAddress']}"], check=True)
        assert file.read_text() == address
