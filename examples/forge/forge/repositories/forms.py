from django import forms
from django.db import IntegrityError, transaction

from forge.accounts.models import Account
from forge.repositories.models import Repository
from forge.repositories.tasks import repository_made


class RepositoryForm(forms.ModelForm):
    """The one way in: the page and the API both validate and save through it."""

    class Meta:
        model = Repository
        fields = ["name", "kind", "description"]
        widgets = {
            "name": forms.TextInput(
                attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}
            ),
            "kind": forms.RadioSelect,
            "description": forms.Textarea(attrs={"rows": 3}),
        }
        help_texts = {
            "name": "Small letters and digits, with single dots, dashes or underscores between them.",
            "description": "A sentence on what is kept here. You may leave it empty.",
        }
        error_messages = {
            "name": {
                "required": "Give the repository a name.",
                "max_length": "The name has %(show_value)d characters; %(limit_value)d is the most.",
            },
            "kind": {
                "required": "Choose Git or Mercurial.",
                "invalid_choice": "“%(value)s” is neither git nor hg.",
            },
            "description": {
                "max_length": "The description has %(show_value)d characters; %(limit_value)d is the most."
            },
        }

    def __init__(self, *args: object, owner: Account, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self.instance.owner = owner
        # Without this Django offers “---------” as a third kind.
        self.fields["kind"].choices = Repository.Kind.choices

    def clean_name(self) -> str:
        name = self.cleaned_data["name"]
        if Repository.objects.filter(owner=self.instance.owner, name=name).exists():
            raise forms.ValidationError(self._taken(name))
        return name

    def save_unless_taken(self) -> Repository | None:
        """Two requests may pass clean_name at once: the database's constraint decides between them."""
        try:
            with transaction.atomic():
                repository = self.save()
                # The jobs are promised with the repository or not at all.
                repository_made(repository)
                return repository
        except IntegrityError:
            self.add_error("name", self._taken(self.cleaned_data["name"]))
            return None

    def _taken(self, name: str) -> str:
        return f"{self.instance.owner.username} already has a repository named {name}."
