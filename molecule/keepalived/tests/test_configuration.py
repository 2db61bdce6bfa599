"""Changes of the configuration: what is refused, what happens to one node after the other."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time
from pathlib import Path

import pytest
from test_failover import Probe, all_on, gather, mended, on, owners, until, whole

__all__ = ["mended"]  # the fixture of the other file is used here too

project = Path(__file__).parents[3]


def converge(given: Path, **variables: object) -> str:
    given.write_text(json.dumps(variables))
    done = subprocess.run(
        ["ansible-playbook", project / "molecule/keepalived/converge.yml", f"--extra-vars=@{given}"],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=600,
    )
    return done.stdout + done.stderr


@pytest.fixture
def given(tmp_path: Path) -> Path:
    return tmp_path / "given.json"


def fingerprint() -> list[str]:
    return [
        on(
            node,
            "cat /etc/keepalived/keepalived.conf; systemctl show -p MainPID,ExecReload keepalived",
        )
        for node in ("vrrp1", "vrrp2")
    ]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"keepalived_check_path": '/alive" unknown_word {'}, "failed to validate"),
        ({"keepalived_advertisement_seconds": 2}, "keepalived_advertisement_seconds is 2"),
        (
            {
                "virtual_addresses": [
                    {"name": "far", "address": "203.0.113.1", "kind": "public", "owner": "vrrp1"}
                ]
            },
            "203.0.113.1 is in none of the host's networks",
        ),
    ],
)
def test_what_keepalived_cannot_use_is_refused_and_the_live_one_stays(
    given: Path, variables: dict[str, object], message: str
) -> None:
    before = fingerprint(), owners()
    said = converge(given, **variables)
    assert message in " ".join(said.split()), said
    assert (fingerprint(), owners()) == before


def transitions() -> list[str]:
    count = "journalctl --unit=keepalived --output=cat | grep --count -E 'Entering|Reload complete'"
    return [on(node, count) for node in ("vrrp1", "vrrp2")]


def test_a_reload_moves_nothing(given: Path) -> None:
    gather("vrrp1")
    before = [int(each) for each in transitions()]
    said = converge(given, keepalived_check_timeout_seconds=0.4)
    assert "failed=0" in said, said
    assert all_on("vrrp1")
    # One line more on each node: that it read its configuration again.
    assert [int(each) for each in transitions()] == [each + 1 for each in before]
    assert "changed=0" in converge(given, keepalived_check_timeout_seconds=0.4)


def test_a_restart_is_done_to_one_node_after_the_other(given: Path) -> None:
    gather("vrrp1")
    for node in ("vrrp1", "vrrp2"):
        on(node, "echo '# edited' >> /etc/systemd/system/keepalived.service.d/bulkhead.conf")
    with Probe() as probe:
        said = converge(given)
        assert "failed=0" in said, said
        until(whole, "both fit")
    probe.verdict("restart of both")
    restarted = [
        on(node, "systemctl show -p ActiveEnterTimestampMonotonic --value keepalived")
        for node in ("vrrp1", "vrrp2")
    ]
    assert abs(int(restarted[0]) - int(restarted[1])) > 1_000_000, "they have to be at least a second apart"


def test_who_is_no_peer_is_not_heard() -> None:
    gather("vrrp1")
    target, router_id, strongest = socket.inet_aton("198.18.13.11"), 101, 255
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 112) as stranger:
        stranger.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 255)
        stranger.connect(("198.18.13.11", 0))
        source = socket.inet_aton(stranger.getsockname()[0])
        body = struct.pack(
            "!BBBBHH4s", 0x31, router_id, strongest, 1, 10, 0, socket.inet_aton("198.18.13.101")
        )
        pseudo = source + target + struct.pack("!BBH", 0, 112, len(body))
        total = sum(struct.unpack(f"!{(len(pseudo) + len(body)) // 2}H", pseudo + body))
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        advert = body[:6] + struct.pack("!H", ~total & 0xFFFF) + body[8:]
        for _ in range(20):
            stranger.send(advert)
            time.sleep(0.05)
            assert owners()["public1"] == ["vrrp1"]
