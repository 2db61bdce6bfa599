"""Reloads that nobody notices, and changes that are refused."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
from haproxy_nodes import PUBLIC1, Client, Host, admin, log, now, wait_until

PROJECT = Path(__file__).parents[3]

pytestmark = pytest.mark.usefixtures("well")


def test_a_reload_refuses_nobody_and_a_stream_ends_whole(client: Client, lb1: Host) -> None:
    results: list[int | str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                results.append(client.get().status)
            except OSError as error:
                results.append(repr(error))

    connection = client.connect()
    connection.request("GET", "/stream?seconds=6")
    stream = connection.getresponse()
    assert stream.read(5) == b"tick\n"
    askers = [threading.Thread(target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    for _ in range(3):
        lb1.check_output("systemctl reload haproxy")
    stop.set()
    for asker in askers:
        asker.join()
    assert set(results) == {200}, {result: results.count(result) for result in set(results)}
    assert len(results) > 20
    assert stream.read().endswith(b"tick\n")
    # What an old worker still serves, the new one does not count: docs/haproxy-log.md says where to count.
    assert "old workers" in admin(lb1, "show proc", "/run/haproxy/master.sock")


def converge(**variables: str) -> subprocess.CompletedProcess[str]:
    arguments = [word for name, value in variables.items() for word in ("-e", f"{name}={value}")]
    return subprocess.run(
        ["ansible-playbook", "--limit=lb1", "molecule/haproxy/converge.yml", *arguments],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_renewed_certificate_is_served_and_nobody_is_refused(client: Client, lb1: Host) -> None:
    def served() -> str:
        return ssl.get_server_certificate((PUBLIC1, 443)).strip()

    before, stop = served(), threading.Event()
    results: list[int | str] = []

    def ask() -> None:
        while not stop.wait(0.05):
            try:
                results.append(client.get().status)
            except OSError as error:
                results.append(repr(error))

    asker = threading.Thread(target=ask)
    asker.start()
    try:
        lb1.check_output("rm /etc/bulkhead/pki/node.crt")
        result = converge()
    finally:
        stop.set()
        asker.join()
    assert result.returncode == 0, result.stdout[-4000:]
    after = served()
    assert after != before
    assert after in lb1.file("/etc/bulkhead/pki/node.crt").content_string
    assert set(results) == {200}, {result: results.count(result) for result in set(results)}


def test_a_template_edit_that_does_not_parse_changes_nothing(
    client: Client, lb1: Host, tmp_path: Path
) -> None:
    shutil.copytree(PROJECT / "templates/haproxy", tmp_path / "haproxy")
    with (tmp_path / "haproxy/public.cfg.j2").open("a") as file:
        file.write("    htp-request deny\n")
    before = lb1.check_output("sha256sum /etc/haproxy/haproxy.cfg; systemctl show -p MainPID haproxy")
    worker = admin(lb1, "show info").split("Pid: ")[1].split()[0]
    result = converge(haproxy_template=str(tmp_path / "haproxy/haproxy.cfg.j2"))
    assert result.returncode != 0
    assert "unknown keyword 'htp-request'" in result.stdout
    after = lb1.check_output("sha256sum /etc/haproxy/haproxy.cfg; systemctl show -p MainPID haproxy")
    assert after == before
    assert admin(lb1, "show info").split("Pid: ")[1].split()[0] == worker
    assert client.get().status == 200


def test_a_reload_of_a_broken_file_leaves_the_worker(client: Client, lb1: Host) -> None:
    """Somebody edits the live file by hand."""
    worker = admin(lb1, "show info").split("Pid: ")[1].split()[0]
    lb1.check_output("cp /etc/haproxy/haproxy.cfg /root/kept.cfg")
    lb1.check_output("echo nonsense | tee -a /etc/haproxy/haproxy.cfg")
    try:
        assert lb1.run("systemctl reload haproxy").rc != 0
        assert admin(lb1, "show info").split("Pid: ")[1].split()[0] == worker
        assert client.get().status == 200
    finally:
        lb1.check_output("mv /root/kept.cfg /etc/haproxy/haproxy.cfg")


def test_a_certificate_that_cannot_be_served_is_refused_before_the_node_is_touched(tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text('{"haproxy_certificates": [{"name": "x", "certificate": "text", "key": "text"}]}')
    result = subprocess.run(
        ["ansible-playbook", "--limit=lb1", "molecule/haproxy/converge.yml", "-e", f"@{given}"],
        cwd=PROJECT,
        env={**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode != 0
    assert "haproxy_certificates, name 'x': it is not a certificate in PEM form" in result.stdout
    assert "changed=0" in result.stdout


def test_the_log_loses_nothing_under_load(client: Client, lb1: Host) -> None:
    since = now(lb1)

    def ask() -> None:
        connection = client.connect()
        for _ in range(500):
            connection.request("GET", "/counted", headers={"Host": PUBLIC1})
            connection.getresponse().read()

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    wait_until(
        "2000 lines", lambda: len([one for one in log(lb1, since) if one.get("path") == "/counted"]) == 2000
    )
    assert "DroppedLogs: 0" in admin(lb1, "show info")
