"""What the role changes on a cluster that works, with a publisher and a consumer at it."""

import itertools
import re
import ssl

from cluster import MEMBERS, NODES, ask, converge, node, numbering, wait_until, wait_until_whole

HOME = "/var/lib/rabbitmq"
CHANGE = '{"rabbitmq_heartbeat_seconds": 25}'


def times(member: str, *names: str) -> list[int]:
    """When the broker's unit came into these states. The nodes have one kernel, and so one clock."""
    properties = [f"--property {name}TimestampMonotonic" for name in names]
    shown = node(member).check_output(f"systemctl show {' '.join(properties)} rabbitmq-server")
    known = dict(line.split("=") for line in shown.splitlines())
    return [int(known[f"{name}TimestampMonotonic"]) for name in names]


def started() -> dict[str, int]:
    return {member: times(member, "ActiveEnter")[0] for member in MEMBERS}


def test_a_host_of_another_cluster_and_an_open_cookie_are_refused_and_no_broker_is_touched() -> None:
    wait_until_whole()
    before = started()
    node("mq2").check_output(f"chmod 0440 {HOME}/.erlang.cookie")
    node("mq3").check_output(f"sed -i 's/^cluster: .*/cluster: bulkhead-staging/' {HOME}/formed")
    try:
        run = converge("--extra-vars", CHANGE)
    finally:
        node("mq2").check_output(f"chmod 0400 {HOME}/.erlang.cookie")
        node("mq3").check_output(f"sed -i 's/^cluster: .*/cluster: bulkhead-rabbitmq/' {HOME}/formed")
    assert run.returncode != 0
    said = " ".join(run.stdout.split())
    assert f"mq2: {HOME}/.erlang.cookie has mode 0440" in said
    assert "mq3 has been a broker of the cluster bulkhead-staging" in said
    assert "changed=0" in said
    assert not re.search(r"changed=[1-9]", said)
    assert started() == before


def test_a_change_restarts_one_broker_at_a_time_and_a_lost_disk_joins_anew() -> None:
    wait_until_whole()
    node("mq3").check_output(f"systemctl stop rabbitmq-server && rm -r {HOME}/mnesia")
    before = started()
    with numbering("restarted") as numbers:
        run = converge("--extra-vars", CHANGE)
        assert run.returncode == 0, run.stdout[-4000:]
        numbers.go_on()
    wait_until_whole()
    after = started()
    assert all(after[member] != before[member] for member in MEMBERS)
    away = sorted(times(member, "InactiveEnter", "ActiveEnter") for member in MEMBERS)
    assert all(earlier[1] < later[0] for earlier, later in itertools.pairwise(away))
    for member in MEMBERS:
        cookie = node(member).file(f"{HOME}/.erlang.cookie")
        assert (cookie.mode, cookie.user) == (0o400, "rabbitmq")
    queue = ask("mq3", "queues/forge/forge.restarted")
    assert set(queue["members"]) == NODES  # the newcomer has its copy


def test_a_new_certificate_is_shown_without_a_restart() -> None:
    wait_until_whole()

    def shown(port: int) -> str:
        return ssl.get_server_certificate((MEMBERS["mq2"], port)).strip()

    before, old = started(), shown(5671)
    node("mq2").check_output("rm /etc/bulkhead/pki/node.crt")
    run = converge("--limit", "mq2", "--extra-vars", CHANGE)
    assert run.returncode == 0, run.stdout[-4000:]
    new = node("mq2").file("/etc/bulkhead/pki/node.crt").content_string
    assert old not in new
    for port in (5671, 15671, 15691):
        wait_until(lambda at=port: shown(at) in new, 30, f"port {port} shows the new certificate")
    assert started()["mq2"] == before["mq2"]


def test_no_broker_restarts_while_another_is_away() -> None:
    wait_until_whole()
    before = started()
    node("mq2").check_output("systemctl stop rabbitmq-server")
    try:
        run = node("mq1").run("/usr/local/lib/bulkhead/rabbitmq-member restart --wait 1")
    finally:
        node("mq2").check_output("systemctl start rabbitmq-server")
    assert run.rc == 3
    assert "rabbit@mq2 is not running" in run.stderr
    assert started()["mq1"] == before["mq1"]
    wait_until_whole()
