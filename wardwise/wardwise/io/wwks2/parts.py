"""What stands inside WWKS 2 messages: articles, packs, criteria, tasks.

Names, types and defaults are those of BD Rowa, WWKS 2 for Automated Storage and Retrieval Systems,
rev. 6.22. An empty text, 0 or None stands for what is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date  # noqa: TC003, the codec reads the types
from enum import StrEnum
from typing import ClassVar

from wardwise.io.wwks2.codec import alias, content, wide

ROBOT_TYPE, CLIENT_TYPE = "Robot", "IMS"
MANUAL_ID = "1"  # of every output that is asked for at the machine itself (8.5.3)
CAPABILITIES = (
    "KeepAlive", "Status", "Input", "InitiateInput", "ArticleMaster", "StockDelivery", "StockInfo",
    "Output", "TaskInfo", "TaskCancel", "Configuration", "StockLocationInfo",
)  # fmt: skip


class OutputPriority(StrEnum):
    """How urgent an output is, most urgent first."""

    HIGHEST = "Highest"
    HIGH = "High"
    NORMAL = "Normal"
    LOW = "Low"
    LOWEST = "Lowest"


class OutputStatus(StrEnum):
    """What becomes of an output: in responses, messages and task states."""

    QUEUED = "Queued"
    REJECTED = "Rejected"
    IN_PROCESS = "InProcess"
    ABORTING = "Aborting"
    ABORTED = "Aborted"
    COMPLETED = "Completed"
    INCOMPLETE = "Incomplete"
    BOX_RELEASED = "BoxReleased"
    UNKNOWN = "Unknown"

    @property
    def is_final(self) -> bool:
        """Whether nothing more will come."""
        return self in (OutputStatus.ABORTED, OutputStatus.COMPLETED, OutputStatus.INCOMPLETE)


class CancelStatus(StrEnum):
    """Answer to the wish to cancel."""

    CANCELLED = "Cancelled"
    CANCEL_ERROR = "CancelError"
    UNKNOWN = "Unknown"


class InputStatus(StrEnum):
    """What becomes of an input that the pharmacy's side has asked for."""

    ACCEPTED = "Accepted"
    REJECTED = "Rejected"
    COMPLETED = "Completed"
    INCOMPLETE = "Incomplete"


class State(StrEnum):
    """Whether a machine or a component of it works."""

    READY = "Ready"
    NOT_READY = "NotReady"


class PackState(StrEnum):
    """Whether a pack may be taken."""

    AVAILABLE = "Available"
    NOT_AVAILABLE = "NotAvailable"


@dataclass(frozen=True, kw_only=True)
class Capability:
    """A group of messages that the sender understands."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Subscriber:
    """Who speaks: device number (100 the pharmacy, 200 to 999 robots and others) and product."""

    id: int
    type: str
    manufacturer: str
    product_info: str
    version_info: str
    device_name: str = ""
    tenant_id: str = ""
    capabilities: tuple[Capability, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Component:
    """A part of the machine and how it is; `type` is StorageSystem or BoxSystem."""

    type: str
    state: State
    description: str = ""
    state_text: str = ""


@dataclass(frozen=True, kw_only=True)
class Handling:
    """What is done with a pack to be stored.

    `input` is Allowed, AllowedForFridge, Rejected or one of its kinds such as
    RejectedNoExpiryDate, and in the end Completed or Aborted.
    """

    input: str
    text: str = ""

    @property
    def is_allowed(self) -> bool:
        """Whether the pack may be stored."""
        return self.input in ("Allowed", "AllowedForFridge")


@dataclass(frozen=True, kw_only=True)
class Error:
    """Why a pack was not stored."""

    type: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """One pack. Lengths in millimetres; `sub_item_quantity` 0 is a full pack."""

    id: int = wide()
    index: int | None = None
    scan_code: str = ""
    delivery_number: str = ""
    batch_number: str = ""
    external_id: str = ""
    serial_number: str = ""
    expiry_date: date | None = None
    expiry_date_source: str = ""
    stock_in_date: date | None = None
    sub_item_quantity: int = 0
    depth: int = 0
    width: int = 0
    height: int = 0
    shape: str = ""
    state: PackState = PackState.AVAILABLE
    is_in_fridge: bool = False
    box_number: str = ""
    output_destination: int | None = None
    output_point: int | None = None
    label_status: str = ""
    stock_location_id: str = ""
    machine_location: str = ""
    handling: Handling | None = None
    error: Error | None = None


@dataclass(frozen=True, kw_only=True)
class ProductCode:
    """Another code by which an article is known."""

    code: str


@dataclass(frozen=True, kw_only=True)
class Article:
    """An article with some of its packs."""

    id: str = ""
    name: str = ""
    dosage_form: str = ""
    packaging_unit: str = alias("PackingUnit")  # the specification writes it both ways
    requires_fridge: bool = False
    virtual_id: str = ""
    virtual_name: str = ""
    max_sub_item_quantity: int = 0
    quantity: int | None = None
    product_code: str = ""
    batch_number: str = ""
    external_id: str = ""
    serial_number: str = ""
    expiry_date: date | None = None
    stock_location_id: str = ""
    machine_location: str = ""
    product_codes: tuple[ProductCode, ...] = ()
    packs: tuple[Pack, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Content:
    """What is printed on a label."""

    text: str = content()


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label for the packs of a criterion."""

    template_id: str
    content: Content


@dataclass(frozen=True, kw_only=True)
class Criteria:
    """Which packs are wanted; with `sub_item_quantity`, `quantity` does not count."""

    quantity: int
    article_id: str = ""
    sub_item_quantity: int = 0
    minimum_expiry_date: date | None = None
    batch_number: str = ""
    single_batch_number: bool = False
    external_id: str = ""
    serial_number: str = ""
    pack_id: int = wide()
    stock_location_id: str = ""
    machine_location: str = ""
    labels: tuple[Label, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StockCriteria:
    """Which part of the stock is asked for."""

    tag: ClassVar[str] = "Criteria"

    article_id: str = ""
    batch_number: str = ""
    external_id: str = ""
    serial_number: str = ""
    stock_location_id: str = ""
    machine_location: str = ""


@dataclass(frozen=True, kw_only=True)
class OutputDetails:
    """Where packs go, how urgently, and what has become of it."""

    tag: ClassVar[str] = "Details"

    output_destination: int
    priority: OutputPriority = OutputPriority.NORMAL
    output_point: int | None = None
    status: OutputStatus | None = None


@dataclass(frozen=True, kw_only=True)
class InputDetails:
    """Where packs come from, and what has become of it."""

    tag: ClassVar[str] = "Details"

    input_source: int
    input_point: int | None = None
    status: InputStatus | None = None


@dataclass(frozen=True, kw_only=True)
class InfeedDetails:
    """Where a feeder hands a pack over, and what has become of it.

    `status` is Accepted or Rejected, Placed or Aborted, Completed or Aborted; the machine's
    `reason` is one word such as NoSpaceInMachine.
    """

    tag: ClassVar[str] = "Details"

    infeed_number: int | None = None  # told by all but feeders that give up (8.4.1.5)
    status: str = ""
    reason: str = ""
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box that packs were put into."""

    number: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """An output that is asked about, or the answer."""

    id: str
    type: str = ""
    status: OutputStatus | None = None
    articles: tuple[Article, ...] = ()
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CancelTask:
    """An output, or what a feeder hands over, to be cancelled, or the answer."""

    tag: ClassVar[str] = "Task"

    id: str
    type: str = ""
    infeed_number: int | None = None
    status: CancelStatus | None = None


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """Accepted or Rejected, and why."""

    value: str
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class StockDelivery:
    """What a wholesaler is about to deliver."""

    delivery_number: str
    articles: tuple[Article, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputComponent:
    """The place at which a pack was scanned."""

    id: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class StockLocation:
    """A logical part of the stock."""

    id: str
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """Settings of the machine, in words of its maker."""

    text: str = content()


@dataclass(frozen=True, kw_only=True)
class Unprocessed:
    """A refused message, as far as it is quoted."""

    tag: ClassVar[str] = "Message"

    id: str = ""
    text: str = content()
