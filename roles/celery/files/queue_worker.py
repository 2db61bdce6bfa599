"""A Celery worker for one queue, run by the release's own Python.

It tells systemd that it is ready when a broker has it as a consumer of the queue, not when the process runs,
and from then on whether it still is (`systemctl status`).
"""

import argparse
import importlib
import os
import socket
import sys
import threading

LOOK_SECONDS = 2


def notify(**fields):
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as target:
        target.connect(f"\0{address[1:]}" if address.startswith("@") else address)
        target.send("\n".join(f"{name}={value}" for name, value in fields.items()).encode())


class Watch:
    """Compares what this worker believes with what it last told systemd."""

    def __init__(self, queue):
        self.queue = queue
        self.consumer = None
        self.told = ""

    def start(self, sender, **_):
        """Celery is about to listen. The broker gave its consumer a tag (basic.consume-ok), and says
        on the same connection how many consumers the queue has: this one is among them."""
        count = sender.connection.default_channel.queue_declare(self.queue, passive=True).consumer_count
        if not self.tags(sender) or not count:
            raise SystemExit(f"the broker does not count this worker as a consumer of {self.queue}")
        self.consumer = sender
        self.tell()
        notify(READY=1)
        threading.Thread(target=self.run, name="watch", daemon=True).start()

    def tags(self, consumer):
        # Private, as Kombu has no public word for it: {queue: the tag that the broker knows it by}.
        return sorted(consumer.task_consumer._active_tags.values()) if consumer.task_consumer else []

    def tell(self):
        connection = self.consumer.connection
        if connection is not None and connection.connected and self.tags(self.consumer):
            words = f"consumes {self.queue} from {connection.hostname}"
        else:
            words = f"no broker: does not consume {self.queue}"
        if words != self.told:
            self.told = words
            notify(STATUS=words)

    def run(self):
        pause = threading.Event()
        while not pause.wait(LOOK_SECONDS):
            self.tell()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--app", required=True)
    parser.add_argument("--queue", required=True)
    for option in (
        "--concurrency",
        "--prefetch",
        "--soft-time-limit",
        "--time-limit",
        "--child-megabytes",
    ):
        parser.add_argument(option, type=int, required=True)
    words = parser.parse_args()

    sys.path.insert(0, os.getcwd())  # the application; a script has only its own directory there
    from celery import signals

    module, _, name = words.app.partition(":")
    app = getattr(importlib.import_module(module), name)
    watch = Watch(words.queue)
    signals.worker_ready.connect(watch.start, weak=False)
    app.worker_main(
        [
            "worker",
            f"--queues={words.queue}",
            f"--hostname={words.queue}.{os.environ['RELEASE_ID']}@{os.environ.get('NODE_NAME', '%h')}",
            f"--concurrency={words.concurrency}",
            f"--prefetch-multiplier={words.prefetch}",
            f"--soft-time-limit={words.soft_time_limit}",
            f"--time-limit={words.time_limit}",
            f"--max-memory-per-child={words.child_megabytes * 1024}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=INFO",
        ]
    )


if __name__ == "__main__":
    main()
