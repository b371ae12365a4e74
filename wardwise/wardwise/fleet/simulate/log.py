"""What was measured on a day: facts, rides, and the times of every stop."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wardwise.fleet.facts import Fact, Ride
    from wardwise.fleet.plan import Plan, Stop, Trip

Position = tuple[str, int]
"""A robot, and a position of its day as `Dispatcher.step` counts them."""


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
