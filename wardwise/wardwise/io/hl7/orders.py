"""Prescriptions that hospital systems send: RDE^O11, pharmacy/treatment encoded order (v2.5.1).

One ORC begins an order of one drug; RXE says what is to be dispensed, TQ1 when and how urgently,
PV1 on which ward the patient is. Orders of one ORC-4 are one prescription for us.

Priorities (TQ1-9, table 0485): S is stat; A, T, P and C are urgent; R and PRN are routine. Timing
critical may say how critical (``TS30``, ``TM10``, ``TH``). The most urgent repetition counts.

A controlled drug (RXE-35), a mixture (RXC), and what RXE-30 wants in a traditional package or from
the ward's own stock is taken by hand. RXE-20 asks people to read RXE-21: that goes into the note.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from wardwise.errors import quote
from wardwise.io.hl7.errors import Code, Hl7Error
from wardwise.io.hl7.fields import choice, identifier, moment, number, required, word
from wardwise.io.prescriptions import Action, Item, most_urgent, packs
from wardwise.pharmacy.problem import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from wardwise.io.hl7.message import Message, Segment

# Table 0119, as far as a dispensing machine has to do with it.
CONTROLS = {
    "NW": Action.NEW, "XO": Action.CHANGE, "CA": Action.CANCEL, "DC": Action.CANCEL,
    "HD": Action.HOLD, "RL": Action.RELEASE,
}  # fmt: skip
PRIORITIES = {
    "S": Priority.STAT, "A": Priority.URGENT, "T": Priority.URGENT, "P": Priority.URGENT,
    "C": Priority.URGENT, "R": Priority.ROUTINE, "PRN": Priority.ROUTINE,
}  # fmt: skip
# Table 0321: automatic dispensing and unit doses come from the machine.
IS_BY_HAND = {"": False, "AD": False, "UD": False, "TR": True, "F": True}
SCHEDULES = dict.fromkeys(("I", "II", "III", "IV", "V", "VI"), True)  # table 0477
VERSIONS = ("2.5", "2.5.1", "2.6")

_CRITICAL = re.compile(r"T[SMHDWL][0-9]{0,6}")


def require_kind(message: Message) -> None:
    """Refuse what is not RDE^O11 of a version whose fields have these meanings.

    Raises
    ------
    Hl7Error
        Naming the field of MSH and what is accepted.
    """
    head, (code, event) = message.head, message.kind
    required(head, 10, "a message control id")
    if code != "RDE":
        problem = f"expected RDE, got {quote(code)}"
        raise head.error(Code.UNSUPPORTED_MESSAGE_TYPE, 9, problem, 1)
    if event != "O11":
        problem = f"expected the event O11, got {quote(event)}"
        raise head.error(Code.UNSUPPORTED_EVENT, 9, problem, 2)
    if head.text(11) not in ("P", "T", "D", ""):
        problem = f"expected P, T or D, got {quote(head.text(11))}"
        raise head.error(Code.UNSUPPORTED_PROCESSING_ID, 11, problem)
    if head.text(12) not in VERSIONS:
        expected = ", ".join(VERSIONS)
        problem = f"expected one of {expected}, got {quote(head.text(12))}"
        raise head.error(Code.UNSUPPORTED_VERSION, 12, problem)


def read_items(message: Message) -> tuple[Item, ...]:
    """Read the lines of a prescription, or what is to happen with lines that came before.

    Raises
    ------
    Hl7Error
        Naming segment and field, and what is accepted.
    """
    require_kind(message)
    patient = message.first("PID")
    visit = message.first("PV1")
    ward = word(visit, 3) if visit else ""
    found = [_item(group, message, patient, ward) for group in _groups(message)]
    if not found:
        raise Hl7Error(Code.SEGMENT_SEQUENCE, "expected at least one segment, got none",
                       segment="ORC")  # fmt: skip
    ids = [item.id for item in found]
    for k, name in enumerate(ids):
        if name in ids[:k]:
            problem = f"expected each order once, got {quote(name)} again"
            raise Hl7Error(Code.DUPLICATE_KEY, problem, segment="ORC", number=k + 1, field=2)
    return tuple(found)


def _groups(message: Message) -> Iterator[dict[str, list[Segment]]]:
    """Segments of each order by name, from its ORC to the next."""
    group: dict[str, list[Segment]] | None = None
    for segment in message.segments:
        if segment.name == "ORC":
            if group is not None:
                yield group
            group = {}
        if group is not None:
            group.setdefault(segment.name, []).append(segment)
        elif segment.name == "RXE":
            problem = "expected ORC before RXE, got none"
            raise segment.error(Code.SEGMENT_SEQUENCE, 0, problem)
    if group is not None:
        yield group


def _item(
    group: dict[str, list[Segment]], message: Message, patient: Segment | None, ward: str
) -> Item:
    """Line of one ORC."""
    orc = group["ORC"][0]
    required(orc, 1, f"one of {', '.join(CONTROLS)}")
    action = choice(orc, 1, CONTROLS)
    placer, filler, number_ = (identifier(orc, field) for field in (2, 3, 4))
    if not (placer or filler):
        problem = "expected a placer or filler order number, got none"
        raise orc.error(Code.REQUIRED_FIELD_MISSING, 2, problem)
    source = {"ORC-2": placer, "ORC-3": filler, "ORC-4": number_}
    if patient:
        source |= {"PID-3": patient.canonical(3), "PID-5": patient.canonical(5)}
    rxes = group.get("RXE", [])
    needs_drug = action in (Action.NEW, Action.CHANGE)
    if len(rxes) > 1 or (needs_drug and not rxes):
        problem = f"expected one RXE after ORC, got {len(rxes)}"
        raise orc.error(Code.SEGMENT_SEQUENCE, 0, problem)
    patient_id = word(patient, 3) if patient else ""
    name = placer or filler
    if not needs_drug:
        return Item(id=name, order=number_, action=action, patient=patient_id, source=source)
    rxe = rxes[0]
    start, end = _window(orc, message.head, group.get("TQ1", []))
    controlled = bool(rxe.text(35)) and choice(rxe, 35, SCHEDULES)
    source |= _repeated(rxe, group.get("RXR", []))
    return Item(
        id=name, order=number_ or word(rxe, 15) or name, action=action, patient=patient_id,
        drug=required(rxe, 2, "a code"), quantity=_packs(rxe), priority=_priority(group),
        start=start, end=end, destination=word(rxe, 42) or word(rxe, 8) or ward,
        is_manual=controlled or "RXC" in group or choice(rxe, 30, IS_BY_HAND),
        note=_note(rxe, is_controlled=controlled), source=source,
    )  # fmt: skip


def _repeated(rxe: Segment, routes: list[Segment]) -> dict[str, str]:
    """Fields of an order that the message on its dispensing repeats."""
    found = {f"RXE-{field}": rxe.canonical(field) for field in (2, 15, 42)}
    return found | {"RXR-1": routes[0].canonical(1) if routes else ""}


def _window(
    orc: Segment, head: Segment, timings: list[Segment]
) -> tuple[datetime | None, datetime | None]:
    """Earliest and latest time: ORC-15, else ORC-9, else MSH-7, not before TQ1-7; TQ1-8."""
    start = moment(orc, 15) or moment(orc, 9) or moment(head, 7)
    end = None
    for timing in timings:
        begin, finish = moment(timing, 7), moment(timing, 8)
        if begin and finish and _clock(finish) <= _clock(begin):
            problem = f"expected a time after TQ1-7 {timing.text(7)}, got {timing.text(8)}"
            raise timing.error(Code.DATA_TYPE, 8, problem)
        if begin and (start is None or _clock(begin) > _clock(start)):
            start = begin
        if finish and (end is None or _clock(finish) < _clock(end)):
            end = finish
    return start, end


def _clock(time: datetime) -> datetime:
    """Reading of the clock on the wall: one system states all times of a message alike."""
    return time.replace(tzinfo=None)


def _packs(rxe: Segment) -> int:
    """Packs of the first fill: RXE-39, else RXE-10; RXE-28 and 29 say what a pack holds."""
    field = 39 if rxe.text(39) else 10
    amount = number(rxe, field)
    if amount is None:
        raise rxe.error(Code.REQUIRED_FIELD_MISSING, 10, "expected an amount, got nothing")
    try:
        return packs(amount, word(rxe, 11), number(rxe, 28), word(rxe, 29))
    except ValueError as error:
        if isinstance(error, Hl7Error):
            raise
        raise rxe.error(Code.DATA_TYPE, field, str(error)) from error


def _priority(group: dict[str, list[Segment]]) -> Priority:
    """Most urgent of TQ1-9; older senders say it in RXE-1 or ORC-7, component 6."""
    found = [
        _urgency(timing, 9, 1, k)
        for timing in group.get("TQ1", [])
        for k in range(len(timing.repetitions(9)))
    ]
    found = [one for one in found if one] or [
        _urgency(segment, field, 6, 0)
        for name, field in (("RXE", 1), ("ORC", 7))
        for segment in group[name]
    ]
    return most_urgent(one for one in found if one)


def _urgency(segment: Segment, field: int, component: int, repetition: int) -> Priority | None:
    code = segment.text(field, component, repetition=repetition).upper()
    if _CRITICAL.fullmatch(code):
        code = "T"
    if code and code not in PRIORITIES:
        problem = f"expected one of {', '.join(PRIORITIES)}, got {quote(code)}"
        raise segment.error(Code.TABLE_VALUE_NOT_FOUND, field, problem)
    return PRIORITIES[code] if code else None


def _note(rxe: Segment, *, is_controlled: bool) -> str:
    """What people should read before they hand it out."""
    parts = [f"controlled drug, schedule {rxe.text(35)}"] if is_controlled else []
    told = rxe.text(21, 2) or rxe.text(21)
    if choice(rxe, 20, {"": False, "N": False, "Y": True}):
        parts.append(f"to be reviewed: {told}" if told else "to be reviewed")
    elif told:
        parts.append(told)
    return "; ".join(parts)
