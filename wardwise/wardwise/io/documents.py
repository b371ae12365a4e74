"""JSON documents: read into models, refused in one line, laid out for eyes and for diff."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from wardwise.errors import InputError, quote
from wardwise.io.text import LARGEST

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)
Loc = tuple[str | int, ...]

_POSITION = re.compile(r"Invalid JSON: (.*) at line ([0-9]+) column ([0-9]+)")


def validated(
    model: type[Model], text: str, path: str | os.PathLike[str], line: int | None = None
) -> Model:
    """Check text against a model, each field standing once and each number in range.

    `line` is that of the file, where the text is one of its lines.
    """
    try:
        result = model.model_validate_json(text)
    except ValidationError as error:
        raise _input_error(path, error.errors(include_url=False)[0], line) from error
    # pydantic silently keeps the last of two fields of one name.
    document = json.loads(text, object_pairs_hook=lambda pairs: _unique(path, pairs, line))
    for loc, value in _out_of_range(document, ()):
        problem = f"expected a number from {-LARGEST:g} to {LARGEST:g}, got {quote(value)}"
        raise InputError(path, problem, line=line, field=_field(loc))
    return result


def _input_error(path: str | os.PathLike[str], error: ErrorDetails, line: int | None) -> InputError:
    """Say in our words what pydantic found first."""
    message, found, context = error["msg"], quote(error["input"]), error.get("ctx", {})
    position = _POSITION.fullmatch(message)
    if position is not None:
        problem = f"expected JSON, got: {position[1]}"
        line = line or int(position[2])
        return InputError(path, problem, line=line, field=f"column {position[3]}")
    expected = message.removeprefix("Input should be ").removeprefix("Input ")
    problems = {
        "missing": "expected a value, got none",
        "missing_argument": "expected a value, got none",
        "extra_forbidden": "expected a known field, got this one",
        "unexpected_keyword_argument": "expected a known field, got this one",
        "union_tag_not_found": "expected a field kind, got none",
        "union_tag_invalid": f"expected kind {context.get('expected_tags')}, "
        f"got {quote(context.get('tag'))}",
        "value_error": message.removeprefix("Value error, "),
    }
    problem = problems.get(error["type"], f"expected {expected}, got {found}")
    field = _field(error["loc"])
    return InputError(path, problem.removeprefix(f"{field}: "), line=line, field=field)


def _field(loc: Loc) -> str | None:
    """Write a place in the document as ``requests[3].due_s``."""
    # pydantic inserts the kind.
    if loc[:1] == ("travel",) and loc[1:2] and loc[1] in ("matrix", "euclidean", "site"):
        loc = ("travel", *loc[2:])
    if loc[1:2] and loc[0] in ("day", "fact", "ride", "end"):
        loc = loc[1:]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".") or None


def _unique(
    path: str | os.PathLike[str], pairs: list[tuple[str, Any]], line: int | None
) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(path, "expected once, got it again", line=line, field=twice)
    return fields


def _out_of_range(container: Any, loc: Loc) -> Iterator[tuple[Loc, float]]:
    """Numbers of a document that are too large, with their places."""
    items = container.items() if isinstance(container, dict) else enumerate(container)
    for key, item in items:
        if isinstance(item, int | float):
            if not -LARGEST <= item <= LARGEST:
                yield (*loc, key), item
        elif isinstance(item, dict | list):
            yield from _out_of_range(item, (*loc, key))


def layout(value: Any, indent: str = "") -> str:
    """Format JSON with one line for an innermost list or object, for eyes and for diff."""
    if not _is_nested(value):
        return json.dumps(value, ensure_ascii=False)
    inner = f"{indent} "
    if isinstance(value, dict):
        lines = [f"{json.dumps(key)}: {layout(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + line for line in lines) + f"\n{indent}}}"
    lines = [layout(item, inner) for item in value]
    return "[\n" + ",\n".join(inner + line for line in lines) + f"\n{indent}]"


def _is_nested(value: Any) -> bool:
    """Whether lists or objects stand inside; the items of a list are all alike."""
    if isinstance(value, dict):
        return any(isinstance(item, dict | list | tuple) for item in value.values())
    is_list = isinstance(value, list | tuple) and len(value) > 0
    return is_list and isinstance(value[0], dict | list | tuple)
