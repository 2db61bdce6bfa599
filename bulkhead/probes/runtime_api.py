"""Runs on a load balancer: each argument to HAProxy's runtime API, the answers as a JSON list."""

import json
import socket
import sys

SOCKET = "/run/haproxy/admin.sock"
TIMEOUT_SECONDS = 5


def ask(command: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(TIMEOUT_SECONDS)
        client.connect(SOCKET)
        client.sendall(command.encode() + b"\n")
        answer = bytearray()
        while data := client.recv(65536):
            answer.extend(data)
    return answer.decode(errors="replace")


try:
    print(json.dumps([ask(command) for command in sys.argv[1:]]))
except OSError as error:
    sys.exit(f"HAProxy's runtime API does not answer at {SOCKET}: {error}")
