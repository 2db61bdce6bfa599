"""The leader dies, or freezes and comes back, while a client writes: what was acknowledged stays."""

import time
from collections.abc import Iterator

import pytest
import testinfra
from cluster import MEMBERS, Numbers, ask, leader, numbering, podman, superuser, wait_until, wait_until_whole

LIMIT_SECONDS = 35


@pytest.fixture(autouse=True)
def whole_cluster() -> Iterator[None]:
    wait_until_whole()
    yield
    wait_until_whole()


def report(what: str, numbers: Numbers) -> None:
    print(f"\n{what}: {len(numbers.acknowledged)} rows acknowledged, longest gap {numbers.longest_gap:.1f} s")


def assert_all_there(numbers: Numbers) -> None:
    for member in MEMBERS:
        wait_until(lambda at=member: numbers.all_on(at), 60, f"every acknowledged row on {member}")


def another_leads(than: str) -> bool:
    return leader() not in (None, than)


def test_the_leader_is_killed() -> None:
    old = leader()
    assert old
    superuser(old, "CREATE TABLE IF NOT EXISTS parted (at timestamptz)")
    timeline = ask("cluster")["members"][0]["timeline"]
    with numbering("kill") as numbers:
        time.sleep(2)  # rows before the blow
        # A row that only the old leader has, so that its history parts from the new leader's for certain.
        node = testinfra.get_host(f"ansible://{old}")
        node.check_output("pkill -STOP -f 'postgres: .*[w]alsender'")
        superuser(old, "SET synchronous_commit = local; INSERT INTO parted VALUES (now())")
        podman("kill", old)
        wait_until(lambda: another_leads(old), 60, "another leads")
        time.sleep(2)  # rows after it
    report("killed leader", numbers)
    podman("start", old)
    took = wait_until_whole()
    assert numbers.longest_gap < LIMIT_SECONDS
    assert_all_there(numbers)
    assert [each["timeline"] > timeline for each in ask("cluster")["members"]] == [True] * 3
    # It rejoined by pg_rewind, and what it alone had is gone.
    assert superuser(old, "SELECT count(*) FROM parted") == "0"
    journal = testinfra.get_host(f"ansible://{old}").check_output(
        "journalctl --boot --unit patroni --output cat"
    )
    assert "running pg_rewind" in journal
    print(f"the old leader was a standby again after {took:.1f} s")


def test_the_leader_freezes_and_comes_back() -> None:
    old = leader()
    assert old
    with numbering("freeze") as numbers:
        time.sleep(2)
        podman("pause", old)
        try:
            wait_until(lambda: another_leads(old), 60, "another leads")
            time.sleep(2)
        finally:
            podman("unpause", old)
        # Two believe that they lead until the old one looks, and the client may well ask that one first.
        wait_until_whole()
        time.sleep(2)
    report("frozen leader", numbers)
    assert leader() != old
    assert numbers.longest_gap < LIMIT_SECONDS
    assert_all_there(numbers)


def test_a_standby_freezes_and_commits_go_on() -> None:
    now = leader()
    frozen = next(member for member in MEMBERS if member != now)
    with numbering("standby", patience=30) as numbers:
        time.sleep(2)
        podman("pause", frozen)
        try:
            time.sleep(12)  # beyond wal_sender_timeout, which drops the standby
        finally:
            podman("unpause", frozen)
        wait_until_whole()
    report("frozen standby", numbers)
    assert leader() == now
    assert numbers.longest_gap < 7  # wal_sender_timeout and a margin
    assert_all_there(numbers)
