#!/usr/bin/env python3
"""Writes the tables of fields into docs/application.md, from the models of bulkhead/application.py.

scripts/application_reference.py            writes
scripts/application_reference.py --check    says whether they are current, and writes nothing
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bulkhead.application import Application
from bulkhead.environment import Environment, LoadBalancer, Node
from bulkhead.inventory import ROOT

DOCUMENT = ROOT / "docs/application.md"
BEGIN = "<!-- fields: written by scripts/application_reference.py -->\n"
END = "<!-- end of fields -->\n"

# The parts in the order in which a reader meets them; a title may name where the part stands.
TITLES = {
    "Application": "`application`",
    "Health": "`application.health`",
    "HttpPool": "A pool of kind `http`",
    "Route": "A route",
    "Header": "A route's `header`",
    "TcpPool": "A pool of kind `tcp`",
    "Queue": "A queue",
    "Schedule": "A schedule",
    "Volume": "A volume",
    "Environment": "Variables of the environment (group_vars/all)",
    "VirtualAddress": "A virtual address",
    "Node": "Variables of a host (hosts.yml)",
    "LoadBalancer": "Variables of a load balancer",
    "NodeNetwork": "A network of a load balancer",
}


def tables() -> str:
    parts: dict[str, dict[str, Any]] = {}
    for model in (Application, Environment, Node, LoadBalancer):
        schema = model.model_json_schema()
        parts |= schema.pop("$defs", {})
        parts[model.__name__] = schema
    # A part without a title would be missing from the page, and nobody would notice.
    assert parts.keys() == TITLES.keys(), parts.keys() ^ TITLES.keys()
    return "\n".join(f"### {title}\n\n{_table(parts[name])}" for name, title in TITLES.items())


def _table(schema: dict[str, Any]) -> str:
    required = schema.get("required", [])
    lines = ["| field | value | |", "| --- | --- | --- |"]
    # What must be given comes first.
    for name, field in sorted(schema["properties"].items(), key=lambda item: item[0] not in required):
        need = "" if name in required else " (optional)"
        lines.append(f"| `{name}` | {_kind(field)}{need} | {field.get('description', '')} |")
    return "\n".join(lines) + "\n"


def _kind(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return TITLES[name].replace("`application.health`", "see below").lower()
    if "anyOf" in field:
        return _kind(next(each for each in field["anyOf"] if each.get("type") != "null"))
    if "oneOf" in field:
        return " or ".join(_kind(each) for each in field["oneOf"])
    if "const" in field or "enum" in field:
        return " or ".join(f"`{each}`" for each in field.get("enum", [field.get("const")]))
    match field.get("type"):
        case "array":
            return f"list of: {_kind(field['items'])}"
        case "object":
            return f"by name: {_kind(field['additionalProperties'])}"
        case "integer":
            low, high = field.get("minimum"), field.get("maximum")
            return f"whole number, {low} to {high}" if high else f"whole number, from {low}"
        case _:
            return "text"


def main() -> int:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    current = f"{before}{BEGIN}\n{tables()}\n{END}{after}"
    if "--check" in sys.argv[1:]:
        if text != current:
            print(
                "docs/application.md is not current. Type: scripts/application_reference.py", file=sys.stderr
            )
        return int(text != current)
    DOCUMENT.write_text(current, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
