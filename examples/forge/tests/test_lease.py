"""What a scheduler says of its lease, which is what `fab status` shows."""

from typing import Any
from unittest import TestCase, mock

from forge.jobs import etcd


class Answers:
    """etcd, as the lease sees it: the answers of one call after the other."""

    def __init__(self, lease: dict[str, Any]) -> None:
        self.lease = lease
        self.answers = True

    def call(self, path: str, **_: object) -> dict[str, Any]:
        if not self.answers:
            raise etcd.EtcdError("no leader")
        return {
            "kv/range": {},
            "lease/grant": {"ID": "7"},
            "kv/txn": {"succeeded": True, "header": {"revision": "12"}},
            "lease/keepalive": {"result": self.lease},
        }[path]


class LeaseSays(TestCase):
    def setUp(self) -> None:
        self.member = Answers({"TTL": "6"})
        self.lease = etcd.Lease(self.member, "holder", "worker1")  # type: ignore[arg-type]

    def look(self) -> str:
        """One round of its thread."""
        with mock.patch.object(self.lease._stopping, "is_set", side_effect=[False, True]):
            self.lease.run()
        return self.lease.said

    def test_it_holds_the_lease_again_after_a_renewal_that_failed(self) -> None:
        with mock.patch.object(etcd, "RENEW_SECONDS", 0):
            self.assertEqual(self.look(), "holds the lease with token 12")
            self.member.answers = False
            self.assertEqual(self.look(), "etcd does not answer: no leader")
            self.assertEqual(self.lease.token(), 12)  # it is not over yet
            self.member.answers = True
            self.assertEqual(self.look(), "holds the lease with token 12")

    def test_a_lease_that_ended_is_not_held(self) -> None:
        with mock.patch.object(etcd, "RENEW_SECONDS", 0):
            self.look()
            self.member.lease = {}
            self.assertEqual(self.look(), "the lease has ended")
            self.assertIsNone(self.lease.token())
