"""Messages of HL7 v2 as segments of fields, read and written.

Fields stay as they were written until they are asked for, so that what nobody asks for costs
nothing and cannot be wrong. Segments may end with CR, CR LF or LF; CR is written.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from wardwise.errors import quote
from wardwise.io.hl7.encoding import (
    STANDARD,
    Delimiters,
    character_set,
    delimiters_of,
    escaped,
    unescaped,
)
from wardwise.io.hl7.errors import Code, Hl7Error

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 1024 * 1024
MAX_SEGMENTS = 10_000
MAX_FIELD = 65_536
DELETED = '""'  # "what you have is to be deleted", as good as nothing to us

_ENDS = re.compile(r"\r\n|\r|\n")
_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")


@dataclass(frozen=True)
class Segment:
    """One line of a message.

    Parameters
    ----------
    name, number
        Its name, and its number among the segments of that name, from 1.
    fields
        As they were written; number 0 is the name.
    marks, codec
        Delimiters and character set of the message.
    """

    name: str
    number: int
    fields: tuple[str, ...]
    marks: Delimiters
    codec: str

    def raw(self, field: int) -> str:
        """Field as it was written, empty where there is none."""
        return self.fields[field] if field < len(self.fields) else ""

    def repetitions(self, field: int) -> list[str]:
        """Repetitions of a field as they were written."""
        return self.raw(field).split(self.marks.repetition)

    def text(self, field: int, component: int = 1, *, repetition: int = 0) -> str:
        """Text of a component's first sub-component, without outer spaces."""
        repeated = self.repetitions(field)
        if repetition >= len(repeated) or repeated[repetition] == DELETED:
            return ""
        parts = repeated[repetition].split(self.marks.component)
        if component > len(parts):
            return ""
        part = parts[component - 1].split(self.marks.subcomponent)[0]
        found = unescaped(part, self.marks, self.codec).strip()
        return "" if found == DELETED else found

    def canonical(self, field: int) -> str:
        """First repetition of a field in the standard delimiters, without empty ends."""
        marks = self.marks
        components = [
            STANDARD.subcomponent.join(
                escaped(unescaped(sub, marks, self.codec).strip())
                for sub in part.split(marks.subcomponent)
            )
            for part in self.repetitions(field)[0].split(marks.component)
        ]
        return STANDARD.component.join(components).rstrip(STANDARD.component)

    def error(self, code: Code, field: int, problem: str, component: int = 0) -> Hl7Error:
        """Build the error that says what is wrong in a field."""
        return Hl7Error(
            code, problem, segment=self.name, number=self.number, field=field, component=component
        )


@dataclass(frozen=True)
class Message:
    """A message: MSH and what follows it."""

    segments: tuple[Segment, ...]

    @property
    def head(self) -> Segment:
        """MSH."""
        return self.segments[0]

    @cached_property
    def kind(self) -> tuple[str, str]:
        """Message code and trigger event, as in ("RDE", "O11")."""
        return self.head.text(9, 1), self.head.text(9, 2)

    def first(self, name: str) -> Segment | None:
        """First segment of a name."""
        return next((segment for segment in self.segments if segment.name == name), None)


def parse(data: bytes) -> Message:
    """Read one message.

    Raises
    ------
    Hl7Error
        Naming segment and field, and what was expected.
    """
    if len(data) > MAX_BYTES:
        raise Hl7Error(Code.DATA_TYPE, f"expected at most {MAX_BYTES} bytes, got {len(data)}")
    data = data.removeprefix(b"\xef\xbb\xbf").strip(b"\r\n\t \x0b\x1c")
    # The delimiters and the name of the character set are ASCII in all character sets we take.
    start = _ENDS.split(data.decode("latin-1"), 1)[0]
    marks = delimiters_of(start)
    fields = ["MSH", *start.split(marks.field)]
    codec = character_set(fields[18].split(marks.repetition)[0] if len(fields) > 18 else "")
    try:
        text = data.decode(codec)
    except UnicodeDecodeError as error:
        problem = f"expected {codec} text, got byte 0x{data[error.start]:02x}"
        raise Hl7Error(Code.DATA_TYPE, problem, segment="MSH", field=18) from error
    return Message(_segments(text, marks, codec))


def _segments(text: str, marks: Delimiters, codec: str) -> tuple[Segment, ...]:
    found: list[Segment] = []
    count: dict[str, int] = {}
    lines = [line for line in _ENDS.split(text) if line.strip()]
    if len(lines) > MAX_SEGMENTS:
        problem = f"expected at most {MAX_SEGMENTS} segments, got {len(lines)}"
        raise Hl7Error(Code.SEGMENT_SEQUENCE, problem)
    for line in lines:
        name, *fields = line.split(marks.field)
        if not _NAME.fullmatch(name) or (name == "MSH" and found):
            problem = f"expected the name of a segment after {len(found)}, got {quote(name)}"
            raise Hl7Error(Code.SEGMENT_SEQUENCE, problem)
        number = count[name] = count.get(name, 0) + 1
        if name == "MSH":  # MSH-1 is the separator itself
            fields = [marks.field, *fields]
        segment = Segment(name, number, (name, *fields), marks, codec)
        for k, field in enumerate(fields, start=1):
            if len(field) > MAX_FIELD:
                problem = f"expected at most {MAX_FIELD} characters, got {len(field)}"
                raise segment.error(Code.DATA_TYPE, k, problem)
        found.append(segment)
    return tuple(found)


def line(name: str, fields: dict[int, str]) -> str:
    """A segment of fields that are already encoded (`encoded`, `Segment.canonical`), by number."""
    last = max((k for k, field in fields.items() if field), default=0)
    words = [name, *(fields.get(k, "") for k in range(1, last + 1))]
    if name == "MSH":
        del words[1]
    return STANDARD.field.join(words)


def encoded(*components: str) -> str:
    """Components of a field, escaped and without empty ends."""
    return STANDARD.component.join(map(escaped, components)).rstrip(STANDARD.component)


def assembled(lines: Iterable[str], charset: str = "") -> bytes:
    """Bytes of a message in a character set of MSH-18; each segment ends with CR.

    Raises
    ------
    ValueError
        If the character set cannot hold the text.
    """
    return "".join(f"{text}\r" for text in lines).encode(character_set(charset))
