"""All WWKS 2 messages.

A request is answered by the response with the same id, and some requests by messages later on, with
that id, too. Each class is named as its element.
"""

from dataclasses import dataclass

from wardwise.io.wwks2.base import KINDS, Message
from wardwise.io.wwks2.base import kind as _kind
from wardwise.io.wwks2.input_messages import (
    InfeedInputMessage,
    InfeedInputPackPlaceRequest,
    InfeedInputPackPlaceResponse,
    InfeedInputRequest,
    InfeedInputResponse,
    InitiateInputMessage,
    InitiateInputRequest,
    InitiateInputResponse,
    InputMessage,
    InputRequest,
    InputResponse,
    StockDeliveryInfoRequest,
    StockDeliveryInfoResponse,
    StockDeliverySetRequest,
    StockDeliverySetResponse,
    TaskCancelInfeedInputRequest,
    TaskCancelInfeedInputResponse,
)
from wardwise.io.wwks2.parts import (
    Article,
    Box,
    CancelTask,
    Component,
    Configuration,
    Criteria,
    OutputDetails,
    SetResult,
    State,
    StockCriteria,
    StockLocation,
    Subscriber,
    Task,
    Unprocessed,
)

__all__ = [
    "KINDS",
    "ArticleInfoRequest",
    "ArticleInfoResponse",
    "ArticleMasterSetRequest",
    "ArticleMasterSetResponse",
    "ConfigurationGetRequest",
    "ConfigurationGetResponse",
    "HelloRequest",
    "HelloResponse",
    "InfeedInputMessage",
    "InfeedInputPackPlaceRequest",
    "InfeedInputPackPlaceResponse",
    "InfeedInputRequest",
    "InfeedInputResponse",
    "InitiateInputMessage",
    "InitiateInputRequest",
    "InitiateInputResponse",
    "InputMessage",
    "InputRequest",
    "InputResponse",
    "KeepAliveRequest",
    "KeepAliveResponse",
    "Message",
    "OutputDestinationButtonPressedMessage",
    "OutputDestinationStateIndicationSetRequest",
    "OutputDestinationStateIndicationSetResponse",
    "OutputInfoRequest",
    "OutputInfoResponse",
    "OutputMessage",
    "OutputRequest",
    "OutputResponse",
    "StatusRequest",
    "StatusResponse",
    "StockDeliveryInfoRequest",
    "StockDeliveryInfoResponse",
    "StockDeliverySetRequest",
    "StockDeliverySetResponse",
    "StockInfoMessage",
    "StockInfoRequest",
    "StockInfoResponse",
    "StockLocationInfoRequest",
    "StockLocationInfoResponse",
    "TaskCancelInfeedInputRequest",
    "TaskCancelInfeedInputResponse",
    "TaskCancelOutputRequest",
    "TaskCancelOutputResponse",
    "TaskCancelRequest",
    "TaskCancelResponse",
    "TaskInfoRequest",
    "TaskInfoResponse",
    "UnprocessedMessage",
    "response_kind",
]  # fmt: skip


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


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputDestinationStateIndicationSetRequest(Message):
    """Switch the light at a place of output: Off, On or Blinking."""

    output_destination: int
    state: str


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputDestinationStateIndicationSetResponse(Message):
    """Ok or Error, and why."""

    output_destination: int
    result: str
    text: str = ""


@_kind
@dataclass(frozen=True, kw_only=True)
class OutputDestinationButtonPressedMessage(Message):
    """Somebody has pressed the button at a place of output."""

    output_destination: int


@_kind
@dataclass(frozen=True, kw_only=True)
class ArticleInfoRequest(Message):
    """Ask the pharmacy's side what articles are."""

    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class ArticleInfoResponse(Message):
    """What they are."""

    articles: tuple[Article, ...] = ()


def response_kind(message: Message) -> type[Message] | None:
    """Class of the response to a request; None for messages that have none."""
    name = type(message).__name__
    return KINDS.get(f"{name.removesuffix('Request')}Response") if "Request" in name else None
