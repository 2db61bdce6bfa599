from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator
from django.db import models
from django.urls import reverse

from forge.accounts.models import NAME_PATTERN, NAME_RULE


def refuse_suffix(name: str) -> None:
    for suffix in (".git", ".hg"):
        if name.endswith(suffix):
            raise ValidationError(f"Leave out “{suffix}”: clone addresses add it by themselves.")


class Repository(models.Model):
    class Kind(models.TextChoices):
        GIT = "git", "Git"
        MERCURIAL = "hg", "Mercurial"

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="repositories")
    name = models.CharField(
        max_length=64, validators=[RegexValidator(NAME_PATTERN, NAME_RULE), refuse_suffix]
    )
    kind = models.CharField(max_length=3, choices=Kind)
    description = models.CharField(max_length=500, blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        verbose_name_plural = "repositories"
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="repository_owner_name"),
            models.CheckConstraint(condition=models.Q(kind__in=["git", "hg"]), name="repository_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.owner.username}/{self.name}"

    def get_absolute_url(self) -> str:
        return reverse("repository", args=[self.owner.username, self.name])


class Activity(models.Model):
    """What happened, for the feed; written by a task."""

    account = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="activities")
    repository = models.ForeignKey(Repository, on_delete=models.CASCADE, related_name="activities")
    words = models.CharField(max_length=200)
    happened = models.DateTimeField()

    class Meta:
        verbose_name_plural = "activities"
        ordering = ["-happened", "-id"]


class Statistics(models.Model):
    """The last counting, done by a task. One row."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1, editable=False)
    repositories = models.PositiveIntegerField()
    git = models.PositiveIntegerField()
    mercurial = models.PositiveIntegerField()
    owners = models.PositiveIntegerField()
    counted = models.DateTimeField()

    class Meta:
        verbose_name_plural = "statistics"
