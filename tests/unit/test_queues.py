"""What `fab queues` and `fab status` say of brokers, queues and worker nodes, with each part down in turn."""

import io
import json
import shlex
from dataclasses import replace
from typing import Any

import pytest
from cluster_fakes import (
    OLDER,
    RELEASE,
    TIERS,
    all_queues,
    all_servers,
    broker_cluster,
    drained_release,
    facts,
    gone,
    outdated,
    queue,
    said,
    statistics,
    tiers,
    worker_release,
)
from cluster_fakes import (
    inventory as plain_inventory,
)
from rich.console import Console

from bulkhead import queues as command
from bulkhead import rabbitmq
from bulkhead.connections import Result
from bulkhead.errors import RefusedError
from bulkhead.inventory import Host
from bulkhead.status.facts import Facts, Node, look
from bulkhead.status.judge import Finding
from bulkhead.status.queues import stuck
from bulkhead.status.render import render
from bulkhead.status.view import ALL_WELL, OUTAGE, SOMETHING_WRONG, View, view

LIMIT = 70


def see(found: Facts) -> View:
    return view(tiers(), found)


def nodes(**changes: Any) -> dict[str, Node]:
    """The brokers, as all of them see the cluster."""
    well = facts(TIERS).nodes
    return {name: replace(well[name], broker=broker_cluster(name, **changes)) for name in TIERS["brokers"]}


def told(**changes: Any) -> Facts:
    return facts(TIERS, **nodes(**changes))


def finding(seen: View | command.View, words: str) -> Finding:
    found = [one for one in seen.findings if words in one.what]
    assert len(found) == 1, [one.what for one in seen.findings]
    return found[0]


def shown(seen: View) -> str:
    output = io.StringIO()
    render(seen, Console(file=output, width=80, highlight=False))
    return output.getvalue()


def table(seen: command.View) -> str:
    output = io.StringIO()
    Console(file=output, width=80, highlight=False).print(command.shown(seen), crop=False)
    return output.getvalue()


# --- what is stuck ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "cause", "outage"),
    [
        (queue("q"), None, False),
        (queue("q", ready=500, unacked=4, backlog_seconds=600, silent_seconds=0), None, False),
        # A long task holds everything up, and is within its limit.
        (queue("q", ready=3, unacked=2, backlog_seconds=129, silent_seconds=129), None, False),
        (queue("q", unacked=2, held_seconds=LIMIT + 60, silent_seconds=LIMIT + 60), "held", False),
        # After a quiet hour a task has just begun.
        (queue("q", unacked=2, held_seconds=5, silent_seconds=600), None, False),
        # A message that has just come.
        (queue("q", ready=1, backlog_seconds=0, silent_seconds=600), None, False),
        (queue("q", ready=1, backlog_seconds=30, silent_seconds=600), "idle", False),
        (queue("q", ready=1, backlog_seconds=600, silent_seconds=10), None, False),
        (queue("q", consumers=0), "no_consumer", True),
        (queue("q", consumers=0, ready=7), "no_consumer", True),
        (queue("q", online=("mq1",), consumers=0), "no_majority", True),
        # A broker that tells little says nothing against it.
        (queue("q", ready=1, consumers=None, backlog_seconds=None, silent_seconds=None), None, False),
    ],
)
def test_what_is_stuck(found: rabbitmq.Queue, cause: str | None, outage: bool) -> None:
    judged = stuck(found, LIMIT)
    assert (judged.cause if judged else None) == cause
    assert judged is None or judged.outage == outage


# --- all well -----------------------------------------------------------------------------------------------


def test_all_well() -> None:
    seen = see(facts(TIERS))
    assert seen.findings == ()
    assert seen.exit_code == ALL_WELL
    text = shown(seen)
    for words in ("BROKERS", "QUEUES", "WORKERS", "default, mail", "acts", "stands by", "ALL WELL"):
        assert words in text
    assert seen.scheduler == "worker1"
    assert json.loads(json.dumps(seen.data()))["queues"][0]["name"] == "default"


def test_a_cluster_without_these_tiers_shows_nothing_of_them() -> None:
    text = shown(view(plain_inventory(), facts()))
    for words in ("BROKERS", "QUEUES", "WORKERS"):
        assert words not in text
    with pytest.raises(RefusedError, match="no brokers"):
        command.see(plain_inventory(), None)  # type: ignore[arg-type]  # nobody is asked


def test_the_screen_fits_80_columns() -> None:
    busy = all_queues(
        default={"ready": 123456, "unacked": 16, "in_per_second": 1234.5, "out_per_second": 12.0}
    )
    for text in (shown(see(told(queues=busy))), table(command.view(tiers(), told(queues=busy)))):
        assert max(len(line) for line in text.splitlines()) <= 80
        assert "grows" in text


# --- brokers ------------------------------------------------------------------------------------------------


def test_a_broker_that_is_gone_is_one_finding_and_the_next_one_tells() -> None:
    two = nodes(
        mq1={"running": False},
        queues=tuple(replace(each, online=("mq2", "mq3")) for each in all_queues()),
    )
    seen = see(facts(TIERS, **{**two, "mq1": gone("mq1")}))
    assert [one.what.split()[0] for one in seen.findings] == ["mq1"]
    text = shown(seen)
    assert "unreachable" in text
    assert "no, needed by default, mail, dead_letters" in " ".join(text.split())
    assert command.view(tiers(), facts(TIERS, **{**two, "mq1": gone("mq1")})).told_by == "mq2"


def test_a_broker_that_is_stopped() -> None:
    two = nodes(mq1={"running": False})
    stopped = replace(two["mq1"], broker=None, services={"rabbitmq-server.service": "inactive"})
    seen = see(facts(TIERS, **{**two, "mq1": stopped}))
    assert finding(seen, "mq1: rabbitmq-server.service is inactive").mend.endswith(
        "sudo systemctl start rabbitmq-server.service"
    )
    assert seen.exit_code == SOMETHING_WRONG


def test_a_broker_that_hangs() -> None:
    silent = replace(nodes()["mq2"], broker=None, metrics=None, unknown={"members": "no answer within 2.5 s"})
    mend = finding(see(facts(TIERS, mq2=silent)), "the broker does not answer: no answer within 2.5 s").mend
    assert "journalctl" in mend


def test_a_broker_that_the_others_do_not_see() -> None:
    apart = nodes(mq3={"running": False})
    apart["mq3"] = replace(
        apart["mq3"], broker=broker_cluster("mq3", mq1={"running": False}, mq2={"running": False})
    )
    assert finding(see(facts(TIERS, **apart)), "the others do not see it")


@pytest.mark.parametrize(
    ("changes", "says", "mend", "outage"),
    [
        ({"mq2": {"drained": True}}, "mq2 is drained", "rabbitmq-member revive", False),
        ({"mq2": {"memory_alarm": True}}, "mq2 is short of memory", "memory_breakdown", True),
        ({"mq2": {"disk_alarm": True}}, "mq2 is short of disk", "df -h", True),
        (
            {"queues": all_queues(mail={"online": ("mq1", "mq2")})},
            "queue mail has a copy that does not answer, on mq3",
            "quorum_status",
            False,
        ),
        (
            {"queues": all_queues(mail={"online": ("mq1",)}, default={"online": ("mq1",)})},
            "queues default and mail have no majority",
            "systemctl status",
            True,
        ),
    ],
)
def test_what_is_wrong_with_brokers(changes: dict[str, Any], says: str, mend: str, outage: bool) -> None:
    found = finding(see(told(**changes)), says)
    assert mend in found.mend
    assert found.outage == outage


@pytest.mark.parametrize("listens", [True, False])  # its watch closes the listeners after some seconds
def test_a_broker_that_is_cut_off_is_named_and_the_others_are_believed(listens: bool) -> None:
    off = {"running": False}
    two = {name: broker_cluster(name, all_queues(), mq1=off) for name in ("mq2", "mq3")}
    well = facts(TIERS).nodes
    cut = {name: replace(well[name], broker=seen) for name, seen in two.items()}
    if listens:
        cut["mq1"] = replace(well["mq1"], broker=broker_cluster("mq1", mq2=off, mq3=off))
    else:
        refused = {"members": "Connection refused"}
        cut["mq1"] = replace(well["mq1"], broker=None, metrics=None, unknown=refused)
    seen = see(facts(TIERS, **cut))
    assert [broker.state for broker in seen.brokers] == ["not in the cluster", "running", "running"]
    assert [one.what for one in seen.findings] == [
        "mq1: the broker runs and the others do not see it: it turns clients away"
    ]


def test_no_majority_of_brokers_is_an_outage() -> None:
    silent = {name: gone(name) for name in ("mq1", "mq2", "mq3")}
    seen = see(facts(TIERS, **silent))
    # The workers still take from them: it is this screen that is cut off, or late.
    assert not finding(seen, "this screen cannot see them").outage
    assert seen.exit_code == SOMETHING_WRONG
    words = {unit: "no broker: does not consume" for unit in said() if "queue" in unit}
    lost = {
        name: Node(name, failed_units=(), release=worker_release(said={**said(), **words}))
        for name in TIERS["workers"]
    }
    seen = see(facts(TIERS, **silent, **lost))
    assert finding(seen, "no majority (none of them answers)").outage
    assert "?" in shown(seen)
    assert seen.exit_code == OUTAGE
    one = nodes(mq1={"running": False}, mq2={"running": False})
    assert finding(see(facts(TIERS, **{**silent, "mq3": one["mq3"]})), "1 of 3 run").outage


def test_a_word_from_before_the_broker_was_cut_off_is_no_finding() -> None:
    found = facts(TIERS, **outdated(facts(TIERS).nodes))
    for seen in (see(found), command.view(tiers(), found)):
        assert seen.findings == ()
        assert [broker.needed_by for broker in seen.brokers] == [(), (), ()]
        assert {row.state for row in seen.queues} == {"idle", "empty"}


@pytest.mark.parametrize("word", [None, frozenset({"mail"})])
def test_unless_a_broker_says_nothing_of_the_copies_or_is_needed(word: frozenset[str] | None) -> None:
    seen = see(facts(TIERS, **outdated(facts(TIERS).nodes, mq3=word)))
    assert finding(seen, "queue mail has no majority of copies").outage


def frozen(*leading: rabbitmq.Queue) -> Facts:
    """mq1 has just frozen, and the others' management interfaces wait for it."""
    waiting = {
        name: replace(facts(TIERS).nodes[name], broker=None, unknown={"members": "no answer within 2.5 s"})
        for name in ("mq2", "mq3")
    }
    waiting["mq2"] = replace(waiting["mq2"], metrics=rabbitmq.Metrics((), leading))
    waiting["mq3"] = replace(waiting["mq3"], metrics=rabbitmq.Metrics(("memory",), ()))
    return facts(TIERS, mq1=gone("mq1"), **waiting)


def test_while_a_broker_is_frozen_each_tells_what_it_knows_by_itself() -> None:
    lead = rabbitmq.Queue("default", "unknown", ready=4, unacked=2, consumers=2)
    seen = see(frozen(lead))
    assert [broker.state for broker in seen.brokers] == ["unreachable", "running", "running"]
    assert [broker.needed_by for broker in seen.brokers] == [None, None, None]
    rows = {row.name: (row.ready, row.unacked, row.consumers, row.state) for row in seen.queues}
    # The queue that the frozen one led has no leader, and nobody knows its depth.
    assert rows == {"default": (4, 2, 2, "waits"), "mail": (None, None, None, "no leader yet")}
    assert [one.what.split(":")[0] for one in seen.findings] == [
        "mq3 is short of memory", "mq1 cannot be reached",
    ]  # fmt: skip


def test_a_management_interface_that_hangs_with_no_broker_away_is_a_finding() -> None:
    silent = replace(nodes()["mq2"], broker=None, unknown={"members": "no answer within 2.5 s"})
    assert finding(see(facts(TIERS, mq2=silent)), "mq2: the broker's management interface does not answer")


def test_of_two_that_tell_of_a_queue_the_one_with_more_counts() -> None:
    told_of = {
        name: rabbitmq.Metrics((), (rabbitmq.Queue("q", "unknown", ready=ready, unacked=0),))
        for name, ready in (("mq1", 0), ("mq2", 7))
    }
    cluster = rabbitmq.from_metrics(told_of)
    assert cluster is not None
    assert [queue.ready for queue in cluster.queues or ()] == [7]


def at_the_load_balancers(**health: str) -> dict[str, Node]:
    well = facts(TIERS).nodes
    changed = [
        replace(server, health=health[server.name]) if server.name in health else server
        for server in all_servers(TIERS)
    ]
    return {"lb1": replace(well["lb1"], haproxy=statistics(changed))}


def test_a_broker_that_a_load_balancer_does_not_see_is_told_if_it_is_well() -> None:
    seen = see(facts(TIERS, **at_the_load_balancers(mq2="down")))
    assert finding(seen, "mq2 should be up in pool brokers: lb1 says down, lb2 says up")
    away = {**nodes(mq2={"running": False}), "mq2": gone("mq2"), **at_the_load_balancers(mq2="down")}
    assert [one.what.split()[0] for one in see(facts(TIERS, **away)).findings] == ["mq2"]


# --- queues -------------------------------------------------------------------------------------------------


def test_a_queue_that_nobody_takes_from() -> None:
    seen = see(told(queues=all_queues(mail={"consumers": 0, "ready": 5})))
    found = finding(seen, "queue mail is stuck: no worker takes from it, and 5 messages wait")
    assert found.outage
    assert "forge-queue-mail@*" in found.mend


def test_of_drained_workers_one_is_named() -> None:
    empty = nodes(queues=all_queues(mail={"consumers": 0}, default={"consumers": 0}))
    both = {name: Node(name, failed_units=(), release=drained_release()) for name in TIERS["workers"]}
    seen = see(facts(TIERS, **empty, **both))
    assert finding(seen, "queue mail is stuck").mend == "fab workers.undrain worker1"


def test_a_queue_that_was_never_declared() -> None:
    rest = tuple(each for each in all_queues() if each.name != "mail")
    assert finding(see(told(queues=rest)), "queue mail is not there").outage
    # Before the first release nobody could have declared it.
    bare = {
        name: replace(node, release=replace(node.release, current=None))
        for name, node in facts(TIERS).nodes.items()
        if node.release
    }
    seen = see(facts(TIERS, **nodes(queues=rest), **bare))
    assert [one.what for one in seen.findings if "mail" in one.what] == []


def test_dead_letters_are_told() -> None:
    seen = see(told(queues=all_queues(dead_letters={"ready": 2})))
    found = finding(seen, "2 messages were given up")
    assert not found.outage
    assert "docs/brokers.md" in found.mend
    assert "LOOK" in shown(seen)


def test_other_queues_show_when_they_hold_something() -> None:
    more = (
        queue("old", ready=1),
        queue("reply", kind="classic", members=(), online=()),
        queue("left", kind="classic", members=(), online=(), ready=3),
    )
    seen = see(told(queues=(*all_queues(), *more)))
    assert [row.name for row in seen.queues] == ["default", "mail", "dead_letters", "old", "left"]


def test_the_table_says_how_fast_and_how_old() -> None:
    rows = all_queues(
        default={
            "ready": 9, "unacked": 4, "in_per_second": 2.0, "out_per_second": 0.0,
            "backlog_seconds": 60, "silent_seconds": 45,
        }
    )  # fmt: skip
    text = table(command.view(tiers(), told(queues=rows)))
    line = next(line.split() for line in text.splitlines() if line.strip().startswith("default"))
    assert line == ["default", "9", "4", "2", "2.0", "0.0", "over", "45", "s", "grows"]
    assert "as mq1 tells" in text


# --- worker nodes -------------------------------------------------------------------------------------------


def worker(**changes: Any) -> Facts:
    return facts(TIERS, worker2=Node("worker2", failed_units=(), release=worker_release(**changes)))


def test_a_drained_host_is_told_with_who_did_it() -> None:
    seen = see(facts(TIERS, worker2=Node("worker2", failed_units=(), release=drained_release())))
    found = finding(seen, "worker2 is drained, by ann@desk since 2026-11-22T20:00:00Z")
    assert found.mend == "fab workers.undrain worker2"
    assert "DRAINED by ann@desk" in shown(seen)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"queues": {"default": {RELEASE: "activating/start"}, "mail": {RELEASE: "active/running"}}},
            "worker of queue default is activating/start",
        ),
        (
            {"said": {**said(), f"forge-queue-mail@{RELEASE}.service": "no broker: does not consume mail"}},
            "worker of queue mail has no broker",
        ),
        ({"beat": {"beat": {}}}, "the scheduler does not run"),
    ],
)
def test_what_is_wrong_with_a_worker(changes: dict[str, Any], says: str) -> None:
    assert "journalctl" in finding(see(worker(**changes)), says).mend


def test_a_worker_that_was_stopped_is_started() -> None:
    seen = see(worker(queues={"default": {RELEASE: "active/running"}, "mail": {}}))
    assert finding(seen, "worker of queue mail is stopped").mend == "fab workers.undrain worker2"


def test_another_release_than_the_application_servers() -> None:
    running = {OLDER: "active/running"}
    old = worker(
        current=OLDER, queues={"default": running, "mail": running}, beat={"beat": running}, said=said(OLDER)
    )
    assert finding(see(old), "worker2 has another release").mend == "fab deploy"


def test_the_others_tell_who_schedules_when_the_holder_cannot() -> None:
    assert see(facts(TIERS, worker1=gone("worker1"))).scheduler == "worker1"


def test_of_two_that_say_they_hold_the_lease_the_higher_token_counts() -> None:
    seen = see(worker(said=said(scheduler="holds the lease with token 9")))
    assert seen.scheduler == "worker2"


def test_one_that_does_not_tell_may_be_the_holder() -> None:
    silent = Node("worker1", failed_units=(), unknown={"release": "no answer within 2.5 s"})
    quiet = Node("worker2", failed_units=(), release=worker_release(said=said(scheduler="")))
    seen = see(facts(TIERS, worker1=silent, worker2=quiet))
    assert seen.scheduler is None
    assert [one.what.split(":")[0] for one in seen.findings] == ["worker1"]


def test_nobody_schedules() -> None:
    nobody = {
        name: Node(name, failed_units=(), release=worker_release(said=said(scheduler="etcd does not answer")))
        for name in TIERS["workers"]
    }
    seen = see(facts(TIERS, **nobody))
    assert seen.scheduler is None
    assert finding(seen, "no scheduler holds the lease")


# --- fab queues ---------------------------------------------------------------------------------------------


def of_brokers_and_workers(found: Facts) -> Facts:
    """What the command asks."""
    asked = {*TIERS["brokers"], *TIERS["workers"]}
    return replace(
        found, answers={}, nodes={name: node for name, node in found.nodes.items() if name in asked}
    )


def test_the_command_tells_the_same_as_status() -> None:
    found = frozen(rabbitmq.Queue("default", "unknown", ready=4, unacked=2, consumers=2))
    seen = command.view(tiers(), of_brokers_and_workers(found))
    assert seen.findings == see(found).findings
    assert seen.exit_code == OUTAGE
    text = table(seen)
    assert "as mq2 tells" in text
    assert "mq1 cannot be reached" in text
    assert "mq3 is short of memory" in text


def test_the_command_with_all_well() -> None:
    seen = command.view(tiers(), of_brokers_and_workers(facts(TIERS)))
    assert seen.exit_code == ALL_WELL
    assert json.loads(json.dumps(seen.data()))["told_by"] == "mq1"
    assert "ALL WELL" in table(seen)


class Wire:
    """Keeps what is sent to hosts, and answers nothing that could be read."""

    def __init__(self) -> None:
        self.sent: dict[str, tuple[str, str]] = {}

    def run(self, host: Host, command: str, *, input: str, **_options: Any) -> Result:
        self.sent[host.name] = (command, input)
        return Result('{"parts": {}, "errors": {}}', "", 0)

    def each(self, hosts: list[Host], function: Any, **_options: Any) -> dict[str, Any]:
        return {host.name: function(host) for host in hosts}


def test_the_password_goes_to_brokers_alone_and_on_no_command_line() -> None:
    found = tiers(rabbitmq_operator_password="a-secret-word")
    wire: Any = Wire()
    look(found, wire, list(found.everyone.values()))
    assert not [host for host, (command, _) in wire.sent.items() if "a-secret-word" in command]
    assert {host for host, (_, program) in wire.sent.items() if "a-secret-word" in program} == set(
        TIERS["brokers"]
    )
    command, _ = wire.sent["mq1"]
    asked = json.loads(shlex.split(command)[-1])
    assert asked["virtual_host"] == "forge"
    assert asked["history"] == [600, 10]
