"""What happens to a fleet: the inputs of the dispatcher, one small object each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wardwise.fleet.problem import Request

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, kw_only=True)
class Submit:
    """A request becomes known."""

    now_s: float
    request: Request


@dataclass(frozen=True, kw_only=True)
class Advance:
    """Time passes."""

    now_s: float


@dataclass(frozen=True, kw_only=True)
class Cancel:
    """A request is withdrawn."""

    now_s: float
    request: str


@dataclass(frozen=True, kw_only=True)
class Delay:
    """A robot reports that it is later than planned, or with less than zero seconds earlier."""

    now_s: float
    robot: str
    delay_s: float


@dataclass(frozen=True, kw_only=True)
class Breakdown:
    """A robot breaks down; `place` is where its goods are, `None` the last stop it reached."""

    now_s: float
    robot: str
    place: str | None = None


@dataclass(frozen=True, kw_only=True)
class Return:
    """A robot that broke down stands empty at the depot, ready to work."""

    now_s: float
    robot: str


@dataclass(frozen=True, kw_only=True)
class Reoptimise:
    """Better routes were found: for each robot all stops behind its committed one.

    A stop is the id of its request, the depot `None`; of a transfer that is not
    picked up yet the id stands twice.
    """

    now_s: float
    routes: dict[str, list[str | None]]


Event = Submit | Advance | Cancel | Delay | Breakdown | Return | Reoptimise

_TYPES: dict[str, type[Event]] = {
    "submit": Submit,
    "advance": Advance,
    "cancel": Cancel,
    "delay": Delay,
    "breakdown": Breakdown,
    "return": Return,
    "reoptimise": Reoptimise,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}

# At one instant robots report first, so that every decision knows the latest.
_RANKS = {
    kind: rank
    for rank, kind in enumerate((Delay, Breakdown, Return, Cancel, Submit, Reoptimise, Advance))
}


def order_events(events: Iterable[Event]) -> list[Event]:
    """Sort events by time; at one instant as the dispatcher should hear of them.

    Reports of robots come first, then cancellations, then requests: stat first,
    then by release, then by id.
    """

    def key(event: Event) -> tuple[float, int, int, float, str]:
        rank = (event.now_s, _RANKS[type(event)])
        if isinstance(event, Submit):
            request = event.request
            return (*rank, request.priority, request.release_s, request.id)
        return (*rank, 0, 0.0, "")

    return sorted(events, key=key)


def event_document(event: Event) -> dict[str, Any]:
    """Fields of an event for JSON, with its name under ``event``."""
    fields = {"event": _NAMES[type(event)], **vars(event)}
    if isinstance(event, Submit):
        fields["request"] = vars(event.request)
    return fields


def parse_event(fields: dict[str, Any]) -> Event:
    """Rebuild an event from what `event_document` made."""
    fields = dict(fields)
    kind = _TYPES[fields.pop("event")]
    if kind is Submit:
        fields["request"] = Request(**fields["request"])
    return kind(**fields)
