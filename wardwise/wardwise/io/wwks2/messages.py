"""All WWKS 2 messages.

A request is answered by the response with the same id, and some requests by messages later on, with
that id, too. Each class is named as its element.
"""

from dataclasses import dataclass
from typing import Any

from wardwise.io.wwks2.parts import (
    Article,
    Box,
    CancelTask,
    Component,
    Configuration,
    Criteria,
    InputComponent,
    InputDetails,
    OutputDetails,
    SetResult,
    State,
    StockCriteria,
    StockDelivery,
    StockLocation,
    Subscriber,
    Task,
    Unprocessed,
)


@dataclass(frozen=True, kw_only=True)
class Message:
    """What all messages have: an id, and the numbers of the two devices (0: not said, or all)."""

    id: str
    source: int = 0
    destination: int = 0


KINDS: dict[str, type[Message]] = {}


def _kind(cls: type[Any]) -> type[Any]:
    KINDS[cls.__name__] = cls
    return cls


@_kind
@dataclass(frozen=True, kw_only=True)
class HelloRequest(Message):
    """First word of a client, within five seconds."""

    subscriber: Subscriber


@_kind
@dataclass(frozen=True, kw_only=True)
class HelloResponse(Message):
    """First word of the device."""

    subscriber: Subscriber


@_kind
@dataclass(frozen=True, kw_only=True)
class KeepAliveRequest(Message):
    """Ask whether the line is alive."""


@_kind
@dataclass(frozen=True, kw_only=True)
class KeepAliveResponse(Message):
    """Say that it is."""


@_kind
@dataclass(frozen=True, kw_only=True)
class UnprocessedMessage(Message):
    """A message was refused; nobody answers this one."""

    reason: str = ""
    text: str = ""
    message: Unprocessed | None = None


@_kind
@dataclass(frozen=True, kw_only=True)
class StatusRequest(Message):
    """Ask whether the machine is ready."""

    include_details: bool = False


@_kind
@dataclass(frozen=True, kw_only=True)
class StatusResponse(Message):
    """Ready or not, as a whole and by component."""

    state: State
    components: tuple[Component, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class ArticleMasterSetRequest(Message):
    """All articles that may be stored without asking."""

    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class ArticleMasterSetResponse(Message):
    """Whether they were taken."""

    set_result: SetResult


@_kind
@dataclass(frozen=True, kw_only=True)
class StockDeliverySetRequest(Message):
    """Deliveries to come."""

    stock_deliveries: tuple[StockDelivery, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class StockDeliverySetResponse(Message):
    """Whether they were taken."""

    set_result: SetResult


@_kind
@dataclass(frozen=True, kw_only=True)
class StockInfoRequest(Message):
    """Ask what is in stock; without criteria, for everything."""

    include_packs: bool = False
    include_article_details: bool = False
    criteria: tuple[StockCriteria, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class StockInfoResponse(Message):
    """What is in stock."""

    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class StockInfoMessage(Message):
    """The stock of these articles has changed."""

    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class InputRequest(Message):
    """Ask whether a pack that the machine has scanned may be stored."""

    is_new_delivery: bool = False
    set_picking_indicator: bool = False
    articles: tuple[Article, ...] = ()
    input_component: InputComponent | None = None


@_kind
@dataclass(frozen=True, kw_only=True)
class InputResponse(Message):
    """It may or may not; see each pack's `Handling`."""

    is_new_delivery: bool = False
    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class InputMessage(Message):
    """The pack is stored, or it is not."""

    is_new_delivery: bool = False
    articles: tuple[Article, ...] = ()
    input_component: InputComponent | None = None


@_kind
@dataclass(frozen=True, kw_only=True)
class InitiateInputRequest(Message):
    """The pharmacy's side wants packs stored that lie at an input."""

    is_new_delivery: bool = False
    set_picking_indicator: bool = False
    details: InputDetails
    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class InitiateInputResponse(Message):
    """Accepted or rejected."""

    details: InputDetails
    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class InitiateInputMessage(Message):
    """Stored, or what went wrong."""

    details: InputDetails
    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputRequest(Message):
    """Packs are wanted at a place."""

    box_number: str = ""
    details: OutputDetails
    criteria: tuple[Criteria, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputResponse(Message):
    """Queued or rejected."""

    box_number: str = ""
    details: OutputDetails
    criteria: tuple[Criteria, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputMessage(Message):
    """How the output ended, and with which packs; id "1": somebody asked at the machine."""

    details: OutputDetails
    articles: tuple[Article, ...] = ()
    boxes: tuple[Box, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputInfoRequest(Message):
    """Ask what has become of an output."""

    include_task_details: bool = False
    task: Task


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputInfoResponse(Message):
    """State of an output, with packs if they were asked for."""

    task: Task


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskInfoRequest(Message):
    """Older name of `OutputInfoRequest`, the one that machines of rev. 6.22 know."""

    include_task_details: bool = False
    task: Task


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskInfoResponse(Message):
    """Older name of `OutputInfoResponse`."""

    task: Task


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskCancelOutputRequest(Message):
    """An output is no longer wanted."""

    task: CancelTask


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskCancelOutputResponse(Message):
    """Whether it could be stopped."""

    task: CancelTask


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskCancelRequest(Message):
    """Older name of `TaskCancelOutputRequest`."""

    task: CancelTask


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskCancelResponse(Message):
    """Older name of `TaskCancelOutputResponse`."""

    task: CancelTask


@_kind
@dataclass(frozen=True, kw_only=True)
class ConfigurationGetRequest(Message):
    """Ask for the settings of the machine."""


@_kind
@dataclass(frozen=True, kw_only=True)
class ConfigurationGetResponse(Message):
    """Settings of the machine."""

    configuration: Configuration | None = None


@_kind
@dataclass(frozen=True, kw_only=True)
class StockLocationInfoRequest(Message):
    """Ask for the logical parts of the stock."""


@_kind
@dataclass(frozen=True, kw_only=True)
class StockLocationInfoResponse(Message):
    """Logical parts of the stock."""

    stock_locations: tuple[StockLocation, ...] = ()


def response_kind(message: Message) -> type[Message] | None:
    """Class of the response to a request; None for messages that have none."""
    name = type(message).__name__
    return KINDS.get(f"{name.removesuffix('Request')}Response") if "Request" in name else None
