import logging
import signal
import threading
import time

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError, close_old_connections

from forge.jobs import beat, outbox, schedule
from forge.jobs.etcd import Etcd, Lease
from forge.jobs.service import notify

log = logging.getLogger("forge.beat")

LOOK_SECONDS = 0.5
FLUSH_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "The scheduler, and the outbox's second chance. Runs on every worker node: all of them flush the "
        "outbox, and the one that holds the lease in etcd also writes the runs that are due."
    )

    def handle(self, *args: object, **options: object) -> None:
        needed = (
            "SCHEDULES_FILE",
            "ETCD_ADDRESSES",
            "ETCD_USER",
            "ETCD_PASSWORD",
            "ETCD_PREFIX",
            "ETCD_CA_FILE",
        )
        missing = [name for name in needed if not getattr(settings, name)]
        if missing:
            raise CommandError(f"the environment lacks {', '.join(missing)} (README.md has the table)")
        try:
            entries = schedule.read(settings.SCHEDULES_FILE)
        except schedule.ScheduleError as error:
            raise CommandError(str(error)) from None
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        etcd = Etcd(
            settings.ETCD_ADDRESSES, settings.ETCD_USER, settings.ETCD_PASSWORD, settings.ETCD_CA_FILE
        )
        lease = Lease(etcd, f"{settings.ETCD_PREFIX}holder", settings.NODE_NAME)
        threads = [
            threading.Thread(target=lease.run, name="lease", daemon=True),
            threading.Thread(target=flush, args=(stopping,), name="outbox", daemon=True),
        ]
        for thread in threads:
            thread.start()
        ready, refused, told = False, "", ""
        while not stopping.wait(LOOK_SECONDS):
            for thread in threads:
                if not thread.is_alive():
                    raise CommandError(f"the thread {thread.name} has ended; systemd starts all of it again")
            close_old_connections()
            if lease.answered and not ready:
                ready = True
                notify(READY=1)
            said = refused or lease.said
            if said != told:
                told = said
                notify(STATUS=said)
            token = lease.token()
            refused = act(entries, token) if token else ""
        lease.stop()


def act(entries: list[schedule.Entry], token: int) -> str:
    """What the database refused, if it did."""
    try:
        for job in beat.act(entries, token, settings.NODE_NAME):
            log.info("run is due", extra={"job": job.key})
    except beat.Fenced as error:
        # Either this process slept past its lease, and the lease is gone at the next look; or etcd was made
        # anew and counts from one again, which an operator has to know.
        log.warning("%s; if that scheduler is gone for good, lower the row in jobs_fence", error)
        time.sleep(1)  # the refusal is no faster to be answered by asking again at once
        return f"refused: {error}"
    except (DatabaseError, InterfaceError) as error:
        log.warning("the database does not take the runs that are due: %s", " ".join(str(error).split()))
    return ""


def flush(stopping: threading.Event) -> None:
    while not stopping.wait(FLUSH_SECONDS):
        try:
            close_old_connections()
            outbox.flush()
        except (DatabaseError, InterfaceError) as error:
            log.warning("the outbox cannot be read: %s", " ".join(str(error).split()))
