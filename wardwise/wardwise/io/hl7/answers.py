"""Answers to messages: RRE^O12 where orders were read, else a general acknowledgment (ACK).

MSA-1 is AA where all was taken, AE where the content is wrong, and AR where the message as such is
not for us. A refusal has one ERR segment that names segment and field, with a code of table 0357.
A message is taken as a whole or not at all, so an answer speaks of all its orders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.io.hl7.encoding import STANDARD, character_set
from wardwise.io.hl7.errors import Code, Hl7Error
from wardwise.io.hl7.fields import MAX_ID, now, stamp
from wardwise.io.hl7.message import assembled, encoded, line
from wardwise.io.hl7.orders import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from wardwise.io.hl7.message import Message, Segment

VERSION = "2.5.1"
APPLICATION = "WARDWISE"
MAX_CONTROL_ID = 20

# Table 0119: done as asked, and unable to do it.
_DONE = {"NW": "OK", "XO": "XR", "CA": "CR", "DC": "DR", "HD": "HR", "RL": "OR"}
_UNABLE = {"NW": "UA", "XO": "UX", "CA": "UC", "DC": "UD", "HD": "UH", "RL": "UR"}


def answer(
    message: Message | None, refusal: Hl7Error | None = None, *, time: datetime | None = None
) -> bytes:
    """Acknowledge a message.

    Parameters
    ----------
    message
        What came; None if it could not be read at all.
    refusal
        Why it was not taken.
    time
        Of the answer; None: now.
    """
    charset = message.head.text(18) if message else ""
    event = message.kind[1] if message else ""
    kind = ("ACK", event if event.isalnum() else "", "ACK")
    orders = list(_orders(message, refusal)) if message else []
    if orders and not (refusal and refusal.code.is_reject):
        kind = ("RRE", "O12", "RRE_O12")
    try:
        character_set(charset)
    except Hl7Error:
        charset = ""
    control = message.head.canonical(10) if message else ""
    lines = [
        head(kind, f"A{control[: MAX_CONTROL_ID - 1]}", message, charset=charset, time=time),
        line("MSA", {1: _verdict(refusal), 2: control or "none"}),
    ]
    if refusal:
        lines.append(_error(refusal))
    if kind[0] == "RRE":
        lines += orders
    return assembled(lines, charset)


def head(
    kind: tuple[str, str, str], control: str, to: Message | None, *, charset: str = "",
    time: datetime | None = None, application: str = APPLICATION,
) -> str:  # fmt: skip
    """MSH of a message to whom another came from; `control` is already encoded."""
    sender = to.head if to else None
    fields = {
        2: STANDARD.encoding_characters,
        3: (sender.canonical(5) if sender else "") or encoded(application),
        4: sender.canonical(6) if sender else "",
        5: sender.canonical(3) if sender else "",
        6: sender.canonical(4) if sender else "",
        7: stamp(time or now()),
        9: encoded(*kind),
        10: control,
        11: (sender.canonical(11) if sender else "") or "P",
        12: VERSION,
        18: encoded(charset or "UNICODE UTF-8"),
    }
    return line("MSH", fields)


def _verdict(refusal: Hl7Error | None) -> str:
    if refusal is None:
        return "AA"
    return "AR" if refusal.code.is_reject else "AE"


def _error(refusal: Hl7Error) -> str:
    """ERR, in ASCII whatever was quoted, so that every character set can hold it."""
    place = ""
    if refusal.segment:
        words = [refusal.segment, str(refusal.number)]
        if refusal.field:
            words += [str(refusal.field), "1"]
        if refusal.component:
            words.append(str(refusal.component))
        place = encoded(*words)
    name = refusal.code.name.replace("_", " ").capitalize()
    text = str(refusal).encode("ascii", "backslashreplace").decode()
    return line(
        "ERR",
        {2: place, 3: encoded(str(refusal.code.value), name, "HL70357"), 4: "E", 8: encoded(text)},
    )


def _orders(message: Message, refusal: Hl7Error | None) -> Iterable[str]:
    """ORC of each order that was read, saying whether it was done."""
    words = _UNABLE if refusal else _DONE
    for segment in message.segments:
        if segment.name == "ORC":
            yield _order(segment, words)


def _order(segment: Segment, words: dict[str, str]) -> str:
    control = segment.text(1).upper()
    found = {field: segment.canonical(field) for field in (2, 3, 4)}
    known = {field: text for field, text in found.items() if len(text) <= MAX_ID}
    return line("ORC", {1: words[control] if control in CONTROLS else "UA", **known})


def read_answer(message: Message) -> tuple[str, str, str]:
    """Verdict, control id of the message that is answered, and what was wrong.

    Raises
    ------
    Hl7Error
        If it is no answer.
    """
    found = message.first("MSA")
    if found is None or found.text(1) not in ("AA", "AE", "AR", "CA", "CE", "CR"):
        problem = "expected an acknowledgment, got none"
        raise Hl7Error(Code.SEGMENT_SEQUENCE, problem, segment="MSA", field=1 if found else 0)
    error = message.first("ERR")
    told = (error.text(8) or error.text(3, 2)) if error else found.text(3)
    return found.text(1), found.text(2), told
