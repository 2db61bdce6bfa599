"""The smallest application that shows what the tests ask for."""

import os
import pathlib
import sys
import time
from urllib.parse import parse_qs

HERE = pathlib.Path(__file__).parent


def readyz(_query):
    # A release that carries this file is never ready.
    if (HERE / "unready").exists() or os.environ.get("EXAMPLE_READY") != "yes":
        return "503 Service Unavailable", [b"the release says no\n"]
    return "200 OK", [b"ready\n"]


def stream(query):
    seconds = int(query.get("seconds", ["5"])[0])

    def pieces():
        for number in range(seconds * 10):
            yield f"{number:06d}\n".encode()
            time.sleep(0.1)
        yield b"whole\n"

    return "200 OK", pieces()


def environment(query):
    return "200 OK", [os.environ.get(query["name"][0], "(not set)").encode()]


def slow(query):
    time.sleep(float(query["seconds"][0]))
    return "200 OK", [b"done\n"]


def hello(_query):
    return "200 OK", [b"hello\n"]


PATHS = {"/readyz": readyz, "/stream": stream, "/environment": environment, "/slow": slow}


def application(environ, start_response):
    status, body = PATHS.get(environ["PATH_INFO"], hello)(parse_qs(environ["QUERY_STRING"]))
    start_response(
        status,
        [
            ("X-Release", os.environ["RELEASE_ID"]),
            ("X-Served-By", os.environ["NODE_NAME"]),
            ("X-Process", str(os.getpid())),
        ],
    )
    return body


if __name__ == "__main__" and sys.argv[1:] == ["migrate"]:
    print(f"migrating as {os.getuid()} for {os.environ['RELEASE_ID']} with {os.environ['DATABASE_HOST']}")
    if (HERE / "unmigratable").exists():
        sys.exit("the migration fails")
