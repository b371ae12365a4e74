"""FHIR resources as plain JSON trees, walked with a path that says where something is wrong.

Only what is read is checked: a resource may hold far more than a dispensing machine needs, and
what is unknown to us does not matter, except where FHIR says that it must not be ignored.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from wardwise.errors import quote
from wardwise.io.text import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ID = 200

_DATE_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"
    r"(?:Z|[+-][0-9]{2}:[0-9]{2})?)?"
)


class FhirError(ValueError):
    """A resource that cannot be taken, in one line: ``path: problem``.

    Attributes
    ----------
    path
        Place in the document, as in ``entry[2].resource.status``; empty for the document.
    """

    def __init__(self, path: str, problem: str) -> None:
        self.path = path
        super().__init__(f"{path}: {problem}" if path else problem)


@dataclass(frozen=True)
class Node:
    """A JSON object and its place in the document."""

    fields: dict[str, Any]
    path: str = ""

    def at(self, name: str) -> str:
        """Place of a field."""
        return f"{self.path}.{name}" if self.path else name

    def fail(self, name: str, expected: str) -> NoReturn:
        """Refuse what is in a field."""
        found = quote(self.fields[name]) if name in self.fields else "nothing"
        raise FhirError(self.at(name), f"expected {expected}, got {found}")

    def text(self, name: str, expected: str = "") -> str:
        """Text of a field, empty where there is none; `expected` says that it must be there."""
        found = self.fields.get(name, "")
        if not isinstance(found, str) or (expected and not found.strip()):
            self.fail(name, expected or "text")
        return found.strip()

    def word(self, name: str, expected: str = "") -> str:
        """Text that is short and printable, so that it can be a name."""
        found = self.text(name, expected)
        if len(found) > MAX_ID or not found.isprintable():
            self.fail(name, f"at most {MAX_ID} printable characters")
        return found

    def number(self, name: str) -> float | None:
        """Number of a field; None where there is none."""
        found = self.fields.get(name)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            self.fail(name, "a number")
        if not 0 <= found <= LARGEST:
            self.fail(name, f"a number from 0 to {LARGEST:g}")
        return float(found)

    def flag(self, name: str) -> bool:
        """True or false; false where there is none."""
        found = self.fields.get(name, False)
        if not isinstance(found, bool):
            self.fail(name, "true or false")
        return found

    def moment(self, name: str) -> datetime | None:
        """Date or time of a field, to the day at least; None where there is none."""
        found = self.text(name)
        if not found:
            return None
        try:
            if _DATE_TIME.fullmatch(found):
                # Six decimals are as many as Python's clock has.
                text = re.sub(r"(\.[0-9]{6})[0-9]+", r"\1", found)
                return datetime.fromisoformat(text)
        except ValueError:
            pass  # the 31st of June
        return self.fail(name, "a time as YYYY-MM-DDThh:mm:ss+zz:zz or a date")

    def child(self, name: str) -> Node | None:
        """Object of a field; None where there is none."""
        found = self.fields.get(name)
        if found is None:
            return None
        if not isinstance(found, dict):
            self.fail(name, "an object")
        return Node(found, self.at(name))

    def children(self, name: str) -> Iterator[Node]:
        """Objects of a list; none where there is no such field."""
        found = self.fields.get(name, [])
        if not isinstance(found, list):
            self.fail(name, "a list")
        for k, item in enumerate(found):
            path = f"{self.at(name)}[{k}]"
            if not isinstance(item, dict):
                raise FhirError(path, f"expected an object, got {quote(item)}")
            yield Node(item, path)


def parse(text: str) -> Node:
    """Read JSON that is one object, each field standing once.

    Raises
    ------
    FhirError
        Naming line and column where it is no JSON.
    """
    try:
        document = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        problem = f"expected JSON, got: {error.msg}"
        raise FhirError(f"line {error.lineno}, column {error.colno}", problem) from error
    except FhirError:
        raise
    except RecursionError as error:
        raise FhirError("", "expected JSON without deep nesting, got more") from error
    except ValueError as error:  # a number of thousands of digits
        raise FhirError("", f"expected JSON, got: {error}") from error
    if not isinstance(document, dict):
        raise FhirError("", f"expected a resource, got {quote(document)}")
    return Node(document)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise FhirError(twice[:MAX_ID], "expected once, got it again")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise FhirError("", f"expected JSON, got: {name}")
