"""What the one scheduler of the cluster does when it is time: rows, under a check of its lease's token.

A broker cannot refuse the message of a scheduler that was stopped and wakes up too late; the database can
refuse its row. `Fence` holds the highest token that was shown, and (entry, due) is unique in `Run`: who
comes with a lower token, or a second time, writes nothing, and without a row there is no message.
"""

import datetime
import logging
from collections.abc import Iterable

from django.db import connection, transaction
from django.db.models import Max
from django.db.models.functions import Now

from forge.jobs import outbox
from forge.jobs.models import Fence, Job, Run
from forge.jobs.schedule import Entry

# A run that is this late was not missed: its scheduler died, and another one took over.
LATE = datetime.timedelta(seconds=30)

log = logging.getLogger("forge.beat")


class Fenced(Exception):
    """Another scheduler has shown a higher token."""


def act(entries: Iterable[Entry], token: int, holder: str) -> list[Job]:
    """Writes what is due. One clock for the cluster: the database's."""
    with transaction.atomic():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                # A scheduler that is stopped right here holds the fence's row: its session ends before long.
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '4s'")
        now = fence(token, holder)
        last = dict(Run.objects.values_list("entry").annotate(last=Max("due")))
        made = []
        for entry in entries:
            due = entry.last_due(now)
            known = last.get(entry.name)
            if known is not None and due <= known:
                continue
            # An entry that is new begins with its next due time.
            wanted = known is not None and (entry.catch_up or now - due <= LATE)
            job = None
            if wanted:
                job = outbox.request(entry.task, f"{entry.name} at {due:%Y-%m-%dT%H:%M:%SZ}", entry.queue)
                made.append(job)
            elif known is not None:
                log.warning("run skipped: it was due %s", due.isoformat(), extra={"job": entry.name})
            Run.objects.create(entry=entry.name, due=due, token=token, job=job)
        return made


def fence(token: int, holder: str) -> datetime.datetime:
    """Shows the token, and holds the row until the transaction ends: schedulers come one after the other."""
    Fence.objects.get_or_create(pk=1)
    if not Fence.objects.filter(pk=1, token__lte=token).update(token=token, holder=holder):
        higher = Fence.objects.get(pk=1)
        raise Fenced(f"token {token} is refused: {higher.holder} has shown {higher.token}")
    return database_time()


def database_time() -> datetime.datetime:
    return Fence.objects.annotate(now=Now()).values_list("now", flat=True).get(pk=1)
