"""What a scheduler says of its lease, which is what `fab status` shows, and which member of etcd it asks."""

import io
import json
import threading
from unittest import TestCase, mock

from django.core.management import CommandError, call_command
from django.test import override_settings

from forge.jobs import etcd
from forge.jobs.beat import Fenced

BEAT = "forge.jobs.management.commands.beat"
PATIENCE_SECONDS = 30


class LeaseSays(TestCase):
    def setUp(self):
        self.renewal = {"TTL": "6"}
        member = mock.create_autospec(etcd.Etcd, instance=True)
        member.call.side_effect = self.answer
        self.lease = etcd.Lease(member, "holder", "worker1")

    def answer(self, path, **_):
        if self.renewal is None:
            raise etcd.EtcdError("no leader")
        return {
            "kv/range": {},
            "lease/grant": {"ID": "7"},
            "kv/txn": {"succeeded": True, "header": {"revision": "12"}},
            "lease/keepalive": {"result": self.renewal},
        }[path]

    def look(self):
        """One round of its thread."""
        rounds = mock.patch.object(self.lease._stopping, "is_set", side_effect=[False, True])
        with rounds, mock.patch.object(etcd, "RENEW_SECONDS", 0):
            self.lease.run()
        return self.lease.said

    def test_it_holds_the_lease_again_after_a_renewal_that_failed(self):
        self.assertEqual(self.look(), "holds the lease with token 12")
        self.renewal = None
        self.assertEqual(self.look(), "etcd does not answer: no leader")
        self.assertEqual(self.lease.token(), 12)  # it is not over yet
        self.renewal = {"TTL": "6"}
        self.assertEqual(self.look(), "holds the lease with token 12")

    def test_a_lease_that_ended_is_not_held(self):
        self.look()
        self.renewal = {}
        self.assertEqual(self.look(), "the lease has ended")
        self.assertIsNone(self.lease.token())


class MembersAreAsked(TestCase):
    def call(self, **answers):
        """Asks with these members, each of which answers everything with (status, body)."""

        def connect(address, **_):
            status, body = answers[address]
            connection = mock.Mock()
            connection.getresponse.return_value.status = status
            connection.getresponse.return_value.read.return_value = json.dumps(body).encode()
            return connection

        with (
            mock.patch.object(etcd.http.client, "HTTPSConnection", connect),
            mock.patch.object(etcd.ssl, "create_default_context"),
        ):
            return etcd.Etcd(list(answers), "user", "password", "ca").call("kv/range")

    def test_one_that_cannot_serve_is_left_for_the_next(self):
        away = (503, {"message": "etcdserver: no leader"})
        self.assertEqual(self.call(one=away, two=(200, {"token": "t"})), {"token": "t"})
        with self.assertRaisesRegex(etcd.EtcdError, "one: .*no leader; two: .*no leader"):
            self.call(one=away, two=away)

    def test_a_refusal_is_the_answer_of_all(self):
        with self.assertRaisesRegex(etcd.EtcdError, "^signing in as user: wrong password$"):
            self.call(one=(400, {"message": "wrong password"}), two=(200, {"token": "t"}))


class TheServiceSays(TestCase):
    def test_a_refusal_for_as_long_as_it_lasts_and_ends_with_a_thread(self):
        said, enough = [], threading.Event()

        def notify(**fields):
            said.extend([fields["STATUS"]] if "STATUS" in fields else [])
            if len(said) == 3:
                enough.set()

        lease = mock.Mock(said="holds the lease with token 5", answered=True)
        lease.token.return_value = 5
        lease.run = lambda: enough.wait(PATIENCE_SECONDS)
        names = ("SCHEDULES_FILE", "ETCD_USER", "ETCD_PASSWORD", "ETCD_PREFIX", "ETCD_CA_FILE")
        with (
            override_settings(ETCD_ADDRESSES=["one"], **dict.fromkeys(names, "given")),
            mock.patch.multiple(BEAT, Etcd=mock.DEFAULT, notify=notify, LOOK_SECONDS=0.01),
            mock.patch(f"{BEAT}.flush", lambda stopping: stopping.wait(PATIENCE_SECONDS)),
            mock.patch(f"{BEAT}.Lease", return_value=lease),
            mock.patch(f"{BEAT}.schedule.read", return_value=[]),
            mock.patch(f"{BEAT}.signal.signal"),
            mock.patch(f"{BEAT}.time.sleep"),
            mock.patch(f"{BEAT}.close_old_connections"),
            mock.patch(f"{BEAT}.beat.act", side_effect=[Fenced("token 5"), *[[]] * 10_000]),
            self.assertLogs("forge.beat", "WARNING"),
            self.assertRaisesRegex(CommandError, "the thread lease has ended"),
        ):
            call_command("beat", stdout=io.StringIO())
        self.assertEqual(said, ["holds the lease with token 5", "refused: token 5", said[0]])
