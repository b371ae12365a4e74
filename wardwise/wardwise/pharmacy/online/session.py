"""A scheduler with a journal: what was decided is on disk before anybody acts on it.

The journal (`wardwise.journal`) holds first what the day began with, as a digest, then each event
with its decisions. A line is forced to the disk before the decisions are handed out. A line that
does not end was never answered and is cut off when the file is opened. A restart feeds all events
to a fresh scheduler, which must decide the same; whoever is not sure whether an event arrived sends
it again under its number and gets the answer that it got, or would have got.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

from pydantic import Field, TypeAdapter, ValidationError

from wardwise.errors import InputError
from wardwise.journal import Journal, read_lines
from wardwise.pharmacy.online.events import Decision, Event
from wardwise.pharmacy.online.scheduler import Scheduler

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType
    from typing import Self

    from wardwise.pharmacy.online.state import Setup

SCHEMA = "wardwise/pharmacy-journal/2"
_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])
_DECISIONS: TypeAdapter[tuple[Decision, ...]] = TypeAdapter(tuple[Decision, ...])


class Session:
    """A scheduler whose decisions survive a crash at any moment.

    Parameters
    ----------
    setup
        What the day begins with.
    path
        Journal; a new one is made if there is none, else the day goes on where it ended.

    Raises
    ------
    InputError
        Naming file and line if the journal is damaged, belongs to another day, or its decisions
        are not those of this scheduler; or if another session has it open.
    OSError
        If the file cannot be opened.
    """

    def __init__(self, setup: Setup, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.scheduler = Scheduler(setup)
        self._answers: list[tuple[Event, tuple[Decision, ...]]] = []
        self._is_broken = False
        self._journal = Journal(path, fsync="always")
        try:
            self._resume(_digest(setup))
        except BaseException:
            self._journal.close()
            raise

    @property
    def num_handled(self) -> int:
        """Events that have their answer in the journal; the next one has this number."""
        return len(self._answers)

    @property
    def answers(self) -> Sequence[tuple[Event, tuple[Decision, ...]]]:
        """Events so far with what was decided, for those who keep books of their own."""
        return tuple(self._answers)

    def handle(self, event: Event, number: int | None = None) -> tuple[Decision, ...]:
        """Answer an event, once and for all.

        Parameters
        ----------
        event
            What happened.
        number
            Number of the event from 0; None: it is the next one. A number that is answered already
            gets the same answer again.

        Raises
        ------
        ValueError
            If the event does not fit, is another one than was sent under its number, or leaves a
            number out; nothing has changed then.
        OSError
            If the journal cannot be written; the session must be opened anew.
        """
        if self._is_broken:
            raise OSError(None, "the journal could not be written; open it anew", str(self.path))
        if number is not None and number < self.num_handled:
            known, decisions = self._answers[number]
            if known != event:
                raise ValueError(f"event {number}: expected the one that was sent before")
            return decisions
        if number is not None and number > self.num_handled:
            raise ValueError(f"event {number}: expected number {self.num_handled}")
        decisions = self.scheduler.handle(event)
        document = {
            "n": self.num_handled + 1,
            "event": _EVENT.dump_python(event, mode="json"),
            "decisions": _DECISIONS.dump_python(decisions, mode="json"),
        }
        try:
            self._journal.append(document)
        except BaseException:
            self._is_broken = True  # the scheduler is ahead of its journal
            raise
        self._answers.append((event, decisions))
        return decisions

    def close(self) -> None:
        """Close the file."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _resume(self, digest: str) -> None:
        """Live through the journal, or begin a new one."""
        if self._journal.is_empty:
            self._journal.append({"n": 0, "schema": SCHEMA, "setup": digest})
            return
        for line, _, document in read_lines(self.path):
            if line > 1:
                self._replay(line, document)
            elif document.get("schema") != SCHEMA:
                self._fail(line, f"expected schema {SCHEMA}, got {document.get('schema')!r}")
            elif document.get("setup") != digest:
                self._fail(line, "the journal belongs to another day, machine or policy")

    def _replay(self, line: int, document: dict[str, Any]) -> None:
        try:
            event = _EVENT.validate_python(document.get("event"))
            stored = _DECISIONS.validate_python(document.get("decisions"))
        except ValidationError as error:
            self._fail(line, f"expected an event with its decisions, got {error.errors()[0]}")
        if self.scheduler.handle(event) != stored:
            self._fail(line, "the scheduler decides otherwise now")
        self._answers.append((event, stored))

    def _fail(self, line: int, problem: str) -> NoReturn:
        raise InputError(self.path, problem, line=line)


def _digest(setup: Setup) -> str:
    """Fingerprint of what a day begins with; dataclasses print all that they hold."""
    return hashlib.sha256(repr(setup).encode()).hexdigest()
