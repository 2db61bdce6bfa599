import os
import subprocess
import sys
from pathlib import Path
from unittest import TestCase

SOURCE = Path(__file__).resolve().parent.parent
NEEDED = {
    "DJANGO_SECRET_KEY": "0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "FORGE_ALLOWED_HOSTS": "forge.example",
    "FORGE_TRUSTED_ORIGINS": "https://forge.example",
    "DATABASE_HOST": "198.51.100.1",
    "DATABASE_PORT": "5432",
    "DATABASE_NAME": "forge",
    "DATABASE_USER": "forge",
    "DATABASE_PASSWORD": "secret",
    "DATABASE_SSLMODE": "verify-full",
    "DATABASE_SSLROOTCERT": "/etc/ca.crt",
}


def run(*arguments, **environment):
    """A process of its own: settings are read once per process, and only from the environment given here."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=SOURCE,
        env={"PATH": os.environ["PATH"], "DJANGO_SETTINGS_MODULE": "forge.settings", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


class SettingsTest(TestCase):
    def test_everything_missing_is_named_in_one_error_without_a_traceback(self):
        result = run("manage.py", "check")
        self.assertEqual(result.returncode, 1)
        self.assertNotIn("Traceback", result.stderr)
        for name in NEEDED:
            self.assertIn(f"{name} is not set: give it ", result.stderr)

    def test_a_worker_that_cannot_start_says_why_and_stops_gunicorn(self):
        result = run("-c", "import forge.wsgi", **(NEEDED | {"DATABASE_PORT": "postgres"}))
        self.assertEqual(result.returncode, 3)
        self.assertIn("DATABASE_PORT is 'postgres': give it the port", result.stderr)
        self.assertNotIn("Traceback", result.stderr)

    def test_wrong_values_are_quoted_with_their_mend(self):
        wrong = {"DATABASE_SSLMODE": "maybe", "FORGE_TRUSTED_ORIGINS": "forge.example"}
        result = run("manage.py", "check", **(NEEDED | wrong))
        self.assertIn("DATABASE_SSLMODE is 'maybe': give it one of disable, require", result.stderr)
        self.assertIn(
            "FORGE_TRUSTED_ORIGINS is 'forge.example': write each address as https://name", result.stderr
        )

    def test_deploy_checks_are_clean(self):
        result = run("manage.py", "check", "--deploy", "--fail-level", "INFO", **NEEDED)
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_the_build_step_needs_neither_secrets_nor_a_database(self):
        result = run("-m", "django", "collectstatic", "--noinput", "--dry-run")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_only_migrations_may_run_long_statements(self):
        show = "import sys; sys.argv[1:] = {}; from forge import settings; print(settings.DATABASES)"
        self.assertIn("statement_timeout=10000 ", run("-c", show.format("[]"), **NEEDED).stdout)
        self.assertIn("statement_timeout=0 ", run("-c", show.format("['migrate']"), **NEEDED).stdout)
