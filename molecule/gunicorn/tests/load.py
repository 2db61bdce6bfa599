"""Runs on the load balancer: asks through HAProxy until its input ends, then tells as JSON what came back."""

import collections
import http.client
import json
import sys
import threading
import time

ADDRESS = ("127.0.0.1", 8080)
PAUSE_SECONDS = 0.02
stop = threading.Event()
lock = threading.Lock()
failures = []
releases = collections.Counter()
times = []


def ask(connection, method):
    started = time.monotonic()
    connection.request(method, "/", body=b"x" * 100 if method == "POST" else None)
    answer = connection.getresponse()
    body = answer.read()
    with lock:
        times.append(time.monotonic() - started)
        releases[answer.headers.get("X-Release", "none")] += 1
        if answer.status != 200 or body != b"hello\n":
            failures.append(f"{method}: {answer.status} {body[:80]!r}")


def client(kept, method):
    """One client; what cannot be answered is lost, since nothing here asks twice."""
    connection = http.client.HTTPConnection(*ADDRESS, timeout=20)
    while not stop.is_set():
        try:
            ask(connection, method)
        except (OSError, http.client.HTTPException) as error:
            with lock:
                failures.append(f"{method}, {'kept' if kept else 'new'} connection: {error!r}")
            connection.close()
        if not kept:
            connection.close()
        time.sleep(PAUSE_SECONDS)


clients = [
    threading.Thread(target=client, args=arguments)
    for arguments in [(True, "GET"), (True, "GET"), (True, "POST"), (False, "GET"), (False, "POST")]
]
# A forgotten load ends by itself.
guard = threading.Timer(float(sys.argv[1]), stop.set)
guard.daemon = True
guard.start()
for each in clients:
    each.start()
print("running", flush=True)
sys.stdin.read()
stop.set()
for each in clients:
    each.join()
print(
    json.dumps(
        {
            "requests": len(times) + len(failures),
            "failures": failures,
            "releases": releases,
            "slowest_seconds": max(times, default=0),
        }
    ),
    flush=True,
)
