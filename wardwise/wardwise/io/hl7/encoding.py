r"""Delimiters, escape sequences and character sets of HL7 v2 (v2.5.1, chapter 2).

A message names its own five delimiters in its first eight characters. Where one of them stands in
a text it is written as an escape: ``\F\`` for the field separator, ``\S\`` component, ``\T\``
sub-component, ``\R\`` repetition, ``\E\`` the escape itself; ``\X0D\`` gives bytes in hexadecimal
and ``\.br\`` ends a line. Highlighting (``\H\``, ``\N\``) says nothing here and is dropped; any
other escape is kept as it stands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.errors import quote
from wardwise.io.hl7.errors import Code, Hl7Error

if TYPE_CHECKING:
    from collections.abc import Callable

UTF8 = "UNICODE UTF-8"
# Table 0211, as far as one byte order and no switching within a message is meant.
CHARACTER_SETS = {
    "": "utf-8",
    UTF8: "utf-8",
    "UTF-8": "utf-8",
    "UNICODE": "utf-8",
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
}
_LETTERS = {"F": "field", "S": "component", "T": "subcomponent", "R": "repetition", "E": "escape"}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]+")


@dataclass(frozen=True)
class Delimiters:
    """The five characters that structure a message."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"

    @property
    def encoding_characters(self) -> str:
        """Content of MSH-2."""
        return f"{self.component}{self.repetition}{self.escape}{self.subcomponent}"


STANDARD = Delimiters()


def delimiters_of(start: str) -> Delimiters:
    """Read the delimiters that a message begins with.

    Raises
    ------
    Hl7Error
        If it does not begin with MSH, or they are not five different punctuation marks.
    """
    if not start.startswith("MSH"):
        problem = f"expected a message that begins with MSH, got {quote(start[:8])}"
        raise Hl7Error(Code.SEGMENT_SEQUENCE, problem)
    field = start[3:4]
    # Version 2.7 has a fifth one, for cut-off text.
    found = start[4:].split(field, 1)[0] if field else ""
    marks = field + found
    is_text = any(c.isalnum() or not c.isprintable() or c.isspace() or ord(c) > 126 for c in marks)
    if len(found) not in (4, 5) or is_text or len(set(marks)) < len(marks):
        problem = f"expected four different encoding characters as in ^~\\&, got {quote(found)}"
        raise Hl7Error(Code.DATA_TYPE, problem, segment="MSH", field=2)
    return Delimiters(field, *found[:4])


def character_set(name: str) -> str:
    """Python's name of a character set of MSH-18.

    Raises
    ------
    Hl7Error
        If it is none of `CHARACTER_SETS`.
    """
    codec = CHARACTER_SETS.get(name.strip().upper())
    if codec is None:
        expected = f"ASCII, 8859/1 to 8859/9, 8859/15 or {UTF8}"
        raise Hl7Error(
            Code.TABLE_VALUE_NOT_FOUND, f"expected {expected}, got {quote(name)}",
            segment="MSH", field=18,
        )  # fmt: skip
    return codec


def escaped(text: str, marks: Delimiters = STANDARD) -> str:
    """Write a text so that no character of it structures the message."""
    escape = marks.escape
    table = {ord(getattr(marks, part)): f"{escape}{k}{escape}" for k, part in _LETTERS.items()}
    text = text.translate(table)
    return _CONTROLS.sub(lambda found: f"{escape}X{found[0].encode().hex().upper()}{escape}", text)


def unescaped(text: str, marks: Delimiters = STANDARD, codec: str = "utf-8") -> str:
    """Text that is meant; inverse of `escaped`."""
    escape = re.escape(marks.escape)
    if marks.escape not in text:
        return text
    return re.sub(f"{escape}([^{escape}]*){escape}", _meaning(marks, codec), text)


def _meaning(marks: Delimiters, codec: str) -> Callable[[re.Match[str]], str]:
    def meant(found: re.Match[str]) -> str:
        name = found[1]
        if name in _LETTERS:
            mark: str = getattr(marks, _LETTERS[name])
            return mark
        if name in ("H", "N"):
            return ""
        if name == ".br":
            return "\n"
        if re.fullmatch("X(?:[0-9A-Fa-f]{2})+", name):
            return bytes.fromhex(name[1:]).decode(codec, "replace")
        return found[0]

    return meant
