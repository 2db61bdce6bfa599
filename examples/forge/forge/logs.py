"""One JSON object per line on stdout: journald keeps it, and nothing has to guess where a message ends."""

import datetime
import json
import logging

from django.conf import settings

# What callers may add with `extra=`; anything else in a record is Python's own.
EXTRA_FIELDS = ("account", "repository", "client", "status_code", "job")


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "node": settings.NODE_NAME,
            "release": settings.RELEASE_ID,
        }
        for field in EXTRA_FIELDS:
            if field in record.__dict__:
                entry[field] = record.__dict__[field]
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)
