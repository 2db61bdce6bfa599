"""`fab lb.failback`: what moves, when it refuses, and that nobody stays held back."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from cluster_fakes import ADDRESSES, facts, gone

from bulkhead import failback
from bulkhead.errors import CancelledError, FailedError, RefusedError, UnreachableError
from bulkhead.failback import Move, plan, run
from bulkhead.inventory import VirtualAddress
from bulkhead.status.facts import Node
from bulkhead.status.outside import Answer

HOME = {"public1": "lb1", "public2": "lb2", "internal": "lb1"}
EVERYWHERE = tuple(VirtualAddress(**entry) for entry in ADDRESSES)


class Pair:
    """Two load balancers whose keepalived does what holds say."""

    def __init__(self, **owners: str) -> None:
        self.where = {**HOME, **owners}
        self.held: set[tuple[str, str]] = set()
        self.log: list[str] = []
        self.nodes = {name: facts().nodes[name] for name in ("lb1", "lb2")}
        self.stuck = False
        self.states: dict[str, str] = {}
        self.interrupt_while_held = False
        self.answer = Answer(200, 5)

    def look(self) -> Mapping[str, Node]:
        return {
            name: replace(
                node,
                addresses=frozenset(one.address for one in EVERYWHERE if self.where[one.name] == name),
                holds=tuple(held for held, on in self.held if on == name),
            )
            if node.addresses is not None
            else node
            for name, node in self.nodes.items()
        }

    def owners(self, address: str) -> list[str]:
        if self.interrupt_while_held and self.held:
            raise KeyboardInterrupt
        return [self.where[one.name] for one in EVERYWHERE if one.address == address]

    def hold(self, name: str, hosts: list[str]) -> None:
        self.log.append(f"hold {name} on {','.join(hosts)}")
        self.held |= {(name, host) for host in hosts}
        if not self.stuck and self.where[name] in hosts:
            self.where[name] = next(one for one in self.nodes if one not in hosts)

    def release(self, name: str, hosts: list[str]) -> None:
        self.log.append(f"release {name} on {','.join(hosts)}")
        self.held -= {(name, host) for host in hosts}

    def state(self, host: str, _name: str) -> str:
        return self.states.get(host, "backup")

    def ask(self, address: VirtualAddress) -> Answer:
        self.log.append(f"ask {address.name}")
        return self.answer

    def command(self, host: str, command: str) -> str:
        return f"ssh {host} {command}"


@pytest.fixture(autouse=True)
def _no_long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SETTLE_SECONDS", "MOVE_SECONDS", "ANSWER_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(failback, name, 0.01)


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair()
    run(EVERYWHERE, pair)
    assert pair.log == []
    assert "Nothing to do" in capsys.readouterr().out


def test_one_address_after_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(public2="lb1", internal="lb2")
    run(EVERYWHERE, pair, yes=True)
    assert pair.where == HOME
    assert pair.held == set()
    assert pair.log == [
        "hold public2 on lb1",
        "release public2 on lb1",
        "ask public2",
        "hold internal on lb2",
        "release internal on lb2",
    ]
    said = capsys.readouterr().out
    assert "[1/2]" in said
    assert "public2 (192.0.2.102): lb1 -> lb2" in said
    assert "answers 200" in said


def test_a_dry_run_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    pair = Pair(public2="lb1")
    run(EVERYWHERE, pair, dry_run=True)
    assert pair.log == []
    assert "lb1 -> lb2" in capsys.readouterr().out


def test_it_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = Pair(public2="lb1")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda _question: "no")
    with pytest.raises(RefusedError, match="Not confirmed"):
        run(EVERYWHERE, pair)
    assert pair.log == []


def test_an_address_that_does_not_move_is_told_and_nobody_stays_held() -> None:
    pair = Pair(public1="lb2", public2="lb1")
    pair.stuck = True
    with pytest.raises(FailedError, match=r"public1 did not go to lb1 .*It is on lb2") as caught:
        run(EVERYWHERE, pair, yes=True)
    assert pair.held == set()
    assert pair.log == ["hold public1 on lb2", "release public1 on lb2"], "the second is not tried"
    assert "ssh lb1" in caught.value.mend


def test_ctrl_c_leaves_nobody_held() -> None:
    pair = Pair(public2="lb1")
    pair.interrupt_while_held = True
    with pytest.raises(CancelledError, match="No load balancer is held back") as caught:
        run(EVERYWHERE, pair, yes=True)
    assert caught.value.exit_code == 130
    assert pair.held == set()


def test_a_hold_that_half_failed_is_removed() -> None:
    pair = Pair(public2="lb1")

    def hold(name: str, hosts: list[str]) -> None:
        pair.held.add((name, hosts[0]))
        raise UnreachableError("lb1", "it went away")

    pair.hold = hold
    with pytest.raises(UnreachableError):
        run(EVERYWHERE, pair, yes=True)
    assert pair.held == set()


def test_an_address_that_does_not_answer_after_its_move() -> None:
    pair = Pair(public2="lb1")
    pair.answer = Answer(None, 100, "connection refused")
    with pytest.raises(FailedError, match="public2 is on lb2 and does not answer: connection refused"):
        run(EVERYWHERE, pair, yes=True)


def test_before_the_first_release_a_503_is_an_answer() -> None:
    pair = Pair(public2="lb1")
    pair.answer = Answer(503, 3)
    run(EVERYWHERE, pair, yes=True)
    assert pair.where == HOME


def refusal(pair: Pair) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        run(EVERYWHERE, pair, yes=True)
    assert pair.log == [], "nothing was changed"
    return caught.value


def test_refuses_when_a_load_balancer_cannot_be_reached() -> None:
    pair = Pair(public2="lb1")
    pair.nodes["lb2"] = gone("lb2")
    assert "lb2 cannot be reached" in refusal(pair).message


def test_refuses_when_the_wanted_owners_haproxy_does_not_answer() -> None:
    pair = Pair(public2="lb1")
    pair.nodes["lb2"] = replace(pair.nodes["lb2"], alive=False)
    assert "lb2 is to have public2, and its HAProxy does not answer" in refusal(pair).message


def test_refuses_when_the_wanted_owners_keepalived_is_down() -> None:
    pair = Pair(public2="lb1")
    pair.nodes["lb2"] = replace(pair.nodes["lb2"], services={"keepalived.service": "failed"})
    assert "its keepalived is failed" in refusal(pair).message


def test_refuses_when_the_wanted_owner_is_held_back() -> None:
    pair = Pair(public2="lb1")
    pair.held.add(("public2", "lb2"))
    assert "rm /run/keepalived/hold/public2" in refusal(pair).mend


@pytest.mark.parametrize("state", ["fault", "init", "lb2: `keepalived-state` did not end within 5 s"])
def test_refuses_when_the_wanted_owners_keepalived_is_not_ready(state: str) -> None:
    pair = Pair(public2="lb1")
    pair.states["lb2"] = state
    assert f"not ready to take it: {state}" in refusal(pair).message


@pytest.mark.parametrize(("owner", "words"), [("nobody", "has no owner"), ("lb1", "2 owners")])
def test_refuses_without_exactly_one_owner(owner: str, words: str) -> None:
    pair = Pair(internal=owner)
    if words == "2 owners":
        everything = frozenset(one.address for one in EVERYWHERE)
        pair.look = lambda: {name: replace(node, addresses=everything) for name, node in pair.nodes.items()}
    assert words in refusal(pair).message


def test_refuses_an_owner_that_is_no_load_balancer() -> None:
    with pytest.raises(RefusedError, match="wants public1 on app1, which is no load balancer"):
        plan((replace(EVERYWHERE[0], owner="app1"),), Pair())


def test_with_three_load_balancers_all_but_the_wanted_one_are_held() -> None:
    pair = Pair(public1="lb3")
    pair.nodes["lb3"] = replace(pair.nodes["lb2"], host="lb3")
    assert plan(EVERYWHERE, pair) == [Move(EVERYWHERE[0], "lb3")]
    run(EVERYWHERE, pair, yes=True)
    assert pair.log[:2] == ["hold public1 on lb2,lb3", "release public1 on lb2,lb3"]
