"""Only with FORGE_LAB=1: what tests of the cluster need and no user does."""

import time
from collections.abc import Iterator

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.views.decorators.http import require_GET

LONGEST_STREAM_SECONDS = 30


@require_GET
def stream(request: HttpRequest) -> HttpResponse:
    """A response of N chunks, one a second: the stand-in for a long clone.

    Tests of deploys, drains and address moves start one, act, and see whether its last line arrives. It
    holds a thread for its whole length, which is why it is bounded and not for production.
    """
    wanted = request.GET.get("seconds", "")
    if not (wanted.isascii() and wanted.isdigit() and 1 <= int(wanted[:9]) <= LONGEST_STREAM_SECONDS):
        return JsonResponse(
            {"error": f"seconds must be 1 to {LONGEST_STREAM_SECONDS}, not {wanted!r}"}, status=400
        )
    response = StreamingHttpResponse(_chunks(int(wanted)), content_type="text/plain; charset=utf-8")
    response["Cache-Control"] = "no-store"
    return response


def _chunks(seconds: int) -> Iterator[str]:
    for number in range(1, seconds + 1):
        yield f"chunk {number} of {seconds} from {settings.NODE_NAME} {settings.RELEASE_ID}\n"
        time.sleep(1)  # not a wait for anything: the pace is what this response is for
    yield "end\n"
