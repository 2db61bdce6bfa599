"""Reads the application's environment file: as systemd's EnvironmentFile, each value quoted."""

import re

_LINE = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"')


def read(path):
    values = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line)
            if not match:
                # The line itself may hold a secret, so it is not shown.
                raise ValueError(
                    f'{path}, line {number}: not of the form NAME="value"; converge this host again'
                )
            values[match[1]] = re.sub(r"\\([\\\"`$])", r"\1", match[2])
    return values
