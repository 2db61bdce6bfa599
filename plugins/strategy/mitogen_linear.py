"""Mitogen's linear strategy, without its placement of processes on processors, and with less work per task.

As Mitogen comes, it pins its multiplexer to the first processor and everything that it starts to the others.
On two cores that is one core for all work. What a task starts on the controller inherits it: every process of
a lab's node would run on the second core for ever. docs/adr/0001 has the whole story.
"""

from __future__ import annotations

import gc

import ansible_mitogen.affinity
import ansible_mitogen.loaders
import ansible_mitogen.strategy
from ansible.plugins.loader import filter_loader, test_loader

DOCUMENTATION = """
    name: mitogen_linear
    short_description: Mitogen's linear strategy, free to use every processor
    description:
      - As ansible_mitogen's own, with the default policy of no placement.
"""

ansible_mitogen.affinity.policy = ansible_mitogen.affinity.Policy()
Linear = ansible_mitogen.loaders.strategy_loader.get("linear", class_only=True)


class StrategyModule(ansible_mitogen.strategy.StrategyMixin, Linear):
    def run(self, iterator, play_context, result=0):
        """A process is forked for each task and host. What each would load for itself is loaded before, and
        what is there by then the collector leaves alone: a look at it would copy the memory that they share.
        """
        filter_loader.get("default")
        test_loader.get("defined")
        gc.collect()
        gc.freeze()
        return super().run(iterator, play_context, result)
