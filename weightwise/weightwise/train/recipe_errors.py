"""One clear line from pydantic's report about a recipe."""

from __future__ import annotations

import dataclasses
import re
import typing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
# pydantic's words, and shorter ones.
WORDS = {
    "Input should be ": "",
    "String should match ": "",
    "Tuple should have ": "",
    "Value should have ": "",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
    " after validation, not 0": "",
}
# Our own checks across fields put the name of the field first: "steps: expected ...".
OWN_FIELD = re.compile(r"^([a-z][a-z0-9_.]*): (.*)$", re.DOTALL)


def explain(error: ValidationError, cls: type, table: dict[str, Any]) -> str:
    """Describe the first problem as ``dotted.field: expected …, got …``.

    Parameters
    ----------
    error
        What pydantic raised.
    cls
        Dataclass that was asked for.
    table
        The nested dicts that were given.
    """
    problems = error.errors(include_url=False)
    # A misspelt key is also a missing one: say the former.
    problem = next((p for p in problems if p["type"] in UNKNOWN_KEY), problems[0])
    path = _real_path(problem["loc"], table)
    field = ".".join(path)
    kind, context, given = problem["type"], problem.get("ctx", {}), problem.get("input")
    if kind in UNKNOWN_KEY:
        names = _field_names(cls, path[:-1], table)
        return f"{field}: expected one of {', '.join(names)}, got an unknown key"
    if kind in ("missing", "missing_argument"):
        return f"{field}: expected a value, got none"
    if kind == "union_tag_not_found":
        return f"{field}.kind: expected a value, got none"
    if kind == "union_tag_invalid":
        return f"{field}.kind: expected one of {context['expected_tags']}, got {context['tag']!r}"
    if kind == "value_error":
        return _own_message(str(context["error"]), path)
    return f"{field}: expected {_expectation(problem)}, got {given!r}"


def _own_message(message: str, path: list[str]) -> str:
    own = OWN_FIELD.match(message)
    if own:
        path, message = [*path, own[1]], own[2]
    return f"{'.'.join(path)}: {message[:1].lower()}{message[1:].removesuffix('.')}"


def _expectation(problem: ErrorDetails) -> str:
    if problem["type"] == "dataclass_type":
        return "a table"
    message = problem["msg"]
    for theirs, ours in WORDS.items():
        message = message.replace(theirs, ours)
    return message


def _real_path(location: tuple[int | str, ...], table: dict[str, Any]) -> list[str]:
    """Leave out the names of union members, which pydantic puts between field names."""
    path: list[str] = []
    inner: Any = table
    may_be_kind = True  # of the table that was entered last
    for index, part in enumerate(location, 1):
        is_last = index == len(location)
        if may_be_kind and isinstance(inner, dict) and _is_kind(part, inner, is_last=is_last):
            may_be_kind = False
            continue
        path.append(str(part))
        may_be_kind = True
        if isinstance(inner, list):
            inner = inner[int(part)]
        else:
            inner = inner.get(part) if isinstance(inner, dict) else None
    return path


def _is_kind(part: int | str, table: dict[str, Any], *, is_last: bool) -> bool:
    """Whether a part of a location names the kind of this table, not a key of it."""
    if "kind" in table:
        return bool(part == table["kind"])
    return part not in table and not is_last  # the last one may be a missing key


def _field_names(cls: type, path: list[str], table: dict[str, Any]) -> list[str]:
    """Names of the fields of the dataclass that lies at a path."""
    inner: Any = table
    for name in path:
        if isinstance(inner, list):  # its elements are of the class found for the list
            inner = inner[int(name)]
            continue
        inner = inner[name]
        hint = typing.get_type_hints(cls)[name]
        members = typing.get_args(hint) or (hint,)
        cls = next(m for m in members if _fits(m, inner))
    return [field.name for field in dataclasses.fields(cls)]


def _fits(member: Any, table: Any) -> bool:
    """Whether this member of a union is the one that the table's kind asks for."""
    if isinstance(table, list):
        return True
    kinds = [field.default for field in dataclasses.fields(member) if field.name == "kind"]
    return not kinds or table.get("kind", kinds[0]) == kinds[0]
