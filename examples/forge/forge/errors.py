"""Error answers: a page for people, JSON under /api/. None of them asks the database who is signed in."""

import sys

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.template.loader import render_to_string

from forge import checks

PAGES = {
    400: ("Bad request", "The address or the data sent was not understood. Go back and try again."),
    403: ("Not allowed", "Your account may not do this."),
    404: (
        "Not found",
        "There is nothing at this address. It may have moved, or there is a slip in the spelling.",
    ),
    500: (
        "Something broke here",
        "The fault is ours and has been logged. Trying again in a moment may help.",
    ),
    503: ("Back in a moment", "The database does not answer just now. Nothing is lost; try again shortly."),
}


def _answer(request: HttpRequest, status: int, explanation: str = "") -> HttpResponse:
    title, usual_explanation = PAGES[status]
    explanation = explanation or usual_explanation
    if request.path.startswith("/api/"):
        return JsonResponse({"error": explanation}, status=status)
    context = {
        "status": status,
        "title": title,
        "explanation": explanation,
        "node": settings.NODE_NAME,
        "release": settings.RELEASE_ID,
    }
    return HttpResponse(render_to_string("error.html", context), status=status)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 400)


def forbidden(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 403)


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _answer(
        request, 403, "The form was too old, or cookies are switched off. Load the page again and retry."
    )


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    return _answer(request, 404)


def server_error(request: HttpRequest) -> HttpResponse:
    if isinstance(sys.exception(), OperationalError | InterfaceError):
        checks.database.ask()  # if it is really down, the gate closes for the requests that follow
        return database_unavailable(request)
    try:
        return _answer(request, 500)
    except Exception:  # the page itself may be what is broken, for example without collected static files
        return HttpResponse(PAGES[500][1], status=500, content_type="text/plain")


def database_unavailable(request: HttpRequest) -> HttpResponse:
    response = _answer(request, 503)
    response["Retry-After"] = "5"
    return response
