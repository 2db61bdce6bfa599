import datetime
import uuid

from django.db import models
from django.utils import timezone

# A job whose message was confirmed, and that did not end within this time, is sent again: whatever became
# of the message, the job is not lost. A second delivery costs nothing, because a job is finished once.
SEND_AGAIN_AFTER = datetime.timedelta(hours=1)


class Job(models.Model):
    """A piece of background work: made in the transaction that wants it, sent to a queue afterwards,
    finished once.

    The row is the outbox as well: a job without `sent` has no message yet, and somebody will send one.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)  # the message's task id, too
    # Two requests for the same work are one job.
    key = models.CharField(max_length=200, unique=True)
    task = models.CharField(max_length=100)
    queue = models.CharField(max_length=31)
    arguments = models.JSONField(default=dict)
    made = models.DateTimeField(default=timezone.now)
    sent = models.DateTimeField(null=True)
    started = models.DateTimeField(null=True)
    deliveries = models.PositiveIntegerField(default=0)
    finished = models.DateTimeField(null=True)
    succeeded = models.BooleanField(null=True)
    words = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-made", "id"]
        indexes = [
            models.Index(fields=["-made"], name="job_made"),
            models.Index(fields=["made"], name="job_open", condition=models.Q(finished=None)),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(finished=None, succeeded=None)
                | models.Q(finished__isnull=False, succeeded__isnull=False),
                name="job_finished_with_an_end",
            )
        ]

    def __str__(self) -> str:
        return self.key

    @property
    def state(self) -> str:
        if self.finished:
            return "done" if self.succeeded else "failed"
        if self.started:
            return "running"
        return "queued" if self.sent else "waiting"

    @classmethod
    def unsent(cls) -> "models.QuerySet[Job]":
        """Jobs that need a message: those without one, and those whose message led to nothing."""
        return cls.objects.filter(finished=None).filter(
            models.Q(sent=None) | models.Q(sent__lt=timezone.now() - SEND_AGAIN_AFTER)
        )


class Fence(models.Model):
    """The highest lease token that a scheduler has shown; a lower one is refused. One row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    token = models.BigIntegerField(default=0)
    holder = models.CharField(max_length=100, blank=True)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="fence_is_one_row")]


class Run(models.Model):
    """One due time of one entry of the schedule. The constraint is what makes a second run impossible."""

    entry = models.CharField(max_length=31)
    due = models.DateTimeField()
    token = models.BigIntegerField()
    job = models.OneToOneField(
        Job, on_delete=models.SET_NULL, null=True
    )  # none: the run was missed and skipped

    class Meta:
        ordering = ["-due"]
        constraints = [models.UniqueConstraint(fields=["entry", "due"], name="run_entry_due")]

    def __str__(self) -> str:
        return f"{self.entry} {self.due:%Y-%m-%dT%H:%M:%SZ}"
