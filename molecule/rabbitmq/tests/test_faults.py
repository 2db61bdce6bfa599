"""Each fault with a publisher and a consumer at work: every confirmed message comes."""

from collections.abc import Iterator

import pytest
from cluster import (
    LONG,
    MEMBERS,
    NODES,
    ask,
    attempt,
    node,
    numbering,
    podman,
    running,
    wait_until,
    wait_until_whole,
)

CUT = [
    "nft add table ip cut",
    "nft add chain ip cut in '{ type filter hook input priority 0; }'",
    "nft add chain ip cut out '{ type filter hook output priority 0; }'",
]
DROP = ["in ip saddr {} drop", "out ip daddr {} drop"]
# Longer than the others wait for it (rabbitmq_net_tick_seconds and a quarter): they go on without it.
FREEZE_SECONDS = 60 if LONG else 35


@pytest.fixture(autouse=True)
def whole_cluster() -> Iterator[None]:
    wait_until_whole()
    yield
    wait_until_whole()


def leader(queue: str) -> str:
    """The host whose broker leads the queue: the fault that hurts most."""
    return str(ask("mq1", f"queues/forge/forge.{queue}")["leader"]).removeprefix("rabbit@")


def test_a_broker_is_killed() -> None:
    with numbering("killed") as numbers:
        member = leader("killed")
        node(member).check_output("systemctl kill --signal=KILL rabbitmq-server")
        numbers.go_on()
        wait_until_whole()
        numbers.go_on()


def test_a_broker_freezes() -> None:
    with numbering("frozen") as numbers:
        member = leader("frozen")
        podman("pause", member)
        try:
            waited = numbers.go_on()
            # What is proved is the freeze's length, so here the clock is the condition.
            if waited < FREEZE_SECONDS:
                numbers.go_on(int(20 * (FREEZE_SECONDS - waited)), seconds=FREEZE_SECONDS + 90)
            others = [name for name in MEMBERS if name != member]
            for other in others:
                wait_until(
                    lambda at=other: running(at) == NODES - {f"rabbit@{member}"}, 60, f"{other} goes on"
                )
        finally:
            podman("unpause", member)
        wait_until_whole()
        numbers.go_on()


def test_a_broker_that_is_cut_off_refuses_rather_than_diverge() -> None:
    with numbering("cut") as numbers:
        member = leader("cut")
        others = [name for name in MEMBERS if name != member]
        cut = node(member)
        cut.check_output(
            " && ".join(
                CUT
                + [f"nft add rule ip cut {rule.format(MEMBERS[other])}" for other in others for rule in DROP]
            )
        )
        try:
            numbers.go_on()
            # Its clients still reach the host, and the broker takes nothing from them.
            wait_until(
                lambda: "Connection refused" in attempt(host=MEMBERS[member]),
                90,
                f"{member} has closed its listeners",
            )
            for other in others:
                wait_until(
                    lambda at=other: running(at) == NODES - {f"rabbit@{member}"}, 90, f"{other} goes on"
                )
            numbers.go_on()
        finally:
            cut.check_output("nft delete table ip cut")
        wait_until_whole()
        numbers.go_on()


def test_publishers_wait_while_memory_is_short_and_go_on_afterwards() -> None:
    broker = node("mq1")
    with numbering("memory") as numbers:
        set_limit = "rabbitmqctl --silent set_vm_memory_high_watermark "
        before = broker.check_output("grep ^vm_memory_high_watermark /etc/rabbitmq/rabbitmq.conf").split()[-1]
        broker.check_output(set_limit + "absolute 16MiB")
        try:
            for member in MEMBERS:  # one broker's alarm stops the publishers of all
                wait_until(
                    lambda at=member: any(each["mem_alarm"] for each in ask(at, "nodes")),
                    30,
                    f"{member} knows",
                )
            numbers.stand_still()
        finally:
            broker.check_output(set_limit + f"absolute {before}")
        numbers.go_on()
