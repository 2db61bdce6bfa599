"""What the project promises of itself: one home for each thing, nothing secret, nothing of one machine."""

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


def tracked() -> list[Path]:
    """What git keeps, and what it would keep if it were added now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for path in tracked():
        try:
            found.append((path, path.read_text()))
        except UnicodeDecodeError:
            continue
    return found


def test_no_private_key_is_committed() -> None:
    marker = re.compile(r"^-----BEGIN [A-Z ]*PRIVATE KEY-----", re.MULTILINE)
    assert not [path for path, text in texts() if marker.search(text)]


def test_secrets_and_state_are_ignored_by_git() -> None:
    kept = {str(path.relative_to(ROOT)) for path in tracked()}
    assert not [name for name in kept if name.startswith((".lab/", ".molecule/", ".venv/", ".releases/"))]


def test_site_imports_only_and_each_import_has_its_reason() -> None:
    path = ROOT / "playbooks/site.yml"
    for play in yaml.safe_load(path.read_text()):
        assert "ansible.builtin.import_playbook" in play
        assert (path.parent / play["ansible.builtin.import_playbook"]).is_file()
    blocks = path.read_text().split("\n\n")[1:]
    assert all(block.lstrip().startswith("#") for block in blocks)


def test_playbooks_have_no_group_vars_of_their_own() -> None:
    # They would override every inventory's.
    assert not (ROOT / "playbooks/group_vars").exists()


def test_roles_and_templates_name_no_group() -> None:
    pattern = re.compile(
        r"groups(\[['\"]|\.)(load_balancers|app_servers|databases|builders|workers|brokers|filers)"
    )
    found = [
        path
        for path, text in texts()
        if path.is_relative_to(ROOT / "roles") or path.is_relative_to(ROOT / "templates")
        if pattern.search(text)
    ]
    assert not found


def test_every_make_target_of_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"`make ([a-z-]+)", path.read_text()):
            assert target in targets, f"{path.name} tells to type `make {target}`"


def test_links_in_the_documents_lead_somewhere() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.relative_to(ROOT)} links to {link}"


def test_role_reference_is_current() -> None:
    done = subprocess.run(
        ["scripts/role-reference", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_strategy_of_ansible_is_one_switch() -> None:
    settings = (ROOT / "ansible.cfg").read_text()
    assert re.search(r"^strategy = mitogen_linear$", settings, re.MULTILINE)
    assert "strategy: " not in "".join(
        text for path, text in texts() if path.is_relative_to(ROOT / "playbooks")
    )


def test_no_template_takes_its_order_from_a_set() -> None:
    # These filters give an order of their own at each run, and a file written from it changes at each run.
    pattern = re.compile(r"\| *(union|intersect|difference|symmetric_difference)\(")
    found = [path for path, text in texts() if path.suffix == ".j2" if pattern.search(text)]
    assert not found
