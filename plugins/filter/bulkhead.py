"""The functions of bulkhead/shape.py as filters, under the same names; the docstrings say what they give."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# Ansible loads this file by its path, so the library beside it is not on Python's.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bulkhead import shape
from bulkhead.schema import plain


def _filter(function: Callable[..., Any]) -> Callable[..., Any]:
    """Ansible's values come in as plain data; hostvars stay what they are, since reading them all is slow."""

    @functools.wraps(function)
    def wrapped(value: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return function(plain(value), *arguments, **named)
        except (ValueError, KeyError, TypeError) as error:
            raise AnsibleFilterError(str(error)) from error

    return wrapped


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {function.__name__: _filter(function) for function in shape.FILTERS}
