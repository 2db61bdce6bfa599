"""bulkhead_packages: when apt is asked, and with what."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

FILE = Path(__file__).resolve().parents[2] / "plugins/action/bulkhead_packages.py"
spec = importlib.util.spec_from_file_location("bulkhead_packages", FILE)
assert spec is not None
assert spec.loader is not None
plugin = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plugin)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the plugin on a host of which dpkg tells `told`; answers with the result and what apt got."""

    def go(told: list[str], fails: int = 0, **arguments: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        given: list[dict[str, Any]] = []

        def execute(_: Any, module: str, module_args: dict[str, Any], **__: Any) -> dict[str, Any]:
            assert module == "ansible.builtin.apt"
            given.append(module_args)
            return {"failed": True, "msg": "no such package"} if len(given) <= fails else {"changed": True}

        monkeypatch.setattr(ActionBase, "run", lambda *_: {})
        monkeypatch.setattr(ActionBase, "_execute_module", execute)
        monkeypatch.setattr(ActionBase, "_low_level_execute_command", lambda *_: {"stdout_lines": told})
        action = plugin.ActionModule.__new__(plugin.ActionModule)
        action._task = SimpleNamespace(args=arguments)
        return action.run(task_vars={}), given

    return go


def test_apt_is_left_alone_when_all_is_installed(run: Any) -> None:
    result, given = run(["installed haproxy", "installed python3"], name=["haproxy", "python3"])
    assert result == {"changed": False}
    assert given == []


@pytest.mark.parametrize(
    "told",
    [[], ["installed python3"], ["config-files haproxy", "installed python3"], ["half-installed haproxy"]],
    ids=["unknown", "one lacks", "removed, settings left", "interrupted"],
)
def test_apt_is_asked_when_something_lacks(run: Any, told: list[str]) -> None:
    result, given = run(told, name=["haproxy", "python3"], policy_rc_d=101)
    assert result == {"changed": True}
    [arguments] = given
    assert arguments["name"] == ["haproxy", "python3"]
    assert arguments["policy_rc_d"] == 101
    assert arguments["update_cache"] is True


def test_an_index_of_today_is_tried_and_a_new_one_fetched_when_it_fails(run: Any) -> None:
    result, given = run([], fails=1, name="haproxy")
    assert [each["cache_valid_time"] for each in given] == [86_400, 0]
    assert result == {"changed": True}


def test_what_fails_with_a_new_index_has_failed(run: Any) -> None:
    result, given = run([], fails=2, name="haproxy")
    assert len(given) == 2
    assert result["failed"]


@pytest.mark.parametrize("name", [None, [], [7]])
def test_names_are_texts(run: Any, name: Any) -> None:
    with pytest.raises(AnsibleActionFail, match="package's name"):
        run([], name=name)
