import time

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction

from forge.jobs import outbox
from forge.repositories.tasks import LAB_WORK


class Command(BaseCommand):
    help = "For tests of the cluster (FORGE_LAB): make numbered jobs as a web request does, and time them."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("prefix")
        parser.add_argument("--number", type=int, default=1)
        parser.add_argument("--queue", default="")
        parser.add_argument("--seconds", type=float, default=0, help="how long each job works")
        parser.add_argument("--pause", type=float, default=0, help="seconds between two jobs")

    def handle(self, *args: object, **options: object) -> None:
        if not settings.LAB:
            raise CommandError("this is for the lab: FORGE_LAB is not 1")
        slowest = 0.0
        for number in range(options["number"]):
            began = time.monotonic()
            with transaction.atomic():
                outbox.request(
                    LAB_WORK, f"{options['prefix']} {number}", options["queue"], seconds=options["seconds"]
                )
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(options["pause"])  # the stream's pace
        self.stdout.write(f"{options['number']} jobs, slowest {slowest:.2f} s")
