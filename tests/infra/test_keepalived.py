"""Who owns each virtual address, and whether every load balancer could. Runs on live hosts too."""

from __future__ import annotations

import ipaddress

import pytest
import testinfra.host

testinfra_hosts = ["ansible://load_balancers"]
state_program = "/usr/local/lib/bulkhead/keepalived-state"


@pytest.fixture
def addresses(host: testinfra.host.Host) -> dict[str, str]:
    return {each["name"]: each["address"] for each in host.ansible.get_variables()["virtual_addresses"]}


def holds(host: testinfra.host.Host, address: str) -> bool:
    exact = f"{address}/{ipaddress.ip_address(address).max_prefixlen}"
    return host.check_output(f"ip -oneline address show to {exact}") != ""


def test_keepalived_runs_and_starts_at_boot(host: testinfra.host.Host) -> None:
    service = host.service("keepalived")
    assert service.is_running
    assert service.is_enabled


def test_each_address_has_exactly_one_owner(host: testinfra.host.Host, addresses: dict[str, str]) -> None:
    members = host.ansible.get_variables()["groups"]["load_balancers"]
    for name, address in addresses.items():
        owners = [member for member in members if holds(host.get_host(f"ansible://{member}"), address)]
        assert len(owners) == 1, f"{name} ({address}) is on {owners or 'no load balancer'}"


def test_the_node_could_take_each_address(host: testinfra.host.Host, addresses: dict[str, str]) -> None:
    with host.sudo():
        said = host.check_output(f"{state_program} --ready")
    states = dict(line.split() for line in said.splitlines())
    assert states.keys() == addresses.keys()
    for name, state in states.items():
        assert state == ("master" if holds(host, addresses[name]) else "backup"), f"{name} is {state}"


def test_nothing_is_held_back(host: testinfra.host.Host) -> None:
    held = host.file("/run/keepalived/hold").listdir()
    assert held == [], f"an operation was cut short: remove /run/keepalived/hold/{held[0]} if none is running"


def test_the_written_configuration_is_valid(host: testinfra.host.Host) -> None:
    with host.sudo():
        said = host.run("keepalived --config-test")
    assert said.rc == 0, said.stderr
