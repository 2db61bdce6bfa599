"""Who gets in and who does not, on hosts that may be thrown away."""

import os
import subprocess
from pathlib import Path

import testinfra.host

testinfra_hosts = ["ansible://base1"]
state = Path(os.environ["BULKHEAD_STATE"])


def ssh(user: str, *command: str, config: Path = state / "ssh_config") -> subprocess.CompletedProcess[str]:
    options = ["-F", str(config), "-l", user, "-o", "BatchMode=yes", "-o", "ControlPath=none"]
    return subprocess.run(["ssh", *options, "base1", *command], capture_output=True, text=True, timeout=30)


def test_an_operator_logs_in_and_has_sudo() -> None:
    assert ssh("ada", "sudo", "-n", "id", "-u").stdout.strip() == "0"


def test_an_operator_without_sudo_has_none() -> None:
    assert ssh("grace", "id", "-un").stdout.strip() == "grace"
    assert ssh("grace", "sudo", "-n", "id", "-u").returncode != 0


def test_a_former_operator_does_not_get_in() -> None:
    refused = ssh("former", "true")
    assert refused.returncode == 255
    assert "Permission denied" in refused.stderr


def test_root_does_not_get_in_even_with_the_right_key(host: testinfra.host.Host) -> None:
    host.check_output("install -D -m 0600 /home/bulkhead/.ssh/authorized_keys /root/.ssh/authorized_keys")
    try:
        assert ssh("root", "true").returncode == 255
    finally:
        host.check_output("rm -r /root/.ssh")


def test_a_host_key_that_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "known_hosts").touch()
    config = tmp_path / "ssh_config"
    trusted = str(state / "known_hosts")
    config.write_text((state / "ssh_config").read_text().replace(trusted, str(tmp_path / "known_hosts")))
    refused = ssh("ada", "true", config=config)
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr


def test_a_kernel_setting_waits_where_the_host_may_not_set_it(host: testinfra.host.Host) -> None:
    # In a container /proc/sys is read-only: the file is there for the day it is not, and nothing failed.
    assert "net.core.somaxconn = 4096" in host.file("/etc/sysctl.d/60-bulkhead.conf").content_string
