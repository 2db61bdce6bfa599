"""Ansible module: announce a member without data to a cluster that exists.

A member that is known by this address and has run before is removed first: without its data it has forgotten
its votes and may not speak under its old identity.
"""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.etcd_gateway import EtcdError, Gateway

OPTIONS = {
    "endpoints": {"type": "list", "elements": "str", "required": True},
    "ca_path": {"type": "path", "required": True},
    "root_password": {"type": "str", "required": True, "no_log": True},
    "name": {"type": "str", "required": True},
    "peer_url": {"type": "str", "required": True},
}


def announce(gateway, peer_url, check):
    """What was done."""
    known = gateway.call("cluster/member/list").get("members", [])
    mine = [member for member in known if peer_url in member.get("peerURLs", [])]
    if any(not member.get("name") for member in mine):
        return []  # announced already, and never started
    done = [f"remove {member['ID']}" for member in mine] + [f"add {peer_url}"]
    if not check:
        for member in mine:
            gateway.call("cluster/member/remove", ID=member["ID"])
        gateway.call("cluster/member/add", peerURLs=[peer_url])
    return done


def addresses(gateway, name, peer_url):
    """The members as {name, address}, this one with the name that it is going to have."""
    members = gateway.call("cluster/member/list").get("members", [])
    return [
        {
            "name": name if peer_url in member["peerURLs"] else member["name"],
            "address": member["peerURLs"][0].removeprefix("https://").rpartition(":")[0],
        }
        for member in members
    ]


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    parameters = module.params
    peer_url = parameters["peer_url"]
    try:
        gateway = Gateway(parameters["endpoints"], parameters["ca_path"])
        gateway.sign_in(parameters["root_password"])
        done = announce(gateway, peer_url, module.check_mode)
        members = addresses(gateway, parameters["name"], peer_url)
    except EtcdError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(done), done=done, members=members)


if __name__ == "__main__":
    main()
