"""Which load balancer is first for which address, and numbers that stay when addresses come and go."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from node_programs import program

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("keepalived_filters", ROOT / "plugins/filter/keepalived.py")
assert spec is not None
assert spec.loader is not None
plugin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plugin)
instances = plugin.FilterModule().filters()["keepalived_instances"]

balancers = ["lb1", "lb2", "lb3"]
hostvars: dict[str, dict[str, str]] = {
    "lb1": {"node_address": "192.0.2.11", "node_address_ipv6": "2001:db8::11"},
    "lb2": {"node_address": "192.0.2.12", "node_address_ipv6": "2001:db8::12"},
    "lb3": {"node_address": "192.0.2.13", "node_address_ipv6": "2001:db8::13"},
}
networks = [
    {"interface": "eth0", "network": "192.0.2.0/24"},
    {"interface": "eth1", "network": "2001:db8::/64"},
]


def address(name: str, text: str, owner: str) -> dict[str, str]:
    return {"name": name, "address": text, "kind": "public", "owner": owner}


def seen_by(host: str, *addresses: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = instances(addresses, host, balancers, hostvars, networks)
    return found


def test_the_owner_is_first_and_no_two_are_equal() -> None:
    for owner in balancers:
        of = {host: seen_by(host, address("a", "192.0.2.101", owner))[0]["priority"] for host in balancers}
        assert max(of, key=lambda host: of[host]) == owner
        assert len(set(of.values())) == len(balancers)
        assert all(1 <= priority <= 254 for priority in of.values())


def test_two_hundred_load_balancers_have_priorities_too() -> None:
    many = [f"lb{number}" for number in range(200)]
    of = [plugin.priority(host, "lb7", many) for host in many]
    assert len(set(of)) == 200
    assert min(of) >= 1


def test_each_peer_is_named_once_and_the_node_itself_not() -> None:
    (found,) = seen_by("lb2", address("a", "192.0.2.101", "lb1"))
    assert found["source"] == "192.0.2.12"
    assert found["peers"] == ["192.0.2.11", "192.0.2.13"]
    assert (found["address"], found["interface"]) == ("192.0.2.101/24", "eth0")


def test_an_ipv6_address_is_carried_between_ipv6_addresses() -> None:
    (found,) = seen_by("lb1", address("a", "2001:db8::101", "lb1"))
    assert found["peers"] == ["2001:db8::12", "2001:db8::13"]
    assert (found["address"], found["interface"]) == ("2001:db8::101/64", "eth1")


def test_the_load_balancers_hear_each_other_where_their_own_addresses_are() -> None:
    """As in the example of a production environment: public addresses on one interface, nodes on another."""
    two = [
        {"interface": "eth0", "network": "198.51.100.0/24"},
        {"interface": "eth1", "network": "192.0.2.0/24"},
    ]
    entries = [address("a", "198.51.100.101", "lb1"), address("b", "192.0.2.101", "lb1")]
    public, internal = instances(entries, "lb1", balancers, hostvars, two)
    assert (public["address"], public["interface"]) == ("198.51.100.101/24", "eth0")
    assert (internal["address"], internal["interface"]) == ("192.0.2.101/24", "eth1")
    for found in (public, internal):
        assert (found["vrrp_interface"], found["source"]) == ("eth1", "192.0.2.11")
        assert found["peers"] == ["192.0.2.12", "192.0.2.13"]


def test_an_own_address_in_no_network_of_the_node_is_refused() -> None:
    only = [{"interface": "eth0", "network": "198.51.100.0/24"}]
    said = "load balancer lb1 .* 192.0.2.11 is in none of the host's networks .*Add the network"
    with pytest.raises(AnsibleFilterError, match=said):
        instances([address("a", "198.51.100.101", "lb1")], "lb1", balancers, hostvars, only)


def test_a_peer_behind_a_router_is_refused() -> None:
    narrow = [{"interface": "eth0", "network": "192.0.2.0/24"}]
    far = {**hostvars, "lb3": {"node_address": "203.0.113.13"}}
    said = r"lb1 \(192.0.2.11\) and lb3 \(203.0.113.13\) .* 203.0.113.13 is not in 192.0.2.0/24"
    with pytest.raises(AnsibleFilterError, match=said):
        instances([address("a", "192.0.2.101", "lb1")], "lb1", balancers, far, narrow)


def test_who_may_not_ask_keepalived_is_told_to_use_sudo(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = program("roles/keepalived/files/keepalived-state")

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", str(tmp_path / "keepalived.json"))

    monkeypatch.setattr(state, "states", refuse)
    with pytest.raises(SystemExit, match=r"keepalived.json'. Run it with sudo\."):
        state.main()


def test_router_ids_stay_when_an_address_goes() -> None:
    one, two, three = "192.0.2.101", "192.0.2.102", "192.0.2.103"
    assert plugin.router_ids([one, two, three]) == [101, 102, 103]
    assert plugin.router_ids([one, three]) == [101, 103]


def test_router_ids_are_unique_and_never_0() -> None:
    found = plugin.router_ids(["192.0.2.255", "198.51.100.255", "192.0.3.0", "2001:db8::1"])
    assert len(set(found)) == 4
    assert all(1 <= number <= 255 for number in found)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (address("a", "203.0.113.1", "lb1"), "203.0.113.1 is in none of the host's networks"),
        (address("a", "192.0.2.101", "lb9"), "the owner lb9 of a is no load balancer"),
    ],
)
def test_what_cannot_be_is_refused(entry: dict[str, str], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        seen_by("lb1", entry)


def test_ipv6_without_own_addresses_is_refused_by_name() -> None:
    without = {host: {"node_address": values["node_address"]} for host, values in hostvars.items()}
    with pytest.raises(AnsibleFilterError, match="lb1 has no node_address_ipv6"):
        instances([address("a", "2001:db8::101", "lb1")], "lb1", balancers, without, networks)
