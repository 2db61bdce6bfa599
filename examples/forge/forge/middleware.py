from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from forge import checks, errors

Handler = Callable[[HttpRequest], HttpResponse]

# Pages use the site's own style sheet and pictures, and no script at all.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# These answer without the database, so they stay up when it is down.
PATHS_WITHOUT_DATABASE = ("/stream",)


def response_headers(get_response: Handler) -> Handler:
    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        if not response.streaming and "Content-Length" not in response:
            response["Content-Length"] = str(len(response.content))
        response["X-Served-By"] = settings.NODE_NAME
        response["X-Release"] = settings.RELEASE_ID
        response["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        response["Permissions-Policy"] = "camera=(), geolocation=(), microphone=()"
        return response

    return middleware


def database_gate(get_response: Handler) -> Handler:
    """Answer 503 at once while the database is known to be down.

    Without it every thread waits for the connect timeout in turn, health checks queue behind them, and
    the load balancers take all nodes out of the pool for a fault that none of them has.
    """

    def middleware(request: HttpRequest) -> HttpResponse:
        if request.path not in PATHS_WITHOUT_DATABASE and checks.database.is_known_to_fail():
            return errors.database_unavailable(request)
        return get_response(request)

    return middleware


def node_and_release(request: HttpRequest) -> dict[str, str]:
    return {"node": settings.NODE_NAME, "release": settings.RELEASE_ID}


def client_address(request: HttpRequest) -> str:
    """The address that HAProxy saw: it is the last one in the header, and HAProxy writes that itself."""
    forwarded = request.headers.get("X-Forwarded-For", "").split(",")[-1].strip()
    return forwarded or request.META.get("REMOTE_ADDR", "")
