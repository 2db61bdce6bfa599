"""How operations reach hosts: settings as Ansible's, host keys enforced, every failure one typed error."""

import socket
import threading
import time
from pathlib import Path
from typing import Any

import paramiko
import pytest

from bulkhead import connections
from bulkhead.connections import Connections, answers_of, connect, each, ssh_command, ssh_settings
from bulkhead.errors import (
    CommandError,
    Error,
    FailedError,
    SettingsError,
    UnreachableError,
    UntrustedHostError,
)
from bulkhead.inventory import Host


def host(name: str = "app1", address: str = "127.0.0.1", **variables: Any) -> Host:
    return Host(name, address, address, variables)


# --- settings ----------------------------------------


def test_settings_come_from_the_inventory(tmp_path: Path) -> None:
    file = tmp_path / "ssh_config"
    file.write_text("Host *\n  User other\n")
    found = ssh_settings(
        host(ansible_ssh_common_args=f"-F {file}", ansible_user="bulkhead", ansible_port=2222)
    )
    assert (found.configuration, found.user, found.port, found.key) == (file, "bulkhead", 2222, None)


def test_without_settings_the_users_own_configuration_counts() -> None:
    found = ssh_settings(host())
    assert (found.configuration, found.user, found.port, found.key) == (None, None, None, None)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            {"ansible_ssh_common_args": "-o ProxyJump=x"},
            ["ansible_ssh_common_args", "app1", "ProxyJump=x", "-F"],
        ),
        ({"ansible_ssh_common_args": "-F /no/such/file"}, ["/no/such/file", "app1", "not there"]),
        ({"ansible_user": "{{ me }}"}, ["ansible_user", "app1", "{{ me }}"]),
    ],
)
def test_settings_that_are_wrong(variables: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        ssh_settings(host(**variables))
    assert all(word in str(caught.value) for word in words)


def test_what_a_person_types(tmp_path: Path) -> None:
    file = tmp_path / "ssh_config"
    file.write_text("Host app1\n  HostName 127.0.0.1\n")
    lab = f"-F {file}"
    assert ssh_command(host(ansible_ssh_common_args=lab)) == f"ssh -F {file} app1"
    # The configuration does not know this host by its name.
    assert ssh_command(host("app2", ansible_ssh_common_args=lab)) == f"ssh -F {file} 127.0.0.1"
    assert ssh_command(host(ansible_user="bulkhead")) == "ssh bulkhead@127.0.0.1"
    assert ssh_command(host(ansible_user="b", ansible_port=22022)) == "ssh -p 22022 b@127.0.0.1"


# --- host keys ----------------------------------------


class Server(paramiko.ServerInterface):
    """An SSH server that lets anybody in, if they come that far."""

    def __init__(self) -> None:
        self.logins = 0

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, _username: str, _key: paramiko.PKey) -> int:
        self.logins += 1
        return int(paramiko.AUTH_SUCCESSFUL)


class Listening:
    """A server on a port of its own that shows a given key to one client."""

    def __init__(self, key: paramiko.PKey) -> None:
        self.server = Server()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._key = key
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        transport = paramiko.Transport(client)
        transport.add_server_key(self._key)
        transport.start_server(server=self.server)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def keys() -> tuple[paramiko.PKey, paramiko.PKey]:
    return paramiko.ECDSAKey.generate(), paramiko.ECDSAKey.generate()


def reach(tmp_path: Path, shown: paramiko.PKey, known: paramiko.PKey | None) -> tuple[Server, Any]:
    """Connects to a server that shows one key while known_hosts has another, or none."""
    listening = Listening(shown)
    identity = tmp_path / "identity"
    paramiko.ECDSAKey.generate().write_private_key_file(str(identity))
    record = f"[127.0.0.1]:{listening.port} {known.get_name()} {known.get_base64()}\n" if known else ""
    (tmp_path / "known_hosts").write_text(record)
    (tmp_path / "ssh_config").write_text(
        f"Host *\n  IdentityFile {identity}\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {tmp_path}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
    )
    target = host(
        ansible_ssh_common_args=f"-F {tmp_path}/ssh_config",
        ansible_user="bulkhead",
        ansible_port=listening.port,
    )
    try:
        connection = connect(target)
        connection.close()
        return listening.server, None
    except Error as error:
        return listening.server, error
    finally:
        listening.close()


def test_a_host_with_the_key_on_record_is_reached(tmp_path: Path, keys: tuple[Any, Any]) -> None:
    server, error = reach(tmp_path, shown=keys[0], known=keys[0])
    assert error is None
    assert server.logins > 0


@pytest.mark.parametrize(("known", "words"), [(None, "not on record"), (1, "not the one on record")])
def test_a_host_with_another_key_is_refused(
    tmp_path: Path, keys: tuple[Any, Any], known: int | None, words: str
) -> None:
    server, error = reach(tmp_path, shown=keys[0], known=None if known is None else keys[known])
    assert isinstance(error, UntrustedHostError)
    assert words in error.message
    assert f"{tmp_path}/known_hosts" in error.message
    assert keys[0].fingerprint in error.mend
    assert "ssh-keygen -lf" in error.mend
    assert server.logins == 0, "it must not even see which key we would log in with"


def test_a_host_that_refuses_is_one_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(UnreachableError, match=r"app1: no SSH session with .*connection refused") as caught:
        connect(host(ansible_port=port, ansible_user="bulkhead"))
    assert "ssh -p" in caught.value.mend


def test_many_connections_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    (tmp_path / "ssh_config").write_text("Host *\n  User bulkhead\n")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    shared = {"ansible_ssh_common_args": f"-F {tmp_path}/ssh_config", "ansible_port": port}
    found = each([host(f"app{number}", **shared) for number in range(100)], connect)
    assert {type(outcome) for outcome in found.values()} == {UnreachableError}


def test_a_host_that_accepts_and_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is a frozen host: its kernel still accepts."""
    monkeypatch.setattr(connections, "HANDSHAKE_TIMEOUT_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with pytest.raises(UnreachableError):
            connect(host(ansible_port=silent.getsockname()[1], ansible_user="bulkhead"), timeout_seconds=0.5)
        assert time.monotonic() - began < 5


# --- many hosts ----------------------------------------


def hosts(count: int) -> list[Host]:
    return [host(f"app{number}") for number in range(count)]


def test_each_answers_in_the_order_given_and_keeps_errors_apart() -> None:
    def look(one: Host) -> str:
        if one.name == "app1":
            raise UnreachableError(one.name, "it is down")
        return one.name.upper()

    found = each(hosts(3), look)
    assert list(found) == ["app0", "app1", "app2"]
    assert found["app2"] == "APP2"
    assert isinstance(found["app1"], UnreachableError)


def test_each_works_at_once_and_within_bounds() -> None:
    now = most = 0
    guard = threading.Lock()
    together = threading.Barrier(connections.PARALLEL_HOSTS, timeout=10)

    def look(_one: Host) -> None:
        nonlocal now, most
        with guard:
            now += 1
            most = max(most, now)
        together.wait()
        with guard:
            now -= 1

    each(hosts(3 * connections.PARALLEL_HOSTS), look)
    assert most == connections.PARALLEL_HOSTS


def test_each_does_not_wait_for_a_host_that_hangs() -> None:
    hanging = threading.Event()
    found = each(hosts(2), lambda one: hanging.wait() if one.name == "app1" else True, timeout_seconds=0.3)
    hanging.set()
    assert found["app0"] is True
    assert isinstance(found["app1"], UnreachableError)
    assert "within 0.3 s" in str(found["app1"])


def test_each_is_patient_when_most_hosts_are_late() -> None:
    """That is a slow machine here and not many dead hosts there."""
    late = threading.Event()
    threading.Timer(0.5, late.set).start()
    found = each(hosts(3), lambda _one: late.wait(), timeout_seconds=0.1, patience_seconds=30)
    assert found == {"app0": True, "app1": True, "app2": True}


def test_each_is_not_patient_for_a_few() -> None:
    hanging = threading.Event()
    began = time.monotonic()
    found = each(
        hosts(3),
        lambda one: hanging.wait() if one.name == "app1" else True,
        timeout_seconds=0.2,
        patience_seconds=30,
    )
    assert time.monotonic() - began < 10
    hanging.set()
    assert isinstance(found["app1"], UnreachableError)


def test_a_mistake_in_the_program_is_not_taken_for_a_host_that_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        each(hosts(2), lambda _one: 1 // 0)


def test_answers_of_names_every_host_that_failed() -> None:
    outcomes = {
        "app1": UnreachableError("app1", "it is down", mend="ssh app1"),
        "app2": "fine",
        "app3": CommandError("app3", "true", 3, "one\ntwo\n"),
    }
    with pytest.raises(FailedError) as caught:
        answers_of(outcomes, doing="Shipping")
    assert "Shipping failed on 2 of 3 hosts" in caught.value.message
    assert all(
        words in str(caught.value) for words in ("app1: it is down", "app3: `true` ended with code 3", "two")
    )
    assert "app2" not in str(caught.value)
    assert answers_of({"app2": "fine"}, doing="Shipping") == {"app2": "fine"}


# --- commands ----------------------------------------


class Exchanging(Connections):
    """Keeps what would be sent to a host."""

    def __init__(self, code: int = 0, stderr: bytes = b"") -> None:
        super().__init__()
        self.sent: list[tuple[str, Any]] = []
        self._answer = stderr, code

    def _exchange(self, *arguments: Any) -> Any:
        _host, full, _shown, given, _receive, _timeout = arguments
        self.sent.append((full, given))
        return self._answer


def test_commands_run_as_root_without_a_password_to_type() -> None:
    exchanging = Exchanging()
    exchanging.run(host(), "echo 'a b'; id")
    exchanging.run(host(), "id", sudo=False)
    assert [full for full, _ in exchanging.sent] == ["sudo -n -- sh -c 'echo '\"'\"'a b'\"'\"'; id'", "id"]


def test_input_is_not_in_the_command_nor_in_an_error() -> None:
    exchanging = Exchanging(code=1, stderr=b"no\n")
    with pytest.raises(CommandError) as caught:
        exchanging.run(host(), "cat > file", input="TOP SECRET")
    assert "TOP SECRET" not in str(caught.value)
    assert "TOP SECRET" not in exchanging.sent[0][0]


def test_a_code_may_be_asked_for() -> None:
    assert Exchanging(code=3).run(host(), "false", check=False).code == 3


def test_a_sudo_that_asks_is_explained() -> None:
    exchanging = Exchanging(code=1, stderr=b"sudo: a password is required\n")
    with pytest.raises(Error, match="sudo asks for a password"):
        exchanging.run(host(), "id")


def test_a_file_with_an_awkward_name_is_one_word() -> None:
    exchanging = Exchanging()
    exchanging.put(host(), b"x", "/tmp/a b; rm -rf x", mode=0o600)
    assert exchanging.sent[0][0].endswith("put '/tmp/a b; rm -rf x' root:root 0600")


def test_a_copy_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("before")
    with pytest.raises(CommandError):
        Exchanging(code=1, stderr=b"no such file").get(host(), "/nowhere", target)
    assert target.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
