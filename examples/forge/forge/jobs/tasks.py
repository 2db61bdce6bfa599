"""How a task does its work once, however often its message comes."""

import logging
import time
from collections.abc import Callable
from typing import Any

from celery.exceptions import Reject, SoftTimeLimitExceeded
from django.db import InterfaceError, OperationalError, transaction
from django.db.models import F
from django.db.models.functions import Coalesce
from django.utils import timezone

from forge.celery import app
from forge.jobs.models import Job

Work = Callable[..., "Finish"]
# Writes what the task found out, and returns a few words for people. It runs in the transaction that ends
# the job.
Finish = Callable[[], str]

DATABASE_PAUSE_SECONDS = 2.0

log = logging.getLogger("forge.jobs")

WORDS = Job._meta.get_field("words").max_length


def job_task(name: str) -> Callable[[Work], Any]:
    """Decorator: the function is the work of a task; it takes the job and its arguments and returns a
    `Finish`.

    The work may run any number of times, at once even, so it changes nothing. What it returns runs once: in
    one transaction with the update that ends the job, which succeeds for the first that comes and for
    nobody after.
    """

    def register(work: Work) -> Any:
        @app.task(name=name)
        def task(job: str, **arguments: object) -> str:
            return outlast(lambda: perform(work, job, arguments))

        return task

    return register


def outlast(attempt: Callable[[], str]) -> str:
    """A failover of the database takes half a minute, in which no other task could do anything either.
    Whoever waits longer than its time limit gives the message back."""
    away = False
    while True:
        try:
            if away:
                time.sleep(DATABASE_PAUSE_SECONDS)  # between two attempts
            return attempt()
        except (OperationalError, InterfaceError) as error:
            log.warning("the database is away, the task waits for it: %s", " ".join(str(error).split()))
            away = True
        except SoftTimeLimitExceeded:
            if not away:
                raise
            raise Reject("the database is away", requeue=True) from None


def perform(work: Work, pk: str, arguments: dict[str, object]) -> str:
    found = Job.objects.filter(pk=pk, finished=None)
    started = found.update(started=Coalesce(F("started"), timezone.now()), deliveries=F("deliveries") + 1)
    if not started:
        # Ended by an earlier delivery, or removed since.
        Job.objects.filter(pk=pk).update(deliveries=F("deliveries") + 1)
        return "nothing to do: this job has ended already"
    try:
        finish = work(**arguments)
    except (OperationalError, InterfaceError):
        raise
    except SoftTimeLimitExceeded:
        _end(pk, lambda: "ended at its time limit", succeeded=False)
        raise
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        _end(pk, lambda: words, succeeded=False)
        raise
    return _end(pk, finish, succeeded=True)


def _end(pk: str, finish: Finish, succeeded: bool) -> str:
    with transaction.atomic():
        # The update locks the row, so that of two deliveries the second waits here and then finds it ended.
        ended = Job.objects.filter(pk=pk, finished=None).update(finished=timezone.now(), succeeded=succeeded)
        if not ended:
            return "nothing to do: another delivery has ended this job"
        words = finish()[:WORDS]
        Job.objects.filter(pk=pk).update(words=words)
        return words
