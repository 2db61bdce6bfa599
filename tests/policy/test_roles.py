"""Every role has the same rooms, and its inputs are told once."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text()) or {}


@pytest.fixture(params=ROLES, ids=lambda path: path.name)
def role(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def options(role: Path) -> dict[str, Any]:
    found: dict[str, Any] = load(role / "meta/argument_specs.yml")["argument_specs"]["main"].get(
        "options", {}
    )
    return found


def test_the_rooms_are_there(role: Path) -> None:
    for room in ("defaults/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml"):
        assert (role / room).is_file(), f"{role.name} has no {room}"


def test_the_table_of_contents_imports_only(role: Path) -> None:
    for task in load(role / "tasks/main.yml"):
        assert "ansible.builtin.import_tasks" in task, (
            f"{role.name}: {task.get('name')} does work in main.yml"
        )


def test_defaults_and_specification_agree(role: Path) -> None:
    defaults = load(role / "defaults/main.yml")
    specified = options(role)
    with_default = {name: option["default"] for name, option in specified.items() if "default" in option}
    assert defaults == with_default


def test_an_input_has_a_default_or_is_required(role: Path) -> None:
    for name, option in options(role).items():
        assert ("default" in option) != bool(option.get("required")), (
            f"{role.name}: {name} needs a default or `required: true`, and not both"
        )


def test_inputs_carry_the_name_of_the_role(role: Path) -> None:
    for name in options(role):
        assert name.startswith(f"{role.name}_"), f"{role.name}: {name}"


def test_every_role_has_a_scenario(role: Path) -> None:
    covered = {path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml")}
    # These have no service of their own. The builder is proved by what it builds, in scenario gunicorn; the
    # release program by what it switches, in gunicorn and celery.
    assert role.name in covered | {"builder", "release"}


def test_templates_and_files_state_owner_and_mode(role: Path) -> None:
    modules = ("ansible.builtin.template", "ansible.builtin.copy", "ansible.builtin.file")
    for path in (role / "tasks").glob("*.yml"):
        for task in walk(load(path)):
            for module in modules:
                given = task.get(module)
                if given and given.get("state") not in ("absent", "link"):
                    assert {"owner", "mode"} <= given.keys(), f"{path.name}: {task['name']}"


def test_what_notifies_by_file_has_its_handler() -> None:
    """Ansible looks for the handler when the file changes: a wrong name would be found that day only."""
    known = set()
    for path in (ROOT / "roles").glob("*/handlers/main.yml"):
        for handler in load(path):
            listen = handler.get("listen", [])
            known |= {handler["name"], *([listen] if isinstance(listen, str) else listen)}
    named = set()
    for path in (ROOT / "roles").glob("*/tasks/*.yml"):
        for task in walk(load(path)):
            for entry in task.get("bulkhead_files", {}).get("files", []):
                notify = entry.get("notify", []) if isinstance(entry, dict) else []
                named |= {notify} if isinstance(notify, str) else set(notify)
    assert named
    assert named <= known


def walk(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        found.append(task)
        for part in ("block", "rescue", "always"):
            found += walk(task.get(part, []))
    return found
