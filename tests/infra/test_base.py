"""Every host: names, logins, the journal. Changes nothing, so it runs on live hosts too."""

import testinfra.host

testinfra_hosts = ["ansible://all"]


def test_every_host_knows_every_other_without_dns(host: testinfra.host.Host) -> None:
    variables = host.ansible.get_variables()
    for name in variables["groups"]["all"]:
        found = host.run("getent --service=files hosts %s", name)
        assert found.rc == 0, f"{name} is not in /etc/hosts"


def test_sshd_takes_keys_only_and_no_root(host: testinfra.host.Host) -> None:
    effective = host.run("sshd -T").stdout
    assert "passwordauthentication no" in effective
    assert "kbdinteractiveauthentication no" in effective
    assert "permitrootlogin no" in effective


def test_the_journal_is_kept_and_bounded(host: testinfra.host.Host) -> None:
    assert host.file("/var/log/journal").is_directory
    limits = host.run("systemd-analyze cat-config systemd/journald.conf").stdout
    assert "SystemMaxUse=" in limits


def test_no_unit_has_failed(host: testinfra.host.Host) -> None:
    failed = host.run("systemctl list-units --failed --plain --no-legend")
    assert failed.stdout == ""
