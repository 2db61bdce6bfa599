"""Jobs on their way to the queues. The row is the promise; the message is only how it is kept.

`request` writes the row in the caller's transaction and sends the message after the commit. If the broker
takes none, or the process dies between the two, the row is still there without `sent`, and `flush`, which
runs on every worker node (`manage.py beat`), sends it later.
"""

import datetime
import logging
import uuid

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from forge.jobs.broker import BrokerUnavailable, publisher
from forge.jobs.models import Job

# Whoever made the job sends it first; the flush leaves it that time.
LEAVE_SECONDS = 5

log = logging.getLogger("forge.jobs")


def request(task: str, key: str, queue: str = "", **arguments: object) -> Job:
    """The job of this key, made if it is new. Call it in the transaction of what the job is about."""
    job, is_new = Job.objects.get_or_create(
        key=key,
        defaults={
            "id": uuid.uuid4(),
            "task": task,
            "queue": queue or settings.QUEUES[0],
            "arguments": arguments,
        },
    )
    if is_new:
        transaction.on_commit(lambda: send(job), robust=True)
    return job


def send(job: Job) -> bool:
    """True when a broker has confirmed the message. Takes a bounded time, and raises nothing for a broker's
    fault."""
    try:
        publisher.send(job.task, str(job.pk), job.queue, {"job": str(job.pk), **job.arguments})
    except BrokerUnavailable as error:
        log.debug("job waits in the outbox: %s", error, extra={"job": job.key})
        return False
    Job.objects.filter(pk=job.pk).update(sent=timezone.now())
    return True


def flush() -> int:
    """Sends what waits, oldest first, until it is done or the broker takes no more. Any number of nodes may
    do so at once: each leaves alone the rows that another has in its hands."""
    count = 0
    made_before = timezone.now() - datetime.timedelta(seconds=LEAVE_SECONDS)
    while True:
        with transaction.atomic():
            job = (
                Job.unsent()
                .filter(made__lt=made_before)
                .order_by("made")
                .select_for_update(skip_locked=True)
                .first()
            )
            if job is None or not send(job):
                break
        count += 1
    if count:
        log.info("outbox: %d messages sent", count)
    return count
