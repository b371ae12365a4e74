"""What the dispatcher answers, and how it explains itself.

Money and times are those of the moment of the decision; nothing is recomputed
when an answer is explained later.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where a request stands.

    ``unservable``: it came too late for any robot at the depot, however many
    there were; no policy could have helped. ``replaced``: its goods are on board
    of a robot that broke down, and go on under another name.
    """

    ACCEPTED = "accepted"
    PENDING = "pending"
    DENIED = "denied"
    UNSERVABLE = "unservable"
    CANCELLED = "cancelled"
    REPLACED = "replaced"


class Rule(StrEnum):
    """The decision rules, in the order in which they are tried."""

    INSERT = "D1"
    SPARE = "D2"
    SQUEEZE = "D3"
    EJECT = "D4"
    HOLD = "D5"
    DENY = "D6"


_DEEDS = {
    Rule.INSERT: "joins",
    Rule.SPARE: "opens spare",
    Rule.SQUEEZE: "joins, making lower classes late,",
    Rule.EJECT: "takes the place of another on",
    Rule.HOLD: "was held and joins",
}


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """Another robot that could serve the request, under rule D1 or D2.

    `eta_s` and `by_s` are as in `Decision`.
    """

    robot: str
    eta_s: float
    cost_delta: float
    rule: Rule
    by_s: float | None = None

    def document(self) -> dict[str, Any]:
        """Fields that hold something, for JSON."""
        return {k: v for k, v in vars(self).items() if v is not None}


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """What would have made a denied request possible; each of these alone.

    Attributes
    ----------
    window_s
        Seconds by which its window would have to close later.
    slots
        Free slots that `slots_robot` lacks.
    more_robots
        Spare robots to own in addition.
    less_protection
        Spares to protect less for its class.
    price
        Money that serving it costs at least, where that exceeds the price of its denial.
    """

    window_s: float | None = None
    slots: float | None = None
    slots_robot: str | None = None
    more_robots: int | None = None
    less_protection: int | None = None
    price: float | None = None

    def phrases(self) -> list[str]:
        """Each possibility in words."""
        found = []
        if self.window_s is not None:
            found.append(f"a window that closes {_number(self.window_s)} s later")
        if self.slots is not None:
            found.append(f"{_number(self.slots)} more free slots on robot {self.slots_robot!r}")
        if self.more_robots is not None:
            found.append(f"{self.more_robots} more spare {_plural('robot', self.more_robots)}")
        if self.less_protection is not None:
            spares = _plural("spare", self.less_protection)
            found.append(f"{self.less_protection} fewer protected {spares}")
        if self.price is not None:
            found.append(f"a denial price of {_number(self.price)}")
        return found


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One answer about one request.

    Attributes
    ----------
    eta_s
        Promised start of service, of a transfer that of its drop; `None` unless accepted.
    by_s
        With quantile slacks, by when service starts as surely as the instance promises.
    due_s
        When service should start at the latest.
    cost_delta
        Change of the day's cost: driving, lateness, a robot more; for a denial its price.
    alternatives
        The best other robots, at most three, cheapest first.
    moved
        Requests of lower classes that were promised a later start for this one.
    ejected
        Requests that lost their place to this one; each has a decision of its own.
    """

    request: str
    status: Status
    rule: Rule
    now_s: float
    due_s: float
    cost_delta: float
    robot: str | None = None
    eta_s: float | None = None
    by_s: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    remedy: Remedy | None = None
    moved: tuple[str, ...] = ()
    ejected: tuple[str, ...] = ()

    @property
    def lateness_s(self) -> float:
        """Seconds by which the promised start misses `due_s`."""
        return 0.0 if self.eta_s is None else max(0.0, self.eta_s - self.due_s)

    def explain(self) -> str:
        """Give the reason in one sentence."""
        name = f"Request {self.request!r}"
        if self.status is Status.ACCEPTED:
            return f"{name} {_DEEDS[self.rule]} robot {self.robot!r}: {self._promise()}."
        if self.status is Status.PENDING:
            return f"{name} waits for a place ({self.rule}); it is tried again at every event."
        if self.status is Status.UNSERVABLE:
            return (
                f"{name} came too late: no robot at the depot could serve it "
                f"({self.rule}, {_number(self.cost_delta)} lost)."
            )
        text = f"{name} is denied ({self.rule}, {_number(self.cost_delta)} lost)"
        phrases = self.remedy.phrases() if self.remedy else []
        if phrases:
            text += f"; it would take {' or '.join(phrases)}"
        return f"{text}."

    def _promise(self) -> str:
        assert self.eta_s is not None
        late = f", {_number(self.lateness_s)} s late" if self.lateness_s > 0 else ""
        by = "" if self.by_s is None else f", as surely as promised by {_number(self.by_s)} s"
        text = (
            f"service starts at {_number(self.eta_s)} s{late}{by}, for {_number(self.cost_delta)}"
        )
        text += f" ({self.rule})"
        for word, ids in (("later", self.moved), ("out", self.ejected)):
            if ids:
                text += f"; {word}: {', '.join(map(repr, ids))}"
        if self.alternatives:
            other = self.alternatives[0]
            text += f"; next best is robot {other.robot!r} at {_number(other.eta_s)} s"
            text += f" for {_number(other.cost_delta)}"
        return text

    def document(self) -> dict[str, Any]:
        """Fields that hold something, for JSON."""
        fields = {k: v for k, v in vars(self).items() if v is not None and v != ()}
        if self.alternatives:
            fields["alternatives"] = [other.document() for other in self.alternatives]
        if self.remedy is not None:
            fields["remedy"] = {k: v for k, v in vars(self.remedy).items() if v is not None}
        return fields


class CancelStatus(StrEnum):
    """What came of a cancellation.

    ``removed``: nobody goes there any more. ``returned``: the goods are on board
    and ride back to the depot. ``too-late``: the robot is under way to it.
    ``served`` and ``not-open``: there was nothing left to cancel.
    """

    REMOVED = "removed"
    RETURNED = "returned"
    TOO_LATE = "too-late"
    SERVED = "served"
    NOT_OPEN = "not-open"


_CANCELLED = {
    CancelStatus.REMOVED: "is cancelled",
    CancelStatus.RETURNED: "is cancelled; its goods are on board and ride back to the depot",
    CancelStatus.TOO_LATE: "cannot be cancelled: a robot is under way to it",
    CancelStatus.SERVED: "cannot be cancelled: it is served",
    CancelStatus.NOT_OPEN: "is not open: it was denied, cancelled or replaced before",
}


@dataclass(frozen=True, kw_only=True)
class Cancellation:
    """Answer to a cancellation; `return_request` is the id under which goods ride back."""

    request: str
    status: CancelStatus
    return_request: str | None = None

    def explain(self) -> str:
        """Give the answer in one sentence."""
        name = "" if self.return_request is None else f" as {self.return_request!r}"
        return f"Request {self.request!r} {_CANCELLED[self.status]}{name}."

    def document(self) -> dict[str, Any]:
        """Fields that hold something, for JSON."""
        return {k: v for k, v in vars(self).items() if v is not None}


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _number(value: float) -> str:
    """Round to what a reader can use: ten digits hide the binary rounding of times."""
    return f"{value:.10g}"
