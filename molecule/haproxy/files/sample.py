"""Stands for a node of the application and of the database: says who it is, and fails when it is told to.

Files below /run/sample tell it: `unready` makes /readyz answer 503, `role` holds primary or replica.
"""

import http.server
import json
import pathlib
import socket
import socketserver
import ssl
import sys
import threading
import time
import urllib.parse

NAME, ADDRESS = sys.argv[1:3]
PKI = pathlib.Path("/etc/bulkhead/pki")
SWITCHES = pathlib.Path("/run/sample")


class Web(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/readyz":
            self.say(503 if (SWITCHES / "unready").exists() else 200)
        elif url.path in ("/primary", "/replica"):
            role = (SWITCHES / "role").read_text().strip() if (SWITCHES / "role").exists() else ""
            self.say(200 if url.path == "/" + role else 503)
        elif url.path == "/stream":
            self.stream(float(query["seconds"]))
        else:
            time.sleep(float(query.get("wait", 0)))
            self.say(int(query.get("status", 200)))

    def do_POST(self) -> None:
        self.do_GET()

    def say(self, status: int) -> None:
        port = self.server.server_address[1]
        headers = [[name, value] for name, value in self.headers.items()]
        body = json.dumps({"server": NAME, "port": port, "path": self.path, "headers": headers}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, seconds: float) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.wfile.write(b"5\r\ntick\n\r\n")
            time.sleep(0.1)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *arguments: object) -> None:
        """The tests ask HAProxy's log."""


class Secured(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__((ADDRESS, port), Web)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=PKI / "ca.crt")
        self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.load_cert_chain(PKI / "node.crt", PKI / "node.key")

    def finish_request(self, request: socket.socket, client_address: object) -> None:
        # In the connection's own thread: a client that does not finish its handshake holds up nobody.
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client without a certificate is refused; that is no news."""


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self.wfile.write(f"{NAME}\n".encode())
        for line in self.rfile:
            self.wfile.write(line)


class Plain(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


servers = [Secured(port) for port in (8001, 8002, 8008)] + [
    Plain((ADDRESS, port), Echo) for port in (8003, 5432)
]
threads = [threading.Thread(target=server.serve_forever) for server in servers]
for thread in threads:
    thread.start()
