"""What a log of driven days says about legs, services, waits for elevators, and lateness.

A leg runs from departure to arrival; its rides in elevators, queue and wait included, are
taken out, and what is left is divided by the driving part of the instance's mean. A
service is divided by its mean, a wait is the time from a robot's turn to the cabin in
seconds. What cannot be measured so is left out and counted by its reason.

Lateness is that of the whole day, so days that were cut off do not count for it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.facts import Deed
from wardwise.fleet.learn.outcome import Outcome, Outcomes, base_name
from wardwise.fleet.randomness import Randomness

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from wardwise.fleet.facts import DrivenDay, Fact, Ride
    from wardwise.fleet.problem import Instance

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

HOUR_S = 3600.0
# Below it, what remains of a leg beside driving is rounding, and no ride.
LEAST_RIDE_S = 1e-6
BETWEEN_FLOORS = "between floors"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Measurements, one entry each: value, number of the day in the log, place, hour.

    `group` is a floor for legs and services (`BETWEEN_FLOORS` for legs between two), an
    elevator for waits; `hour` counts from the start of the horizon.
    """

    value: Floats = field(repr=False)
    day: Ints = field(repr=False)
    group: tuple[str, ...] = field(repr=False)
    hour: Ints = field(repr=False)

    def __len__(self) -> int:
        """Give the number of measurements."""
        return len(self.value)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that a log says.

    Attributes
    ----------
    days
        Numbers of the days.
    num_cut_off
        Days of these without an end.
    legs, services
        Times over their means.
    waits
        Seconds before a cabin came, from the robot's turn on.
    left_out
        What could not be measured: reason and count.
    outcomes
        What was late on the days that have an end.
    """

    days: tuple[int, ...]
    num_cut_off: int
    legs: Samples
    services: Samples
    waits: Samples
    left_out: dict[str, int]
    outcomes: Outcomes


def measure(instance: Instance, days: Iterable[DrivenDay]) -> Measured:
    """Go through a log, one day at a time.

    Parameters
    ----------
    instance
        The one that the log is of.
    days
        In the order of time.
    """
    meter = _Meter(instance)
    numbers: list[int] = []
    num_cut_off = 0
    outcomes = Outcomes(instance)
    for day in days:
        outcome = Outcome(instance, day)
        meter.take(day, len(numbers), outcome)
        if day.is_complete:
            outcomes.add(outcome)
        else:
            num_cut_off += 1
        numbers.append(day.day)
    return Measured(
        days=tuple(numbers),
        num_cut_off=num_cut_off,
        legs=meter.legs.samples(),
        services=meter.services.samples(),
        waits=meter.waits.samples(),
        left_out=dict(sorted(meter.left_out.items())),
        outcomes=outcomes,
    )


class _Column:
    """Measurements as they come."""

    def __init__(self) -> None:
        self._rows: list[tuple[float, int, str, int]] = []

    def add(self, value: float, day: int, group: str, at_s: float) -> None:
        self._rows.append((value, day, group, int(at_s // HOUR_S)))

    def samples(self) -> Samples:
        return Samples(
            value=np.array([row[0] for row in self._rows], dtype=np.float64),
            day=np.array([row[1] for row in self._rows], dtype=np.int64),
            group=tuple(row[2] for row in self._rows),
            hour=np.array([row[3] for row in self._rows], dtype=np.int64),
        )


class _Meter:
    """Measures day by day; `take` is all there is to it."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        # What is learnt is for driving alone, so variances of the matrix play no part.
        self.means = legs_of(replace(instance, randomness=Randomness(uses_matrix=False)))
        self.legs, self.services, self.waits = _Column(), _Column(), _Column()
        self.left_out: Counter[str] = Counter()

    def take(self, day: DrivenDay, number: int, outcome: Outcome) -> None:
        rides: dict[str, list[Ride]] = {}
        for ride in day.rides:
            rides.setdefault(ride.robot, []).append(ride)
            self.waits.add(ride.board_s - ride.turn_s, number, ride.elevator, ride.turn_s)
        robots: dict[str, _RobotDay] = {}
        for fact in day.facts:
            robot = robots.get(fact.robot)
            if robot is None:
                robot = _RobotDay(self, number, rides.get(fact.robot, []))
                robots[fact.robot] = robot
            robot.see(fact)
            outcome.see(fact)
        for robot in robots.values():
            robot.close()


class _RobotDay:
    """One robot on one day: where it is, and what it has begun."""

    def __init__(self, meter: _Meter, day: int, rides: list[Ride]) -> None:
        self.meter, self.day, self.rides = meter, day, rides
        self.place: str | None = meter.instance.places[0].id
        self.leg: Fact | None = None
        self.service: Fact | None = None
        self.num_rides = 0

    def see(self, fact: Fact) -> None:
        """Take the next thing that the robot did."""
        if fact.deed is Deed.DEPART:
            self._leave_out(self.leg, "legs without an arrival")
            self.leg = fact
        elif fact.deed in (Deed.ARRIVE, Deed.RETURN):
            self._arrive(fact)
        elif fact.deed is Deed.START:
            self._leave_out(self.service, "services without an end")
            self.service = fact
        elif fact.deed is Deed.END:
            self._end(fact)
        elif fact.deed is Deed.BREAK_DOWN:
            self._leave_out(self.leg, "legs that ended in a breakdown")
            self._leave_out(self.service, "services that ended in a breakdown")
            self.leg = self.service = self.place = None
        else:
            self.place = fact.place

    def close(self) -> None:
        """Count what was begun and not ended."""
        self._leave_out(self.leg, "legs without an arrival")
        self._leave_out(self.service, "services without an end")

    def _leave_out(self, begun: Fact | None, reason: str) -> None:
        if begun is not None:
            self.meter.left_out[reason] += 1

    def _arrive(self, fact: Fact) -> None:
        leg, start, self.leg, self.place = self.leg, self.place, None, fact.place
        if leg is None:
            if start != fact.place:
                self.meter.left_out["arrivals without a departure"] += 1
            return
        reason = self._measure_leg(leg, start, fact)
        if reason:
            self.meter.left_out[reason] += 1

    def _measure_leg(self, leg: Fact, start: str | None, end: Fact) -> str:
        """Measure a leg, or say why not."""
        index = self.meter.instance.place_index
        if start is None or leg.place != end.place:
            return "legs that began or ended elsewhere"
        if start not in index or end.place not in index:
            return "legs to places that the instance does not have"
        key, means = (index[start], index[end.place]), self.meter.means
        drive_s = float(means.drive_s[key])
        if not 0 < drive_s < np.inf:
            return "legs that take no time in the instance"
        in_cabins_s, num_rides = self._pass_rides(leg.now_s, end.now_s)
        if (num_rides > 0) != (float(means.wait_s[key] + means.fixed_s[key]) > LEAST_RIDE_S):
            return "legs with other rides than on the way in the instance"
        seconds = end.now_s - leg.now_s - in_cabins_s
        places = self.meter.instance.places
        floors = {places[place].floor for place in key}
        group = f"floor {floors.pop()}" if len(floors) == 1 else BETWEEN_FLOORS
        self.meter.legs.add(seconds / drive_s, self.day, group, leg.now_s)
        return ""

    def _pass_rides(self, from_s: float, to_s: float) -> tuple[float, int]:
        """Seconds from door to door within a time, and number of rides."""
        seconds, count = 0.0, 0
        while self.num_rides < len(self.rides) and self.rides[self.num_rides].leave_s <= to_s:
            ride = self.rides[self.num_rides]
            self.num_rides += 1
            if ride.come_s >= from_s:
                seconds += ride.leave_s - ride.come_s
                count += 1
        return seconds, count

    def _end(self, fact: Fact) -> None:
        service, self.service = self.service, None
        if service is None or service.request != fact.request:
            self.meter.left_out["services without a start"] += 1
            return
        requests = self.meter.instance.request_by_id
        request = requests.get(base_name(fact.request or "", requests))
        if request is None:
            self.meter.left_out["services of requests that the instance does not have"] += 1
            return
        if request.service_s <= 0:
            self.meter.left_out["services that take no time in the instance"] += 1
            return
        index, places = self.meter.instance.place_index, self.meter.instance.places
        known = fact.place in index
        group = f"floor {places[index[fact.place]].floor}" if known else "elsewhere"
        ratio = (fact.now_s - service.now_s) / request.service_s
        self.meter.services.add(ratio, self.day, group, service.now_s)
