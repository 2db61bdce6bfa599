from django.core.paginator import Paginator
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from forge.jobs.models import Job

JOBS_PER_PAGE = 50


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    is_open = Q(finished=None)
    counts = Job.objects.aggregate(
        waiting=Count("pk", filter=is_open & Q(started=None, sent=None)),
        queued=Count("pk", filter=is_open & Q(started=None, sent__isnull=False)),
        running=Count("pk", filter=is_open & Q(started__isnull=False)),
        done=Count("pk", filter=Q(succeeded=True)),
        failed=Count("pk", filter=Q(succeeded=False)),
    )
    page = Paginator(Job.objects.all(), JOBS_PER_PAGE).get_page(request.GET.get("page"))
    return render(request, "jobs.html", {"page": page, "counts": counts})
