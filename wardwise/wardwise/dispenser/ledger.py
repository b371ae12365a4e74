"""What the robot must not forget: outputs that it took on, packs that left, packs that came in.

Each event is a line of a journal, written before anybody is told. A robot that is killed and
started again with the same stock and journal goes on where it was: the packs that left are gone,
and what was taken on is finished with the packs that are still missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wardwise.dispenser.stock import Stock, StoredPack, by_article
from wardwise.io.wwks2 import parse, write
from wardwise.io.wwks2.codec import decode, encode
from wardwise.io.wwks2.messages import OutputMessage, OutputRequest
from wardwise.io.wwks2.parts import Box, OutputPriority, OutputStatus, Pack
from wardwise.io.wwks2.xml import format_xml, parse_xml
from wardwise.journal import Journal, replay

if TYPE_CHECKING:
    import os

SCHEMA = "wardwise/robot/2"
_RANKS = {priority: rank for rank, priority in enumerate(OutputPriority)}

Key = tuple[int, str]


@dataclass(eq=False)
class OutputTask:
    """An output that the robot took on, and how far it is."""

    request: OutputRequest
    number: int
    wanted: tuple[int, ...]
    """Packs for each criterion, as they were counted when it was taken on."""
    status: OutputStatus = OutputStatus.QUEUED
    taken: list[tuple[int, StoredPack]] = field(default_factory=list)
    """Number of the criterion, and pack."""

    @property
    def key(self) -> Key:
        """Who asked, and under which id."""
        return self.request.source, self.request.id

    def is_aborting(self) -> bool:
        """Whether it is to stop."""
        return self.status is OutputStatus.ABORTING

    @property
    def packs(self) -> list[StoredPack]:
        """Packs that have left."""
        return [stored for _, stored in self.taken]

    def __lt__(self, other: OutputTask) -> bool:
        return self._turn < other._turn

    @property
    def _turn(self) -> tuple[int, int]:
        """Priority first, then arrival."""
        return _RANKS[self.request.details.priority], self.number

    def message(self, device: int) -> OutputMessage:
        """How it ended."""
        details = self.request.details
        box = self.request.box_number
        return OutputMessage(
            id=self.request.id, source=device, destination=self.request.source,
            details=type(details)(
                output_destination=details.output_destination, priority=details.priority,
                output_point=details.output_point, status=self.status,
            ),
            articles=by_article(self.packs, destination=details.output_destination),
            boxes=(Box(number=box),) if box else (),
        )  # fmt: skip


class Ledger:
    """Stock and outputs, kept in a journal if there is one.

    Parameters
    ----------
    stock
        What was in the machine when the journal began.
    path
        The journal; made if there is none. None: nothing is kept.

    Raises
    ------
    InputError
        If the journal is not one of a robot, is damaged, or does not go with the stock.
    """

    def __init__(self, stock: Stock, path: str | os.PathLike[str] | None = None) -> None:
        self.stock = stock
        self.tasks: dict[Key, OutputTask] = {}
        self.last_id = stock.next_id() - 1
        self._count = 0
        self._journal = None if path is None else Journal(path)
        if path is None or self._journal is None:
            return
        try:
            self._resume(path)
        except BaseException:
            self._journal.close()
            raise

    def accept(self, request: OutputRequest, wanted: tuple[int, ...]) -> OutputTask:
        """Take an output on, with the number of packs for each criterion."""
        self._write("request", message=write(request).decode(), packs=wanted)
        return self._accept(request, wanted)

    def take(self, task: OutputTask, criterion: int, stored: StoredPack) -> None:
        """A pack leaves the machine."""
        self._write("pack", source=task.key[0], id=task.key[1], criterion=criterion,
                    pack=stored.pack.id)  # fmt: skip
        self._take(task, criterion, stored.pack.id)

    def finish(self, task: OutputTask, status: OutputStatus) -> None:
        """An output has ended."""
        self._write("end", source=task.key[0], id=task.key[1], status=status.value)
        task.status = status

    def store(self, stored: StoredPack) -> None:
        """A pack has come in."""
        self._write("stored", article=stored.article, cell=stored.cell,
                    pack=format_xml(encode(stored.pack)))  # fmt: skip
        self._store(stored)

    def close(self) -> None:
        """Close the journal."""
        if self._journal is not None:
            self._journal.close()

    def _resume(self, path: str | os.PathLike[str]) -> None:
        """Live through the journal again, or begin one."""
        self._count = replay(path, self._replay)
        if not self._count:
            self._write("begin", schema=SCHEMA)

    def _write(self, event: str, **fields: Any) -> None:
        if self._journal is not None:
            self._journal.append({"n": self._count, "event": event, **fields})
            self._count += 1

    def _replay(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        if (kind == "begin") != (event["n"] == 0) or (
            kind == "begin" and event["schema"] != SCHEMA
        ):
            raise ValueError(f"expected a journal that begins with {SCHEMA}")
        if kind == "request":
            message = parse(event["message"].encode()).message
            if not isinstance(message, OutputRequest):
                raise ValueError("message: expected an OutputRequest")
            self._accept(message, tuple(map(int, event["packs"])))
        elif kind == "pack":
            task = self.tasks[event["source"], event["id"]]
            self._take(task, event["criterion"], event["pack"])
        elif kind == "end":
            self.tasks[event["source"], event["id"]].status = OutputStatus(event["status"])
        elif kind == "stored":
            pack = decode(Pack, parse_xml(event["pack"].encode()))
            self._store(StoredPack(event["article"], pack, event["cell"]))

    def _accept(self, request: OutputRequest, wanted: tuple[int, ...]) -> OutputTask:
        task = OutputTask(request, len(self.tasks), wanted)
        self.tasks[task.key] = task
        return task

    def _take(self, task: OutputTask, criterion: int, pack_id: int) -> None:
        task.taken.append((criterion, self.stock.remove(pack_id)))

    def _store(self, stored: StoredPack) -> None:
        self.stock.add(stored)
        self.last_id = max(self.last_id, stored.pack.id)
