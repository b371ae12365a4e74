"""What was dispensed, for the system that ordered it: RDS^O13 (v2.5.1).

Each line has an ORC and one RXD; packs of several lots repeat RXD-18 and RXD-19, in the same
sequence. Amounts are packs. The format wants a route (RXR): that of the order is repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.io.hl7.answers import head
from wardwise.io.hl7.encoding import STANDARD
from wardwise.io.hl7.fields import stamp
from wardwise.io.hl7.message import assembled, encoded, line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from wardwise.io.hl7.message import Message
    from wardwise.io.prescriptions import Given

PACK = encoded("PACK", "Package")
DISPENSED = "RE"  # table 0119: observations, here the dispensing, follow
PATIENT_SPECIFIC = "P"  # table 0484, what RXD-33 says of the dispensing


def write_dispensed(
    given: Iterable[Given], control_id: str, *, reply_to: Message | None = None,
    charset: str = "", time: datetime | None = None,
) -> bytes:  # fmt: skip
    """Tell what was given out for lines of one prescription.

    Parameters
    ----------
    given
        Packs of each line, lot by lot; at least one.
    control_id
        Of this message.
    reply_to
        Message that the order came with, whose sender gets this one.
    charset
        As in MSH-18; empty: UTF-8.
    time
        Of the message; None: now.

    Raises
    ------
    ValueError
        If there is nothing to tell, or the character set cannot hold it.
    """
    lines: dict[str, list[Given]] = {}
    for one in given:
        lines.setdefault(one.item.id, []).append(one)
    if not lines:
        raise ValueError("given: expected at least one line, got none")
    kind = ("RDS", "O13", "RDS_O13")
    first = next(iter(lines.values()))[0].item
    segments = [head(kind, encoded(control_id), reply_to, charset=charset, time=time)]
    if first.source.get("PID-3"):
        segments.append(_patient(first.source))
    for number, lots in enumerate(lines.values(), start=1):
        segments += _line(number, lots)
    return assembled(segments, charset)


def _patient(source: dict[str, str]) -> str:
    return line("PID", {3: source["PID-3"], 5: source.get("PID-5", "") or '""'})


def _line(number: int, lots: Sequence[Given]) -> list[str]:
    """ORC, RXD and RXR of one line."""
    item = lots[0].item
    source = item.source
    repeat = STANDARD.repetition.join
    last = max(lots, key=lambda one: one.prepared_at)
    fields = {
        1: str(number),
        2: source.get("RXE-2") or encoded(item.drug),
        3: stamp(last.prepared_at),
        4: str(sum(one.quantity for one in lots)),
        5: PACK,
        7: source.get("RXE-15") or encoded(item.order.split(STANDARD.component)[0]),
        9: repeat(dict.fromkeys(encoded(one.note) for one in lots if one.note)),
        10: repeat(dict.fromkeys(encoded(one.person) for one in lots if one.person)),
        13: source.get("RXE-42") or encoded(item.destination),
        18: repeat(encoded(one.lot) for one in lots if one.lot or one.expiry),
        19: repeat(
            one.expiry.strftime("%Y%m%d") if one.expiry else ""
            for one in lots
            if one.lot or one.expiry
        ),
        27: encoded(last.place),
        33: PATIENT_SPECIFIC,
    }
    orc = {k: source.get(f"ORC-{k}", "") for k in (2, 3, 4)}
    return [
        line("ORC", {1: DISPENSED, **orc, 2: orc[2] or encoded(item.id)}),
        line("RXD", fields),
        line("RXR", {1: source.get("RXR-1") or '""'}),
    ]
