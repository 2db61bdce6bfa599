import logging

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from forge.accounts.models import Account
from forge.middleware import client_address
from forge.repositories.forms import RepositoryForm
from forge.repositories.models import Activity, Repository, Statistics

REPOSITORIES_PER_PAGE = 30

log = logging.getLogger("forge.repositories")


@require_safe
def index(request: HttpRequest, owner: str | None = None) -> HttpResponse:
    found = Repository.objects.select_related("owner")
    account = None
    if owner is not None:
        account = get_object_or_404(Account, username=owner)
        found = found.filter(owner=account)
    page = Paginator(found, REPOSITORIES_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "repositories.html", {"page": page, "owner": account})


@require_safe
def show(request: HttpRequest, owner: str, name: str) -> HttpResponse:
    found = get_object_or_404(Repository.objects.select_related("owner"), owner__username=owner, name=name)
    return render(request, "repository.html", {"repository": found})


@require_safe
def activity(request: HttpRequest) -> HttpResponse:
    found = Activity.objects.select_related("account", "repository__owner")
    page = Paginator(found, REPOSITORIES_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "activity.html", {"page": page, "statistics": Statistics.objects.first()})


@login_required
@require_http_methods(["GET", "POST"])
def create(request: HttpRequest) -> HttpResponse:
    # Not `request.POST or None`: an empty form that was sent is a mistake to explain, too.
    data = request.POST if request.method == "POST" else None
    form = RepositoryForm(data, owner=request.user, initial={"kind": Repository.Kind.GIT})
    if form.is_valid():
        repository = form.save_unless_taken()
        if repository:
            log.info(
                "repository made", extra={"repository": str(repository), "client": client_address(request)}
            )
            messages.success(request, f"{repository} is there.")
            return redirect(repository)
    return render(request, "repository_new.html", {"form": form}, status=400 if form.errors else 200)
