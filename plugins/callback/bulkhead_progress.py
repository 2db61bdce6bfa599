"""What `make up` shows of a playbook: a line per play, failures whole, and nothing of what went well."""

from __future__ import annotations

import os
import time
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
    name: bulkhead_progress
    type: stdout
    short_description: A line per play, failures whole
    description:
      - One line per play with the time since BULKHEAD_BEGAN (seconds since the epoch), and every
        failure with its host, its task and its message.
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "bulkhead_progress"

    def __init__(self) -> None:
        super().__init__()
        self.began = float(os.environ.get("BULKHEAD_BEGAN", time.time()))
        self.task = ""

    def _line(self, text: str) -> None:
        minutes, seconds = divmod(int(time.time() - self.began), 60)
        self._display.display(f"      {minutes:>2}:{seconds:02}  {text}")

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._line(play.get_name().strip())

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        del is_conditional  # the interface names it; nothing here asks for it
        self.task = task.get_name().strip()

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self.task = task.get_name().strip()

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if ignore_errors:
            return
        values = result._result
        said = values.get("msg") or values.get("stderr") or values.get("stdout") or "no message"
        if "results" in values:
            said = "; ".join(str(item.get("msg", "")) for item in values["results"] if item.get("failed"))
        if values.get("stderr") and values["stderr"] not in str(said):
            said = f"{said}\n{values['stderr']}"
        self._display.display(f"FAILED on {result._host.get_name()}: {self.task}\n{said}", color="red")

    def v2_runner_on_unreachable(self, result: Any) -> None:
        said = result._result.get("msg", "")
        self._display.display(f"CANNOT REACH {result._host.get_name()}: {said}", color="red")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        hosts = sorted(stats.processed)
        changed = sum(stats.summarize(host)["changed"] for host in hosts)
        troubled = [
            host
            for host in hosts
            if stats.summarize(host)["failures"] or stats.summarize(host)["unreachable"]
        ]
        self._line(
            f"{changed} changed on {len(hosts)} hosts"
            + (f"; FAILED: {', '.join(troubled)}" if troubled else "")
        )
