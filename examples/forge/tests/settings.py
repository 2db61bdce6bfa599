"""The real settings with an environment of the tests' own, and SQLite in memory instead of PostgreSQL."""

import os

from django.db.backends.signals import connection_created

os.environ.update(
    {
        "NODE_NAME": "app7",
        "RELEASE_ID": "release-of-the-tests",
        "FORGE_OPERATOR_TOKEN": "the operators' secret",
        "FORGE_LAB": "1",
        "DJANGO_SECRET_KEY": "only-for-tests-0123456789-abcdefghijklmnopqrstuvwxyz-0123456789",
        "FORGE_ALLOWED_HOSTS": "forge.example",
        "FORGE_TRUSTED_ORIGINS": "https://forge.example",
        "DATABASE_HOST": "database.invalid",
        "DATABASE_PORT": "5432",
        "DATABASE_NAME": "forge",
        "DATABASE_USER": "forge",
        "DATABASE_PASSWORD": "not used",
        "DATABASE_SSLMODE": "verify-full",
        "DATABASE_SSLROOTCERT": "/nonexistent/ca.crt",
    }
)

from forge.settings import *  # noqa: F403 - the environment must be there before the settings read it

POSTGRESQL = DATABASES["default"]  # noqa: F405 - from the star above; one test talks to it
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
# Refusals are what these tests provoke; their log lines would bury the result.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"nowhere": {"class": "logging.NullHandler"}},
    "root": {"handlers": ["nowhere"]},
    "loggers": {"django": {"handlers": [], "propagate": True}},
}
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# No collectstatic before a test run.
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}


def add_postgresql_function(connection, **kwargs):
    connection.connection.create_function("pg_is_in_recovery", 0, lambda: False)


connection_created.connect(add_postgresql_function)
