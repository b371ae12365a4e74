"""Fields of a segment as numbers, times and words, each refused by its name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from wardwise.errors import quote
from wardwise.io.hl7.errors import Code
from wardwise.io.text import LARGEST

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeVar

    from wardwise.io.hl7.message import Segment

    Meaning = TypeVar("Meaning")

MAX_ID = 199  # of the data type ST
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,20}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})")
_TIME = re.compile(
    r"([0-9]{8})(?:([0-9]{2})([0-9]{2})(?:([0-9]{2})(?:\.([0-9]{1,6})[0-9]*)?)?)?"
    r"(?:([+-])([0-9]{2})([0-9]{2}))?"
)


def required(segment: Segment, field: int, what: str, component: int = 1) -> str:
    """Text of a component that must be there."""
    found = word(segment, field, component)
    if not found:
        code = Code.REQUIRED_FIELD_MISSING
        raise segment.error(code, field, f"expected {what}, got nothing")
    return found


def word(segment: Segment, field: int, component: int = 1) -> str:
    """Text that is short and printable, so that it can be a name."""
    found = segment.text(field, component)
    if len(found) > MAX_ID or not found.isprintable():
        problem = f"expected at most {MAX_ID} printable characters, got {quote(found)}"
        raise segment.error(Code.DATA_TYPE, field, problem, component if component > 1 else 0)
    return found


def identifier(segment: Segment, field: int) -> str:
    """Entity identifier (EI) as one text, ``number^namespace``; empty where there is none."""
    if not word(segment, field):
        return ""
    found = segment.canonical(field)
    if len(found) > MAX_ID or "\\" in found or not found.isprintable():
        problem = f"expected at most {MAX_ID} characters without delimiters, got {quote(found)}"
        raise segment.error(Code.DATA_TYPE, field, problem)
    return found


def number(segment: Segment, field: int) -> float | None:
    """Decimal number; None where there is none."""
    text = segment.text(field)
    if not text:
        return None
    if not _NUMBER.fullmatch(text) or not 0 <= float(text) <= LARGEST:
        problem = f"expected a number from 0 to {LARGEST:g}, got {quote(text)}"
        raise segment.error(Code.DATA_TYPE, field, problem)
    return float(text)


def moment(segment: Segment, field: int) -> datetime | None:
    """Time as ``YYYYMMDD[HHMM[SS[.S]]][+HHMM]``; None where there is none."""
    text = segment.text(field)
    if not text:
        return None
    match = _TIME.fullmatch(text)
    try:
        if match:
            return _datetime(match)
    except ValueError:
        pass  # the 31st of June
    problem = f"expected a time as YYYYMMDDHHMMSS+HHMM, got {quote(text)}"
    raise segment.error(Code.DATA_TYPE, field, problem)


def _datetime(match: re.Match[str]) -> datetime:
    day, hour, minute, second, fraction, sign, off_h, off_min = match.groups()
    found = datetime.strptime(
        f"{day}{hour or '00'}{minute or '00'}{second or '00'}", "%Y%m%d%H%M%S"
    ).replace(microsecond=int((fraction or "0").ljust(6, "0")))
    if sign is None:
        return found
    offset = timedelta(hours=int(off_h), minutes=int(off_min))
    return found.replace(tzinfo=timezone(-offset if sign == "-" else offset))


def choice(
    segment: Segment, field: int, meanings: Mapping[str, Meaning], default: str = ""
) -> Meaning:
    """What a code of a table means; an empty field is the default."""
    found = segment.text(field).upper() or default
    if found not in meanings:
        expected = ", ".join(name for name in meanings if name)
        problem = f"expected one of {expected}, got {quote(found)}"
        raise segment.error(Code.TABLE_VALUE_NOT_FOUND, field, problem)
    return meanings[found]


def stamp(time: datetime) -> str:
    """Time to the second; with its offset if it has one."""
    return time.strftime("%Y%m%d%H%M%S%z")


def now() -> datetime:
    """Time of now, at UTC."""
    return datetime.now(UTC)
