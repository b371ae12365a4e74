"""WWKS 2 messages about packs that come in: deliveries, scans, feeders.

A machine that scans a pack asks the pharmacy's side (`InputRequest`). The pharmacy's side may ask
for it first (`InitiateInputRequest`), and a feeder of its own hands packs over one by one
(`InfeedInputRequest`).
"""

from dataclasses import dataclass

from wardwise.io.wwks2.base import Message
from wardwise.io.wwks2.base import kind as _kind
from wardwise.io.wwks2.parts import (
    Article,
    CancelTask,
    InfeedDetails,
    InputComponent,
    InputDetails,
    SetResult,
    StockDelivery,
    Task,
)


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
class StockDeliveryInfoRequest(Message):
    """Ask how far a delivery is; its number is the id of the task."""

    include_task_details: bool = False
    task: Task


@_kind
@dataclass(frozen=True, kw_only=True)
class StockDeliveryInfoResponse(Message):
    """How far it is."""

    task: Task


@_kind
@dataclass(frozen=True, kw_only=True)
class InfeedInputRequest(Message):
    """A feeder wants to hand a pack over."""

    is_new_delivery: bool = False
    set_picking_indicator: bool = False
    details: InfeedDetails
    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class InfeedInputResponse(Message):
    """Accepted or rejected, and why."""

    details: InfeedDetails


@_kind
@dataclass(frozen=True, kw_only=True)
class InfeedInputPackPlaceRequest(Message):
    """The machine waits for the pack."""

    details: InfeedDetails


@_kind
@dataclass(frozen=True, kw_only=True)
class InfeedInputPackPlaceResponse(Message):
    """The pack lies at the handover point, or it will not come."""

    details: InfeedDetails


@_kind
@dataclass(frozen=True, kw_only=True)
class InfeedInputMessage(Message):
    """Stored, or why not."""

    details: InfeedDetails
    articles: tuple[Article, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskCancelInfeedInputRequest(Message):
    """The feeder's packs are no longer to be stored."""

    tasks: tuple[CancelTask, ...] = ()


@_kind
@dataclass(frozen=True, kw_only=True)
class TaskCancelInfeedInputResponse(Message):
    """Whether that could be stopped."""

    tasks: tuple[CancelTask, ...] = ()
