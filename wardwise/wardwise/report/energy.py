"""Batteries over a day: levels from event to event, as the referee counts energy.

Between two events a level is a straight line for each thing that a robot does: waiting
and serving take the base power, a leg takes its energy evenly over its time, and a
charge follows the curve of its station.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wardwise.fleet.check.energy import HOUR_S, draws
from wardwise.fleet.check.visits import depot_charges
from wardwise.fleet.plan import Charge, Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.check import Report
    from wardwise.fleet.energy import Battery
    from wardwise.fleet.plan import Plan, Trip
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class Level:
    """Battery of one robot over its day.

    Attributes
    ----------
    points
        Moment and level in watt-hours, in the order of time.
    spans
        Levels before and after each charge, in driving order.
    """

    battery: Battery
    points: tuple[tuple[float, float], ...]
    spans: tuple[tuple[float, float], ...]

    @property
    def lowest(self) -> tuple[float, float]:
        """Moment and level of the first point at which the level is lowest."""
        return min(self.points, key=lambda point: point[1])

    def pct(self, level_wh: float) -> float:
        """Share of the capacity, in percent."""
        return 100 * level_wh / self.battery.capacity_wh


def level_of(instance: Instance, robot_id: str, trips: Sequence[Trip]) -> Level | None:
    """Level of a robot's battery from the start of its shift to its last return, if it has one."""
    robot = instance.robot_by_id.get(robot_id)
    if robot is None or robot.battery is None:
        return None
    walk = _Walk(instance, robot.battery, robot.start_s)
    number = 0
    for draw in draws(instance, robot_id, trips):
        trip, event = trips[number], draw.event
        if isinstance(event, Charge) and any(event is c for c in depot_charges(instance, trip)):
            walk.stand(event.start_s, draw.taken_wh)
            walk.charge(event)
            continue
        walk.depart(trip)
        if isinstance(event, Stop):
            walk.drive(event.arrive_s, event.start_s, draw.taken_wh)
            walk.serve(event)
        elif isinstance(event, Charge):
            walk.drive(event.arrive_s, event.start_s, draw.taken_wh)
            walk.charge(event)
        else:
            walk.drive(event.return_s, event.return_s, draw.taken_wh)
            walk.is_out = False
            number += 1
    return Level(battery=robot.battery, points=tuple(walk.points), spans=tuple(walk.spans))


@dataclass
class _Walk:
    """A robot between two events: `level_wh` at `now_s`, free to drive on at `free_s`."""

    instance: Instance
    battery: Battery
    now_s: float
    level_wh: float = field(init=False)
    free_s: float = field(init=False)
    is_out: bool = False
    points: list[tuple[float, float]] = field(default_factory=list)
    spans: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.level_wh, self.free_s = self.battery.first_wh, self.now_s
        self._mark(self.now_s, self.level_wh)

    def depart(self, trip: Trip) -> None:
        """Leave the depot, if the robot is there."""
        if not self.is_out:
            self.is_out, self.free_s = True, trip.depart_s

    def drive(self, arrive_s: float, start_s: float, taken_wh: float) -> None:
        """Drive from when the robot is free, and wait; `taken_wh` since the event before."""
        self._mark(self.free_s, self.level_wh - self._base_wh(self.now_s, self.free_s))
        reached_wh = self.level_wh - taken_wh + self._base_wh(arrive_s, start_s)
        self._mark(arrive_s, reached_wh)
        self.stand(start_s, taken_wh)

    def stand(self, until_s: float, taken_wh: float) -> None:
        """Be at an event that starts at a moment."""
        self.level_wh -= taken_wh
        self.now_s = self.free_s = until_s
        self._mark(until_s, self.level_wh)

    def serve(self, stop: Stop) -> None:
        """Be free after the service."""
        request = self.instance.request_by_id.get(stop.request)
        self.free_s = stop.start_s + (request.service_s if request else 0.0)

    def charge(self, charge: Charge) -> None:
        """Charge along the curve of the station; what exceeds the battery is left out."""
        before_wh = self.level_wh
        wanted_wh = charge.charged_wh if math.isfinite(charge.charged_wh) else 0.0
        after_wh = min(before_wh + max(wanted_wh, 0.0), self.battery.capacity_wh)
        station = self.instance.station_by_id.get(charge.station)
        if station is not None and station.charge is not None:
            corners = (level for level, _ in station.charge.points if before_wh < level < after_wh)
            for level_wh in (*corners, after_wh):
                needed_s = station.charge.time_s(before_wh, level_wh)
                self._mark(min(charge.start_s + needed_s, charge.end_s), level_wh)
        self.level_wh = after_wh
        self.now_s = self.free_s = charge.end_s
        self.spans.append((before_wh, after_wh))
        self._mark(charge.end_s, after_wh)

    def _base_wh(self, from_s: float, to_s: float) -> float:
        return self.battery.base_w * (to_s - from_s) / HOUR_S

    def _mark(self, time_s: float, level_wh: float) -> None:
        if math.isfinite(time_s) and math.isfinite(level_wh):
            self.points.append((time_s, level_wh))


def battery_document(instance: Instance, robot_id: str, trips: Sequence[Trip]) -> Any:
    """A battery over a day for the page's script, which plays it; null without a battery.

    Returns
    -------
    Times in s with levels in percent, and of each charge its station's id, start and end.
    """
    level = level_of(instance, robot_id, trips)
    if level is None:
        return None
    charges = [charge for trip in trips for charge in trip.charges]
    return {
        "levels": [[round(time_s, 1), round(level.pct(wh), 2)] for time_s, wh in level.points],
        "charges": [[c.station, round(c.start_s, 1), round(c.end_s, 1)] for c in charges],
    }


@dataclass(frozen=True, kw_only=True)
class EnergyKpis:
    """Energy of a day of robots with batteries.

    Parameters
    ----------
    charging_s, queue_s
        Time at chargers, and before them waiting for a slot.
    lowest_pct
        Lowest level of any battery, in percent of its capacity, of `lowest_robot`.
    """

    energy_wh: float
    charged_wh: float
    num_charges: int
    charging_s: float
    queue_s: float
    lowest_pct: float
    lowest_robot: str


def energy_kpis(instance: Instance, plan: Plan, report: Report) -> EnergyKpis | None:
    """Figures of the batteries, if any robot that is used has one."""
    levels = {
        robot: level_of(instance, robot, trips) for robot, trips in plan.trips_by_robot().items()
    }
    lowest = {
        # Rounding may leave a level a hair below 0.
        robot: round(level.pct(level.lowest[1]), 6) + 0.0
        for robot, level in levels.items()
        if level
    }
    if not lowest:
        return None
    robot = min(lowest, key=lambda name: lowest[name])
    charges = [charge for trip in plan.trips for charge in trip.charges]
    # The referee reports times that are no numbers; here they count nothing.
    charging_s = [charge.end_s - charge.start_s for charge in charges]
    queue_s = [charge.start_s - charge.arrive_s for charge in charges]
    return EnergyKpis(
        energy_wh=report.cost.energy_wh,
        charged_wh=report.cost.charged_wh,
        num_charges=report.cost.num_charges,
        charging_s=math.fsum(s for s in charging_s if math.isfinite(s)),
        queue_s=math.fsum(s for s in queue_s if math.isfinite(s)),
        lowest_pct=lowest[robot],
        lowest_robot=robot,
    )
