"""What the probe makes of a broker's answer to which queues need it. The API is played; TLS is left aside."""

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from bulkhead.probes import node

REASON = "There are quorum queues that would lose their quorum if the target node is shut down"


def entry(name: str, host: str = "forge") -> dict[str, str]:
    readable = f"queue '{name}' in vhost '{host}'"
    return {"readable_name": readable, "name": name, "virtual_host": host, "type": "rabbit_quorum_queue"}


def failed(*queues: dict[str, Any]) -> dict[str, Any]:
    return {"status": "failed", "reason": REASON, "queues": list(queues)}


class Api(http.server.BaseHTTPRequestHandler):
    code = 200
    body: Any = None
    asked: str

    def do_GET(self) -> None:
        type(self).asked = self.path
        body = json.dumps(self.body).encode()
        self.send_response(self.code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: Any) -> None:
        pass


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Api]]:
    class One(Api):
        pass

    server = http.server.HTTPServer(("127.0.0.1", 0), One)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    class Context:
        def load_cert_chain(self, *_files: str) -> None:
            pass

    def plain(host: str, _port: int, timeout: float, context: Context) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(host, server.server_port, timeout=timeout)

    monkeypatch.setattr(node.ssl, "create_default_context", lambda **_options: Context())
    monkeypatch.setattr(node.http.client, "HTTPSConnection", plain)
    yield One
    server.shutdown()
    server.server_close()


def critical() -> list[str]:
    return node.critical(
        {
            "node_address": "127.0.0.1",
            "virtual_host": "forge",
            "secrets": {"rabbitmq_operator_password": "a-word"},
        }
    )


def test_a_broker_that_no_queue_needs(api: type[Api]) -> None:
    api.body = {"status": "ok"}
    assert critical() == []
    assert api.asked == "/api/health/checks/node-is-quorum-critical"


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        ([entry("mail"), entry("default")], ["default", "mail"]),
        ([entry("mail"), entry("default", host="other")], ["mail"]),
        # As RabbitMQ 4.0.5 lists the metadata store.
        (
            [
                entry("mail"),
                {**entry("rabbitmq_metadata"), "virtual_host": "(not applicable)", "type": "process"},
            ],
            ["mail"],
        ),
    ],
)
def test_the_queues_that_need_it(listed: list[dict[str, Any]], names: list[str], api: type[Api]) -> None:
    api.code, api.body = 503, failed(*listed)
    assert critical() == names


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (404, {"error": "Object Not Found", "reason": "Not Found"}, "Not Found"),
        (503, failed(), "lose their quorum"),
        (401, {"error": "not_authorized"}, "password"),
    ],
)
def test_what_cannot_be_read_is_not_taken_for_well(
    code: int, body: dict[str, Any], words: str, api: type[Api]
) -> None:
    api.code, api.body = code, body
    with pytest.raises(RuntimeError, match=words):
        critical()
