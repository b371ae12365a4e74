"""A storage robot that exists in memory only and speaks WWKS 2 over TCP.

It has packs with lots and expiry dates, works off its queue by priority and arrival, takes the time
that the arm of a `Machine` needs, breaks down on request, and knows after a restart what it has
given out. Outputs are single commands: from where the arm stands to the pack, and to the place of
output; places are numbered from 1 like the machine's I/O points.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import random
import secrets
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from wardwise.dispenser.answers import Answers
from wardwise.dispenser.faults import Faults
from wardwise.dispenser.ledger import Ledger, OutputTask
from wardwise.dispenser.session import Session
from wardwise.dispenser.stock import StoredPack
from wardwise.io.wwks2 import messages, parts, write
from wardwise.io.wwks2.parts import OutputStatus, State
from wardwise.io.wwks2.xml import MAX_BYTES

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Coroutine
    from types import TracebackType

    from wardwise.dispenser.stock import Stock
    from wardwise.pharmacy.rack import Machine

log = logging.getLogger("wardwise.dispenser")

PORT = 6050
DEVICE, PHARMACY = 999, 100
HELLO_S = 5.0
MAX_CLIENTS = 64
_INPUT_ANSWER_S = 60.0
_TICK_S = 0.001


class Robot:
    """A storage robot.

    Parameters
    ----------
    machine
        Its rack, arm and places of output.
    stock
        Its packs at the start.
    device
        Its number, 200 to 999.
    speed
        So many seconds of the machine pass in one of the clock, above 0.
    faults
        What goes wrong.
    seed
        Of the faults.
    state
        Journal that makes it remember; made if there is none.
    record
        File that each message is appended to, one a line.
    hello_s
        A client that has not said hello by then is dropped.
    max_bytes
        Longer messages are refused.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    InputError
        If `state` does not go with `stock`.
    """

    def __init__(
        self,
        machine: Machine,
        stock: Stock,
        *,
        device: int = DEVICE,
        speed: float = 1.0,
        faults: Faults | None = None,
        seed: int = 0,
        state: str | os.PathLike[str] | None = None,
        record: str | os.PathLike[str] | None = None,
        hello_s: float = HELLO_S,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if not 200 <= device <= 999:
            raise ValueError(f"device: expected 200 to 999, got {device}")
        if not 0 < speed < float("inf"):
            raise ValueError(f"speed: expected a finite number above 0, got {speed}")
        self.machine, self.device, self.speed = machine, device, speed
        self.faults, self.hello_s, self.max_bytes = faults or Faults(), hello_s, max_bytes
        self.rng = random.Random(seed)
        self.ledger = Ledger(stock, state)
        self.articles: dict[str, parts.Article] = {}
        self.deliveries: dict[str, parts.StockDelivery] = {}
        self.sessions: set[Session] = set()
        self.num_refused = 0
        self.waiting_inputs: dict[str, asyncio.Future[messages.InputResponse]] = {}
        self.answers = Answers(self)
        self._record = None if record is None else Path(record).open("ab")  # noqa: SIM115
        self._queue = [task for task in self.ledger.tasks.values() if not task.status.is_final]
        heapq.heapify(self._queue)
        self._has_work, self._is_ready = asyncio.Event(), asyncio.Event()
        self._is_ready.set()
        self._arm = asyncio.Lock()
        self._point, self._busy_until = 0, 0.0
        self._boot, self._num_ids = secrets.token_hex(3), 0
        self._jobs: set[asyncio.Task[object]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> int:
        """Listen and work; returns the port, a free one for 0.

        Raises
        ------
        OSError
            If the port is taken.
        """
        self._server = await asyncio.start_server(self._serve, host, port)
        self.spawn(self._work())
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Drop all clients and stop in the middle of whatever is done."""
        if self._server is not None:
            self._server.close()
        for session in list(self.sessions):
            await session.close()
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        self.ledger.close()
        if self._record is not None:
            self._record.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def state(self) -> State:
        """Whether the machine works."""
        return State.READY if self._is_ready.is_set() else State.NOT_READY

    async def halt(self, seconds: float) -> None:
        """Stop for so many seconds of the machine; outputs are turned down meanwhile."""
        self._is_ready.clear()
        await asyncio.sleep(seconds / self.speed)
        self._is_ready.set()

    def spawn(self, work: Coroutine[Any, Any, object]) -> None:
        """Run something beside the rest until the robot stops."""
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def new_id(self) -> str:
        """Id for a message that nobody has asked for."""
        self._num_ids += 1
        return f"{self._boot}-{self._num_ids}"

    def accept(self, request: messages.OutputRequest) -> None:
        """Put an output into the queue."""
        wanted = tuple(map(self.answers.packs_of, request.criteria))
        heapq.heappush(self._queue, self.ledger.accept(request, wanted))
        self._has_work.set()

    def broadcast(self, message: messages.Message) -> None:
        """Tell all clients."""
        for session in list(self.sessions):
            session.post(message)
        if not self.sessions:
            self.write_record(write(message))

    def write_record(self, data: bytes) -> None:
        """Append a message to the record."""
        if self._record is not None and not self._record.closed:
            self._record.write(data + b"\n")
            self._record.flush()

    def output_by_hand(self, article: str, quantity: int = 1, destination: int = 1) -> None:
        """Ask for packs at the machine itself; the message has the id "1"."""
        request = messages.OutputRequest(
            id=f"{parts.MANUAL_ID} {self.new_id()}", source=self.device, destination=self.device,
            details=parts.OutputDetails(output_destination=destination),
            criteria=(parts.Criteria(article_id=article, quantity=quantity),),
        )  # fmt: skip
        self.accept(request)

    async def insert(
        self, article: str, pack: parts.Pack, *, cell: int | None = None, is_new: bool = False
    ) -> bool:
        """Scan a pack, ask whether it may be stored, and store it.

        Parameters
        ----------
        article
            Its article, empty where the scan does not tell; the answer may.
        pack
            Batch, expiry date and codes; it gets an id of its own.
        cell
            Where to; None: beside its like.
        is_new
            It comes with a delivery.

        Returns
        -------
        Whether it was stored.
        """
        number, scanned = self.new_id(), replace(pack, id=0, index=0)
        future = asyncio.get_running_loop().create_future()
        self.waiting_inputs[number] = future
        self.broadcast(
            messages.InputRequest(
                id=number, source=self.device, destination=PHARMACY, is_new_delivery=is_new,
                articles=(parts.Article(id=article, packs=(scanned,)),),
            )
        )  # fmt: skip
        try:
            async with asyncio.timeout(_INPUT_ANSWER_S):
                answer = await future
        except TimeoutError:
            return False
        finally:
            del self.waiting_inputs[number]
        name, allowed = _handling(answer, article)
        stored = None
        if allowed and name:
            where = self.ledger.stock.free_cell(name) if cell is None else cell
            async with self._arm:
                await self._move(where, 1)
                stored = StoredPack(name, replace(pack, id=self.ledger.last_id + 1), where)
                self.ledger.store(stored)
        outcome = "Completed" if stored else "Aborted"
        told = replace(stored.pack if stored else scanned, index=0,
                       handling=parts.Handling(input=outcome))  # fmt: skip
        self.broadcast(
            messages.InputMessage(
                id=number, source=self.device, destination=PHARMACY, is_new_delivery=is_new,
                articles=(parts.Article(id=name, packs=(told,)),),
            )
        )  # fmt: skip
        if stored:
            self._tell_stock([name])
        return stored is not None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self.sessions) >= MAX_CLIENTS:
            writer.transport.abort()
            return
        session = Session(self, reader, writer)
        self.sessions.add(session)
        try:
            await session.run()
        except asyncio.CancelledError:
            pass  # the robot stops
        except Exception:
            log.exception("a session of %s ended in an error", session.peer)
        finally:
            self.sessions.discard(session)
            await session.close()

    async def _work(self) -> None:
        """Work off the queue, most urgent first."""
        while True:
            while not self._queue:
                self._has_work.clear()
                await self._has_work.wait()
            task = heapq.heappop(self._queue)
            if not task.status.is_final:
                async with self._arm:
                    await self._output(task)

    async def _output(self, task: OutputTask) -> None:
        if task.status is OutputStatus.QUEUED:
            task.status = OutputStatus.IN_PROCESS
        is_short = False
        for number, criteria in enumerate(task.request.criteria):
            is_short |= await self._fetch(task, number, criteria)
        status = OutputStatus.INCOMPLETE if is_short else OutputStatus.COMPLETED
        if task.is_aborting():
            status = OutputStatus.ABORTED
        self.finish(task, status)
        if self.rng.random() < self.faults.not_ready:
            self.spawn(self.halt(self.faults.not_ready_s))

    def finish(self, task: OutputTask, status: OutputStatus) -> None:
        """End an output and tell everybody, once."""
        if task.status.is_final:
            return
        self.ledger.finish(task, status)
        message = task.message(self.device)
        if task.request.source == self.device:
            message = replace(message, id=parts.MANUAL_ID, destination=PHARMACY)
        self.broadcast(message)
        self._tell_stock(sorted({stored.article for stored in task.packs}))

    async def _fetch(self, task: OutputTask, number: int, criteria: parts.Criteria) -> bool:
        """Bring the packs of one criterion that are still to come; whether some are missing."""
        brought = [stored for criterion, stored in task.taken if criterion == number]
        lot = brought[0].pack.batch_number if brought else None
        for missing in range(task.wanted[number] - len(brought), 0, -1):
            await self._is_ready.wait()
            if task.is_aborting():
                return True
            stored = self.ledger.stock.next_pack(criteria, wanted=missing, lot=lot)
            if stored is None:
                return True
            await self._move(stored.cell, task.request.details.output_destination)
            if task.is_aborting():
                return True
            self.ledger.take(task, number, stored)
            lot = stored.pack.batch_number
        return False

    async def _move(self, cell: int, destination: int) -> None:
        """Let the arm go from where it stands to a cell and on to a place."""
        reach_s, point = self.machine.reach_s, destination - 1
        way_s = reach_s[self._point, cell] + reach_s[point, cell]
        self._point = point
        # Ways of less than a tick of the clock are slept through together.
        now = asyncio.get_running_loop().time()
        handling_s = 2 * self.machine.arm.handling_s
        self._busy_until = max(self._busy_until, now) + float(way_s + handling_s) / self.speed
        await asyncio.sleep(self._busy_until - now if self._busy_until > now + _TICK_S else 0)

    def _tell_stock(self, names: list[str]) -> None:
        if names:
            criteria = tuple(parts.StockCriteria(article_id=name) for name in names)
            self.broadcast(
                messages.StockInfoMessage(
                    id=self.new_id(), source=self.device, destination=PHARMACY,
                    articles=self.ledger.stock.articles(criteria),
                )
            )  # fmt: skip


def _handling(answer: messages.InputResponse, article: str) -> tuple[str, bool]:
    """Article as the pharmacy knows it, and whether the pack may be stored."""
    for told in answer.articles:
        for pack in told.packs:
            if pack.handling is not None:
                return told.id or article, pack.handling.is_allowed
    return article, False


async def serve_forever(
    robot: Robot, host: str, port: int, started: Callable[[int], object]
) -> None:
    """Run a robot until it is cancelled; `started` is called with the port."""
    try:
        started(await robot.start(host, port))
        await asyncio.Event().wait()
    finally:
        with contextlib.suppress(OSError):
            await robot.stop()
