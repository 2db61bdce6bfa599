import getpass
import os
import sys

from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from forge.accounts.models import Account


class Command(BaseCommand):
    help = (
        "Make an account, or give an existing one a new password. The password is read from the environment "
        "variable FORGE_ACCOUNT_PASSWORD, else from standard input; never from the command line, which "
        "everybody on the machine can read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name")

    def handle(self, *args: object, name: str, **options: object) -> None:
        password = read_password(name)
        account = Account.objects.filter(username=name).first() or Account(username=name)
        if account.pk and account.check_password(password):
            self.stdout.write(f"account {name}: unchanged")
            return
        done = "password changed" if account.pk else "made"
        account.set_password(password)
        try:
            validate_password(password, account)
            account.full_clean()
        except ValidationError as error:
            raise CommandError(f"account {name}: {' '.join(error.messages)}") from None
        account.save()
        self.stdout.write(f"account {name}: {done}")


def read_password(name: str) -> str:
    password = os.environ.get("FORGE_ACCOUNT_PASSWORD", "")
    if not password:
        if sys.stdin.isatty():
            password = getpass.getpass(f"Password of {name}: ")
        else:
            password = sys.stdin.readline().rstrip("\n")
    if not password:
        raise CommandError("no password: set FORGE_ACCOUNT_PASSWORD, or give it on standard input")
    return password
