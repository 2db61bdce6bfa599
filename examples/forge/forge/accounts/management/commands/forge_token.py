from django.core.management.base import BaseCommand, CommandError, CommandParser

from forge.accounts.models import Account, ApiToken


class Command(BaseCommand):
    help = "Make a new API token for an account (the old one ends) and print it, alone, on standard output."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")

    def handle(self, *args: object, name: str, **options: object) -> None:
        account = Account.objects.filter(username=name, is_active=True).first()
        if account is None:
            raise CommandError(f"there is no account {name}: make it with `manage.py forge_account {name}`")
        self.stdout.write(ApiToken.renew(account))
