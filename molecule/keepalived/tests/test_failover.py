"""What moves an address and what does not, with real faults on two nodes, watched from a third."""

from __future__ import annotations

import contextlib
import functools
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest

nodes = ("vrrp1", "vrrp2")
addresses = {
    "public1": "198.18.13.101",
    "public2": "198.18.13.102",
    "internal": "198.18.13.103",
    "second": "198.18.113.104",  # in a network in which this machine is not
    "public6": "fd00:198:18:13::101",
}
hold = "/run/keepalived/hold"
LIMIT_SECONDS = 2.0


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def podman(*arguments: str) -> str:
    """Changes or shows a node from outside; what was known of the nodes' processes is looked up anew."""
    process.cache_clear()
    return run("podman", *arguments)


@functools.cache
def process(node: str) -> tuple[str, str]:
    """(state, number of its first process on this machine)"""
    shown = run(
        "podman", "inspect", "--format={{.State.Status}} {{.State.Pid}}", f"bulkhead-keepalived-{node}"
    )
    now, number = shown.split()
    return now, number


def on(node: str, command: str) -> str:
    """Not by SSH, which needs the network that is tested; a fifth of what `podman exec` costs."""
    inside = ("--mount", "--uts", "--ipc", "--net", "--pid")
    return run("nsenter", "--target", process(node)[1], *inside, "sh", "-c", command)


def state(node: str) -> str:
    return process(node)[0]


def other(node: str) -> str:
    return nodes[1 - nodes.index(node)]


def owners() -> dict[str, list[str]]:
    """The nodes on which each address is, of those that run."""
    shown = {node: on(node, "ip -oneline address show") for node in nodes if state(node) == "running"}
    return {
        name: [node for node, text in shown.items() if f" {address}/" in text]
        for name, address in addresses.items()
    }


def until(wanted: Callable[[], bool], what: str, seconds: float = 15.0) -> float:
    """Waits for a condition, and says how long it took."""
    began = time.monotonic()
    while not wanted():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}; owners: {owners()}"
        time.sleep(0.05)  # between two looks at a condition
    return time.monotonic() - began


def all_on(node: str) -> bool:
    return all(each == [node] for each in owners().values())


def whole() -> bool:
    ready = "/usr/local/lib/bulkhead/keepalived-state"
    fit = all("fault" not in (said := on(node, ready)) and "init" not in said for node in nodes)
    return fit and all(len(each) == 1 for each in owners().values())


def gather(node: str) -> None:
    """Puts every address on one node, the way an operation does."""
    for name in addresses:
        on(other(node), f"echo 1 > {hold}/{name}")
    until(lambda: all_on(node), f"every address on {node}")
    on(other(node), f"rm -f {hold}/*")
    until(whole, "both fit")


@pytest.fixture(autouse=True)
def mended() -> Iterator[None]:
    until(whole, "both nodes fit before the test")
    yield
    for node in nodes:
        if state(node) == "paused":
            podman("unpause", f"bulkhead-keepalived-{node}")
        on(node, f"rm -f {hold}/*; systemctl kill -s CONT haproxy || :; systemctl start haproxy keepalived")
    until(whole, "both nodes fit after the test")


class Probe:
    """Asks each address again and again for a new connection, and knows the longest time without one."""

    def __init__(self) -> None:
        self.gaps = dict.fromkeys(addresses, 0.0)
        self.answers = dict.fromkeys(addresses, 0)
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(name,)) for name in ("public1", "internal")]

    def ask(self, name: str) -> None:
        last = time.monotonic()
        while not self.stop.is_set():
            with (
                contextlib.suppress(OSError),
                socket.create_connection((addresses[name], 80), timeout=0.3) as connection,
            ):
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                if connection.recv(64).startswith(b"HTTP/1.0 200"):
                    self.gaps[name] = max(self.gaps[name], time.monotonic() - last)
                    self.answers[name] += 1
                    last = time.monotonic()
            self.stop.wait(0.02)

    def __enter__(self) -> Probe:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def verdict(self, what: str) -> None:
        worst = max(self.gaps.values())
        print(f"\n{what}: {sum(self.answers.values())} answers, longest gap {worst * 1000:.0f} ms")
        assert min(self.answers[name] for name in ("public1", "internal")) > 0
        assert worst < LIMIT_SECONDS


def moved(what: str, fault: Callable[[], object]) -> None:
    """The fault strikes vrrp1, which owns everything; everything has to be on vrrp2 soon."""
    gather("vrrp1")
    with Probe() as probe:
        fault()
        until(lambda: all_on("vrrp2"), "every address on vrrp2")
        time.sleep(1)  # the probe sees whether it lasts
    probe.verdict(what)


def test_each_address_is_on_exactly_one_node_and_answers() -> None:
    assert whole()
    for name, address in addresses.items():
        if address.startswith("198.18.13."):  # this machine has no route to the nodes' other networks
            with socket.create_connection((address, 80), timeout=2):
                pass
        else:
            owner = owners()[name][0]
            on(other(owner), f"timeout 2 bash -c 'exec 3<>/dev/tcp/{address}/80'")


def test_a_frozen_owner_loses_its_addresses_and_does_not_win_them_back() -> None:
    moved("owner frozen", lambda: podman("pause", "bulkhead-keepalived-vrrp1"))
    podman("unpause", "bulkhead-keepalived-vrrp1")
    took = until(lambda: all_on("vrrp2"), "one owner after the thaw", LIMIT_SECONDS + 1)
    print(f"thawed: one owner after {took * 1000:.0f} ms")
    with Probe() as probe:
        time.sleep(1)
        assert all_on("vrrp2")
    probe.verdict("after the thaw")


def test_an_owner_whose_haproxy_died_loses_its_addresses() -> None:
    moved("HAProxy killed", lambda: on("vrrp1", "systemctl kill -s KILL haproxy"))


def test_an_owner_whose_haproxy_hangs_loses_its_addresses() -> None:
    moved("HAProxy hanging", lambda: on("vrrp1", "systemctl kill -s STOP haproxy"))


def test_a_killed_keepalived_leaves_one_owner() -> None:
    gather("vrrp1")
    with Probe() as probe:
        on("vrrp1", "systemctl kill -s KILL keepalived")
        until(
            lambda: "ActiveState=active" in on("vrrp1", "systemctl show -p ActiveState keepalived"), "it runs"
        )
        until(whole, "one owner each")
        time.sleep(1)  # the probe sees whether it lasts
        assert whole()
    probe.verdict("keepalived killed")


def test_a_stopped_keepalived_hands_over_at_once() -> None:
    moved("keepalived stopped", lambda: on("vrrp1", "systemctl stop keepalived"))


def test_a_held_address_moves_alone_and_stays_when_the_hold_goes() -> None:
    gather("vrrp1")
    on("vrrp1", f"echo 1 > {hold}/public1")
    until(lambda: owners()["public1"] == ["vrrp2"], "public1 on vrrp2", LIMIT_SECONDS)
    assert [owners()[name] for name in ("public2", "internal", "second", "public6")] == [["vrrp1"]] * 4
    on("vrrp1", f"rm {hold}/public1")
    until(whole, "vrrp1 fit again")
    time.sleep(1)  # three times what an election takes: nothing may happen in it
    assert owners()["public1"] == ["vrrp2"]


def test_an_address_leaves_an_interface_that_is_down_although_the_node_is_heard_on_another() -> None:
    gather("vrrp1")
    on("vrrp1", "ip link set eth1 down")
    try:
        until(lambda: owners()["second"] == ["vrrp2"], "second on vrrp2")
        assert [owners()[name] for name in ("public1", "public2", "internal", "public6")] == [["vrrp1"]] * 4
    finally:
        on("vrrp1", "ip link set eth1 up")


def test_a_node_whose_haproxy_does_not_answer_takes_nothing() -> None:
    gather("vrrp1")
    on("vrrp2", "systemctl stop haproxy")
    until(lambda: "backup" not in on("vrrp2", "/usr/local/lib/bulkhead/keepalived-state"), "vrrp2 in fault")
    on("vrrp1", "systemctl stop keepalived")
    time.sleep(1)  # three times what an election takes: nothing may happen in it
    assert not any(owners().values())
    on("vrrp2", "systemctl start haproxy")
    until(lambda: all_on("vrrp2"), "vrrp2 takes them once its HAProxy answers")


def test_a_node_that_comes_back_from_a_reboot_takes_nothing_back() -> None:
    moved("node off", lambda: podman("stop", "--time=0", "bulkhead-keepalived-vrrp1"))
    on("vrrp2", f"echo 0 > {hold}/public1")  # 0 holds nothing back
    podman("start", "bulkhead-keepalived-vrrp1")
    booted = "systemctl is-system-running --wait 2>&1 || :"
    until(lambda: "running" in on("vrrp1", booted), "vrrp1 is up")
    until(whole, "vrrp1 fit again")
    assert all_on("vrrp2")
