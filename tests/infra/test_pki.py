"""Every node's certificate, as its peers see it. Changes nothing, so it runs on live hosts too."""

import pytest
import testinfra.host

testinfra_hosts = ["ansible://load_balancers", "ansible://app_servers", "ansible://databases"]
room = "/etc/bulkhead/pki"
WARNING_SECONDS = 30 * 86400


@pytest.fixture
def names(host: testinfra.host.Host) -> list[str]:
    variables = host.ansible.get_variables()
    address = variables["node_address"]  # a literal of the host's own, or the template that says ansible_host
    own = [variables["inventory_hostname"], variables["ansible_host"] if "{{" in address else address]
    addresses = variables["virtual_addresses"]
    groups = variables["group_names"]
    if "load_balancers" in groups:
        return own + [entry["address"] for entry in addresses] + variables.get("public_names", [])
    if "databases" in groups:
        return own + [entry["address"] for entry in addresses if entry["kind"] == "internal"]
    return own


def test_the_cluster_s_authority_vouches_for_each_of_the_node_s_names(
    host: testinfra.host.Host, names: list[str]
) -> None:
    for name in names:
        kind = "-verify_ip" if name.replace(".", "").isdigit() or ":" in name else "-verify_hostname"
        said = host.run(
            f"openssl verify -no-CApath -no-CAstore -CAfile {room}/ca.crt -untrusted {room}/node.crt "
            f"-purpose sslserver {kind} {name} {room}/node.crt"
        )
        assert said.rc == 0, f"{name}: {said.stdout}{said.stderr}"
    client = host.run(f"openssl verify -CAfile {room}/ca.crt -purpose sslclient {room}/node.crt")
    assert client.rc == 0, client.stderr


def test_no_other_name_is_vouched_for(host: testinfra.host.Host) -> None:
    said = host.run(f"openssl verify -CAfile {room}/ca.crt -verify_hostname not.this.one {room}/node.crt")
    assert said.rc != 0


def test_the_key_belongs_to_the_certificate_and_only_its_group_reads_it(host: testinfra.host.Host) -> None:
    with host.sudo():
        key = host.file(f"{room}/node.key")
        assert (key.user, key.group, key.mode) == ("root", "bulkhead-pki", 0o640)
        of_key = host.check_output(f"openssl pkey -in {room}/node.key -pubout")
    assert of_key == host.check_output(f"openssl x509 -in {room}/node.crt -noout -pubkey")
    stranger = host.run(f"runuser -u nobody -- cat {room}/node.key")
    assert stranger.rc != 0


def test_the_certificate_does_not_end_soon(host: testinfra.host.Host) -> None:
    said = host.run(f"openssl x509 -in {room}/node.crt -noout -checkend {WARNING_SECONDS}")
    assert said.rc == 0, "less than 30 days are left: run playbooks/site.yml, which renews it"
