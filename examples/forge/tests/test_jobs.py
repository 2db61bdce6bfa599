import datetime
import threading
import time
from unittest import mock

from celery.exceptions import Reject, SoftTimeLimitExceeded
from django.db import OperationalError, transaction
from django.test import SimpleTestCase, TestCase, override_settings
from django.utils import timezone
from kombu import Connection

from forge import celery, checks
from forge.jobs import beat, broker, outbox, schedule
from forge.jobs.etcd import EtcdError, Lease
from forge.jobs.models import SEND_AGAIN_AFTER, Fence, Job, Run
from forge.jobs.tasks import outlast, perform
from forge.repositories import tasks
from forge.repositories.models import Activity, Repository, Statistics
from tests.test_pages import Pages

UTC = datetime.UTC


def sent(succeeds=True):
    error = None if succeeds else broker.BrokerUnavailable("no broker here")
    return mock.patch.object(outbox.publisher, "send", side_effect=error)


class OutboxTest(TestCase):
    def test_a_job_is_sent_after_the_commit_and_once(self):
        with sent() as send:
            with self.captureOnCommitCallbacks(execute=True):
                job = outbox.request("forge.lab_work", "one", seconds=2)
                self.assertEqual(outbox.request("forge.lab_work", "one", seconds=2), job)
                send.assert_not_called()
            send.assert_called_once_with(
                "forge.lab_work", str(job.pk), "default", {"job": str(job.pk), "seconds": 2}
            )
        job.refresh_from_db()
        self.assertEqual(job.state, "queued")

    def test_without_a_broker_the_job_waits_and_is_flushed_later(self):
        with sent(succeeds=False), self.captureOnCommitCallbacks(execute=True):
            job = outbox.request("forge.lab_work", "one")
        self.assertEqual(job.state, "waiting")
        with sent() as send:
            self.assertEqual(outbox.flush(), 0)  # its maker may be about to send it
            Job.objects.update(made=timezone.now() - datetime.timedelta(seconds=6))
            self.assertEqual((outbox.flush(), outbox.flush()), (1, 0))
            self.assertEqual(send.call_count, 1)

    def test_a_flush_stops_at_the_first_refusal(self):
        for number in range(3):
            Job.objects.create(
                key=f"{number}", task="t", queue="default", made=timezone.now() - SEND_AGAIN_AFTER
            )
        with sent(succeeds=False) as send:
            self.assertEqual(outbox.flush(), 0)
            self.assertEqual(send.call_count, 1)

    def test_a_message_that_led_to_nothing_is_sent_again(self):
        old = timezone.now() - SEND_AGAIN_AFTER - datetime.timedelta(seconds=1)
        common = {"task": "t", "queue": "default", "made": old, "sent": old}
        Job.objects.create(key="lost", **common)
        Job.objects.create(key="ended", finished=old, succeeded=True, **common)
        with sent():
            self.assertEqual(outbox.flush(), 1)
        self.assertGreater(Job.objects.get(key="lost").sent, old)

    def test_a_transaction_that_is_undone_takes_its_job_with_it(self):
        with sent() as send, self.captureOnCommitCallbacks(execute=True):
            with self.assertRaises(ZeroDivisionError), transaction.atomic():
                outbox.request("forge.lab_work", "never")
                raise ZeroDivisionError
            send.assert_not_called()
        self.assertFalse(Job.objects.exists())


@override_settings(BROKER_URLS=["amqps://nobody"])
class PublisherTest(SimpleTestCase):
    """The caller's wait is bounded, whatever the thread meets."""

    def setUp(self):
        self.publisher = broker.Publisher()
        self.enterContext(mock.patch.object(broker, "WAIT_SECONDS", 0.2))

    def send(self):
        self.publisher.send("task", "id", "default", {})

    def test_a_broker_that_never_answers_costs_one_wait_and_then_none(self):
        stuck = threading.Event()
        self.addCleanup(stuck.set)
        with mock.patch.object(self.publisher, "_send", side_effect=lambda *_: stuck.wait(10)) as tried:
            with self.assertLogs("forge.jobs", "WARNING") as logged:
                with self.assertRaisesRegex(broker.BrokerUnavailable, "no answer within"):
                    self.send()
                for _ in range(20):
                    with self.assertRaises(broker.BrokerUnavailable):
                        self.send()
            self.assertEqual((tried.call_count, len(logged.records)), (1, 1))

    def test_after_the_pause_the_broker_is_asked_again(self):
        self.enterContext(mock.patch.object(broker, "PAUSE_SECONDS", 0))
        with mock.patch.object(self.publisher, "_send", side_effect=OSError("refused")):
            self.assertRaises(broker.BrokerUnavailable, self.send)
        with mock.patch.object(self.publisher, "_send") as tried:
            self.send()
            tried.assert_called_once()

    def test_a_closed_port_is_told_as_such(self):
        closed = Connection("amqp://127.0.0.1:9", transport_options={"max_retries": 1})
        self.enterContext(mock.patch.object(broker, "WAIT_SECONDS", 10))
        self.enterContext(mock.patch.object(broker, "short_connection", return_value=closed))
        self.assertRaisesRegex(broker.BrokerUnavailable, "refused", self.send)

    def test_the_check_says_that_the_broker_is_away(self):
        self.addCleanup(checks.broker.forget)
        with mock.patch.object(checks, "short_connection", side_effect=OSError("refused")):
            checks.broker.ask(0)
            self.assertFalse(checks.broker.wait().ok)


class PerformTest(TestCase):
    def job(self, **more):
        return Job.objects.create(**({"key": "k", "task": "t", "queue": "default"} | more))

    def test_the_second_delivery_writes_nothing(self):
        job, written = self.job(), []

        def work():
            return lambda: written.append(1) or "done"

        self.assertEqual(perform(work, str(job.pk), {}), "done")
        self.assertIn("ended already", perform(work, str(job.pk), {}))
        job.refresh_from_db()
        self.assertEqual((job.state, job.words, job.deliveries, written), ("done", "done", 2, [1]))

    def test_of_two_deliveries_at_once_the_first_to_end_writes(self):
        job, written = self.job(), []

        def outer():
            perform(lambda: lambda: written.append("inner") or "inner", str(job.pk), {})
            return lambda: written.append("outer") or "outer"

        self.assertIn("another delivery", perform(outer, str(job.pk), {}))
        self.assertEqual(written, ["inner"])

    def test_a_failure_ends_the_job_and_is_told(self):
        job = self.job()
        with self.assertRaises(ZeroDivisionError):
            perform(lambda: 1 / 0, str(job.pk), {})
        job.refresh_from_db()
        self.assertEqual((job.state, job.words), ("failed", "ZeroDivisionError: division by zero"))

    def test_a_database_that_is_away_leaves_the_job_open(self):
        job = self.job()
        with self.assertRaises(OperationalError):
            perform(mock.Mock(side_effect=OperationalError("gone")), str(job.pk), {})
        job.refresh_from_db()
        self.assertEqual(job.state, "running")

    def test_a_task_outlasts_a_failover_and_gives_the_message_back_at_its_limit(self):
        self.enterContext(mock.patch("forge.jobs.tasks.time.sleep"))
        gone = OperationalError("gone")
        self.assertEqual(outlast(mock.Mock(side_effect=[gone, gone, "done"])), "done")
        with self.assertRaises(Reject) as raised:
            outlast(mock.Mock(side_effect=[gone, SoftTimeLimitExceeded()]))
        self.assertTrue(raised.exception.requeue)
        with self.assertRaises(SoftTimeLimitExceeded):
            outlast(mock.Mock(side_effect=SoftTimeLimitExceeded()))

    def test_what_the_end_writes_is_undone_with_it(self):
        job = self.job()

        def work():
            def finish():
                Statistics.objects.create(
                    repositories=1, git=1, mercurial=0, owners=1, counted=timezone.now()
                )
                raise OperationalError("gone at the commit")

            return finish

        with self.assertRaises(OperationalError):
            perform(work, str(job.pk), {})
        job.refresh_from_db()
        self.assertEqual((job.state, Statistics.objects.count()), ("running", 0))


class TasksTest(Pages):
    def run_all(self):
        for job in Job.objects.filter(finished=None):
            for _ in range(2):  # each message comes twice
                celery.app.tasks[job.task].apply(kwargs={"job": str(job.pk), **job.arguments}, throw=True)

    def test_a_repository_appears_in_the_feed_and_in_the_statistics(self):
        self.client.force_login(self.alice)
        self.assertContains(self.client.get("/activity/"), "Nothing has happened yet")
        self.assertContains(self.client.get("/jobs/"), "No jobs yet")
        for name, kind in (("one", "git"), ("two", "hg")):
            self.client.post("/new/", {"name": name, "kind": kind})
        self.assertContains(self.client.get("/jobs/"), "4 waiting")
        self.run_all()
        self.assertEqual(Activity.objects.count(), 2)
        page = self.client.get("/activity/")
        self.assertContains(page, "made alice/one")
        self.assertContains(page, "2 repositories of 1 accounts: 1 in Git, 1 in Mercurial")
        self.assertContains(self.client.get("/jobs/"), "4 done")
        self.assertContains(self.client.get("/jobs/"), "delivered 2 times")

    def test_the_older_counting_does_not_replace_the_newer(self):
        begun = tasks.statistics_work()
        self.make()
        tasks.statistics_work()()
        begun()
        self.assertEqual(Statistics.objects.get().repositories, 1)

    def test_a_gone_repository_ends_its_job(self):
        repository = self.make()
        tasks.repository_made(repository)
        Repository.objects.all().delete()
        self.run_all()
        self.assertTrue(Job.objects.filter(words="the repository is gone", succeeded=True).exists())

    def test_housekeeping_removes_what_is_old(self):
        old = timezone.now() - datetime.timedelta(days=31)
        job = Job.objects.create(key="old", task="t", queue="default", made=old, finished=old, succeeded=True)
        Run.objects.create(entry="e", due=old, token=1, job=job)
        Job.objects.create(key="house", task=tasks.HOUSEKEEPING, queue="default")
        self.run_all()
        self.assertEqual(list(Job.objects.values_list("key", flat=True)), ["house"])
        self.assertFalse(Run.objects.exists())


class QueuesTest(SimpleTestCase):
    def test_every_queue_is_a_quorum_queue_on_a_topic_exchange(self):
        for queue in celery.app.conf.task_queues:
            self.assertEqual(queue.exchange.type, "topic")
            self.assertEqual(queue.queue_arguments["x-queue-type"], "quorum")

    def test_no_step_of_a_worker_asks_every_broker(self):
        names = celery.Consumer.Blueprint.default_steps
        self.assertFalse([name for name in names if "elayed" in name])
        self.assertEqual(len(names), len(celery.WorkerConsumer.Blueprint.default_steps) - 1)

    def test_every_scheduled_and_requested_task_is_known(self):
        celery.app.loader.import_default_modules()
        for name in (tasks.ACTIVITY, tasks.STATISTICS, tasks.HOUSEKEEPING, tasks.LAB_WORK):
            self.assertIn(name, celery.app.tasks)


def at(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=UTC)


class ScheduleTest(SimpleTestCase):
    def test_last_due(self):
        for clock, now, due in [
            ({"every_seconds": 60}, "2026-11-22 18:00:59", "2026-11-22 18:00:00"),
            ({"every_seconds": 60}, "2026-11-22 18:01:00", "2026-11-22 18:01:00"),
            ({"cron": "* * * * *"}, "2026-11-22 18:01:30", "2026-11-22 18:01:00"),
            ({"cron": "30 3 * * *"}, "2026-11-22 03:29:59", "2026-11-21 03:30:00"),
            ({"cron": "*/20 1-3 * * *"}, "2026-11-22 00:00:00", "2026-11-21 03:40:00"),
            ({"cron": "0 0 1,15 * *"}, "2026-11-22 00:00:00", "2026-11-15 00:00:00"),
            ({"cron": "0 0 * * 1-5"}, "2026-11-22 12:00:00", "2026-11-20 00:00:00"),
            ({"cron": "0 0 * * 7"}, "2026-11-23 12:00:00", "2026-11-22 00:00:00"),
            ({"cron": "0 0 1 * 5"}, "2026-11-22 12:00:00", "2026-11-20 00:00:00"),
            ({"cron": "0 0 29 2 *"}, "2026-11-22 12:00:00", "2024-02-29 00:00:00"),
        ]:
            with self.subTest(clock=clock, now=now):
                raw = {"name": "e", "task": "t", "queue": "default", "missed": "skip", **clock}
                self.assertEqual(schedule.entry(raw).last_due(at(now)), at(due))

    def test_wrong_clocks_are_named(self):
        for text, words in [
            ("60 * * * *", "'60' is not within 0 to 59"),
            ("5-1 * * * *", "'5-1' is not within"),
            ("*/0 * * * *", "no number, range or step"),
            ("0 0 30 2 *", "no day fits"),
        ]:
            raw = {"name": "nightly", "task": "t", "queue": "q", "missed": "skip", "cron": text}
            with self.subTest(text=text), self.assertRaisesRegex(schedule.ScheduleError, words) as raised:
                schedule.entry(raw)
            self.assertIn("nightly", str(raised.exception))


class BeatTest(TestCase):
    def setUp(self):
        self.now = at("2026-11-22 18:00:30")
        self.enterContext(mock.patch.object(beat, "database_time", side_effect=lambda: self.now))
        self.enterContext(sent(succeeds=False))

    def act(self, token=1, missed="skip", seconds=60):
        raw = {"name": "e", "task": "t", "queue": "default", "missed": missed, "every_seconds": seconds}
        return [job.key for job in beat.act([schedule.entry(raw)], token, f"holder {token}")]

    def later(self, **delta):
        self.now += datetime.timedelta(**delta)

    def test_a_new_entry_begins_with_its_next_due_time_and_runs_once_at_each(self):
        self.assertEqual(self.act(), [])
        self.later(seconds=30)
        self.assertEqual((self.act(), self.act()), (["e at 2026-11-22T18:01:00Z"], []))
        self.later(seconds=59)
        self.assertEqual(self.act(), [])
        self.later(seconds=1)
        self.assertEqual(self.act(), ["e at 2026-11-22T18:02:00Z"])

    def test_a_lower_token_writes_nothing(self):
        self.act(token=7)
        self.later(seconds=60)
        with self.assertRaisesRegex(beat.Fenced, "token 6 is refused: holder 7 has shown 7"):
            self.act(token=6)
        self.assertFalse(Job.objects.exists())
        self.assertEqual(self.act(token=8), ["e at 2026-11-22T18:01:00Z"])
        self.assertEqual(Fence.objects.get().token, 8)

    def test_missed_runs_are_skipped_or_caught_up_once(self):
        self.act(missed="skip")
        self.later(minutes=10, seconds=15)
        self.assertEqual(self.act(missed="skip"), [])
        self.assertEqual(Run.objects.filter(due=at("2026-11-22 18:10:00"), job=None).count(), 1)
        self.later(minutes=10)
        self.assertEqual(self.act(missed="catch_up"), ["e at 2026-11-22T18:20:00Z"])
        self.later(seconds=15)
        self.assertEqual(self.act(missed="skip"), ["e at 2026-11-22T18:21:00Z"])

    def test_a_takeover_within_the_half_minute_is_no_miss(self):
        self.act()
        self.later(seconds=50)
        self.assertEqual(self.act(token=2), ["e at 2026-11-22T18:01:00Z"])

    def test_a_clock_that_goes_back_runs_nothing_twice(self):
        self.act()
        self.later(seconds=30)
        self.act()
        self.later(seconds=-45)
        self.assertEqual(self.act(), [])
        self.later(seconds=50)
        self.assertEqual(self.act(), [])


class FakeEtcd:
    """One key under leases, as etcd answers them; the real one is in the scenario `celery`."""

    def __init__(self):
        self.revision, self.holder, self.leases = 10, None, 0
        self.down = False

    def call(self, path, **body):
        if self.down:
            raise EtcdError("no answer")
        match path:
            case "kv/range":
                return {"kvs": [{"value": self.holder[1]}]} if self.holder else {}
            case "lease/grant":
                self.leases += 1
                return {"ID": str(self.leases)}
            case "lease/keepalive":
                alive = self.holder and self.holder[0] == body["ID"]
                return {"result": {"TTL": "6"} if alive else {}}
            case "lease/revoke":
                if self.holder and self.holder[0] == body["ID"]:
                    self.holder = None
                return {}
            case "kv/txn":
                if self.holder:
                    return {"header": {"revision": str(self.revision)}}
                put = body["success"][0]["requestPut"]
                self.revision += 1
                self.holder = (put["lease"], put["value"])
                return {"succeeded": True, "header": {"revision": str(self.revision)}}


class LeaseTest(SimpleTestCase):
    def setUp(self):
        self.etcd = FakeEtcd()
        self.one, self.two = Lease(self.etcd, "/k", "one"), Lease(self.etcd, "/k", "two")

    def test_one_holds_and_the_next_has_a_higher_token(self):
        self.one._acquire()
        self.two._acquire()
        first = self.one.token()
        self.assertIsNone(self.two.token())
        self.assertEqual(self.two.said, "standby: one holds the lease")
        self.one.stop()
        self.two._acquire()
        self.assertIsNone(self.one.token())
        self.assertGreater(self.two.token(), first)

    def test_without_renewal_the_token_is_gone_before_the_lease(self):
        self.one._acquire()
        with mock.patch("forge.jobs.etcd.time.monotonic", return_value=time.monotonic() + 6):
            self.assertIsNone(self.one.token())

    def test_a_lease_that_ended_while_asleep_is_not_held(self):
        self.one._acquire()
        self.etcd.holder = None
        self.one._renew()
        self.assertIsNone(self.one.token())
