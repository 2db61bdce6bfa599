"""What the models of an environment share: forms of text, and pydantic's errors in the operator's words."""

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from bulkhead.problem import Origin, Problem, origin_unknown, place, shown


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def form(pattern: str, meaning: str, longest: int = 255) -> AfterValidator:
    """Holds a string to one form. The error says what that means, which a regular expression does not."""
    compiled = re.compile(pattern)

    def check(value: str) -> str:
        if len(value) > longest or not compiled.fullmatch(value):
            raise PydanticCustomError("form", "must be {meaning}", {"meaning": meaning})
        return value

    return AfterValidator(check)


# Strict, because YAML makes numbers and booleans of words: a number has to be written as one.
Whole = Annotated[int, Field(strict=True, ge=0)]
Positive = Annotated[int, Field(strict=True, ge=1)]
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]

# One form for every name: it becomes a user, a database, a directory, a systemd unit and an HAProxy backend.
Name = Annotated[
    str, form(r"[a-z][a-z0-9_]*", "a lower-case letter, then letters, digits and underscores, 31 at most", 31)
]
Text = Annotated[str, form(r"[^\x00-\x1f\x7f]+", "one line of text", 4096)]


def plain(value: Any) -> Any:
    """The data in plain types: Ansible hands out subclasses that carry tags, and models would keep them."""
    match value:
        case bool() | None:
            return value
        case str():
            return str.__str__(value)
        case int():
            return int(value)
        case float():
            return float(value)
        case Mapping():
            return {plain(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case _:
            return value


def problems_with(
    model: type[BaseModel], raw: Any, root: str, origin: Origin = origin_unknown
) -> list[Problem]:
    """What is wrong with the data, in the operator's words; nothing when the model takes it."""
    try:
        model.model_validate(plain(raw))
    except ValidationError as error:
        return problems_of(model, raw, error.errors(), root, origin)
    return []


def problems_of(
    model: type[BaseModel],
    raw: Any,
    details: list[ErrorDetails],
    root: str,
    origin: Origin = origin_unknown,
) -> list[Problem]:
    schema = model.model_json_schema()
    # A list whose items are all broken counts as too short too: its items are said, so that is not.
    parents = {detail["loc"][:depth] for detail in details for depth in range(len(detail["loc"]))}
    return sorted(
        _problem(schema, raw, detail, root, origin)
        for detail in details
        if not (detail["type"] == "too_short" and detail["loc"] in parents)
    )


def _problem(schema: dict[str, Any], raw: Any, detail: ErrorDetails, root: str, origin: Origin) -> Problem:
    bad_key = detail["loc"][-1:] == ("[key]",)
    loc, node = _walk(schema, detail["loc"][:-1] if bad_key else detail["loc"])
    found, source = raw, origin(raw)
    for part in loc:
        try:
            found = found[part]
        except (KeyError, IndexError, TypeError):
            break
        source = origin(found) or source
    path = ".".join(filter(None, [root, *map(str, loc)]))
    described = node.get("description", "")
    example = f" For example: {loc[-1]}: {node['examples'][0]}" if loc and node.get("examples") else ""
    value = shown(loc[-1] if bad_key else found)
    kind = detail["type"]
    if kind == "missing":
        value = str(loc[-1])
        what = f"the required {value} is missing"
        mend = f"Add it: {described}{example}"
    elif kind == "extra_forbidden":
        value = str(loc[-1])
        what = f"there is no field {value} here"
        known = ", ".join(_walk(schema, detail["loc"][:-1])[1].get("properties", {}))
        mend = f"Remove it or mend its name; the fields here: {known}."
    elif kind in ("union_tag_not_found", "union_tag_invalid"):
        value = shown(found.get("kind") if isinstance(found, Mapping) else found)
        what = f"the kind is {value}"
        mend = f"Give it a kind that exists: {', '.join(node['discriminator']['mapping'])}."
    elif kind == "too_short":
        what = f"it is {value}, and must have at least one"
        mend = f"Add one: {described}{example}"
    else:
        must = detail["msg"].removeprefix("Input should be ").removeprefix("must ").removeprefix("be ")
        must, mend = _WRONG_TYPE.get(kind, (must, f"Mend it: {described}" if described else "Mend it."))
        what = f"it is {value}, and must {must if must.startswith('have ') else 'be ' + must}"
    return Problem(place(path, source), what, value, mend)


_WRONG_TYPE = {
    "int_type": ("a whole number", "Write it in digits, without quotes."),
    "string_type": ("text", "Put it in quotes."),
}


def _walk(schema: dict[str, Any], loc: Iterable[int | str]) -> tuple[list[int | str], dict[str, Any]]:
    """The way through the data that pydantic's location means, and the schema of the place it ends at.

    They differ where a union is told apart by a field: pydantic names the member, the data has no such step.
    """
    way: list[int | str] = []
    node = schema
    for part in loc:
        if "discriminator" in node:
            node = _resolved(schema, {"$ref": node["discriminator"]["mapping"][part]})
            continue
        way.append(part)
        if isinstance(part, int):
            following = node.get("items", {})
        else:
            following = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
        node = _resolved(schema, following if isinstance(following, dict) else {})
    return way, node


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """The node itself: what a reference points at, or the one alternative that is not null."""
    own = {"description": node["description"]} if "description" in node else {}
    if "anyOf" in node:
        node = next(each for each in node["anyOf"] if each.get("type") != "null")
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
    return {**node, **own}
