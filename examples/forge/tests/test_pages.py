import io
import json
import logging
from unittest import mock

from django.core.management import CommandError, call_command
from django.db import OperationalError, connection
from django.test import Client, TestCase

from forge.accounts.models import Account, ApiToken
from forge.logs import JsonFormatter
from forge.repositories.forms import RepositoryForm
from forge.repositories.models import Repository


class Pages(TestCase):
    def setUp(self):
        # As HAProxy passes requests on.
        self.client = Client(
            headers={"Host": "forge.example", "X-Forwarded-Proto": "https"}, raise_request_exception=False
        )
        self.alice = Account.objects.create_user("alice", password="long words for alice")

    def make(self, name="project", owner=None, **more):
        return Repository.objects.create(owner=owner or self.alice, name=name, **({"kind": "git"} | more))


class RepositoryPagesTest(Pages):
    def test_the_empty_list_leads_to_the_next_step(self):
        self.assertContains(self.client.get("/"), "No repositories yet")
        self.assertContains(self.client.get("/"), "/sign-in/?next=/new/")
        self.client.force_login(self.alice)
        self.assertContains(self.client.get("/"), "Make the first one")

    def test_list_show_and_the_list_of_one_owner(self):
        self.make(description="<b>bold</b>", kind="hg")
        self.make("other", owner=Account.objects.create_user("bob"))
        self.assertContains(self.client.get("/"), "2 in all")
        page = self.client.get("/repositories/alice/project/")
        self.assertContains(page, "&lt;b&gt;bold&lt;/b&gt;")
        self.assertContains(page, "Mercurial")
        self.assertNotContains(self.client.get("/repositories/alice/"), "other")
        self.assertEqual(self.client.get("/repositories/carol/").status_code, 404)
        self.assertEqual(self.client.get("/repositories/alice/no/").status_code, 404)

    def test_long_lists_have_pages(self):
        for number in range(31):
            self.make(f"p{number}")
        self.assertContains(self.client.get("/"), "Page 1 of 2")
        self.assertContains(self.client.get("/?page=2"), "/repositories/alice/p0/")
        self.assertEqual(self.client.get("/?page=nonsense").status_code, 200)

    def test_sign_in_make_a_repository_and_sign_out(self):
        self.assertRedirects(self.client.get("/new/"), "/sign-in/?next=/new/", fetch_redirect_response=False)
        signed = self.client.post(
            "/sign-in/", {"username": "alice", "password": "long words for alice", "next": "/new/"}
        )
        self.assertEqual(signed["Location"], "/new/")
        cookie = self.client.cookies["sessionid"]
        self.assertTrue(cookie["secure"] and cookie["httponly"])
        made = self.client.post(
            "/new/", {"name": "project", "kind": "hg", "description": "words"}, follow=True
        )
        self.assertEqual(made.request["PATH_INFO"], "/repositories/alice/project/")
        self.assertContains(made, "alice/project is there.")
        self.client.post("/sign-out/")
        self.assertEqual(self.client.get("/new/").status_code, 302)

    def test_a_wrong_password_and_a_foreign_next_are_refused(self):
        page = self.client.post("/sign-in/", {"username": "alice", "password": "wrong"})
        self.assertContains(page, "do not belong together")
        data = {"username": "alice", "password": "long words for alice", "next": "https://elsewhere.example/"}
        self.assertEqual(self.client.post("/sign-in/", data)["Location"], "/")

    def test_every_mistake_is_named_beside_its_field(self):
        self.client.force_login(self.alice)
        self.make()
        for data, words in [
            ({}, "Give the repository a name."),
            ({"name": "x"}, "Choose Git or Mercurial."),
            ({"name": "x", "kind": "svn"}, "“svn” is neither git nor hg."),
            ({"name": "Project", "kind": "git"}, "Use small letters and digits"),
            ({"name": "../etc", "kind": "git"}, "Use small letters and digits"),
            ({"name": "-f", "kind": "git"}, "Use small letters and digits"),
            ({"name": "project.git", "kind": "git"}, "Leave out “.git”"),
            ({"name": "p" * 65, "kind": "git"}, "65 characters; 64 is the most"),
            ({"name": "x", "kind": "git", "description": "d" * 501}, "501 characters; 500 is the most"),
            ({"name": "project", "kind": "hg"}, "alice already has a repository named project."),
        ]:
            with self.subTest(data=data):
                self.assertContains(self.client.post("/new/", data), words, status_code=400)
        self.assertEqual(Repository.objects.count(), 1)

    def test_two_owners_may_use_one_name(self):
        self.make()
        self.client.force_login(Account.objects.create_user("bob"))
        self.assertEqual(self.client.post("/new/", {"name": "project", "kind": "git"}).status_code, 302)

    def test_of_two_requests_at_once_the_second_gets_the_usual_words(self):
        form = RepositoryForm({"name": "project", "kind": "git"}, owner=self.alice)
        self.assertTrue(form.is_valid())
        self.make()  # the other request, between this one's check and its save
        self.assertIsNone(form.save_unless_taken())
        self.assertEqual(form.errors["name"], ["alice already has a repository named project."])


class ErrorsAndHeadersTest(Pages):
    def assertMarked(self, response, status):
        self.assertEqual(response.status_code, status)
        self.assertEqual((response["X-Served-By"], response["X-Release"]), ("app7", "release-of-the-tests"))
        self.assertIn("default-src 'none'", response["Content-Security-Policy"])

    def test_every_answer_says_who_gave_it(self):
        self.assertMarked(self.client.get("/"), 200)
        self.assertMarked(self.client.get("/nothing/"), 404)
        self.assertMarked(self.client.get("/", headers={"Host": "elsewhere.example"}), 400)
        self.assertMarked(self.client.get("/", headers={"X-Forwarded-Proto": "http"}), 301)
        strict = Client(
            enforce_csrf_checks=True, headers={"Host": "forge.example", "X-Forwarded-Proto": "https"}
        )
        self.assertMarked(strict.post("/sign-in/"), 403)
        with mock.patch("forge.repositories.views.Paginator", side_effect=ZeroDivisionError):
            response = self.client.get("/")
        self.assertMarked(response, 500)
        self.assertContains(response, "Something broke here", status_code=500)
        self.assertNotContains(response, "ZeroDivisionError", status_code=500)

    def test_a_database_that_fails_in_a_request_is_a_503(self):
        with mock.patch("forge.repositories.views.Paginator", side_effect=OperationalError("gone")):
            response = self.client.get("/")
        self.assertMarked(response, 503)
        self.assertEqual(response["Retry-After"], "5")

    def test_browsers_are_told_to_stay_on_https(self):
        response = self.client.get("/")
        self.assertIn("max-age=31536000", response["Strict-Transport-Security"])
        self.assertEqual(response["X-Content-Type-Options"], "nosniff")
        self.assertEqual(response["X-Frame-Options"], "DENY")

    def test_stream_is_bounded_and_ends_with_its_last_line(self):
        for wrong in ("", "0", "31", "-1", "1.5", "9" * 5000):
            with self.subTest(seconds=wrong):
                self.assertEqual(self.client.get("/stream", {"seconds": wrong}).status_code, 400)
        with mock.patch("forge.lab.time.sleep") as sleep:
            lines = self.client.get("/stream?seconds=3").getvalue().decode().splitlines()
        self.assertEqual(lines[0], "chunk 1 of 3 from app7 release-of-the-tests")
        self.assertEqual((len(lines), lines[-1], sleep.call_count), (4, "end", 3))


class ApiTest(Pages):
    def setUp(self):
        super().setUp()
        self.token = ApiToken.renew(self.alice)

    def post(self, body, token=None):
        body = body if isinstance(body, str | bytes) else json.dumps(body)
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return self.client.post("/api/repositories", body, content_type="application/json", headers=headers)

    def test_the_token_is_kept_as_a_digest_only(self):
        with connection.cursor() as cursor:
            cursor.execute("SELECT digest FROM accounts_apitoken")
            self.assertNotIn(self.token, cursor.fetchone()[0])

    def test_whoami(self):
        answer = self.client.get("/api/whoami", headers={"Authorization": f"Bearer {self.token}"})
        self.assertEqual(answer.json(), {"account": "alice"})
        for header in ("", "Bearer ", "Bearer forge_guess", f"Basic {self.token}", "Bearer \u00fc"):
            with self.subTest(header=header):
                answer = self.client.get("/api/whoami", headers={"Authorization": header})
                self.assertEqual((answer.status_code, answer["WWW-Authenticate"]), (401, "Bearer"))

    def test_a_session_is_not_enough_to_write(self):
        self.client.force_login(self.alice)
        answer = self.client.post("/api/repositories", "{}", content_type="application/json")
        self.assertEqual(answer.status_code, 401)

    def test_old_tokens_and_closed_accounts_are_refused(self):
        old, self.token = self.token, ApiToken.renew(self.alice)
        self.assertEqual(self.post({}, token=old).status_code, 401)
        Account.objects.update(is_active=False)
        self.assertEqual(self.post({}).status_code, 401)

    def test_create_get_and_list(self):
        made = self.post({"name": "project", "kind": "hg", "description": "words"})
        self.assertEqual((made.status_code, made["Location"]), (201, "/api/repositories/alice/project"))
        got = self.client.get("/api/repositories/alice/project").json()
        self.assertEqual(got, made.json())
        self.assertEqual(got["page"], "/repositories/alice/project/")
        self.assertEqual(self.client.get("/api/repositories").json(), {"repositories": [got], "next": None})
        missing = self.client.get("/api/repositories/alice/other")
        self.assertEqual(
            (missing.status_code, missing.json()["error"]), (404, "There is no repository alice/other.")
        )

    def test_bad_bodies_are_explained(self):
        self.make()
        for body, words in [
            ("not json", "not JSON"),
            (b"\xff", "not JSON"),
            ("[" * 100_000, "not JSON"),
            ('{"name": "\\ud800", "kind": "git"}', "not JSON in UTF-8"),
            ([], "must be an object of texts"),
            ({"name": 1}, "must be an object of texts"),
            ({"name": "x", "kind": "git", "owner": "bob"}, "Unknown: owner."),
            ({"name": "x\u0000", "kind": "git"}, "Null characters"),
            ({"name": "project", "kind": "git"}, "alice already has a repository named project."),
            ({"name": "x"}, "Choose Git or Mercurial."),
        ]:
            with self.subTest(body=body if len(body) < 100 else "long"):
                answer = self.post(body)
                self.assertEqual(answer.status_code, 400)
                self.assertIn(words, json.dumps(answer.json(), ensure_ascii=False))

    def test_long_lists_come_in_parts(self):
        for number in range(101):
            self.make(f"p{number}")
        first = self.client.get("/api/repositories").json()
        rest = self.client.get(first["next"]).json()
        self.assertEqual(
            (len(first["repositories"]), len(rest["repositories"]), rest["next"]), (100, 1, None)
        )
        for wrong in ("x", "-1", "9" * 30):
            self.assertEqual(self.client.get(f"/api/repositories?before={wrong}").status_code, 400)

    def test_errors_under_api_are_json(self):
        self.assertIn("error", self.client.get("/api/nothing").json())

    def test_the_account_page_shows_a_new_token_once(self):
        self.client.force_login(self.alice)
        shown = self.client.post("/account/").context["new_token"]
        self.assertEqual(ApiToken.account_of(shown), self.alice)
        self.assertNotContains(self.client.get("/account/"), shown)


class CommandsTest(Pages):
    def run_command(self, *arguments, stdin="", **environment):
        out = io.StringIO()
        with mock.patch("sys.stdin", io.StringIO(stdin)), mock.patch.dict("os.environ", environment):
            call_command(*arguments, stdout=out)
        return out.getvalue().strip()

    def test_account_is_made_once_and_its_password_changed_on_demand(self):
        self.assertEqual(
            self.run_command("forge_account", "carol", stdin="some long words\n"), "account carol: made"
        )
        again = self.run_command("forge_account", "carol", FORGE_ACCOUNT_PASSWORD="some long words")
        self.assertEqual(again, "account carol: unchanged")
        changed = self.run_command("forge_account", "carol", stdin="other long words")
        self.assertEqual(changed, "account carol: password changed")
        self.assertTrue(self.client.login(username="carol", password="other long words"))

    def test_account_refuses_bad_names_and_passwords(self):
        for name, password, words in [
            ("Carol", "some long words", "Use small letters"),
            ("carol", "short", "too short"),
            ("carol", "", "no password: set FORGE_ACCOUNT_PASSWORD"),
        ]:
            with self.subTest(name=name), self.assertRaisesRegex(CommandError, words):
                self.run_command("forge_account", name, stdin=password)
        self.assertFalse(Account.objects.exclude(username="alice").exists())

    def test_token_prints_the_token_and_nothing_else(self):
        self.assertEqual(ApiToken.account_of(self.run_command("forge_token", "alice")), self.alice)
        with self.assertRaisesRegex(CommandError, "make it with `manage.py forge_account nobody`"):
            self.run_command("forge_token", "nobody")

    def test_migrations_are_complete(self):
        call_command("makemigrations", check=True, dry_run=True, verbosity=0)


class LogTest(TestCase):
    def test_one_line_of_json_with_node_and_release(self):
        record = logging.LogRecord("forge", logging.INFO, __file__, 1, "two\nlines %s", ("here",), None)
        record.client = "198.51.100.9"
        line = JsonFormatter().format(record)
        self.assertNotIn("\n", line)
        entry = json.loads(line)
        self.assertEqual((entry["message"], entry["client"]), ("two\nlines here", "198.51.100.9"))
        self.assertEqual(
            (entry["node"], entry["release"], entry["level"]), ("app7", "release-of-the-tests", "info")
        )
