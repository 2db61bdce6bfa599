"""Sends the messages of jobs, and costs the caller a bounded time whatever the broker does.

One thread per process talks to the broker. Who wants a message sent waits for it for WAIT_SECONDS at most;
while the broker is known not to take messages (gone, frozen, or blocking publishers for want of memory),
nobody waits.
"""

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings

from forge.celery import app, short_connection

WAIT_SECONDS = 3.0
# The broker confirms when a quorum of its members has the message on disk.
CONFIRM_SECONDS = 2.0
# After a failure the broker is left alone for this long.
PAUSE_SECONDS = 5.0

log = logging.getLogger("forge.jobs")


class BrokerUnavailable(Exception):
    """The message was not confirmed. It may have arrived or not; the job is to be sent again."""


class Publisher:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker")
        self._connection = None
        self._pause_until = 0.0

    def send(self, task: str, task_id: str, queue: str, arguments: dict) -> None:
        """Returns when the broker has confirmed the message; raises BrokerUnavailable within WAIT_SECONDS."""
        with self._lock:
            if not settings.BROKER_URLS:
                raise BrokerUnavailable("no broker is configured (BROKER_ADDRESSES)")
            if time.monotonic() < self._pause_until:
                raise BrokerUnavailable("the broker did not take a message a moment ago")
            future = self._thread.submit(self._send, task, task_id, queue, arguments)
        try:
            future.result(WAIT_SECONDS)
        except Exception as error:
            future.cancel()
            # One line per outage and pause, not one per request.
            with self._lock:
                first = time.monotonic() >= self._pause_until
                self._pause_until = time.monotonic() + PAUSE_SECONDS
            said = f"no answer within {WAIT_SECONDS:.0f} s" if isinstance(error, TimeoutError) else str(error)
            if first:
                log.warning("broker takes no messages (%s): jobs wait in the database", said)
            raise BrokerUnavailable(said) from error

    def _send(self, task: str, task_id: str, queue: str, arguments: dict) -> None:
        """In the thread: one connection, kept while it works, and none after a failure."""
        try:
            if self._connection is None:
                self._connection = short_connection()
            with app.amqp.Producer(self._connection.default_channel, auto_declare=False) as producer:
                app.send_task(
                    task,
                    kwargs=arguments,
                    task_id=task_id,
                    queue=queue,
                    producer=producer,
                    retry=False,
                    confirm_timeout=CONFIRM_SECONDS,
                    delivery_mode="persistent",
                )
        except Exception:
            connection, self._connection = self._connection, None
            if connection is not None:
                # Not close(): that would say goodbye to a broker that may not listen.
                connection.collect(socket_timeout=0.1)
            raise


publisher = Publisher()
