"""A message in its envelope, ``<WWKS Version="2.0" TimeStamp="…Z">``, as bytes and back."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from wardwise.errors import quote
from wardwise.io.wwks2.codec import decode, encode
from wardwise.io.wwks2.errors import MessageError, Reason
from wardwise.io.wwks2.messages import KINDS
from wardwise.io.wwks2.xml import Node, format_xml, parse_xml

if TYPE_CHECKING:
    from wardwise.io.wwks2.messages import Message

VERSION = "2.0"
ENVELOPE = "WWKS"

_TIME = re.compile(r"([0-9-]{10}T[0-9:]{8})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})?")


@dataclass(frozen=True)
class Envelope:
    """A message and when its sender says that it was sent."""

    message: Message
    time_stamp: datetime | None = None


def parse(data: bytes) -> Envelope:
    """Read one message with its envelope.

    Raises
    ------
    MessageError
        With the reason, and naming element and attribute, and what was expected.
    """
    root = parse_xml(data)
    if root.tag != ENVELOPE:
        raise _syntax(f"message: expected the element {ENVELOPE}, got {quote(root.tag)}")
    version = root.attributes.get("Version")
    if version != VERSION:
        raise _syntax(f"{ENVELOPE}.Version: expected {VERSION}, got {quote(version)}")
    if len(root.children) != 1:
        raise _syntax(f"{ENVELOPE}: expected one element, got {len(root.children)}")
    lead = root.children[0]
    message_id = lead.attributes.get("Id", "")
    kind = KINDS.get(lead.tag)
    if kind is None:
        problem = f"message: expected a known kind, got {quote(lead.tag)}"
        raise MessageError(Reason.NOT_SUPPORTED, problem, message_id=message_id)
    try:
        message = decode(kind, lead)
    except MessageError as error:
        raise MessageError(error.reason, str(error), message_id=message_id) from error
    return Envelope(message, _time(root.attributes.get("TimeStamp")))


def write(message: Message, time_stamp: datetime | None = None) -> bytes:
    """Bytes of a message on one line, stamped with the time of now if none is given.

    Raises
    ------
    ValueError
        Naming the field whose value has the wrong type or is out of range.
    """
    now = (time_stamp or datetime.now(UTC)).astimezone(UTC).replace(tzinfo=None)
    attributes = {"Version": VERSION, "TimeStamp": f"{now.isoformat(timespec='milliseconds')}Z"}
    return format_xml(Node(ENVELOPE, attributes, [encode(message)])).encode("utf-8")


def _syntax(problem: str) -> MessageError:
    return MessageError(Reason.SYNTAX_ERROR, problem)


def _time(text: str | None) -> datetime | None:
    """Time of a stamp, which is for information only: nonsense is as good as none."""
    match = _TIME.fullmatch(text or "")
    if match is None:
        return None
    try:
        zone = (match[3] or "Z").replace("Z", "+00:00")
        return datetime.fromisoformat(f"{match[1]}{(match[2] or '')[:7]}{zone}").astimezone(UTC)
    except ValueError:
        return None
