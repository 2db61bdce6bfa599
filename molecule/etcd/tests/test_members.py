"""Members die, come back, lose their disk and are restarted by the role."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import testinfra
from cluster import MEMBERS, RefusedError, converge, get, healthy, podman, put, sign_in, wait_until


def wait_until_all_serve() -> None:
    wait_until(lambda: all(map(healthy, MEMBERS)), 60, "every member serves")


@pytest.fixture(autouse=True)
def whole_cluster() -> Iterator[None]:
    wait_until_all_serve()
    yield
    wait_until_all_serve()


class Writer:
    """Writes a numbered value again and again, to whichever member takes it."""

    def __init__(self) -> None:
        self.written = 0
        self.longest_gap = 0.0
        self.stop = threading.Event()

    def run(self) -> None:
        tokens: dict[str, str] = {}
        last = time.monotonic()
        while not self.stop.wait(0.05):
            for member in MEMBERS:
                try:
                    tokens[member] = tokens.get(member) or sign_in("operator", member)
                    put(tokens[member], "/bulkhead/number", str(self.written + 1), member)
                except Exception:  # a member that restarts has many ways to say no; the next one is asked
                    tokens.pop(member, None)
                    continue
                self.written += 1
                self.longest_gap = max(self.longest_gap, time.monotonic() - last)
                last = time.monotonic()
                break


@contextmanager
def writing() -> Iterator[Writer]:
    writer = Writer()
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop.set()
        thread.join()


@pytest.mark.parametrize("member", MEMBERS)
def test_a_member_that_is_killed_is_not_missed_and_comes_back(member: str) -> None:
    others = [other for other in MEMBERS if other != member]

    def written() -> bool:
        # What is asked while the leader dies may wait for an answer that never comes: ask again.
        try:
            put(sign_in("operator", others[0]), "/bulkhead/while-away", member, others[0])
        except (OSError, RefusedError):
            return False
        return True

    podman("kill", member)
    try:
        wait_until(written, 30, "the others go on")
        wait_until(lambda: all(map(healthy, others)), 15, "both others are well")
    finally:
        podman("start", member)
    wait_until(lambda: healthy(member), 60, f"{member} is back")
    assert get(sign_in("operator", member), "/bulkhead/while-away", member) == member


def test_without_a_quorum_nothing_is_accepted() -> None:
    token = sign_in("operator")
    put(token, "/bulkhead/before", "1")
    for member in ("etcd2", "etcd3"):
        podman("pause", member)
    try:
        wait_until(lambda: not healthy("etcd1"), 30, "etcd1 notices")
        with pytest.raises(TimeoutError):
            put(token, "/bulkhead/before", "2")
    finally:
        for member in ("etcd2", "etcd3"):
            podman("unpause", member)


def test_a_change_restarts_one_member_at_a_time_and_a_lost_disk_joins_anew() -> None:
    disk = testinfra.get_host("ansible://etcd3")
    disk.check_output("systemctl stop etcd && rm -r /var/lib/etcd/default")
    with writing() as writer:
        run = converge("--extra-vars", '{"etcd_quota_megabytes": 640}')
    assert run.returncode == 0, run.stdout[-4000:]
    print(f"{writer.written} writes during the run, longest gap {writer.longest_gap:.1f} s")
    assert writer.longest_gap < 8
    assert get(sign_in("operator", "etcd3"), "/bulkhead/number", "etcd3") == str(writer.written)


def test_no_member_restarts_while_another_is_away() -> None:
    member = testinfra.get_host("ansible://etcd1")
    process = member.check_output("systemctl show --property MainPID etcd")
    podman("pause", "etcd2")
    try:
        run = converge("--limit", "etcd1", "--extra-vars", '{"etcd_quota_megabytes": 512}')
    finally:
        podman("unpause", "etcd2")
    assert run.returncode != 0
    assert "without it only etcd3 would serve" in " ".join(run.stdout.split())
    assert member.check_output("systemctl show --property MainPID etcd") == process
