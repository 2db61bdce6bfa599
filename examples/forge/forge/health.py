"""Liveness and readiness: the registry of checks, how they are asked, and the two endpoints.

A check is a function that returns a few words for the operator, or raises. It runs in a thread of its
own, one at a time: a dependency that never answers (a black hole, a dead NFS server) costs one thread
and not the answer to the load balancer.
"""

import enum
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

# A load balancer's check waits a few seconds at most; past this a check counts as failed.
DEADLINE_SECONDS = 1.0
# Each load balancer asks for each pool about once a second: they share one result.
FRESH_SECONDS = 1.0
# How long a failure is believed without a newer result.
BELIEVED_SECONDS = 5.0


class Scope(enum.StrEnum):
    NODE = "node"  # a cause of this node: the load balancer must send requests elsewhere
    SHARED = "shared"  # a dependency of all nodes: sending requests elsewhere mends nothing


@dataclass(frozen=True)
class Result:
    ok: bool
    detail: str
    milliseconds: int
    finished_at: float


class Check:
    def __init__(self, name: str, scope: Scope, probe: Callable[[], str]) -> None:
        self.name = name
        self.scope = scope
        self._probe = probe
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._started_at = 0.0
        self._result: Result | None = None

    def ask(self, max_age_seconds: float = FRESH_SECONDS) -> None:
        """Start the probe, unless one is under way or the last result is young enough."""
        with self._lock:
            if not self._idle.is_set():
                return
            if self._result and time.monotonic() - self._result.finished_at < max_age_seconds:
                return
            self._idle.clear()
            self._started_at = time.monotonic()
        threading.Thread(target=self._run, name=f"check {self.name}", daemon=True).start()

    def wait(self) -> Result:
        """The newest result; a probe under way gets until its deadline to bring a newer one."""
        self._idle.wait(max(0.0, self._started_at + DEADLINE_SECONDS - time.monotonic()))
        return self._latest()

    def is_known_to_fail(self) -> bool:
        """For callers that must not wait: is the last answer a failure, and is it recent?"""
        latest = self._latest()
        if latest.ok:
            return False
        self.ask()
        return time.monotonic() - latest.finished_at < BELIEVED_SECONDS

    def forget(self) -> None:
        self._result = None

    def _latest(self) -> Result:
        now = time.monotonic()
        with self._lock:
            pending_seconds = 0.0 if self._idle.is_set() else now - self._started_at
            if pending_seconds >= DEADLINE_SECONDS:
                return Result(
                    False, f"no answer for {pending_seconds:.1f} s", int(pending_seconds * 1000), now
                )
            return self._result or Result(True, "not asked yet", 0, now)

    def _run(self) -> None:
        try:
            ok, detail = True, self._probe()
        except Exception as error:  # whatever a probe raises is its answer
            ok, detail = False, f"{type(error).__name__}: {' '.join(str(error).split())}"
        finished_at = time.monotonic()
        with self._lock:
            elapsed = int((finished_at - self._started_at) * 1000)
            self._result = Result(ok, detail, elapsed, finished_at)
            self._idle.set()


registry: list[Check] = []


def check(name: str, scope: Scope) -> Callable[[Callable[[], str]], Check]:
    """Decorator: the function becomes a check that /readyz asks from now on."""

    def register(probe: Callable[[], str]) -> Check:
        registry.append(Check(name, scope, probe))
        return registry[-1]

    return register


def live(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"status": "live"})


def ready(request: HttpRequest) -> HttpResponse:
    strict = request.GET.get("strict") == "1"
    for item in registry:
        item.ask(max_age_seconds=0 if strict else FRESH_SECONDS)
    results = [(item, item.wait()) for item in registry]
    failed = {item.scope for item, result in results if not result.ok}
    status = "unready" if Scope.NODE in failed else "degraded" if failed else "ready"
    answer: dict[str, object] = {"status": status}
    if _is_operator(request):
        answer |= {
            "node": settings.NODE_NAME,
            "release": settings.RELEASE_ID,
            "checks": [
                {
                    "name": item.name,
                    "scope": item.scope,
                    "ok": result.ok,
                    "detail": result.detail,
                    "milliseconds": result.milliseconds,
                }
                for item, result in results
            ],
        }
    refused = status == "unready" or (strict and status == "degraded")
    return JsonResponse(answer, status=503 if refused else 200)


def _is_operator(request: HttpRequest) -> bool:
    offered = request.headers.get("X-Forge-Operator", "")
    return bool(settings.OPERATOR_TOKEN) and secrets.compare_digest(
        offered.encode(), settings.OPERATOR_TOKEN.encode()
    )


ENDPOINTS = {"/livez": live, "/readyz": ready}


def endpoints(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        endpoint = ENDPOINTS.get(request.path)
        if endpoint is None:
            return get_response(request)
        response = endpoint(request)
        response["Cache-Control"] = "no-store"
        return response

    return middleware
