"""The pharmacy's side of WWKS 2: outputs that are neither lost nor made twice.

The client keeps few requests at the robot (one that is worked on and one or two behind it), so that
the sequence stays in the hands of the scheduler. What it has sent and not seen the end of is in
doubt after any trouble: a broken line, a message that came damaged, an answer that stays away. Then
it asks the robot what has become of the request, and sends it again only if the robot does not know
it. Requests are known by their ids for as long as the client lives, and with a journal beyond that.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from wardwise.dispenser.conversation import Conversation, now
from wardwise.dispenser.memory import Memory
from wardwise.dispenser.orders import OnItsWay, Outcome, Timing
from wardwise.io.wwks2 import MessageError, messages, parts, write
from wardwise.io.wwks2.parts import CancelStatus, OutputPriority, OutputStatus, State
from wardwise.io.wwks2.xml import MAX_BYTES

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType
    from typing import Self

log = logging.getLogger("wardwise.dispenser")

MAX_REJECTIONS = 3


class RobotClient(Conversation):
    """A client of one storage robot; use it with ``async with``.

    Parameters
    ----------
    host, port
        Where the robot listens.
    device
        Number of this side, 100 to 199; 100 is the pharmacy's IT.
    ahead
        Requests at the robot beyond the one that is worked on, at least 0.
    timing
        How patient it is.
    journal
        File by which it knows after a restart what it has asked for and how that ended; made if
        there is none. Outputs that have not ended go on by themselves.
    on_event
        Called with each message that no request of this client asked for: stock that has changed,
        outputs made at the machine or by others, inputs, and states when they change. An error in
        it is logged and stops nothing.
    on_input
        Called with an `InputRequest`; what it returns is the answer. None: packs are not stored
        unless another client allows it.
    max_bytes
        Longer messages are refused.
    seed
        Of the waits before it connects again.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    InputError
        If the journal is damaged, or that of another device.
    """

    def __init__(
        self,
        host: str,
        port: int = 6050,
        *,
        device: int = 100,
        ahead: int = 1,
        timing: Timing | None = None,
        journal: str | os.PathLike[str] | None = None,
        on_event: Callable[[messages.Message], object] | None = None,
        on_input: Callable[[messages.InputRequest], messages.InputResponse] | None = None,
        max_bytes: int = MAX_BYTES,
        seed: int | None = None,
    ) -> None:
        if ahead < 0:
            raise ValueError(f"ahead: expected at least 0, got {ahead}")
        super().__init__(
            host, port, device=device, timing=timing or Timing(), max_bytes=max_bytes, seed=seed
        )  # fmt: skip
        self._ahead, self._on_event, self._on_input = ahead, on_event, on_input
        self.state = State.READY
        self._is_suspect = False
        self.num_repeats = 0
        self._memory = Memory(device, journal)
        self._orders: dict[str, OnItsWay] = {}
        self._waiting: list[OnItsWay] = []
        self._sent: dict[str, OnItsWay] = {}

    async def __aenter__(self) -> Self:
        for request in self._memory.requests.values():
            order = self._take_on(request, ask_first=request.id in self._memory.sent)
            order.is_cancelled = request.id in self._memory.cancelled
            if request.id in self._memory.outcomes:
                order.done.set_result(self._memory.outcomes[request.id])
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        for order in self._orders.values():
            order.done.cancel()
        self._memory.close()

    @property
    def orders(self) -> Mapping[str, asyncio.Future[Outcome]]:
        """Outcomes by id of all outputs that were asked for, before a restart, too."""
        return {order_id: asyncio.shield(order.done) for order_id, order in self._orders.items()}

    def output(
        self,
        order_id: str,
        criteria: Iterable[parts.Criteria],
        *,
        destination: int = 1,
        priority: OutputPriority = OutputPriority.NORMAL,
        point: int | None = None,
        box: str = "",
        ask_first: bool = False,
    ) -> asyncio.Future[Outcome]:
        """Ask for packs; the outcome can be awaited.

        The request is sent when its turn comes, by priority and then in the sequence of asking. An
        id that was asked for before gives the outcome of then, and nothing is given out twice. Who
        no longer waits for the outcome has not cancelled the output.

        Parameters
        ----------
        order_id
            Its id at the robot, which must not change when the same is asked again; not "1", by
            which robots tell of outputs that were made at the machine itself.
        criteria
            Which packs, and how many.
        destination, point, box
            Place of output, part of it, and box.
        priority
            How urgent it is, for the client and for the robot.
        ask_first
            An earlier run of this program without a journal may have sent it: the robot is asked
            before.

        Raises
        ------
        ValueError
            If the id is "1" or was used for something else, or a field is out of range.
        """
        if order_id == parts.MANUAL_ID:
            raise ValueError(f"order_id: {order_id!r} is the id of outputs made at the machine")
        request = messages.OutputRequest(
            id=order_id, source=self.device, destination=self.robot.id if self.robot else 0,
            box_number=box, criteria=tuple(criteria),
            details=parts.OutputDetails(
                output_destination=destination, priority=priority, output_point=point
            ),
        )  # fmt: skip
        write(request)  # refuses what cannot be sent
        known = self._orders.get(order_id)
        if known is not None:
            asked = known.request
            if (asked.criteria, asked.details, asked.box_number) != (
                request.criteria, request.details, request.box_number,
            ):  # fmt: skip
                raise ValueError(f"order_id: {order_id!r} was used for another request")
            return asyncio.shield(known.done)
        self._memory.ask(request)
        if ask_first:
            self._memory.send(order_id)
        self._look.set()
        return asyncio.shield(self._take_on(request, ask_first=ask_first).done)

    def _take_on(self, request: messages.OutputRequest, *, ask_first: bool) -> OnItsWay:
        done = asyncio.get_running_loop().create_future()
        order = OnItsWay(request, len(self._orders), done, is_doubtful=ask_first)
        self._orders[request.id] = order
        heapq.heappush(self._waiting, order)
        return order

    async def cancel(self, order_id: str) -> CancelStatus:
        """Stop an output if that is still possible; its outcome tells what was given out.

        Raises
        ------
        OSError
            If the line breaks meanwhile; whether it is stopped is not known then.
        """
        order = self._orders.get(order_id)
        if order is None:
            return CancelStatus.UNKNOWN
        if order.done.done():
            return CancelStatus.CANCEL_ERROR
        self._memory.cancel(order_id)
        order.is_cancelled = True
        if order_id not in self._sent and not order.is_doubtful:
            self._end(order, OutputStatus.ABORTED)
            return CancelStatus.CANCELLED
        task = parts.CancelTask(id=order_id, type="Output")
        new = messages.TaskCancelOutputRequest(id=self.new_id(), source=self.device, task=task)
        old = messages.TaskCancelRequest(id=new.id, source=self.device, task=task)
        answer = await self._ask_either(new, old)
        if answer.task.status in (None, CancelStatus.UNKNOWN):
            order.is_doubtful = True
            self._look.set()
            return CancelStatus.UNKNOWN
        return CancelStatus(answer.task.status)

    async def _begin(self) -> None:
        self._miss()
        await self._clear_up()

    async def _turn(self) -> None:
        await self._clear_up()
        await self._check_line()
        await self._fill()

    def _miss(self) -> None:
        """Doubt all that was sent: what was missed may have been the end of any output."""
        for order in self._sent.values():
            order.is_doubtful = True
        self._look.set()

    async def _hear(self, message: messages.Message) -> None:
        match message:
            case messages.OutputResponse(id=number) if number in self._sent:
                self._hear_response(self._sent[number], message.details.status)
            case messages.OutputMessage(id=number) if self._is_mine(message):
                order, status = self._sent[number], message.details.status
                order.heard_at = now()
                if status is OutputStatus.BOX_RELEASED:
                    order.boxed += message.articles
                elif status is not None and status.is_final:
                    self._settle(order, status, message.articles)
            case messages.OutputResponse() | messages.OutputMessage() if self._is_own(message):
                pass  # said once more
            case messages.UnprocessedMessage():
                # Which output it was may not have been readable.
                self._miss()
            case messages.InputRequest() if self._on_input is not None:
                await self._answer_input(message, self._on_input)
            case _:
                self._tell(message)

    def _is_own(self, message: messages.Message) -> bool:
        """Whether this is about an output of this client; all clients hear of all."""
        return message.id in self._orders and message.destination in (0, self.device)

    def _is_mine(self, message: messages.OutputMessage) -> bool:
        return message.id in self._sent and self._is_own(message)

    async def _answer_input(
        self,
        message: messages.InputRequest,
        on_input: Callable[[messages.InputRequest], messages.InputResponse],
    ) -> None:
        try:
            answer = replace(
                on_input(message), id=message.id, source=self.device, destination=message.source
            )  # fmt: skip
            write(answer)
        except Exception:
            log.exception("no answer to the input %s", message.id)
        else:
            await self._send(answer)

    def _hear_response(self, order: OnItsWay, status: OutputStatus | None) -> None:
        order.heard_at = now()
        if status is not OutputStatus.REJECTED:
            order.is_accepted = True
            return
        del self._sent[order.request.id]
        order.is_rejected = True
        self._return(order)
        self._is_suspect = True  # until the machine says that it is ready
        self._look.set()

    def _settle(
        self, order: OnItsWay, status: OutputStatus, articles: tuple[parts.Article, ...]
    ) -> None:
        self._end(order, status, order.with_boxed(articles))
        del self._sent[order.request.id]
        self._look.set()

    def _end(
        self, order: OnItsWay, status: OutputStatus, articles: tuple[parts.Article, ...] = ()
    ) -> None:
        """Write down how an output ended, then tell whoever waits for it."""
        if not order.done.done():
            outcome = Outcome(id=order.request.id, status=status, articles=articles)
            self._memory.end(outcome)
            order.done.set_result(outcome)

    def _tell(self, message: messages.Message) -> None:
        if self._on_event is not None:
            try:
                self._on_event(message)
            except Exception:
                log.exception("on_event: an error at %s", type(message).__name__)

    @property
    def _may_send(self) -> bool:
        return self.state is State.READY and not self._is_suspect

    async def _fill(self) -> None:
        """Send what is next, so that the robot has work and little more."""
        while self._may_send and len(self._sent) <= self._ahead and self._waiting:
            order = heapq.heappop(self._waiting)
            if order.is_cancelled and not order.is_doubtful:
                self._end(order, OutputStatus.ABORTED)
            if order.done.done():
                continue
            order.heard_at, order.is_accepted = now(), False
            self._sent[order.request.id] = order
            if order.is_doubtful:
                await self._ask_about(order)
            else:
                self._memory.send(order.request.id)
                await self._send(order.request)

    async def _clear_up(self) -> None:
        """Ask about all that is in doubt, or has not been heard of for too long."""
        for order in list(self._sent.values()):
            timing = self._timing
            patience_s = timing.recheck_s if order.is_accepted else timing.answer_s
            is_silent = now() - order.heard_at > patience_s
            if (order.is_doubtful or is_silent) and order.request.id in self._sent:
                await self._ask_about(order)

    async def _ask_about(self, order: OnItsWay) -> None:
        """Settle an output that has ended, or send it again if the robot does not know it."""
        task = parts.Task(id=order.request.id, type="Output")
        number = self.new_id()
        new = messages.OutputInfoRequest(
            id=number, source=self.device, include_task_details=True, task=task
        )  # fmt: skip
        old = messages.TaskInfoRequest(
            id=number, source=self.device, include_task_details=True, task=task
        )  # fmt: skip
        try:
            told: parts.Task = (await self._ask_either(new, old)).task
        except MessageError as error:
            log.warning("cannot ask about %s: %s", order.request.id, error)
            return
        order.heard_at, order.is_doubtful = now(), False
        if order.request.id not in self._sent or told.id != order.request.id:
            return
        if told.status in (OutputStatus.UNKNOWN, OutputStatus.REJECTED, None):
            del self._sent[order.request.id]
            self._return(order)
        elif told.status.is_final:
            self._settle(order, told.status, told.articles)
        else:
            order.is_accepted = True

    def _return(self, order: OnItsWay) -> None:
        """Put an output that the robot does not know back to where it came from."""
        if order.is_cancelled:
            self._end(order, OutputStatus.ABORTED)
            return
        self.num_repeats += 1
        heapq.heappush(self._waiting, order)

    async def _check_line(self) -> None:
        """Look whether the line is alive and the machine ready."""
        is_silent = now() - self._heard_at > self._timing.keep_alive_s
        if is_silent:
            await self._ask(messages.KeepAliveRequest(id=self.new_id(), source=self.device))
        if is_silent or not self._may_send:
            request = messages.StatusRequest(
                id=self.new_id(), source=self.device, include_details=True
            )  # fmt: skip
            found: messages.StatusResponse = await self._ask(request)
            self._judge_rejections(found.state)
            has_changed, self.state = found.state is not self.state, found.state
            self._is_suspect = False
            if has_changed:
                self._tell(found)

    def _judge_rejections(self, state: State) -> None:
        """Count how often a machine that was ready turned an output down; at last, give up."""
        for order in self._waiting:
            if order.is_rejected:
                order.is_rejected = False
                order.num_rejections += state is State.READY
                if order.num_rejections >= MAX_REJECTIONS:
                    self._end(order, OutputStatus.REJECTED)
