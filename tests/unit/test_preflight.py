"""Each bad input of an inventory gets one line that names the value, where it stands and what to do.

The lines stand in docs/application.md, which is what an operator reads: here each is proved.
"""

import copy
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from test_application import FORGE, QUEUE, SCHEDULE, TCP_POOL, VOLUME

from bulkhead import secrets
from bulkhead.preflight import certificates, pools
from bulkhead.preflight.check import check
from bulkhead.preflight.cluster import Cluster
from bulkhead.preflight.plays import Play, hosts_of, plays_of

ROOT = Path(__file__).resolve().parents[2]
SECRETS = secrets.complete({}, "lab", FORGE["secrets"])
GROUPS = {
    "load_balancers": ["lb1", "lb2"],
    "app_servers": ["app1", "app2"],
    "databases": ["db1", "db2", "db3"],
    "builders": ["builder1"],
    "filers": ["nfs1"],
    "workers": ["worker1", "worker2"],
    "brokers": ["mq1", "mq2", "mq3"],
}
PLAYS = (
    Play("playbooks/base.yml", "all", ("base",)),
    Play("playbooks/databases.yml", "databases", ("etcd", "postgres")),
    Play("playbooks/load_balancers.yml", "load_balancers", ("haproxy",), frozenset({"haproxy_given"})),
    Play("playbooks/brokers.yml", "brokers", ("rabbitmq",)),
    Play("playbooks/workers.yml", "workers", ("celery",)),
)
SPECS = {
    "base": {},
    "etcd": {},
    "rabbitmq": {},
    "celery": {
        "celery_beat_memory_megabytes": {"type": "int", "default": 256, "description": "The scheduler's."}
    },
    "postgres": {
        "postgres_max_connections": {"type": "int", "default": 100, "description": "Connections."},
        "postgres_reserved_connections": {
            "type": "int",
            "default": 8,
            "description": "Not for applications.",
        },
    },
    "haproxy": {
        "haproxy_threads": {"type": "int", "description": "Threads."},
        "haproxy_site": {"type": "str", "required": True, "description": "The site's name."},
        "haproxy_mode": {"type": "str", "choices": ["fast", "safe"], "description": "The mode."},
        "haproxy_stats_password": {"type": "str", "required": True, "description": "The password."},
        "haproxy_given": {"type": "str", "required": True, "description": "Given by the play."},
        "haproxy_servers": {
            "type": "list",
            "elements": "dict",
            "options": {"name": {"type": "str", "required": True}},
            "description": "The servers.",
        },
    },
}


class World:
    """A sound inventory, for a test to break in one place."""

    def __init__(self) -> None:
        self.application = copy.deepcopy(FORGE)
        self.groups = copy.deepcopy(GROUPS)
        self.plays = list(PLAYS)
        self.specs = copy.deepcopy(SPECS)
        self.broken: set[tuple[str, str]] = set()
        self.common: dict[str, Any] = {
            "environment_name": "lab",
            "internal_network": "192.0.2.0/24",
            "virtual_addresses": [
                {"name": "public1", "address": "192.0.2.101", "kind": "public", "owner": "lb1"},
                {"name": "internal", "address": "192.0.2.102", "kind": "internal", "owner": "lb2"},
            ],
            "application": self.application,
            **copy.deepcopy(SECRETS),
        }
        self.hosts: dict[str, dict[str, Any]] = {}
        for number, host in enumerate([host for hosts in GROUPS.values() for host in hosts], start=11):
            address = f"192.0.2.{number}"
            self.hosts[host] = {
                "ansible_host": address,
                "node_address": address,
                "node_memory_megabytes": 2048,
            }
        for host in GROUPS["load_balancers"]:
            self.hosts[host]["node_networks"] = [{"interface": "eth0", "network": "192.0.2.0/24"}]
            self.hosts[host]["haproxy_site"] = "Forge"

    def lines(self) -> list[str]:
        groups = {"all": list(self.hosts), **self.groups}
        hosts = {host: {**self.common, **variables} for host, variables in self.hosts.items()}
        # As inventories/shared has it.
        addresses = self.common["virtual_addresses"]
        internal = [each["address"] for each in addresses if each["kind"] == "internal"]
        for host in self.groups.get("brokers", []):
            hosts[host].setdefault("pki_alternative_names", internal)
        cluster = Cluster(hosts, groups, self.plays, self.specs, broken=self.broken)
        return [str(problem) for problem in check(cluster)]


def test_a_sound_inventory_has_no_problem() -> None:
    assert World().lines() == []


def _pool(name: str, field: str, value: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.application["pools"][name][field] = value

    return change


def _address(index: int, field: str, value: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.common["virtual_addresses"][index][field] = value

    return change


def _host(host: str, name: str, value: Any = ...) -> Callable[[World], None]:
    def change(world: World) -> None:
        if value is ...:
            del world.hosts[host][name]
        else:
            world.hosts[host][name] = value

    return change


def _common(name: str, value: Any = ...) -> Callable[[World], None]:
    def change(world: World) -> None:
        if value is ...:
            del world.common[name]
        else:
            world.common[name] = value

    return change


def _group(name: str, hosts: list[str]) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.groups[name] = hosts

    return change


def _add(part: str, name: str, value: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.application[part][name] = value

    return change


def _queue(fields: dict[str, Any], **on_hosts: dict[str, Any]) -> Callable[[World], None]:
    """A queue that the workers serve; `on_hosts` is what a host's own variables make of it there."""

    def change(world: World) -> None:
        world.application["queues"]["default"] = {**QUEUE, **fields}
        for host in world.groups["workers"]:
            own = {"name": "default", **QUEUE, **fields, **on_hosts.get(host, {})}
            world.hosts[host]["celery_queues"] = [own]

    return change


def _unserved(world: World) -> None:
    _queue({})(world)
    for host in world.groups["workers"]:
        world.hosts[host]["celery_queues"] = []


def _none_of(tier: str) -> Callable[[World], None]:
    """A queue in an inventory that has nobody for it."""

    def change(world: World) -> None:
        _queue({})(world)
        for host in world.groups.pop(tier):
            del world.hosts[host]

    return change


def _volumes(*volumes: dict[str, Any]) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.application["volumes"] += [{**VOLUME, **volume} for volume in volumes]

    return change


def _brokers(*hosts: str, cookie: Any = ..., **variables: Any) -> Callable[[World], None]:
    """A tier of brokers, with something wrong about it."""

    def change(world: World) -> None:
        for host in world.groups["brokers"]:
            del world.hosts[host]
        world.groups["brokers"] = list(hosts)
        for number, host in enumerate(hosts, start=51):
            address = f"192.0.2.{number}"
            world.hosts[host] = {
                "ansible_host": address,
                "node_address": address,
                "node_memory_megabytes": 1024,
                **variables,
            }
        if cookie is not ...:
            world.common["rabbitmq_erlang_cookie"] = cookie

    return change


def _no_secrets(world: World) -> None:
    del world.common["pki_ca_key"]
    world.common["application_secrets"].clear()


def _no_site(world: World) -> None:
    for host in GROUPS["load_balancers"]:
        del world.hosts[host]["haproxy_site"]


# What is broken, by the name that docs/application.md has for it beside the line that says so.
CASES: dict[str, Callable[[World], None]] = {
    "a required variable of a role is missing": _no_site,
    "a variable of a role has the wrong type": _host("lb1", "haproxy_threads", "many"),
    "a variable of a role is none of its choices": _host("lb1", "haproxy_mode", "quick"),
    "an item of a role's list lacks a field": _host("lb1", "haproxy_servers", [{}]),
    "a variable of every host is missing": _host("app1", "node_memory_megabytes"),
    "a variable of every host has the wrong type": _host("app1", "node_memory_megabytes", "2 GB"),
    "the lab's kernel is of no kind": _host("app1", "lab_kernel", "mine"),
    "a variable of the environment is missing": _common("internal_network"),
    "the application is missing": _common("application"),
    "a pool has no route": _pool("web", "routes", []),
    "two pools have the same route": _pool("api", "routes", [{"path": "/"}]),
    "two pools have the same port": _pool("api", "port", 8001),
    "a TCP pool listens where HTTP does": _add("pools", "ssh", {**TCP_POOL, "listen_port": 443}),
    "Gunicorn's timeout is not below HAProxy's": _pool("web", "timeout_seconds", 35),
    "a drain would cut requests": _pool("web", "drain_deadline_seconds", 30),
    "a request waits longer than its client may": _pool("web", "queue_timeout_seconds", 60),
    "a task's limits are in the wrong order": _queue({"soft_time_limit_seconds": 60}),
    "a drain would end tasks": _queue({"drain_deadline_seconds": 60}),
    "more servers are to be healthy than there are": _pool("web", "min_healthy", 3),
    "a database setting is given by hand": lambda world: world.application["environment"].update(
        DATABASE_HOST="db1"
    ),
    "a setting is a secret too": _common("application_environment", {"DJANGO_SECRET_KEY": "insecure"}),
    "nothing is said to run the queues": lambda world: (
        _queue({})(world),
        world.application.pop("celery"),
    ),
    "no worker serves a queue": _none_of("workers"),
    "a queue is on no worker's list": _unserved,
    "a queue is served with different limits": _queue({}, worker2={"concurrency": 1}),
    "no broker keeps a queue": _none_of("brokers"),
    "a queue's processes do not fit its memory": _queue({"concurrency": 4}),
    "a schedule uses a queue that is not there": _add("schedules", "housekeeping", SCHEDULE),
    "a volume's filer is no filer": _volumes({"filer": "nfs9"}),
    "two volumes have the same id": _volumes({}, {"device": "/dev/vdc", "export": "/srv/volume2"}),
    "a device is mounted twice": _volumes({}, {"id": "volume2", "export": "/srv/volume2"}),
    "a directory is exported twice": _volumes({}, {"id": "volume2", "device": "/dev/vdc"}),
    "a virtual address is in no network of a load balancer": _address(0, "address", "203.0.113.1"),
    "a load balancer's own address is in no network of it": _host("lb2", "node_address", "198.51.100.12"),
    "a virtual address is also a host's": _address(0, "address", "192.0.2.13"),
    "a virtual address is there twice": _address(1, "address", "192.0.2.101"),
    "two virtual addresses have the same name": lambda world: world.common["virtual_addresses"].append(
        {"name": "public1", "address": "192.0.2.103", "kind": "public", "owner": "lb1"}
    ),
    "a virtual address is no address": lambda world: world.common["virtual_addresses"].append(
        {"name": "public2", "address": "192.0.2.301", "kind": "public", "owner": "lb1"}
    ),
    "the owner of an address is no load balancer": _address(0, "owner", "app1"),
    "there is no internal address": _address(1, "kind", "public"),
    "two hosts have the same address": lambda world: world.hosts["app2"].update(
        ansible_host="192.0.2.13", node_address="192.0.2.13"
    ),
    "two hosts have the same internal address": _host("app2", "node_address", "192.0.2.13"),
    "the connections do not fit": _pool("web", "workers", 12),
    "the memory does not fit": _host("app1", "node_memory_megabytes", 1024),
    "the queues do not fit a worker's memory": lambda world: (
        _queue({"concurrency": 8, "memory_megabytes": 896})(world),
        _host("worker2", "node_memory_megabytes", 4096)(world),
    ),
    "a group has no host": _group("builders", []),
    "a play matches no host": lambda world: world.plays.append(
        Play("playbooks/caches.yml", "{{ caches_group | default('caches') }}", ("cache",))
    ),
    "the number of etcd members is even": _group("databases", ["db1", "db2"]),
    "the number of brokers is even": _brokers("mq1", "mq2"),
    "a broker's name is no host name": _brokers("mq1", "mq_2", "mq3"),
    "brokers have names of two kinds": _brokers("mq1", "mq2", "mq3.example.org"),
    "two brokers have one name": _brokers("mq1", "mq2", "MQ2"),
    "a broker's certificate lacks the address that clients use": _brokers(
        "mq1", "mq2", "mq3", pki_alternative_names=[]
    ),
    "a broker cannot resolve another's name": _brokers("mq1", "mq2", "mq3", base_hosts=["mq1", "mq2"]),
    "the cookie is too short": _brokers("mq1", cookie="short"),
    "the cookie has a character that a file's end may cut off": _brokers(
        "mq1", cookie="0123456789" * 4 + "\n"
    ),
    "a broker's memory leaves no room": _brokers("mq1", rabbitmq_memory_watermark_megabytes=900),
    "a broker has too little memory": _brokers("mq1", node_memory_megabytes=256),
    "secrets are missing": _no_secrets,
}

DOCUMENTED = dict(
    re.findall(
        r"^- (.+)\n\n {6}(.+)$", (ROOT / "docs/application.md").read_text(encoding="utf-8"), re.MULTILINE
    )
)


def test_an_environment_without_queues_needs_no_brokers_and_no_workers() -> None:
    world = World()
    for tier in ("brokers", "workers"):
        for host in world.groups.pop(tier):
            del world.hosts[host]
    assert world.lines() == []


def test_a_queue_with_brokers_and_workers_is_no_problem() -> None:
    world = World()
    _queue({})(world)
    assert world.lines() == []


def test_brokers_with_two_cookies_would_refuse_each_other() -> None:
    world = World()
    _brokers("mq1", "mq2", "mq3")(world)
    world.hosts["mq2"]["rabbitmq_erlang_cookie"] = "0123456789" * 4
    (line,) = world.lines()
    assert line.startswith("rabbitmq_erlang_cookie: the brokers have different cookies")
    assert "0123" not in line


@pytest.mark.parametrize("name", CASES)
def test_each_bad_input_gets_its_one_line(name: str) -> None:
    world = World()
    CASES[name](world)
    assert world.lines() == [DOCUMENTED[name]]


def test_all_problems_are_said_at_once() -> None:
    world = World()
    chosen = ["two pools have the same port", "a virtual address is also a host's", "a group has no host"]
    for name in chosen:
        CASES[name](world)
    assert sorted(world.lines()) == sorted(DOCUMENTED[name] for name in chosen)


def test_the_rules_between_sound_pools_hold_beside_a_broken_one() -> None:
    world = World()
    CASES["two pools have the same port"](world)
    _add("pools", "broken", {**FORGE["pools"]["web"], "port": 0})(world)
    lines = world.lines()
    assert len(lines) == 2
    assert DOCUMENTED["two pools have the same port"] in lines


def test_a_value_that_cannot_be_worked_out_is_not_missing_as_well() -> None:
    world = World()
    _host("app1", "node_memory_megabytes")(world)
    _host("lb1", "haproxy_site")(world)
    _common("pki_ca_key")(world)
    _common("internal_network")(world)
    world.broken = {("app1", "node_memory_megabytes"), ("lb1", "haproxy_site"), ("lb1", "pki_ca_key")}
    world.broken |= {(host, "internal_network") for host in world.hosts}
    assert world.lines() == []


def test_a_value_of_a_whole_group_is_wrong_once() -> None:
    world = World()
    world.common["node_memory_megabytes"] = "2 GB"
    for variables in world.hosts.values():
        del variables["node_memory_megabytes"]
    (line,) = world.lines()
    assert line.startswith(
        "hosts.*.node_memory_megabytes: it is '2 GB', and must be a whole number (on lb1, "
    )


def test_a_secret_is_never_shown() -> None:
    world = World()
    _common("haproxy_stats_password", ["hunter2"])(world)
    world.specs["haproxy"]["haproxy_stats_password"]["type"] = "int"
    (line,) = world.lines()
    assert line.startswith("haproxy_stats_password: it is a secret, and must be of type int")
    assert "hunter2" not in line


def test_the_place_has_file_and_line_where_they_are_known() -> None:
    world = World()
    address = "192.0.2.13"
    _address(0, "address", address)(world)
    hosts = {host: {**world.common, **variables} for host, variables in world.hosts.items()}
    cluster = Cluster(
        hosts,
        {"all": list(hosts), **world.groups},
        origin=lambda value: "x.yml:7" if value is address else None,
    )
    (problem,) = check(cluster)
    assert problem.where == "virtual_addresses.0.address (x.yml:7)"


# Certificates


def _pair(common_name: str, days: int = 30, begin: int = -1) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=min(begin, days - 1)))
        .not_valid_after(now + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return certificate.public_bytes(Encoding.PEM).decode(), pem


def test_a_given_pair_that_is_sound_is_taken() -> None:
    certificate, key = _pair("lb1")
    world = World()
    world.hosts["lb1"] |= {"pki_certificate": certificate, "pki_private_key": key}
    world.common["haproxy_certificates"] = [{"name": "x", "certificate": certificate, "key": key}]
    assert world.lines() == []


@pytest.mark.parametrize("place", ["hosts.lb1.pki_certificate", "haproxy_certificates.0"])
def test_a_certificate_of_another_key_is_refused(place: str) -> None:
    certificate, _ = _pair("lb1")
    _, key = _pair("other")
    world = World()
    if place.startswith("hosts"):
        world.hosts["lb1"] |= {"pki_certificate": certificate, "pki_private_key": key}
    else:
        world.common["haproxy_certificates"] = [{"name": "x", "certificate": certificate, "key": key}]
    assert world.lines() == [
        f"{place}: the certificate CN=lb1 does not match its private key. Give the certificate and the key "
        "that were made together, in PEM form."
    ]


def test_an_expired_certificate_is_refused() -> None:
    certificate, key = _pair("lb1", days=-1)
    world = World()
    world.hosts["lb1"] |= {"pki_certificate": certificate, "pki_private_key": key}
    (line,) = world.lines()
    assert line.startswith("hosts.lb1.pki_certificate: the certificate CN=lb1 has expired, at 2")
    assert line.endswith(". Give a new one.")


def test_a_certificate_of_tomorrow_is_refused() -> None:
    certificate, key = _pair("lb1", begin=1)
    world = World()
    world.hosts["lb1"] |= {"pki_certificate": certificate, "pki_private_key": key}
    (line,) = world.lines()
    assert "is valid only from" in line
    assert "clock" in line


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("", "given", "the certificate of the pair is missing"),
        ("given", "", "the private key of the pair is missing"),
        ("not PEM", "given", "it is not a certificate in PEM form"),
        ("given", "not PEM", "the private key of CN=lb1 is not a key in PEM form"),
        ("given", "locked", "the private key of CN=lb1 has a passphrase"),
    ],
)
def test_half_a_pair_or_none_is_refused(certificate: str, key: str, said: str) -> None:
    given_certificate, given_key = _pair("lb1")
    locked = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    keys = {"given": given_key, "locked": locked.decode()}
    found = certificates.problems_of_pair(
        given_certificate if certificate == "given" else certificate, keys.get(key, key), datetime.now(UTC)
    )
    assert [what for what, _, _ in found] == [said]


def test_an_authority_whose_key_is_not_its_own_is_refused() -> None:
    world = World()
    _common("pki_ca_key", secrets.authority_key())(world)
    (line,) = world.lines()
    assert line.startswith("pki_ca_certificate: the certificate CN=Bulkhead lab CA,O=Bulkhead does not match")


# Plays


def test_plays_and_roles_are_read_from_the_playbooks(tmp_path: Path) -> None:
    (tmp_path / "site.yml").write_text(
        "- ansible.builtin.import_playbook: one.yml\n"
        "- hosts: [web, '!web9']\n"
        "  vars: {given: 1}\n"
        "  roles: [pki, {role: haproxy, vars: {also: 2}}]\n"
    )
    (tmp_path / "one.yml").write_text(
        "- hosts: databases\n"
        "  tasks:\n"
        "    - block:\n"
        "        - ansible.builtin.import_role: {name: etcd}\n"
        "          vars: {inner: 3}\n"
    )
    first, second = plays_of(tmp_path / "site.yml", tmp_path)
    assert first == Play("one.yml", "databases", ("etcd",), frozenset({"inner"}))
    assert second.roles == ("pki", "haproxy")
    assert second.pattern == "web,!web9"
    assert second.variables >= {"given", "also"}


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("all", ["a1", "a2", "b1"]),
        ("a", ["a1", "a2"]),
        ("a2", ["a2"]),
        ("a:b", ["a1", "a2", "b1"]),
        ("b,a", ["b1", "a1", "a2"]),
        ("all:!a", ["b1"]),
        ("!a1:a", ["a2"]),
        ("a:&big", ["a2"]),
        ("a*", ["a1", "a2"]),
        ("{{ tier_group }}", ["b1"]),
        ("{{ other_group | default('a') }}", ["a1", "a2"]),
        ("nothing", []),
    ],
)
def test_patterns_mean_what_they_mean_to_ansible(pattern: str, hosts: list[str]) -> None:
    groups = {"a": ["a1", "a2"], "b": ["b1"], "big": ["a2", "b1"]}
    variables = {"tier_group": "b"}
    assert hosts_of(pattern, groups, ["a1", "a2", "b1"], variables.get) == hosts


# What stands in two places


def test_the_clients_timeout_is_that_of_the_template() -> None:
    template = (ROOT / "templates/haproxy/defaults.cfg.j2").read_text(encoding="utf-8")
    found = re.findall(r"^\s*timeout client (\d+)s$", template, re.MULTILINE)
    assert found == [str(pools.CLIENT_TIMEOUT_SECONDS)]


def test_the_documentation_has_no_line_that_nothing_proves() -> None:
    assert DOCUMENTED.keys() == CASES.keys()
