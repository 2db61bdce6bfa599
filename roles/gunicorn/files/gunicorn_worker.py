"""The Gunicorn worker of the pools: it takes no request from the pool's socket before its release is current.

A new release starts beside the old one on the same listening socket. With a plain worker it would answer real
requests from its first second, ready or not. This one listens on its private readiness socket only, until the
link `current` names its release; `release switch` moves that link once the readiness check has passed.
"""

import os
import selectors
import socket

from gunicorn import __version__
from gunicorn.workers.gthread import ThreadWorker

# Every hook used below; without them the gate would silently be no gate.
for _hook in ("set_accept_enabled", "accept", "notify"):
    if not hasattr(ThreadWorker, _hook):
        raise RuntimeError(
            f"gunicorn {__version__} is too old for the release gate (its thread worker has no {_hook}): "
            "lock gunicorn 27 or newer in the application's requirements and deploy again"
        )


class ReleaseWorker(ThreadWorker):
    def run(self):
        self.release = os.environ["RELEASE_ID"]
        self.current_link = os.environ["RELEASE_CURRENT"]
        self.accepting_mark = os.path.join(os.environ["RUNTIME_DIRECTORY"], "accepting")
        self.waiting = [listener for listener in self.sockets if listener.sock.family != socket.AF_UNIX]
        self.sockets = [listener for listener in self.sockets if listener.sock.family == socket.AF_UNIX]
        super().run()

    def is_current(self):
        try:
            return os.path.basename(os.readlink(self.current_link)) == self.release
        except FileNotFoundError:
            return False

    def notify(self):
        """Called at least once a second by the worker's loop, also while it is draining."""
        super().notify()
        if self.waiting and self.alive and self._accepting and self.is_current():
            self.open_gate()

    def open_gate(self):
        opened, self.waiting = self.waiting, []
        for listener in opened:
            listener.setblocking(False)
            self.poller.register(listener, selectors.EVENT_READ, self.accept)
        self.sockets = self.sockets + opened
        with open(self.accepting_mark, "w", encoding="ascii") as mark:
            mark.write(f"{os.getpid()}\n")
        self.log.info("Release %s is current: accepting requests", self.release)
