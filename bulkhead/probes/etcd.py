"""Runs on a member of etcd: calls its JSON gateway as the operations' user, one call after the other.

main() takes the password and, as JSON, {"node_address": ..., "calls": [[path, body], ...]}; it prints the
answers as a JSON list. The text "$LEASE" in a body stands for the ID of the lease that an earlier call made.
A call that etcd refuses ends it: what etcd said goes to standard error, with code 3; code 4 says that etcd
does not answer.
"""

import http.client
import json
import ssl
import sys
from typing import Any

PORT = 2379
AUTHORITY = "/etc/bulkhead/pki/ca.crt"
ANSWER_SECONDS = 5
USER = "operator"
REFUSED = 3
SILENT = 4


def post(connection: http.client.HTTPSConnection, path: str, body: Any, token: str = "") -> dict[str, Any]:
    headers = {"Authorization": token} if token else {}
    connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
    answer = connection.getresponse()
    content: dict[str, Any] = json.loads(answer.read() or b"{}")
    if answer.status == http.client.OK:
        return content
    said = content.get("message") or content.get("error") or f"status {answer.status}"
    print(f"{path.split('/')[0]}: {said}", file=sys.stderr)
    # Without a majority a member answers, and only to say that it waited in vain.
    sys.exit(SILENT if answer.status >= http.client.INTERNAL_SERVER_ERROR else REFUSED)


def main(settings: dict[str, str]) -> None:
    request = json.loads(settings["request"])
    context = ssl.create_default_context(cafile=AUTHORITY)
    connection = http.client.HTTPSConnection(
        request["node_address"], PORT, timeout=ANSWER_SECONDS, context=context
    )
    try:
        login = {"name": USER, "password": settings["password"]}
        token = post(connection, "auth/authenticate", login)["token"]
        answers = []
        lease = ""
        for path, body in request["calls"]:
            text = json.dumps(body).replace("$LEASE", lease)
            answers.append(post(connection, path, json.loads(text), token))
            lease = str(answers[-1].get("ID", lease))
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"etcd does not answer: {error or type(error).__name__}", file=sys.stderr)
        sys.exit(SILENT)
    print(json.dumps(answers))
