"""Celery, as every process of the application uses it: `from forge.celery import app`.

Queues are quorum queues on a topic exchange, declared here and nowhere else: Celery reads the declaration to
leave global QoS alone, which such queues refuse. How often a message may be delivered, and where it goes
after that, is the virtual host's policy (role rabbitmq): a declaration could never be changed.

Tasks have no countdown and no ETA here. What has to come later is a row of the database (forge.jobs).
"""

import os
import ssl

from celery import Celery
from celery.worker.consumer import Consumer as WorkerConsumer
from django.conf import settings
from kombu import Connection, Exchange, Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "forge.settings")

# The brokers let the application use its own name, and the names of its queues.
tasks = Exchange("forge", type="topic", durable=True)


def queue(name: str) -> Queue:
    return Queue(name, tasks, routing_key=name, durable=True, queue_arguments={"x-queue-type": "quorum"})


class Consumer(WorkerConsumer):
    """Celery's own, less the step that prepares delayed messages: at each reconnection it asks every broker
    of the list in turn, 15 s for each one that is away, before the worker takes its first message."""

    class Blueprint(WorkerConsumer.Blueprint):
        default_steps = [
            step for step in WorkerConsumer.Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]


app = Celery("forge", set_as_current=True)
app.conf.update(
    # In this order, each time from the next one on: the front end that knows which brokers live, and every
    # broker.
    broker_url=settings.BROKER_URLS or "memory://",
    # `server_hostname: None` makes Kombu check the certificate against each broker's own name.
    broker_use_ssl={
        "ca_certs": settings.BROKER_CA_FILE,
        "cert_reqs": ssl.CERT_REQUIRED,
        "server_hostname": None,
    }
    if settings.BROKER_URLS
    else None,
    broker_connection_timeout=3,
    broker_heartbeat=20,
    # A worker outlives any broker: it asks one after the other for as long as it takes.
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "confirm_publish": True,
        "client_properties": {"connection_name": settings.NODE_NAME},
    },
    task_queues=[queue(name) for name in settings.QUEUES],
    task_default_queue=settings.QUEUES[0],
    task_default_exchange=tasks.name,
    task_default_exchange_type=tasks.type,
    task_create_missing_queues=False,
    task_serializer="json",
    accept_content=["json"],
    task_ignore_result=True,  # results are rows of the database
    # A message is answered when its task has ended. When the worker, its host or its broker dies meanwhile,
    # the message is delivered again, so every task can be run twice.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    # The message of a task whose connection is lost is on its way to somebody else already.
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_consumer="forge.celery:Consumer",
    # Orders go to units (systemctl) and not to the broker, where they could be lost.
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    enable_utc=True,
)
app.autodiscover_tasks(["forge.jobs", "forge.repositories"])


def short_connection() -> Connection:
    """For callers that cannot wait: every step is bounded. Not for workers, which listen for long."""
    return app.connection_for_write(
        connect_timeout=1,
        heartbeat=0,
        transport_options={
            **app.conf.broker_transport_options,
            # Each broker once, without a pause between two.
            "max_retries": len(settings.BROKER_URLS),
            "interval_start": 0,
            "interval_step": 0,
            "connect_retries_timeout": 3,
            "read_timeout": 2,
            "write_timeout": 2,
        },
    )
