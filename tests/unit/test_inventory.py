"""The inventory as operations read it: literal values, and one clear error for each that is not."""

import json
import subprocess
from typing import Any

import pytest
from cluster_fakes import ADDRESSES, inventory, listing

from bulkhead import inventory as inventories
from bulkhead.errors import SettingsError
from bulkhead.inventory import VirtualAddress, from_data


def read(**changes: Any) -> inventories.Inventory:
    return from_data(listing(**changes), sources="inventories/example")


def test_hosts_of_a_group_are_in_inventory_order() -> None:
    found = inventory()
    assert [host.name for host in found.hosts("databases")] == ["db1", "db2", "db3"]
    assert [host.name for host in found.hosts("workers")] == []
    assert found.groups_of("app1") == ("all", "app_servers")


def test_hosts_of_child_groups_belong_to_the_parent_once() -> None:
    data = listing({"a": ["x", "y"], "b": ["y", "z"]})
    data["all"]["children"] = ["both"]
    data["both"] = {"children": ["a", "b"]}
    found = from_data(data, sources="here")
    assert [host.name for host in found.hosts("both")] == ["x", "y", "z"]


def test_a_group_may_be_called_otherwise() -> None:
    found = from_data(listing({"postgres_nodes": ["db1"]}, databases_group="postgres_nodes"), sources="here")
    assert [host.name for host in found.hosts("databases")] == ["db1"]


def test_addresses_of_a_host() -> None:
    found = read(by_host={"db1": {"ansible_host": "198.51.100.7", "node_address": "10.0.0.7"}})
    assert (found.host("db1").address, found.host("db1").node_address) == ("198.51.100.7", "10.0.0.7")
    assert found.host("db2").node_address == found.host("db2").address


def test_the_controller_is_no_host_of_the_cluster() -> None:
    data = listing(
        {"all_of_them": ["app1", "localhost", "here"]}, by_host={"here": {"ansible_connection": "local"}}
    )
    assert list(from_data(data, sources="here").everyone) == ["app1"]


def test_virtual_addresses() -> None:
    assert read().virtual_addresses == tuple(VirtualAddress(**entry) for entry in ADDRESSES)


def test_an_address_is_read_in_its_standard_form() -> None:
    entry = {**ADDRESSES[0], "address": "FD00:18:0::0101"}
    assert read(virtual_addresses=[entry]).virtual_addresses[0].address == "fd00:18::101"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"environment_name": "{{ name }}"}, ["environment_name", "lb1", "{{ name }}", "without {{ }}"]),
        ({"by_host": {"db2": {"ansible_host": "{{ ip }}"}}}, ["ansible_host", "db2", "{{ ip }}"]),
        ({"by_host": {"db2": {"node_address": "{{ ip }}"}}}, ["node_address", "db2", "{{ ip }}"]),
        (
            {"virtual_addresses": [{**ADDRESSES[0], "owner": "{{ o }}"}]},
            ["virtual_addresses", "lb1", "{{ o }}"],
        ),
        ({"application": {"name": "x", "pools": "{% if a %}"}}, ["application", "lb1", "{% if a %}"]),
        ({"virtual_addresses": [{"name": "public1"}]}, ["virtual_addresses[0]", "lb1", "owner"]),
        ({"virtual_addresses": [{**ADDRESSES[0], "address": "192.0.2.999"}]}, ["192.0.2.999", "no", "IP"]),
        ({"virtual_addresses": {}}, ["virtual_addresses", "lb1", "dict", "a list"]),
        ({"application": "forge"}, ["application", "lb1", "a mapping"]),
        ({"lab_name": "bulkhead-lab"}, ["The lab is not there", "make up"]),
    ],
)
def test_a_value_that_is_wrong_is_named(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        read(**changes)
    assert all(word in str(caught.value) for word in words)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("variable", ["environment_name", "virtual_addresses", "application"])
def test_a_value_that_is_missing_is_named(variable: str) -> None:
    data = listing()
    for variables in data["_meta"]["hostvars"].values():
        del variables[variable]
    with pytest.raises(SettingsError, match=f"{variable} is not set for host lb1"):
        from_data(data, sources="inventories/example")


def test_an_inventory_without_hosts_says_how_to_choose_one() -> None:
    with pytest.raises(SettingsError, match=r"no hosts \(inventories/nothing\)(.|\n)*ANSIBLE_INVENTORY"):
        from_data({"_meta": {"hostvars": {}}, "all": {"children": []}}, sources="inventories/nothing")


def test_a_host_that_does_not_exist_is_answered_with_those_that_do() -> None:
    with pytest.raises(SettingsError, match=r"no host 'app9'(.|\n)*app1, app2"):
        inventory().host("app9")


def test_secrets_are_not_in_what_is_printed() -> None:
    found = read(pki_ca_key="TOP SECRET")
    assert "TOP SECRET" not in repr(found)
    assert "TOP SECRET" not in repr(found.host("lb1"))


class FakeAnsible:
    """Stands in for the ansible-inventory program."""

    def __init__(self, stdout: str = "", stderr: str = "", code: int = 0) -> None:
        self.answer = subprocess.CompletedProcess([], code, stdout, stderr)
        self.environment: dict[str, str] = {}

    def run(self, _command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        self.environment = options["env"]
        return self.answer


def load_with(fake: FakeAnsible, monkeypatch: pytest.MonkeyPatch) -> inventories.Inventory:
    monkeypatch.setattr(subprocess, "run", fake.run)
    return inventories.load()


def test_load_reads_what_ansible_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_INVENTORY", "inventories/shared,inventories/example")
    fake = FakeAnsible(json.dumps(listing()))
    found = load_with(fake, monkeypatch)
    assert found.environment_name == "example"
    assert found.sources == "inventories/shared,inventories/example"
    assert fake.environment["ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED"] == "true"


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        (
            "[ERROR]: Completely failed to parse inventory source /p/.lab/inventory",
            ["lab is not there", "make up"],
        ),
        (
            "[WARNING]: x\n[ERROR]: Decryption failed (no vault secrets)\n",
            ["Decryption failed", "ANSIBLE_VAULT_PASSWORD_FILE"],
        ),
        ("[ERROR]: Syntax error at line 3", ["Syntax error at line 3", "ANSIBLE_INVENTORY"]),
        ("", ["it wrote nothing"]),
    ],
)
def test_an_inventory_that_cannot_be_read(
    stderr: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(FakeAnsible(stderr=stderr, code=1), monkeypatch)
    assert all(word in str(caught.value) for word in words)


def test_an_answer_that_is_not_json_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as caught:
        load_with(FakeAnsible("password: TOP SECRET"), monkeypatch)
    assert "TOP SECRET" not in str(caught.value)
