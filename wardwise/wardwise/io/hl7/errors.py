"""Why a message is refused, and where in it, in HL7's own codes."""

from __future__ import annotations

from enum import IntEnum

from wardwise.errors import MAX_PROBLEM


class Code(IntEnum):
    """What the sender of a refused message is told (HL7 v2.5.1, table 0357)."""

    SEGMENT_SEQUENCE = 100
    REQUIRED_FIELD_MISSING = 101
    DATA_TYPE = 102
    TABLE_VALUE_NOT_FOUND = 103
    UNSUPPORTED_MESSAGE_TYPE = 200
    UNSUPPORTED_EVENT = 201
    UNSUPPORTED_PROCESSING_ID = 202
    UNSUPPORTED_VERSION = 203
    UNKNOWN_KEY = 204
    DUPLICATE_KEY = 205
    INTERNAL = 207

    @property
    def is_reject(self) -> bool:
        """Whether the message as such is not for us (AR) rather than wrong in its content (AE)."""
        return self >= Code.UNSUPPORTED_MESSAGE_TYPE and self not in (
            Code.UNKNOWN_KEY,
            Code.DUPLICATE_KEY,
        )


class Hl7Error(ValueError):
    """A message that cannot be taken, in one line: ``RXE[2]-10: problem``.

    Attributes
    ----------
    code
        Kind of trouble.
    segment, number
        Segment and its number among those of its name, from 1; empty where the whole message is
        meant.
    field, component
        From 1; 0 where there is none.
    """

    def __init__(
        self,
        code: Code,
        problem: str,
        *,
        segment: str = "",
        number: int = 1,
        field: int = 0,
        component: int = 0,
    ) -> None:
        self.code = code
        self.segment, self.number = segment, number
        self.field, self.component = field, component
        where = f"{segment}[{number}]" if segment and number > 1 else segment or "message"
        if field:
            where += f"-{field}" + (f".{component}" if component else "")
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in f"{where}: {problem}")
        super().__init__(text if len(text) <= MAX_PROBLEM else f"{text[: MAX_PROBLEM - 3]}...")
