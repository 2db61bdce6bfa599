import socket
import threading
import time
from unittest import mock

from django.conf import settings
from django.db import OperationalError
from django.test import SimpleTestCase, TestCase, override_settings

from forge import checks, health
from forge.health import Check, Scope

OPERATOR = {"X-Forge-Operator": "the operators' secret"}


class Health(SimpleTestCase):
    def setUp(self):
        self.answers = {"disk": "fine", "database": "fine"}
        self.checks = [
            Check("disk", Scope.NODE, lambda: self.ask("disk")),
            Check("database", Scope.SHARED, lambda: self.ask("database")),
        ]
        self.enterContext(mock.patch.object(health, "registry", self.checks))
        # Long enough for a loaded machine to start a thread, short enough to wait for in a test.
        self.enterContext(mock.patch.object(health, "DEADLINE_SECONDS", 0.4))

    def ask(self, name):
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, threading.Event):
            answer.wait(10)
        return str(answer)

    def ready(self, query="", **headers):
        # By an address that is in no list of hosts, and without TLS: as a load balancer asks.
        return self.client.get(f"/readyz{query}", headers={"Host": "198.51.100.21", **headers})

    def test_live_asks_nothing(self):
        self.answers = {"disk": OSError("gone"), "database": OperationalError("gone")}
        response = self.client.get("/livez", headers={"Host": "198.51.100.21"})
        self.assertEqual((response.status_code, response.json()), (200, {"status": "live"}))

    def test_ready(self):
        response = self.ready()
        self.assertEqual((response.status_code, response.json()), (200, {"status": "ready"}))
        self.assertEqual((response["X-Served-By"], response["X-Release"]), ("app7", "release-of-the-tests"))
        self.assertEqual(response["Cache-Control"], "no-store")

    def test_a_cause_of_this_node_refuses(self):
        self.answers["disk"] = OSError("read-only file system")
        response = self.ready()
        self.assertEqual((response.status_code, response.json()), (503, {"status": "unready"}))

    def test_a_shared_cause_degrades_and_refuses_only_when_strict(self):
        self.answers["database"] = OperationalError("connection refused")
        response = self.ready()
        self.assertEqual((response.status_code, response.json()), (200, {"status": "degraded"}))
        self.assertEqual(self.ready("?strict=1").status_code, 503)

    def test_both_causes_count_as_the_nodes(self):
        self.answers = {"disk": OSError("gone"), "database": OperationalError("gone")}
        self.assertEqual(self.ready().json(), {"status": "unready"})

    def test_strict_asks_anew(self):
        self.assertEqual(self.ready().json(), {"status": "ready"})
        self.answers["database"] = OperationalError("connection refused")
        self.assertEqual(self.ready("?strict=1").json(), {"status": "degraded"})

    def test_details_are_for_operators_only(self):
        self.answers["database"] = OperationalError("connection to 198.51.100.40\nrefused")
        detail = self.ready(**OPERATOR).json()
        self.assertEqual((detail["node"], detail["release"]), ("app7", "release-of-the-tests"))
        self.assertEqual(
            detail["checks"][1] | {"milliseconds": 0},
            {
                "name": "database",
                "scope": "shared",
                "ok": False,
                "detail": "OperationalError: connection to 198.51.100.40 refused",
                "milliseconds": 0,
            },
        )
        for guess in ("", "the operators' secre", "ü"):
            self.assertEqual(self.ready(**{"X-Forge-Operator": guess}).json(), {"status": "degraded"})

    @override_settings(OPERATOR_TOKEN="")
    def test_without_a_secret_nobody_is_an_operator(self):
        self.assertEqual(self.ready(**{"X-Forge-Operator": ""}).json(), {"status": "ready"})

    def test_a_check_that_hangs_costs_one_thread_and_one_deadline(self):
        release = self.answers["database"] = threading.Event()
        self.addCleanup(release.set)
        started = time.monotonic()
        answers = [self.ready().json()["status"] for _ in range(5)]
        self.assertEqual(answers, ["degraded"] * 5)
        self.assertLess(time.monotonic() - started, 2 * health.DEADLINE_SECONDS)
        self.assertEqual(sum(thread.name == "check database" for thread in threading.enumerate()), 1)
        self.assertIn("no answer for", self.ready(**OPERATOR).json()["checks"][1]["detail"])


class RealChecksTest(TestCase):
    def test_this_process_is_ready(self):
        self.assertEqual(self.client.get("/readyz?strict=1").json(), {"status": "ready"})

    @override_settings(RUNTIME_DIRECTORY="/nonexistent/forge")
    def test_an_unwritable_runtime_directory_refuses(self):
        self.addCleanup(checks.runtime_directory.forget)
        self.assertEqual(self.client.get("/readyz?strict=1").status_code, 503)


class SilentDatabaseTest(SimpleTestCase):
    """A real client of PostgreSQL against a server that takes connections and never says a word."""

    def test_pages_are_refused_at_once_and_readiness_stays_quick(self):
        from django.db.backends.postgresql.base import DatabaseWrapper
        from django.db.utils import load_backend

        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        defaults = {"AUTOCOMMIT": True, "ATOMIC_REQUESTS": False, "TIME_ZONE": None}
        address = {"HOST": "127.0.0.1", "PORT": server.getsockname()[1]}
        load_backend("django.db.backends.postgresql")
        silent = DatabaseWrapper({**defaults, **settings.POSTGRESQL, **address})
        silent.inc_thread_sharing()
        self.enterContext(mock.patch.object(checks, "_kept_connection", silent))
        checks.database.forget()
        self.addCleanup(checks.database.forget)

        started = time.monotonic()
        self.assertEqual(self.client.get("/readyz").json(), {"status": "degraded"})
        self.assertLess(time.monotonic() - started, 1.5)
        started = time.monotonic()
        page = self.client.get("/", headers={"Host": "forge.example"}, secure=True)
        api = self.client.get("/api/repositories", headers={"Host": "forge.example"}, secure=True)
        self.assertLess(time.monotonic() - started, 0.5)
        self.assertEqual((page.status_code, api.status_code), (503, 503))
        self.assertEqual((page["Retry-After"], page["X-Served-By"]), ("5", "app7"))
        self.assertIn("The database does not answer", api.json()["error"])
        # connect_timeout ends the probe itself; nothing of it stays behind.
        self.assertTrue(checks.database._idle.wait(5), "the probe outlived its connect timeout")
