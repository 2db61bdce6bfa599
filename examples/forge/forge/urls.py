from django.conf import settings
from django.contrib.auth.views import LogoutView
from django.urls import path

from forge.accounts import views as accounts
from forge.jobs import views as jobs
from forge.lab import stream
from forge.repositories import api
from forge.repositories import views as repositories

urlpatterns = [
    path("", repositories.index, name="repositories"),
    path("new/", repositories.create, name="repository-new"),
    path("repositories/<str:owner>/", repositories.index, name="repositories-of"),
    path("repositories/<str:owner>/<str:name>/", repositories.show, name="repository"),
    path("activity/", repositories.activity, name="activity"),
    path("jobs/", jobs.index, name="jobs"),
    path("sign-in/", accounts.SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("account/", accounts.account, name="account"),
    path("api/", api.index),
    path("api/whoami", api.whoami),
    path("api/repositories", api.repositories),
    path("api/repositories/<str:owner>/<str:name>", api.repository, name="api-repository"),
]
if settings.LAB:
    urlpatterns.append(path("stream", stream))

handler400 = "forge.errors.bad_request"
handler403 = "forge.errors.forbidden"
handler404 = "forge.errors.not_found"
handler500 = "forge.errors.server_error"
