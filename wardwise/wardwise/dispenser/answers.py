"""What the robot answers to each kind of message."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import TYPE_CHECKING

from wardwise import __version__
from wardwise.io.wwks2 import MessageError, Reason, messages, parts
from wardwise.io.wwks2.parts import CancelStatus, InputStatus, OutputStatus, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.dispenser.ledger import OutputTask
    from wardwise.dispenser.robot import Robot
    from wardwise.dispenser.session import Session

MAX_PACKS = 10_000
STOCK_LOCATION = "MAIN"

Info = messages.OutputInfoRequest | messages.TaskInfoRequest
Cancel = messages.TaskCancelOutputRequest | messages.TaskCancelRequest


class Answers:
    """Answers of one robot."""

    def __init__(self, robot: Robot) -> None:
        self._robot = robot

    def to(self, message: messages.Message, session: Session) -> Iterator[messages.Message]:
        """Answers to a message, for its sender alone.

        Raises
        ------
        MessageError
            If the robot does not know what to do with it.
        """
        for found in self._to(message, session):
            yield replace(found, source=self._robot.device, destination=_sender(message, session))

    def _to(self, message: messages.Message, session: Session) -> Iterator[messages.Message]:
        match message:
            case messages.HelloRequest(id=number):
                yield messages.HelloResponse(id=number, subscriber=self._self())
            case messages.KeepAliveRequest(id=number):
                yield messages.KeepAliveResponse(id=number)
            case messages.StatusRequest():
                yield self._status(message)
            case messages.StockInfoRequest(id=number):
                articles = self._robot.ledger.stock.articles(
                    message.criteria, with_packs=message.include_packs
                )
                yield messages.StockInfoResponse(id=number, articles=articles)
            case messages.OutputRequest():
                yield from self._output(replace(message, source=_sender(message, session)))
            case messages.OutputInfoRequest() | messages.TaskInfoRequest():
                yield self._info(message, _sender(message, session))
            case messages.TaskCancelOutputRequest() | messages.TaskCancelRequest():
                yield self._cancel(message, _sender(message, session))
            case messages.InputResponse(id=number):
                waiting = self._robot.waiting_inputs.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)
            case messages.InitiateInputRequest():
                yield self._initiate(message)
            case messages.KeepAliveResponse() | messages.UnprocessedMessage():
                pass
            case _:
                yield self._settings(message)

    def _settings(self, message: messages.Message) -> messages.Message:
        """Answers to what is set, and what the machine is like."""
        accepted = parts.SetResult(value="Accepted")
        match message:
            case messages.ArticleMasterSetRequest(id=number):
                self._robot.articles = {article.id: article for article in message.articles}
                return messages.ArticleMasterSetResponse(id=number, set_result=accepted)
            case messages.StockDeliverySetRequest(id=number):
                for delivery in message.stock_deliveries:
                    self._robot.deliveries[delivery.delivery_number] = delivery
                return messages.StockDeliverySetResponse(id=number, set_result=accepted)
            case messages.StockDeliveryInfoRequest(id=number, task=task):
                is_known = task.id in self._robot.deliveries
                told = parts.Task(
                    id=task.id, status=OutputStatus.QUEUED if is_known else OutputStatus.UNKNOWN
                )  # fmt: skip
                return messages.StockDeliveryInfoResponse(id=number, task=told)
            case messages.ConfigurationGetRequest(id=number):
                settings = f"places of output: 1 to {self._robot.machine.num_points}"
                return messages.ConfigurationGetResponse(
                    id=number, configuration=parts.Configuration(text=settings)
                )
            case messages.StockLocationInfoRequest(id=number):
                location = parts.StockLocation(id=STOCK_LOCATION, description="the whole machine")
                return messages.StockLocationInfoResponse(id=number, stock_locations=(location,))
        name = type(message).__name__
        problem = f"message: expected one that this robot answers, got {name}"
        raise MessageError(Reason.NOT_SUPPORTED, problem, message_id=message.id)

    def _self(self) -> parts.Subscriber:
        return parts.Subscriber(
            id=self._robot.device, type=parts.ROBOT_TYPE, manufacturer="wardwise",
            product_info="robot simulator", version_info=__version__,
            capabilities=tuple(parts.Capability(name=name) for name in parts.CAPABILITIES),
        )  # fmt: skip

    def _status(self, message: messages.StatusRequest) -> messages.Message:
        state = self._robot.state
        text = "Automatic" if state is State.READY else "Stopped"
        arm = parts.Component(
            type="StorageSystem", state=state, description="arm 1", state_text=text
        )  # fmt: skip
        components = (arm,) if message.include_details else ()
        return messages.StatusResponse(id=message.id, state=state, components=components)

    def _output(self, request: messages.OutputRequest) -> Iterator[messages.Message]:
        """Queue an output; one that is known gets its state again, and nothing is given out."""
        known = self._robot.ledger.tasks.get((request.source, request.id))
        is_taken = self._is_possible(request) if known is None else _is_same(known.request, request)
        status = OutputStatus.QUEUED if is_taken else OutputStatus.REJECTED
        if is_taken and known is None:
            self._robot.accept(request)
        yield messages.OutputResponse(
            id=request.id, box_number=request.box_number, criteria=request.criteria,
            details=replace(request.details, status=status),
        )  # fmt: skip
        if is_taken and known is not None and known.status.is_final:
            yield known.message(self._robot.device)

    def _is_possible(self, request: messages.OutputRequest) -> bool:
        has_place = 1 <= request.details.output_destination <= self._robot.machine.num_points
        is_ready = self._robot.state is State.READY
        return is_ready and has_place and all(map(self._is_clear, request.criteria))

    def _is_clear(self, criteria: parts.Criteria) -> bool:
        has_name = bool(criteria.article_id or criteria.pack_id)
        return has_name and 1 <= self.packs_of(criteria) <= MAX_PACKS

    def packs_of(self, criteria: parts.Criteria) -> int:
        """Whole packs for a criterion; 0 for single units of a pack of unknown size."""
        if not criteria.sub_item_quantity:
            return criteria.quantity
        article = self._robot.articles.get(criteria.article_id)
        size = article.max_sub_item_quantity if article else 0
        return math.ceil(criteria.sub_item_quantity / size) if size else 0

    def _info(self, message: Info, source: int) -> messages.Message:
        task = self._robot.ledger.tasks.get((source, message.task.id))
        told = replace(
            message.task, status=task.status if task else OutputStatus.UNKNOWN, articles=(),
        )  # fmt: skip
        if task is not None and message.include_task_details:
            done = task.message(self._robot.device)
            told = replace(told, articles=done.articles, boxes=done.boxes)
        kind = messages.response_kind(message)
        assert kind in (messages.OutputInfoResponse, messages.TaskInfoResponse)
        return kind(id=message.id, task=told)

    def _cancel(self, message: Cancel, source: int) -> messages.Message:
        task = self._robot.ledger.tasks.get((source, message.task.id))
        told = replace(message.task, status=self._stop(task))
        kind = messages.response_kind(message)
        assert kind in (messages.TaskCancelOutputResponse, messages.TaskCancelResponse)
        return kind(id=message.id, task=told)

    def _stop(self, task: OutputTask | None) -> CancelStatus:
        if task is None:
            return CancelStatus.UNKNOWN
        if task.status.is_final:
            return CancelStatus.CANCEL_ERROR
        if task.status is OutputStatus.QUEUED:
            # The answer comes before the message.
            loop = asyncio.get_running_loop()
            loop.call_soon(self._robot.finish, task, OutputStatus.ABORTED)
        task.status = OutputStatus.ABORTING
        return CancelStatus.CANCELLED

    def _initiate(self, message: messages.InitiateInputRequest) -> messages.Message:
        """Take on the storing of packs that lie at an input."""
        is_ready = self._robot.state is State.READY
        status = InputStatus.ACCEPTED if is_ready else InputStatus.REJECTED
        if is_ready:
            self._robot.spawn(self._insert_all(message))
        return messages.InitiateInputResponse(
            id=message.id, details=replace(message.details, status=status),
            articles=message.articles,
        )  # fmt: skip

    async def _insert_all(self, message: messages.InitiateInputRequest) -> None:
        is_whole, told = True, []
        for article in message.articles:
            packs = []
            for pack in article.packs:
                is_stored = await self._robot.insert(
                    article.id, pack, is_new=message.is_new_delivery
                )  # fmt: skip
                error = None if is_stored else parts.Error(type="Rejected")
                packs.append(replace(pack, error=error))
                is_whole &= is_stored
            told.append(replace(article, packs=tuple(packs)))
        status = InputStatus.COMPLETED if is_whole else InputStatus.INCOMPLETE
        self._robot.broadcast(
            messages.InitiateInputMessage(
                id=message.id, source=self._robot.device, destination=message.source,
                details=replace(message.details, status=status), articles=tuple(told),
            )
        )  # fmt: skip


def _sender(message: messages.Message, session: Session) -> int:
    """Device that a message comes from; the one of the hello where it does not say."""
    return message.source or (session.subscriber.id if session.subscriber else 0)


def _is_same(known: messages.OutputRequest, request: messages.OutputRequest) -> bool:
    """Whether a request with a known id asks for the same."""
    return replace(request, destination=known.destination) == known
