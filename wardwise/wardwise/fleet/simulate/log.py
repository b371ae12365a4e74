"""What was measured on a day: facts, rides, and the times of every stop."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan, Stop, Trip

Position = tuple[str, int]
"""A robot, and a position of its day as `Dispatcher.step` counts them."""


class Deed(StrEnum):
    """What a robot did. ``return``: it is back at the depot."""

    DEPART = "depart"
    ARRIVE = "arrive"
    START = "start"
    END = "end"
    RETURN = "return"
    BREAK_DOWN = "break-down"
    REPAIRED = "repaired"


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something that a robot did.

    `place` is where it was, on departure and breakdown where it was under way to;
    `request` is the one it was for, if any, under the name it then had.
    """

    now_s: float
    robot: str
    deed: Deed
    place: str
    request: str | None = None


@dataclass(frozen=True, kw_only=True)
class Ride:
    """A robot in an elevator: it came, had its turn, the cabin was there, it left."""

    robot: str
    elevator: str
    floor: int
    target: int
    come_s: float
    turn_s: float
    board_s: float
    leave_s: float

    @property
    def wait_s(self) -> float:
        """Time before the door."""
        return self.board_s - self.come_s

    @property
    def queue_s(self) -> float:
        """The part of it in which other robots had their turn."""
        return self.turn_s - self.come_s


class Log:
    """All that was measured so far.

    Attributes
    ----------
    busy_s
        Time in which each robot was under way or serving.
    served
        Requests whose service has started; of a transfer, at its drop.
    """

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.rides: list[Ride] = []
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        self.served: set[str] = set()
        self.departures: dict[Position, float] = {}
        self.stops: dict[Position, tuple[float, float]] = {}
        self.returns: dict[Position, float] = {}

    def executed(self, plan: Plan) -> Plan:
        """A dispatcher's plan with measured times wherever there are some."""
        trips = []
        for robot, planned in plan.trips_by_robot().items():
            first = 0
            for trip in planned:
                trips.append(self._measured(trip, (robot, first)))
                first += len(trip.stops) + 1
        return replace(plan, trips=tuple(trips))

    def _measured(self, trip: Trip, depot: Position) -> Trip:
        robot, first = depot
        stops = enumerate(trip.stops, start=first + 1)
        end = (robot, first + len(trip.stops) + 1)
        return replace(
            trip,
            depart_s=self.departures.get(depot, trip.depart_s),
            stops=tuple(self._measured_stop(stop, (robot, k)) for k, stop in stops),
            return_s=self.returns.get(end, trip.return_s),
        )

    def _measured_stop(self, stop: Stop, position: Position) -> Stop:
        arrive_s, start_s = self.stops.get(position, (stop.arrive_s, stop.start_s))
        return replace(stop, arrive_s=arrive_s, start_s=start_s)
