"""Background work, from the page to the worker, with all well and with a host of these tiers lost: what was
acknowledged is done."""

import http.cookiejar
import json
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any

import pytest
from breaking import PASSWORD, on_node, wait_until

from bulkhead.status.outside import client_context

JOBS_DONE_SECONDS = 120
LEASE_SECONDS = 60
# A message that no broker takes costs a request 3 s at most (scenario celery proves it); this is for a busy
# machine.
REQUEST_SECONDS = 30
REPOSITORIES = 10


class Browser:
    """Pages of the forge, as a person's browser asks for them: cookies, and forms that were shown before."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self._url = url
        self._cookies = http.cookiejar.CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.HTTPCookieProcessor(self._cookies),
        )

    def get(self, path: str) -> str:
        with self._opener.open(self._url + path, timeout=REQUEST_SECONDS) as answer:
            return str(answer.read().decode())

    def send(self, path: str, **fields: str) -> str:
        self.get(path)
        token = next(cookie.value for cookie in self._cookies if cookie.name == "csrftoken")
        data = urllib.parse.urlencode({**fields, "csrfmiddlewaretoken": token}).encode()
        request = urllib.request.Request(self._url + path, data, {"Referer": self._url + path})
        with self._opener.open(request, timeout=REQUEST_SECONDS) as answer:
            return str(answer.read().decode())


@pytest.fixture
def browser(inventory: Any, public_addresses: Any) -> Browser:
    return Browser(f"https://{public_addresses[0].address}", client_context(inventory))


def announced(browser: Browser, names: list[str]) -> bool:
    """The activity feed has them: a worker wrote that, and nobody else does."""
    page = browser.get("/activity/")
    return all(f"made writer/{name}" in page for name in names)


def test_a_repository_made_on_the_page_is_announced_by_a_worker(browser: Browser, token: str) -> None:
    name = f"page-{uuid.uuid4().hex[:8]}"
    browser.send("/sign-in/", username="writer", password=PASSWORD)
    assert name in browser.send("/new/", name=name, kind="git", description="")
    took = wait_until(lambda: announced(browser, [name]), JOBS_DONE_SECONDS, "the worker's entry")
    print(f"announced {took:.1f} s after the page's answer")
    assert "done" in browser.get("/jobs/")


def test_what_comes_by_the_clock_is_done(browser: Browser) -> None:
    """The nightly housekeeping, every minute here."""
    wait_until(lambda: "housekeeping at " in browser.get("/jobs/"), 150, "a run of the housekeeping")
    wait_until(lambda: "jobs and " in browser.get("/jobs/"), JOBS_DONE_SECONDS, "its end")


def holder(workers: list[str]) -> str:
    """The worker node whose scheduler acts."""
    status = "systemctl show --property=StatusText --value 'forge-beat@*'"
    # One that stands by names the one that "holds the lease" as well.
    return next((host for host in workers if on_node(host, status).startswith("holds the lease")), "")


@pytest.mark.parametrize("loss", ["a broker killed", "a broker frozen", "the scheduler's host killed"])
def test_jobs_go_on_without(
    loss: str, nodes: Any, inventory: Any, browser: Browser, public_addresses: Any, token: str, fab: Any
) -> None:
    workers = [host.name for host in inventory.hosts("workers")]
    brokers = [host.name for host in inventory.hosts("brokers")]
    lost = holder(workers) if "scheduler" in loss else brokers[0]
    assert lost, "no scheduler holds the lease"
    (nodes.freeze if "frozen" in loss else nodes.kill)(lost)
    names, slowest = [], 0.0
    for number in range(REPOSITORIES):
        name = f"jobs-{uuid.uuid4().hex[:8]}-{number}"
        request = urllib.request.Request(
            f"https://{public_addresses[number % 2].address}/api/repositories",
            data=json.dumps({"name": name, "kind": "git"}).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        began = time.monotonic()
        try:
            with urllib.request.urlopen(
                request, timeout=REQUEST_SECONDS, context=client_context(inventory)
            ) as answer:
                assert answer.status == 201
        except OSError as error:
            said = error.read().decode() if isinstance(error, urllib.error.HTTPError) else ""
            pytest.fail(f"request {number}, {time.monotonic() - began:.1f} s: {error} {said}")
        slowest = max(slowest, time.monotonic() - began)
        names.append(name)
    took = wait_until(
        lambda: announced(browser, names), JOBS_DONE_SECONDS, f"{len(names)} jobs without {lost}"
    )
    print(f"{loss} ({lost}): {len(names)} jobs done {took:.1f} s later, slowest request {slowest:.1f} s")
    if lost in workers:
        others = [host for host in workers if host != lost]
        wait_until(lambda: bool(holder(others)), LEASE_SECONDS, "another scheduler acts")
    assert lost in fab("status").stdout, "status has to name the node that is lost"
