import hashlib
import secrets

from django.contrib.auth.models import AbstractUser
from django.core.validators import RegexValidator
from django.db import models

# Names of accounts and repositories become parts of addresses, and later of directories and SSH commands:
# no capitals (two names must not differ by them alone), no dots at an end, nothing that needs quoting.
NAME_PATTERN = r"^[a-z0-9]+(?:[._-][a-z0-9]+)*\Z"
NAME_RULE = "Use small letters and digits, with single dots, dashes or underscores between them."

PREFIX = "forge_"


class Account(AbstractUser):
    username = models.CharField(
        "name",
        max_length=40,
        unique=True,
        validators=[RegexValidator(NAME_PATTERN, NAME_RULE)],
        error_messages={"unique": "There is already an account of this name."},
    )

    class Meta:
        verbose_name = "account"


class ApiToken(models.Model):
    """The one API token of an account. Only its digest is kept: the token is random and long, so a plain
    SHA-256 cannot be guessed back, and looking it up stays one index access."""

    account = models.OneToOneField(Account, on_delete=models.CASCADE, related_name="api_token")
    digest = models.CharField(max_length=64, unique=True)
    created = models.DateTimeField(auto_now=True)

    @classmethod
    def renew(cls, account: Account) -> str:
        """Make a new token, which ends the old one. It is returned here and can never be read again."""
        token = PREFIX + secrets.token_urlsafe(32)
        cls.objects.update_or_create(account=account, defaults={"digest": _digest(token)})
        return token

    @classmethod
    def account_of(cls, token: str) -> Account | None:
        found = (
            cls.objects.select_related("account")
            .filter(digest=_digest(token), account__is_active=True)
            .first()
        )
        return found.account if found else None


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
