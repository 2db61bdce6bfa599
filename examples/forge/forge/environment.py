"""Reads the settings from the environment and names everything that is wrong with them in one error."""

from collections.abc import Mapping

from django.core.exceptions import ImproperlyConfigured


class Environment:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self._problems: list[str] = []

    def optional(self, name: str, default: str = "") -> str:
        return self._values.get(name, "").strip() or default

    def required(self, name: str, mend: str) -> str:
        value = self.optional(name)
        if not value:
            self._problems.append(f"{name} is not set: give it {mend}")
        return value

    def listed(self, name: str, mend: str) -> list[str]:
        return [item.strip() for item in self.required(name, mend).split(",") if item.strip()]

    def chosen(self, name: str, choices: tuple[str, ...]) -> str:
        value = self.required(name, f"one of {', '.join(choices)}")
        if value and value not in choices:
            self.refuse(name, value, f"give it one of {', '.join(choices)}")
        return value

    def number(self, name: str, mend: str) -> int:
        value = self.required(name, mend)
        if value and not (value.isascii() and value.isdigit()):
            self.refuse(name, value, f"give it {mend}")
            return 0
        return int(value or 0)

    def refuse(self, name: str, value: str, mend: str) -> None:
        self._problems.append(f"{name} is {value!r}: {mend}")

    def raise_problems(self) -> None:
        if self._problems:
            raise ImproperlyConfigured(
                "\n  ".join(
                    [
                        "the environment of this process does not fit (README.md has the table):",
                        *self._problems,
                    ]
                )
            )
