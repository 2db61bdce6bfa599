"""bulkhead_files as a role uses it: ansible-playbook on this machine, in a directory of the test's own."""

from __future__ import annotations

import getpass
import grp
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GROUP = grp.getgrgid(os.getgid()).gr_name


class Role:
    """One role with one task, whose handlers say their names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.role = path / "roles/trial"
        self.live = path / "live"
        for room in ("tasks", "handlers", "templates", "files"):
            (self.role / room).mkdir(parents=True)
        self.live.mkdir()
        handlers = [
            {"name": name, "ansible.builtin.debug": {"msg": f"ran {name}"}} for name in ("A", "B", "C")
        ]
        (self.role / "handlers/main.yml").write_text(yaml.safe_dump(handlers))

    def run(
        self,
        files: object,
        *options: str,
        strategy: str = "mitogen_linear",
        rounds: Sequence[Mapping[str, str]] = ({},),
        **keywords: object,
    ) -> subprocess.CompletedProcess[str]:
        task = {"name": "Write", "bulkhead_files": {"files": files}, **keywords}
        return self.run_tasks([task], *options, strategy=strategy, rounds=rounds)

    def run_tasks(
        self,
        tasks: list[dict[str, object]],
        *options: str,
        strategy: str = "mitogen_linear",
        rounds: Sequence[Mapping[str, str]] = ({},),
    ) -> subprocess.CompletedProcess[str]:
        """The role once for each round, with its variables, in one process: to start one takes seconds."""
        play = {"hosts": "localhost", "gather_facts": False, "roles": ["trial"]}
        plays = [
            {**play, "name": f"round {number}", "vars": dict(each)} for number, each in enumerate(rounds)
        ]
        (self.path / "play.yml").write_text(yaml.safe_dump(plays))
        (self.role / "tasks/main.yml").write_text(yaml.safe_dump(tasks, sort_keys=False))
        return subprocess.run(
            [
                *("ansible-playbook", "play.yml", "--inventory", "localhost,", "--connection", "local"),
                *("--extra-vars", f"ansible_become=false live={self.live}", *options),
            ],
            cwd=self.path,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_ROLES_PATH": str(self.path / "roles"),
                "ANSIBLE_STRATEGY": strategy,
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_NOCOLOR": "1",
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture
def role(tmp_path: Path) -> Role:
    return Role(tmp_path)


def entry(name: str, **given: object) -> dict[str, object]:
    return {
        "path": f"{{{{ live }}}}/{name}",
        "owner": getpass.getuser(),
        "group": GROUP,
        "mode": "0644",
        **given,
    }


def handlers_of_each(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert done.returncode == 0, done.stdout + done.stderr
    rounds = done.stdout.split("PLAY [round ")[1:]
    return [[name for name in ("A", "B", "C") if f"ran {name}" in told] for told in rounds]


def handlers_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    (told,) = handlers_of_each(done)
    return told


@pytest.mark.parametrize("strategy", ["mitogen_linear", "linear"])
def test_a_changed_file_tells_its_own_handlers_and_no_others(role: Role, strategy: str) -> None:
    files = [
        entry("one", content="{{ first }}", notify="A"),
        entry("two", content="{{ second }}", notify=["B", "C"]),
    ]
    # The same task with a loop: each of its turns tells what it changed.
    loop = [{"name": "A", "text": "same\n"}, {"name": "B", "text": "{{ second }}"}]
    looped = [entry("{{ item.name }}", content="{{ item.text }}", notify="{{ item.name }}")]
    rounds = [{"first": "1", "second": "1"}, {"first": "1", "second": "1"}]
    rounds += [{"first": "2", "second": "1"}, {"first": "2", "second": "2"}]
    done = role.run(files, rounds=rounds, strategy=strategy)
    assert handlers_of_each(done) == [["A", "B", "C"], [], ["A"], ["B", "C"]]
    done = role.run(looped, rounds=rounds[2:], strategy=strategy, loop=loop)
    assert handlers_of_each(done) == [["A", "B"], ["B"]]


def test_the_tasks_own_handlers_are_told_of_any_change(role: Role) -> None:
    files = [entry("one", content="1\n", notify="B"), entry("two", content="{{ second }}")]
    done = role.run(files, rounds=[{"second": "1"}, {"second": "2"}], notify="A")
    assert handlers_of_each(done) == [["A", "B"], ["A"]]


def test_content_comes_from_the_roles_own_templates_and_files(role: Role) -> None:
    (role.role / "templates/main.j2").write_text(
        "# {{ ansible_managed }}\n{% include 'part.j2' %}\n{% if true %}\nkept\n{% endif %}\n{{ name }}\n"
    )
    (role.role / "templates/part.j2").write_text("part of {{ name }}")
    (role.role / "files/plain").write_text("{{ not a template }}\n")
    files = [
        entry("inner", directory=True, mode="0755"),
        [entry(f"inner/{name}", template="main.j2", vars={"name": name}) for name in ("x", "y")],
        entry("plain", source="plain", mode="0755"),
        entry("left", content="out\n", when="{{ 1 > 2 }}"),
        entry("said", content='{"a": [1, 2]}\n'),
        {**entry("", content="many\n"), "path": ["{{ live }}/p", "{{ live }}/q"]},
    ]
    assert handlers_of(role.run(files)) == []
    written = {str(path.relative_to(role.live)): path for path in role.live.rglob("*") if path.is_file()}
    assert written.keys() == {"inner/x", "inner/y", "plain", "said", "p", "q"}
    assert written["inner/x"].read_text() == "# Ansible managed\npart of xkept\nx\n"
    assert written["plain"].read_text() == "{{ not a template }}\n"
    assert written["plain"].stat().st_mode & 0o777 == 0o755
    assert written["said"].read_text() == '{"a": [1, 2]}\n'
    # Ansible's own task would not change it.
    template = {"src": "main.j2", "dest": "{{ live }}/inner/x", "mode": "0644"}
    asked = role.run_tasks(
        [{"name": "Ask", "ansible.builtin.template": template, "vars": {"name": "x"}}], "--check"
    )
    assert "ok=1 " in asked.stdout
    assert "changed=0 " in asked.stdout


def test_a_dry_run_shows_the_diff_and_no_secret(role: Role) -> None:
    files = [
        entry("open", content="shown\n", notify="A"),
        entry("closed", content="{{ word }}\n", secret=True, mode="0600"),
    ]
    words = ("--extra-vars", "word=hunter2")
    told = role.run(files, *words, "--check", "--diff", "-vvv")
    assert handlers_of(told) == ["A"]
    assert list(role.live.iterdir()) == []
    assert "+shown" in told.stdout
    assert f"{role.live}/closed: is new; its content is secret" in told.stdout
    done = role.run(files, *words, "--diff", "-vvv")
    assert (role.live / "closed").read_text() == "hunter2\n"
    # The play's own options name it, and nothing else does.
    shown = [line for line in (told.stdout + done.stdout).splitlines() if "hunter2" in line]
    assert [line for line in shown if "word=hunter2" not in line] == []


def test_when_one_is_refused_nothing_changes_and_no_handler_runs(role: Role) -> None:
    (role.live / "one").write_text("old\n")
    done = role.run(
        [entry("one", content="new\n", notify="A"), entry("two", content="bad\n", validate="grep good %s")]
    )
    assert done.returncode != 0
    assert "ran A" not in done.stdout
    assert "/two: the new content failed to validate" in done.stdout + done.stderr
    assert [path.name for path in role.live.iterdir()] == ["one"]
    assert (role.live / "one").read_text() == "old\n"


MISTAKES: list[tuple[dict[str, object], str]] = [
    ({"mode": 420}, "x: mode has to be given, as text"),
    ({"sourec": "a"}, "x: no entry of files has sourec"),
    (
        {"source": "a"},
        "x: give one of directory, absent, template, source, content, not source and content",
    ),
    ({"keep": "yes please"}, "x: keep has to be true or false"),
]


def test_a_mistake_in_an_entry_is_named_with_its_path(role: Role) -> None:
    tasks: list[dict[str, object]] = [
        {"name": f"Try {number}", "bulkhead_files": {"files": [entry("x", content="", **given)]}}
        for number, (given, _) in enumerate(MISTAKES)
    ]
    done = role.run_tasks([{**task, "ignore_errors": True} for task in tasks])
    told = " ".join((done.stdout + done.stderr).split())
    assert f"ignored={len(MISTAKES)}" in told
    assert [said for _, said in MISTAKES if said not in told] == []
    assert "Traceback" not in told
    assert list(role.live.iterdir()) == []


def test_a_template_that_cannot_be_rendered_names_its_file_and_no_secret(role: Role) -> None:
    (role.role / "templates/bad.j2").write_text("{{ word }}{{ nowhere }}\n")
    done = role.run([entry("x", template="bad.j2")], "--extra-vars", "word=7")
    assert "/live/x: " in done.stdout + done.stderr
    assert "'nowhere' is undefined" in done.stdout + done.stderr
    (role.role / "templates/bad.j2").write_text("{{ (word ~ word) | from_json }}\n")
    done = role.run([entry("x", template="bad.j2", secret=True)], "--extra-vars", "word=hunter")
    assert done.returncode != 0
    assert "its secret content cannot be made" in done.stdout + done.stderr
    assert "hunterhunter" not in done.stdout + done.stderr
