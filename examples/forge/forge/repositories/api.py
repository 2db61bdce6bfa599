"""The JSON API. Everybody may read, as on the pages; who writes says so with a token.

Only the Authorization header counts here, never the session's cookie. A foreign site can make a browser
send a cookie but not that header, so these views need no CSRF token.
"""

import json
import logging

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods, require_safe

from forge.accounts.models import Account, ApiToken
from forge.middleware import client_address
from forge.repositories.forms import RepositoryForm
from forge.repositories.models import Repository

REPOSITORIES_PER_ANSWER = 100
LARGEST_ID = 2**63 - 1
FIELDS = ("name", "kind", "description")

log = logging.getLogger("forge.api")


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    return JsonResponse({"repositories": "/api/repositories", "whoami": "/api/whoami"})


@require_safe
def whoami(request: HttpRequest) -> HttpResponse:
    account = _account(request)
    return JsonResponse({"account": account.username}) if account else _unauthorised()


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def repositories(request: HttpRequest) -> HttpResponse:
    return _create(request) if request.method == "POST" else _list(request)


@require_safe
def repository(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    found = Repository.objects.select_related("owner").filter(owner__username=owner, name=name).first()
    if found is None:
        return _error(404, f"There is no repository {owner}/{name}.")
    return JsonResponse(_shown(found))


def _list(request: HttpRequest) -> HttpResponse:
    """Newest first, a bounded number at once; `next` is the address of the following ones, or null."""
    found = Repository.objects.select_related("owner")
    before = request.GET.get("before", "")
    if before:
        if not (before.isascii() and before.isdigit() and int(before[:20]) <= LARGEST_ID):
            return _error(400, f"before must be a number from an earlier answer's next, not {before!r}.")
        found = found.filter(id__lt=int(before))
    page = list(found[: REPOSITORIES_PER_ANSWER + 1])
    shown, more = page[:REPOSITORIES_PER_ANSWER], page[REPOSITORIES_PER_ANSWER:]
    following = f"/api/repositories?before={shown[-1].pk}" if more else None
    return JsonResponse({"repositories": [_shown(item) for item in shown], "next": following})


def _create(request: HttpRequest) -> HttpResponse:
    account = _account(request)
    if account is None:
        return _unauthorised()
    try:
        # Encoding again refuses half characters ("\\ud800"): JSON has them, PostgreSQL cannot keep them.
        data = json.loads(request.body)
        json.dumps(data, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return _error(400, "The body is not JSON in UTF-8.")
    if not isinstance(data, dict) or not all(isinstance(value, str) for value in data.values()):
        return _error(400, f"The body must be an object of texts: {', '.join(FIELDS)}.")
    unknown = sorted(set(data) - set(FIELDS))
    if unknown:
        return _error(400, f"Unknown: {', '.join(unknown)}. Known: {', '.join(FIELDS)}.")
    form = RepositoryForm(data, owner=account)
    made = form.save_unless_taken() if form.is_valid() else None
    if made is None:
        return JsonResponse({"error": "The repository was not made.", "fields": form.errors}, status=400)
    log.info("repository made", extra={"repository": str(made), "client": client_address(request)})
    response = JsonResponse(_shown(made), status=201)
    response["Location"] = f"/api/repositories/{made}"
    return response


def _shown(repository: Repository) -> dict[str, str]:
    return {
        "owner": repository.owner.username,
        "name": repository.name,
        "kind": repository.kind,
        "description": repository.description,
        "created": repository.created.isoformat(timespec="seconds"),
        "page": repository.get_absolute_url(),
    }


def _account(request: HttpRequest) -> Account | None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return ApiToken.account_of(token.strip()) if scheme.lower() == "bearer" else None


def _unauthorised() -> HttpResponse:
    response = _error(401, "Send your API token: Authorization: Bearer <token>. Your account page makes one.")
    response["WWW-Authenticate"] = "Bearer"
    return response


def _error(status: int, words: str) -> HttpResponse:
    return JsonResponse({"error": words}, status=status)
