"""Background work on repositories: the activity feed, statistics, and the nightly housekeeping."""

import datetime
import time

from django.conf import settings
from django.contrib.sessions.models import Session
from django.db.models import Count, Q
from django.utils import timezone

from forge.jobs import outbox
from forge.jobs.models import Job, Run
from forge.jobs.tasks import Finish, job_task
from forge.repositories.models import Activity, Repository, Statistics

ACTIVITY = "forge.activity"
STATISTICS = "forge.statistics"
HOUSEKEEPING = "forge.housekeeping"
LAB_WORK = "forge.lab_work"

KEEP_JOBS_DAYS = 30


def repository_made(repository: Repository) -> None:
    """Call it in the transaction that made the repository."""
    outbox.request(ACTIVITY, f"activity of repository {repository.pk}", repository=repository.pk)
    outbox.request(STATISTICS, f"statistics with repository {repository.pk}")


@job_task(ACTIVITY)
def activity(repository: int) -> Finish:
    found = Repository.objects.select_related("owner").filter(pk=repository).first()

    def finish() -> str:
        if found is None:
            return "the repository is gone"
        Activity.objects.create(
            account=found.owner, repository=found, words=f"made {found}", happened=found.created
        )
        return f"made {found}"

    return finish


def statistics_work() -> Finish:
    counted_at = timezone.now()
    counts = Repository.objects.aggregate(
        repositories=Count("pk"),
        git=Count("pk", filter=Q(kind=Repository.Kind.GIT)),
        mercurial=Count("pk", filter=Q(kind=Repository.Kind.MERCURIAL)),
        owners=Count("owner", distinct=True),
    )

    def finish() -> str:
        row, _ = Statistics.objects.select_for_update().get_or_create(
            pk=1, defaults={"counted": counted_at, **counts}
        )
        # Two countings may end in the other order than they began: the later one stays.
        if row.counted <= counted_at:
            Statistics.objects.filter(pk=1).update(counted=counted_at, **counts)
        return f"{counts['repositories']} repositories of {counts['owners']} accounts"

    return finish


statistics = job_task(STATISTICS)(statistics_work)


@job_task(HOUSEKEEPING)
def housekeeping() -> Finish:
    def finish() -> str:
        now = timezone.now()
        sessions, _ = Session.objects.filter(expire_date__lt=now).delete()
        old = now - datetime.timedelta(days=KEEP_JOBS_DAYS)
        runs, _ = Run.objects.filter(due__lt=old).delete()
        jobs, _ = Job.objects.filter(finished__lt=old).delete()
        return f"removed {sessions} sessions, {jobs} jobs and {runs} runs"

    return finish


if settings.LAB:

    @job_task(LAB_WORK)
    def lab_work(seconds: float = 0) -> Finish:
        """What the tests of the cluster need: a task that takes as long as they say."""
        time.sleep(seconds)
        return lambda: f"worked for {seconds} s on {settings.NODE_NAME} with {settings.RELEASE_ID}"
