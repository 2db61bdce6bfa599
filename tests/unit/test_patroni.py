"""PostgreSQL's cluster as Patroni tells it."""

from bulkhead import patroni

CLUSTER = {
    "members": [
        {
            "name": "db1",
            "role": "leader",
            "state": "running",
            "api_url": "https://192.0.2.41:8008/patroni",
            "timeline": 2,
        },
        {"name": "db2", "role": "quorum_standby", "state": "streaming", "timeline": 2, "lag": 4096},
        {"name": "db3", "role": "replica", "state": "starting", "lag": "unknown", "pending_restart": True},
    ],
    "scope": "forge",
}


def test_members() -> None:
    leader, standby, third = patroni.parse_cluster(CLUSTER).members
    assert (leader.leads, leader.running, leader.timeline, leader.lag_bytes) == (True, True, 2, None)
    assert (standby.leads, standby.synchronous, standby.lag_bytes) == (False, True, 4096)
    assert (third.running, third.synchronous, third.lag_bytes, third.timeline) == (False, False, None, None)
    assert third.pending_restart


def test_leader_and_replicas() -> None:
    cluster = patroni.parse_cluster(CLUSTER)
    assert cluster.leader is not None
    assert cluster.leader.name == "db1"
    assert [member.name for member in cluster.replicas] == ["db2", "db3"]
    assert not cluster.paused


def test_a_leader_that_does_not_run_does_not_lead() -> None:
    stopped = {"members": [{"name": "db1", "role": "leader", "state": "stopped"}]}
    assert patroni.parse_cluster(stopped).leader is None


def test_pause_and_switchover_are_told() -> None:
    cluster = patroni.parse_cluster(
        {**CLUSTER, "pause": True, "scheduled_switchover": {"at": "2026-11-22T20:00"}}
    )
    assert cluster.paused
    assert cluster.scheduled_switchover == "2026-11-22T20:00"


def test_a_node_that_writes() -> None:
    assert patroni.parse({"role": "primary", "state": "running"}, CLUSTER).writable
    assert not patroni.parse({"role": "primary", "state": "stopped"}, CLUSTER).writable
    assert not patroni.parse({"role": "replica", "state": "running"}, CLUSTER).writable


def test_an_empty_answer_has_no_members() -> None:
    node = patroni.parse({}, {})
    assert (node.role, node.cluster.members, node.cluster.leader) == ("unknown", (), None)
