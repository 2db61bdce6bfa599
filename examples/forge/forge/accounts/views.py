import logging

from django.contrib.auth.decorators import login_required
from django.contrib.auth.forms import AuthenticationForm
from django.contrib.auth.views import LoginView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from forge.accounts.models import ApiToken
from forge.middleware import client_address

log = logging.getLogger("forge.accounts")


class SignInForm(AuthenticationForm):
    error_messages = {
        "invalid_login": "This name and password do not belong together. Both care about capitals.",
        "inactive": "This account is closed.",
    }


class SignIn(LoginView):
    template_name = "sign_in.html"
    authentication_form = SignInForm
    redirect_authenticated_user = True

    def form_invalid(self, form: AuthenticationForm) -> HttpResponse:
        log.warning("sign-in refused", extra={"client": client_address(self.request)})
        return super().form_invalid(form)


@login_required
@never_cache
@require_http_methods(["GET", "POST"])
def account(request: HttpRequest) -> HttpResponse:
    """POST makes a new API token and shows it in its own answer: no later page could, it is kept nowhere."""
    new_token = None
    if request.method == "POST":
        new_token = ApiToken.renew(request.user)
        log.info(
            "API token made", extra={"account": request.user.username, "client": client_address(request)}
        )
    token = ApiToken.objects.filter(account=request.user).first()
    return render(request, "account.html", {"token": token, "new_token": new_token})
