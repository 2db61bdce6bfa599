"""Ansible module: etcd's users, one prefix for each, and authentication switched on; one round trip.

A user has a role of its own name, and the role has one permission: to read and write below the prefix.
A password is compared by signing in with it.
"""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.etcd_gateway import EtcdError, Gateway, encode, end_of

OPTIONS = {
    "endpoints": {"type": "list", "elements": "str", "required": True},
    "ca_path": {"type": "path", "required": True},
    "root_password": {"type": "str", "required": True, "no_log": True},
    "users": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "required": True, "no_log": True},
            "prefix": {"type": "str", "required": True},
        },
    },
}


class Access:
    def __init__(self, gateway, check):
        self._gateway = gateway
        self._check = check
        self.done = []

    def _do(self, what, path, **body):
        if not self._check:
            self._gateway.call(path, **body)
        self.done.append(what)

    def apply(self, root_password, users):
        enabled = self._gateway.sign_in(root_password)
        self._users = self._gateway.call("auth/user/list").get("users", [])
        self._roles = self._gateway.call("auth/role/list").get("roles", [])
        if "root" not in self._roles:
            self._do("add role root", "auth/role/add", name="root")
        if "root" not in self._users:
            self._do("add user root", "auth/user/add", name="root", password=root_password)
        self._grant("root", "root")
        for user in users:
            self._role(user["name"], user["prefix"])
            self._user(user["name"], user["password"], enabled)
        if not enabled:
            self._do("enable authentication", "auth/enable")

    def _role(self, name, prefix):
        wanted = {"permType": "READWRITE", "key": encode(prefix), "range_end": encode(end_of(prefix))}
        if name not in self._roles:
            self._do(f"add role {name}", "auth/role/add", name=name)
            granted = []
        else:
            granted = self._gateway.call("auth/role/get", role=name).get("perm", [])
        for permission in granted:
            if permission != wanted:
                self._do(
                    f"take a permission from role {name}",
                    "auth/role/revoke",
                    role=name,
                    key=permission.get("key", ""),
                    range_end=permission.get("range_end", ""),
                )
        if wanted not in granted:
            self._do(f"give {prefix} to role {name}", "auth/role/grant", name=name, perm=wanted)

    def _user(self, name, password, enabled):
        if name not in self._users:
            self._do(f"add user {name}", "auth/user/add", name=name, password=password)
        # While authentication is off nobody can sign in, so the password is simply set.
        elif not enabled or self._gateway.token(name, password) is None:
            self._do(f"change the password of {name}", "auth/user/changepw", name=name, password=password)
        self._grant(name, name)

    def _grant(self, user, role):
        has = self._gateway.call("auth/user/get", name=user).get("roles", []) if user in self._users else []
        for other in has:
            if other != role:
                self._do(f"take role {other} from {user}", "auth/user/revoke", name=user, role=other)
        if role not in has:
            self._do(f"give role {role} to {user}", "auth/user/grant", user=user, role=role)


def main():
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    parameters = module.params
    try:
        access = Access(Gateway(parameters["endpoints"], parameters["ca_path"]), module.check_mode)
        access.apply(parameters["root_password"], parameters["users"])
    except EtcdError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(access.done), done=access.done)


if __name__ == "__main__":
    main()
