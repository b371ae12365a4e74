"""Messages in, answers out: HL7 orders for a machine, each taken once and answered always.

A message is known by its sender and control id. What comes again gets the answer that it got and
does nothing; a control id that was taken and comes with other content is refused, since an order
would be lost otherwise. With a journal this outlasts a restart: what follows from a message is
written down before anybody acts on it, and done again afterwards as far as it was not done.

A message is taken as a whole or not at all. Whatever it holds, there is an answer and never an
exception.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from wardwise.dispenser.prescriptions import Plan, Prescriptions
from wardwise.errors import quote
from wardwise.io.hl7 import Code, Hl7Error, answer, parse, read_items, write_dispensed
from wardwise.io.hl7.fields import now
from wardwise.journal import Journal, replay

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from datetime import datetime

    from wardwise.dispenser.sinks import Sink
    from wardwise.io.hl7 import Message

log = logging.getLogger("wardwise.dispenser")

SCHEMA = "wardwise/intake/1"
MAX_REMEMBERED = 100_000

_PLAN = TypeAdapter(Plan)

Key = tuple[str, str, str]


@dataclass(frozen=True)
class _Known:
    """A message that was answered; `is_taken` unless it was refused."""

    digest: str
    data: bytes
    is_taken: bool


class Intake:
    """Takes orders from HL7 messages.

    Parameters
    ----------
    sink
        Where orders go.
    prescriptions
        Lines as they stand, new: of the same sink.
    journal
        File by which it remembers after a restart; made if there is none. None: nothing is kept.
    clock
        What time it is; None: that of the computer.
    on_refusal
        Called with the control id, which may be empty, and why a message was refused.

    Raises
    ------
    InputError
        If the journal is damaged, or is of something else.
    """

    def __init__(
        self,
        sink: Sink,
        prescriptions: Prescriptions,
        *,
        journal: str | os.PathLike[str] | None = None,
        clock: Callable[[], datetime] = now,
        on_refusal: Callable[[str, Hl7Error], object] | None = None,
    ) -> None:
        self._sink, self.prescriptions = sink, prescriptions
        self._clock, self._on_refusal = clock, on_refusal
        self._answers: dict[Key, _Known] = {}
        self._pending: tuple[Message, Plan] | None = None
        self._told: dict[str, bytes] = {}
        self._unsent: dict[str, bytes] = {}
        self._count = 0
        self._journal = None if journal is None else Journal(journal, fsync="always")
        if journal is not None:
            try:
                self._resume(journal)
            except BaseException:
                self.close()
                raise

    @property
    def unsent(self) -> dict[str, bytes]:
        """Messages on what was dispensed that nobody has acknowledged, by control id."""
        return dict(self._unsent)

    def answer(self, data: bytes | Hl7Error) -> bytes:
        """Take a message, or what a stream says of it; returns the answer to it."""
        message = None
        try:
            message = _parsed(data)
            return self._answer(message)
        except Hl7Error as error:
            return self._refuse(message, error)
        except Exception:
            log.exception("a message could not be handled")
            return self._refuse(message, Hl7Error(Code.INTERNAL, "expected no error here, got one"))

    def dispensed(self, order: str) -> bytes | None:
        """Message on a complete order; the same if it is asked for again, None if it has no lines.

        It stays in `unsent` until `acknowledge` is called.
        """
        if order in self._told:
            return self._told[order]
        given = self.prescriptions.given(order)
        if not given:
            return None
        control = f"D{len(self._told) + 1}-{self._clock():%y%m%d%H%M%S}"
        found = write_dispensed(given, control, time=self._clock())
        self._write("out", order=order, control=control, data=found.decode("latin-1"))
        self._told[order] = self._unsent[control] = found
        return found

    def acknowledge(self, control: str) -> None:
        """The receiver has a message on what was dispensed."""
        if self._unsent.pop(control, None) is not None:
            self._write("sent", control=control)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _answer(self, message: Message) -> bytes:
        self._finish()
        known = self._answers.get(_key(message))
        if known is not None:
            if known.digest == _digest(message):
                return known.data
            if known.is_taken:
                name = message.head.text(10)
                problem = f"expected a new control id, got {quote(name)} again with other content"
                raise message.head.error(Code.DUPLICATE_KEY, 10, problem)
        items = read_items(message)
        try:
            plan = self.prescriptions.plan(items)
        except Hl7Error:
            raise
        except ValueError as error:  # a code that orders cannot hold
            raise Hl7Error(Code.DATA_TYPE, str(error)) from error
        self._write("message", data=_text(message), plan=_PLAN.dump_python(plan, mode="json"))
        self.prescriptions.commit(items, plan)
        self._pending = message, plan
        return self._finish()

    def _finish(self) -> bytes:
        """Do what is written down and not done, and answer it."""
        if self._pending is None:
            return b""
        message, plan = self._pending
        refusal = None
        try:
            self._do(plan)
        except ValueError as error:
            log.exception("orders of a message were turned down")
            refusal = Hl7Error(Code.INTERNAL, f"turned down: {error}")
        found = answer(message, refusal, time=self._clock())
        self._remember(message, found, is_taken=True)
        self._pending = None
        for order in plan.complete:
            self.dispensed(order)
        return found

    def _do(self, plan: Plan) -> None:
        """Act on a plan, as far as that was not done."""
        for name in plan.cancels:
            if self._sink.missing(name) is not None:
                self._sink.cancel(name)
        for order in plan.orders:
            if not self._sink.has(order.id):
                self._sink.submit(order)

    def _refuse(self, message: Message | None, error: Hl7Error) -> bytes:
        control = message.head.text(10) if message else ""
        log.warning("refused message %s: %s", control or "without a control id", error)
        if self._on_refusal:
            self._on_refusal(control, error)
        found = answer(message, error, time=self._clock())
        if message and control and error.code is not Code.INTERNAL:
            known = self._answers.get(_key(message))
            if not (known and known.is_taken):
                self._remember(message, found, is_taken=False)
        return found

    def _remember(self, message: Message, found: bytes, *, is_taken: bool) -> None:
        known = _Known(_digest(message), found, is_taken)
        self._write(
            "answer", key=list(_key(message)), digest=known.digest, is_taken=is_taken,
            data=found.decode("latin-1"),
        )  # fmt: skip
        self._keep(_key(message), known)

    def _keep(self, key: Key, known: _Known) -> None:
        self._answers[key] = known
        if len(self._answers) > MAX_REMEMBERED:
            del self._answers[next(iter(self._answers))]

    def _write(self, event: str, **fields: Any) -> None:
        if self._journal is not None:
            self._journal.append({"n": self._count, "event": event, **fields})
            self._count += 1

    def _resume(self, path: str | os.PathLike[str]) -> None:
        """Live through the journal again, and do what was not done."""
        self._count = replay(path, self._replay)
        if not self._count:
            self._write("begin", schema=SCHEMA)
        self._finish()

    def _replay(self, event: dict[str, Any]) -> None:
        """Take one event in."""
        kind = event["event"]
        if (kind == "begin") != (event["n"] == 0) or event.get("schema", SCHEMA) != SCHEMA:
            raise ValueError(f"expected a journal that begins with {SCHEMA}")
        data = event.get("data", "").encode("latin-1")
        if kind == "message":
            message, plan = parse(data), _PLAN.validate_python(event["plan"])
            self.prescriptions.commit(read_items(message), plan)
            self._do(plan)
            self._pending = message, plan
        elif kind == "answer":
            application, facility, control = event["key"]
            known = _Known(event["digest"], data, event["is_taken"])
            self._keep((application, facility, control), known)
            self._pending = None
        elif kind == "out":
            self._told[event["order"]] = self._unsent[event["control"]] = data
        elif kind == "sent":
            self._unsent.pop(event["control"], None)


def _parsed(data: bytes | Hl7Error) -> Message:
    if isinstance(data, Hl7Error):
        raise data
    return parse(data)


def _text(message: Message) -> str:
    """All of a message, from its segments, in a form that a journal can hold."""
    lines = []
    for segment in message.segments:
        fields = segment.fields if segment.name != "MSH" else ("MSH", *segment.fields[2:])
        lines.append(message.head.marks.field.join(fields))
    return "\r".join(lines).encode(message.head.codec).decode("latin-1")


def _key(message: Message) -> Key:
    """Who sent a message, and its control id."""
    head = message.head
    return head.canonical(3), head.canonical(4), head.text(10)


def _digest(message: Message) -> str:
    """Fingerprint of all but MSH, whose time may differ when a message is sent again."""
    text = "\r".join("|".join(segment.fields) for segment in message.segments[1:])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
