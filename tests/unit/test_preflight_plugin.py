"""Preflight as an operator meets it: ansible-playbook on the project's own playbooks and inventories.

The strategies are spread over the tests, because each run costs seconds.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bulkhead import secrets

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = ROOT / "inventories/shared/group_vars/all/application.yml"


def preflight(*inventories: str | Path, strategy: str = "mitogen_linear") -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "ANSIBLE_INVENTORY": ",".join(["inventories/shared", *map(str, inventories)]),
        "ANSIBLE_STRATEGY": strategy,
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return subprocess.run(
        ["ansible-playbook", "playbooks/preflight.yml", "--check"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make up` adds to the inventory of the lab, or an operator to that of production: the secrets."""
    path = tmp_path_factory.mktemp("state")
    names = yaml.safe_load(APPLICATION.read_text(encoding="utf-8"))["application"]["secrets"]
    secrets.write(path / "group_vars/all/secrets.yml", secrets.complete({}, "trial", names), vault=False)
    (path / "hosts.yml").write_text("all: {}\n")
    return path


@pytest.mark.parametrize("environment", ["lab", "production"])
def test_the_projects_own_inventories_are_sound(environment: str, state: Path) -> None:
    done = preflight(f"inventories/{environment}", state, strategy="linear")
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_problems_are_shown_with_file_and_line_and_no_traceback(state: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    (broken / "group_vars/all").mkdir(parents=True)
    (broken / "hosts.yml").write_text("all: {}\n")
    (broken / "group_vars/all/broken.yml").write_text(
        "---\n"
        "virtual_addresses:\n"
        "  - {name: public1, address: 203.0.113.5, kind: public, owner: lb1}\n"
        "  - {name: internal, address: 198.18.0.103, kind: internal, owner: lb1}\n"
        "base_journal_days: many\n"
        'haproxy_stats_password: "{{ nowhere }}"\n'
    )
    done = preflight("inventories/lab", state, broken)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    assert len(lines) == 3, output
    file = broken / "group_vars/all/broken.yml"
    assert any(
        line.startswith(
            f"- virtual_addresses.0.address ({file}:3): the virtual address 203.0.113.5 (public1) is in"
        )
        for line in lines
    )
    assert any(
        line.startswith(
            f"- base_journal_days ({file}:5): it is 'many', and must be of type int (role base on "
        )
        for line in lines
    )
    assert any(
        line.startswith("- haproxy_stats_password on ") and "'nowhere' is undefined" in line for line in lines
    )
    assert "3 problems in the inventory, listed above; no host was touched." in output
    assert "Traceback" not in output


def test_missing_secrets_are_one_line_with_the_command_that_makes_them() -> None:
    done = preflight("inventories/lab")
    lines = [line for line in done.stdout.splitlines() if line.startswith("- ")]
    assert len(lines) == 1, done.stdout
    assert lines[0].startswith("- group_vars/all/secrets.yml: these secrets have no value: pki_ca_key, ")
    assert "`make up`" in lines[0]
    assert "python -m bulkhead.secrets" in lines[0]
