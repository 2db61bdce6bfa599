"""What /readyz asks. A later tier adds its check here: a function, its name and its scope."""

import tempfile

from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.db import DEFAULT_DB_ALIAS, connections

from forge.celery import short_connection
from forge.health import Scope, check


@check("runtime directory", Scope.NODE)
def runtime_directory() -> str:
    directory = settings.RUNTIME_DIRECTORY or tempfile.gettempdir()
    with tempfile.TemporaryFile(dir=directory) as file:
        file.write(b"forge")
    return f"{directory} takes files"


@check("static files", Scope.NODE)
def static_files() -> str:
    # Raises when the release was built without collectstatic: its pages would all be errors.
    return staticfiles_storage.url("forge/forge.css")


@check("database", Scope.SHARED)
def database() -> str:
    connection = _database_connection()
    try:
        connection.close_if_unusable_or_obsolete()
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_is_in_recovery()")
            (is_standby,) = cursor.fetchone()
    except Exception:
        connection.close()
        raise
    if is_standby:
        raise RuntimeError("connected to a standby, which takes no writes")
    return "the primary answers"


@check("broker", Scope.SHARED)
def broker() -> str:
    """Pages go on without it: their jobs wait in the database."""
    global _kept_broker
    if not settings.BROKER_URLS:
        return "no broker is configured: jobs wait in the database"
    kept, _kept_broker = _kept_broker, None  # given back only when it has answered
    try:
        if kept is None:
            kept = short_connection()
        # A question that goes to the broker and back. The exchange is RabbitMQ's own.
        kept.default_channel.exchange_declare("amq.topic", "topic", passive=True)
    except Exception:
        if kept is not None:
            kept.collect(socket_timeout=0.1)
        raise
    _kept_broker = kept
    return f"{kept.hostname} answers"


def _database_connection():
    """One connection for this check, kept from probe to probe: connecting costs TLS and SCRAM each time."""
    global _kept_connection
    if _kept_connection is None:
        _kept_connection = connections.create_connection(DEFAULT_DB_ALIAS)
        _kept_connection.inc_thread_sharing()  # each probe is a new thread, and there is one at a time
    return _kept_connection


_kept_connection = None
_kept_broker = None
