"""`fab status`: what it finds and says, with every part down in turn."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cluster_fakes import (
    ADDRESSES,
    HOSTS,
    OLDER,
    RELEASE,
    all_servers,
    cluster_of,
    facts,
    gone,
    inventory,
    statistics,
)
from rich.console import Console

from bulkhead import patroni
from bulkhead.inventory import Inventory
from bulkhead.status import facts as gathering
from bulkhead.status.facts import Etcd, Facts, Node, Release
from bulkhead.status.judge import Finding
from bulkhead.status.outside import Answer
from bulkhead.status.render import render
from bulkhead.status.units import byte_count
from bulkhead.status.view import ALL_WELL, OUTAGE, SOMETHING_WRONG, View, view


def see(found: Facts, environment: Inventory | None = None) -> View:
    return view(environment or inventory(), found)


def shown(seen: View, width: int = 80) -> str:
    output = io.StringIO()
    render(seen, Console(file=output, width=width, highlight=False))
    return output.getvalue()


def finding(seen: View, words: str) -> Finding:
    """The one finding with these words."""
    found = [one for one in seen.findings if words in one.what]
    assert len(found) == 1, [one.what for one in seen.findings]
    return found[0]


def changed(node: str, **changes: Any) -> Facts:
    """All well but for one node."""
    well = facts()
    return facts(**{node: replace(well.nodes[node], **changes)})


def with_servers(change: Callable[[Any], Any], on: str = "lb1") -> Facts:
    return changed(on, haproxy=statistics([change(server) for server in all_servers()]))


def test_all_well() -> None:
    seen = see(facts())
    assert seen.findings == ()
    assert seen.exit_code == ALL_WELL
    text = shown(seen)
    assert "ALL WELL" in text
    assert "8 of 8 hosts answer" in text
    assert RELEASE in text


# --- virtual addresses ----------------------------------------


def owned(**owners: list[str]) -> Facts:
    """Facts in which these load balancers hold these addresses and no others."""
    well = facts()
    by_name = {entry["name"]: entry["address"] for entry in ADDRESSES}
    nodes = {
        name: replace(
            well.nodes[name],
            addresses=frozenset(by_name[address] for address, holders in owners.items() if name in holders),
        )
        for name in HOSTS["load_balancers"]
    }
    return facts(**nodes)


def test_an_address_with_two_owners() -> None:
    seen = see(owned(public1=["lb1", "lb2"], public2=["lb2"], internal=["lb1"]))
    found = finding(seen, "public1 (192.0.2.101) has 2 owners: lb1 and lb2")
    assert found.outage
    assert "lb2" in str(found.mend) or "192.0.2.12" in found.mend
    assert seen.exit_code == OUTAGE
    assert "2 OWNERS: lb1 lb2" in shown(seen)


def test_an_address_without_owner() -> None:
    seen = see(owned(public1=["lb1"], public2=["lb2"]))
    assert finding(seen, "internal (192.0.2.103) has no owner").outage
    assert "NO OWNER" in shown(seen)


def test_an_address_away_from_home() -> None:
    seen = see(owned(public1=["lb1"], public2=["lb1"], internal=["lb1"]))
    found = finding(seen, "public2 (192.0.2.102) is on lb1, the inventory wants it on lb2")
    assert not found.outage
    assert found.mend == "fab lb.failback"
    assert seen.exit_code == SOMETHING_WRONG


def test_a_dead_load_balancer_is_one_cause() -> None:
    well = facts()
    everything = frozenset(entry["address"] for entry in ADDRESSES)
    seen = see(facts(lb2=gone("lb2"), lb1=replace(well.nodes["lb1"], addresses=everything)))
    assert [one.what for one in seen.findings] == [
        "lb2 cannot be reached: " + str(gone("lb2").unreachable).rstrip(".")
    ]
    assert seen.exit_code == SOMETHING_WRONG
    assert "wanted on lb2" in shown(seen)


def test_an_address_that_a_silent_load_balancer_may_hold() -> None:
    seen = see(facts(lb2=gone("lb2")))
    found = finding(seen, "public2 (192.0.2.102) answers, and its owner is not known (lb2 may be)")
    assert not found.outage
    unanswered = replace(facts(lb2=gone("lb2")), answers={"public2": Answer(None, 3000, "no answer in time")})
    assert finding(see(unanswered), "public2 (192.0.2.102) has no owner that is known (lb2 may be)").outage


def test_an_address_that_does_not_serve() -> None:
    seen = see(
        replace(
            facts(), answers={"public1": Answer(503, 5), "public2": Answer(None, 9, "connection refused")}
        )
    )
    assert finding(seen, "public1 (192.0.2.101) does not serve: it answered 503").outage
    refused = finding(seen, "public2 (192.0.2.102) does not serve: connection refused")
    assert refused.mend == "curl -vk https://192.0.2.102/readyz"


# --- load balancers ----------------------------------------


def test_haproxy_that_runs_and_does_not_answer() -> None:
    seen = see(changed("lb1", alive=False, haproxy=None, unknown={"haproxy": "timed out"}))
    assert finding(seen, "lb1: HAProxy runs and does not answer")


def test_a_stopped_haproxy() -> None:
    services = {"haproxy.service": "inactive", "keepalived.service": "active"}
    seen = see(changed("lb1", alive=False, haproxy=None, services=services, addresses=frozenset()))
    assert "sudo systemctl start haproxy.service" in finding(seen, "lb1: haproxy.service is inactive").mend
    # It is not fit to have them: failback is not what to type.
    assert all("failback" not in one.mend for one in seen.findings)


def test_a_hold_that_was_left_behind() -> None:
    found = finding(see(changed("lb2", holds=("public1",))), "lb2 is held back from public1")
    assert "rm /run/keepalived/hold/public1" in found.mend


def test_no_load_balancer_answers() -> None:
    nodes = {name: gone(name) for name in HOSTS["load_balancers"]}
    answers = {name: Answer(None, 3000, "no answer in time") for name in ("public1", "public2")}
    seen = see(replace(facts(**nodes), answers=answers))
    assert seen.exit_code == OUTAGE
    assert "no load balancer tells its servers" in shown(seen)


# --- pools ----------------------------------------


def test_a_server_that_is_down_everywhere() -> None:
    def down(server: Any) -> Any:
        return (
            replace(server, health="down")
            if (server.backend, server.name) == ("pool_web", "app2")
            else server
        )

    well = facts()
    servers = statistics([down(server) for server in all_servers()])
    nodes = {name: replace(well.nodes[name], haproxy=servers) for name in HOSTS["load_balancers"]}
    seen = see(facts(**nodes))
    found = finding(seen, "app2 is down in pool web")
    assert not found.outage
    assert "forge-web@*" in found.mend


def test_load_balancers_that_disagree() -> None:
    def drained(server: Any) -> Any:
        return (
            replace(server, drained=True) if (server.backend, server.name) == ("pool_api", "app1") else server
        )

    seen = see(with_servers(drained))
    found = finding(seen, "disagree about app1 in pool api: lb1 says drained, lb2 says up")
    assert found.mend.endswith("sudo /usr/local/lib/bulkhead/haproxy-marks ready pool_api/app1")


def test_a_server_that_a_load_balancer_does_not_know() -> None:
    known = [server for server in all_servers() if (server.backend, server.name) != ("pool_web", "app2")]
    seen = see(changed("lb2", haproxy=statistics(known)))
    found = finding(seen, "disagree about app2 in pool web: lb1 says up, lb2 says missing")
    assert "load_balancers.yml --limit lb2" in found.mend


def test_a_pool_without_servers_is_an_outage() -> None:
    seen = see(
        with_servers(
            lambda server: replace(server, health="down") if server.backend == "pool_web" else server
        )
    )
    assert finding(seen, "pool web has no server on lb1").outage


def test_a_pool_that_is_short() -> None:
    environment = inventory(
        application={
            "name": "forge",
            "pools": {"web": {"kind": "http", "min_healthy": 2}},
            "health": {"ready": "/r"},
        }
    )
    one_down = with_servers(lambda s: replace(s, health="down") if s.name == "app2" else s)
    assert not finding(see(one_down, environment), "pool web has 1 of at least 2 servers on lb1").outage


def test_servers_of_a_dead_host_are_not_found_one_by_one() -> None:
    def down(server: Any) -> Any:
        return replace(server, health="down") if server.name == "app2" else server

    well = facts()
    servers = statistics([down(server) for server in all_servers()])
    nodes = {name: replace(well.nodes[name], haproxy=servers) for name in HOSTS["load_balancers"]}
    seen = see(facts(app2=gone("app2"), **nodes))
    assert len(seen.findings) == 1
    assert finding(seen, "app2 cannot be reached")


# --- PostgreSQL and etcd ----------------------------------------


def test_no_leader() -> None:
    nodes = {
        name: replace(
            facts().nodes[name], patroni=patroni.Node("replica", "running", cluster_of(["db1", "db2"], None))
        )
        for name in HOSTS["databases"]
    }
    seen = see(facts(**nodes))
    assert finding(seen, "PostgreSQL has no leader").outage
    assert "NO LEADER SEEN" in shown(seen)


def test_two_leaders() -> None:
    seen = see(
        changed("db2", patroni=patroni.Node("primary", "running", cluster_of(["db1", "db2", "db3"], "db2")))
    )
    assert finding(seen, "PostgreSQL has 2 primaries: db1 and db2").outage


def test_a_leader_that_only_this_screen_cannot_see() -> None:
    seen = see(facts(db1=gone("db1")))
    assert not finding(seen, "leader db1 answers the other members and not here").outage
    assert "unreachable" in shown(seen)


def test_a_lost_standby_is_one_cause() -> None:
    seen = see(facts(db3=gone("db3")))
    assert len(seen.findings) == 1
    assert seen.exit_code == SOMETHING_WRONG


def test_a_standby_far_behind() -> None:
    cluster = cluster_of(["db1", "db2", "db3"])
    late = replace(cluster.members[2], lag_bytes=200_000_000)
    cluster = replace(cluster, members=(*cluster.members[:2], late))
    seen = see(changed("db1", patroni=patroni.Node("primary", "running", cluster)))
    assert finding(seen, "db3 is 200 MB behind the leader")


def test_no_synchronous_standby() -> None:
    cluster = cluster_of(["db1", "db2", "db3"])
    alone = tuple(
        replace(member, role="replica") if not member.leads else member for member in cluster.members
    )
    seen = see(changed("db1", patroni=patroni.Node("primary", "running", replace(cluster, members=alone))))
    assert finding(seen, "no standby is synchronous")


def test_a_pause() -> None:
    cluster = replace(cluster_of(["db1", "db2", "db3"]), paused=True)
    seen = see(changed("db1", patroni=patroni.Node("primary", "running", cluster)))
    assert "resume" in finding(seen, "Patroni is paused").mend
    assert "PAUSED" in shown(seen)


def test_patroni_that_does_not_answer() -> None:
    seen = see(changed("db2", patroni=None, unknown={"patroni": "connection refused"}))
    assert finding(seen, "db2: Patroni does not answer: connection refused")


def test_a_stopped_patroni_is_one_cause() -> None:
    services = {"patroni.service": "inactive", "etcd.service": "active"}
    seen = see(changed("db2", patroni=None, unknown={"patroni": "Connection refused"}, services=services))
    assert [one.what for one in seen.findings] == ["db2: patroni.service is inactive"]


def test_writes_that_go_to_the_wrong_member() -> None:
    seen = see(changed("lb1", haproxy=statistics(all_servers(leader="db2"))))
    assert finding(seen, "db1 should be up in pool postgres primary: lb1 says down, lb2 says up").outage
    assert finding(seen, "db2 should be down in pool postgres primary").outage


def test_a_sick_etcd_member() -> None:
    seen = see(changed("db2", etcd=Etcd(False, False, "NOSPACE")))
    assert finding(seen, "db2: etcd is not well: NOSPACE")
    assert all("quorum" not in one.what for one in seen.findings)


def test_etcd_without_quorum() -> None:
    seen = see(facts(db2=gone("db2"), db3=gone("db3")))
    assert finding(seen, "etcd has no quorum (1 of 3 members are well, 2 are needed)")


# --- releases and units ----------------------------------------


def test_nothing_is_deployed_yet() -> None:
    nodes = {
        name: replace(facts().nodes[name], release=Release(None, None, {})) for name in HOSTS["app_servers"]
    }
    down = {
        name: replace(
            facts().nodes[name],
            haproxy=statistics(
                [replace(s, health="down") if s.backend.startswith("pool_") else s for s in all_servers()]
            ),
        )
        for name in HOSTS["load_balancers"]
    }
    seen = see(facts(**nodes, **down))
    assert [one.what for one in seen.findings] == ["no release is deployed"]
    assert seen.findings[0].mend == "fab deploy"


def test_nodes_on_different_releases() -> None:
    running = {pool: {OLDER: "active/running"} for pool in ("web", "api")}
    seen = see(changed("app2", release=Release(OLDER, None, running)))
    assert finding(seen, f"nodes run different releases: {RELEASE} on app1; {OLDER} on app2")


def test_a_pool_that_does_not_run_the_current_release() -> None:
    running = {"web": {RELEASE: "active/running"}, "api": {OLDER: "active/running"}}
    seen = see(changed("app2", release=Release(RELEASE, OLDER, running)))
    assert finding(seen, f"app2: pool api does not run the current release {RELEASE}")
    assert f"api: {OLDER}" in shown(seen)


def test_failed_units() -> None:
    seen = see(changed("builder1", failed_units=("apt-daily.service", "x.service")))
    assert (
        "systemctl status apt-daily.service"
        in finding(seen, "builder1: failed: apt-daily.service, x.service").mend
    )
    assert "apt-daily.service, x.service" in shown(seen)


def test_systemd_that_does_not_answer() -> None:
    seen = see(changed("app1", failed_units=None, unknown={"units": "systemctl did not answer within 2.5 s"}))
    assert finding(seen, "app1: systemd does not answer")


# --- all of them down ----------------------------------------


@pytest.mark.parametrize("name", [name for members in HOSTS.values() for name in members])
def test_any_one_host_down_is_named_with_what_to_type(name: str) -> None:
    seen = see(facts(**{name: gone(name)}))
    assert finding(seen, f"{name} cannot be reached").mend.startswith("ssh ")
    assert "7 of 8 hosts answer" in shown(seen)


def test_every_host_down() -> None:
    nodes = {name: gone(name) for members in HOSTS.values() for name in members}
    answers = {name: Answer(None, 3000, "no answer in time") for name in ("public1", "public2")}
    seen = see(replace(facts(**nodes), answers=answers))
    assert seen.exit_code == OUTAGE
    text = shown(seen)
    assert "0 of 8 hosts answer" in text
    assert "no application server answers" in text
    assert "not known: no host answers" in text
    assert "Is this machine cut off" in finding(seen, "no host can be reached; lb1: ").what


def test_every_part_unknown() -> None:
    nodes = {
        name: Node(
            host=name,
            unknown=dict.fromkeys(gathering.parts_of(inventory(), host)[0], "no answer within 2.5 s"),
        )
        for name, host in inventory().everyone.items()
    }
    seen = see(facts(**nodes))
    assert seen.exit_code == OUTAGE
    shown(seen)


def test_in_the_lab_the_mend_is_make_up() -> None:
    environment = inventory(lab_name="bulkhead-lab", lab_state="/somewhere/.lab")
    assert finding(see(facts(app1=gone("app1")), environment), "app1 cannot be reached").mend == "make up"


# --- screens ----------------------------------------


def worst() -> View:
    """A screen with long lines."""
    broken = facts(db3=gone("db3"), app2=gone("app2"))
    return see(
        replace(broken, answers={"public1": Answer(503, 5), "public2": Answer(None, 9, "connection refused")})
    )


@pytest.mark.parametrize("width", [80, 100, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    for seen in (see(facts()), worst()):
        commands = {f"   {finding.mend}" for finding in seen.findings}
        lines = [line for line in shown(seen, width).splitlines() if line not in commands]
        assert max(len(line.rstrip()) for line in lines) <= width


def test_a_command_is_never_broken_into_lines() -> None:
    environment = inventory(ansible_ssh_private_key_file="/a/very/long/path/" + "x" * 80)
    seen = see(facts(db3=gone("db3")), environment)
    assert seen.findings[0].mend in shown(seen)


def test_a_screen_of_80_columns_cuts_nothing_that_matters() -> None:
    text = shown(see(facts()))
    for words in (
        "public1",
        "192.0.2.101",
        "answers in 12 ms",
        "quorum standby",
        "streaming",
        "on lb2",
        RELEASE,
    ):
        assert words in text


def test_causes_with_one_mend_share_it() -> None:
    environment = inventory(lab_name="bulkhead-lab", lab_state="/somewhere/.lab")
    text = shown(see(facts(app1=gone("app1"), app2=gone("app2")), environment))
    assert text.count("make up") == 1
    assert text.index("app2 cannot be reached") < text.index("make up")


def test_without_a_terminal_there_is_no_colour() -> None:
    assert "\x1b" not in shown(worst())


def test_a_cluster_of_databases_alone_has_their_section_alone() -> None:
    alone = {"databases": HOSTS["databases"]}
    seen = see(
        replace(facts(), nodes={name: facts().nodes[name] for name in HOSTS["databases"]}, answers={}),
        inventory(alone, virtual_addresses=[]),
    )
    text = shown(seen)
    assert seen.exit_code == ALL_WELL
    assert "DATABASE" in text
    assert not [title for title in ("ADDRESSES", "POOLS", "RELEASES") if title in text]


def test_two_hundred_servers_are_one_screen() -> None:
    many = {**HOSTS, "app_servers": [f"app{number}" for number in range(200)]}
    well = facts(many)
    servers = [
        replace(server, health="down") if (server.backend, server.name) == ("pool_web", "app7") else server
        for server in all_servers(many)
    ]
    nodes = {name: replace(well.nodes[name], haproxy=statistics(servers)) for name in HOSTS["load_balancers"]}
    text = shown(see(facts(many, **nodes), inventory(many)))
    assert len(text.splitlines()) < 45
    assert "199 up" in text
    assert "app7" in text


def test_the_same_as_data() -> None:
    data = json.loads(json.dumps(worst().data()))
    assert data["exit_code"] == OUTAGE
    assert data["unreachable"].keys() == {"db3", "app2"}
    assert data["addresses"][0]["owners"] == ["lb1"]


@pytest.mark.parametrize(
    ("count", "words"), [(None, "?"), (0, "0 B"), (999, "999 B"), (16_384, "16 kB"), (2_500_000, "2.5 MB")]
)
def test_bytes_in_words(count: int | None, words: str) -> None:
    assert byte_count(count) == words


# --- facts from what the probe prints ----------------------------------------


def test_a_probe_of_a_database() -> None:
    node = gathering.parse_node(
        "db1",
        {
            "parts": {
                "units": {"failed": ["x.service"], "services": {"etcd.service": "active"}},
                "etcd": {
                    "health": {"health": "true", "reason": ""},
                    "status": {"header": {"member_id": "7"}, "leader": "7"},
                },
                "patroni": {"member": {"role": "primary", "state": "running"}, "cluster": {"members": []}},
            },
            "errors": {},
        },
    )
    assert node.failed_units == ("x.service",)
    assert node.etcd == Etcd(healthy=True, leads=True, reason="")
    assert node.patroni is not None
    assert node.patroni.writable


def test_a_part_that_makes_no_sense_is_unknown_and_hides_nothing_else() -> None:
    parts = {"units": {"failed": [], "services": {}}, "etcd": {"health": "nonsense"}, "release": []}
    node = gathering.parse_node("app1", {"parts": parts, "errors": {"patroni": "connection refused"}})
    assert node.failed_units == ()
    assert node.etcd is None
    assert node.unknown.keys() == {"etcd", "release", "patroni"}


def test_a_broker_that_no_queue_needs_is_not_one_that_does_not_say() -> None:
    assert gathering.parse_node("mq1", {"parts": {"critical": []}, "errors": {}}).critical == frozenset()
    silent = gathering.parse_node("mq1", {"parts": {}, "errors": {"critical": "no answer within 1 s"}})
    assert silent.critical is None


def test_haproxy_that_did_not_answer_is_not_alive() -> None:
    assert gathering.parse_node("lb1", {"parts": {}, "errors": {"alive": "refused"}}).alive is False
    assert gathering.parse_node("app1", {"parts": {}, "errors": {}}).alive is None


def test_each_group_is_asked_for_what_it_runs() -> None:
    environment = inventory()
    assert gathering.parts_of(environment, environment.host("builder1")) == (["units"], [])
    parts, services = gathering.parts_of(environment, environment.host("lb1"))
    assert "haproxy" in parts
    assert services == ["haproxy.service", "keepalived.service"]
