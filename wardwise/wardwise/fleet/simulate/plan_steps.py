"""A robot's planned day as steps, and the energy that the steps ahead will take.

How much a robot needs is its mean need and a margin: what it draws while being late by
three standard deviations of the times ahead. Where times are certain there is no
margin, and a feasible plan always has enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from wardwise.fleet.check.energy import draws
from wardwise.fleet.energy import HOUR_S
from wardwise.fleet.plan import Charge, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wardwise.fleet.chance.legs import Legs
    from wardwise.fleet.energy import Battery
    from wardwise.fleet.plan import Trip
    from wardwise.fleet.problem import Instance, Request, Station

DEPOT = 0
MARGIN_DEVIATIONS = 3.0


class StepKind(Enum):
    """What a robot does at the end of a leg; departures have no leg before them."""

    STOP = auto()
    CHARGE = auto()
    HOME = auto()
    DEPART = auto()


@dataclass(frozen=True, kw_only=True)
class PlanStep:
    """One step of a robot's day.

    Attributes
    ----------
    trip
        Number of the robot's trip.
    earliest_s
        Before it no service starts and no trip departs.
    dwell_s, dwell_var_s2
        Mean and variance of the time that is spent there: service or reloading.
    after_wh
        Planned level at the end of a charge.
    """

    kind: StepKind
    trip: int
    place: int
    earliest_s: float = 0.0
    dwell_s: float = 0.0
    dwell_var_s2: float = 0.0
    request: Request | None = None
    is_pickup: bool = False
    station: Station | None = None
    charged_wh: float = 0.0
    after_wh: float = math.inf


def steps_of(instance: Instance, legs: Legs, robot: str, trips: Sequence[Trip]) -> list[PlanStep]:
    """Steps of a robot's trips in the order in which they are done."""
    after_wh = _planned_levels(instance, robot, trips)
    variance = dict(zip(instance.request_by_id, map(float, legs.service_var_s2), strict=True))
    steps: list[PlanStep] = []
    for number, trip in enumerate(trips):
        requests = [instance.request_by_id[stop.request] for stop in trip.stops]
        depart = PlanStep(
            kind=StepKind.DEPART,
            trip=number,
            place=DEPOT,
            earliest_s=max(request.available_s for request in requests),
        )
        has_left = False
        for event in trip.visits():
            step = _step(instance, number, event, variance, after_wh)
            if not has_left and (step.kind is StepKind.STOP or step.place != DEPOT):
                steps.append(depart)
                has_left = True
            steps.append(step)
        is_last = number + 1 == len(trips)
        dwell_s = 0.0 if is_last else instance.reload_s
        steps.append(PlanStep(kind=StepKind.HOME, trip=number, place=DEPOT, dwell_s=dwell_s))
    return steps


def _step(
    instance: Instance,
    number: int,
    event: Stop | Charge,
    variance: dict[str, float],
    after_wh: Iterator[float],
) -> PlanStep:
    if isinstance(event, Charge):
        station = instance.station_by_id[event.station]
        return PlanStep(
            kind=StepKind.CHARGE,
            trip=number,
            place=instance.place_index[station.place],
            station=station,
            charged_wh=event.charged_wh,
            after_wh=next(after_wh),
        )
    request = instance.request_by_id[event.request]
    return PlanStep(
        kind=StepKind.STOP,
        trip=number,
        place=instance.place_index[request.stop_place(is_pickup=event.is_pickup)],
        earliest_s=request.earliest_s,
        dwell_s=request.service_s,
        dwell_var_s2=variance[request.id],
        request=request,
        is_pickup=event.is_pickup,
    )


def _planned_levels(instance: Instance, robot: str, trips: Sequence[Trip]) -> Iterator[float]:
    """Planned level after each charge, as the referee has it."""
    battery = instance.robot_by_id[robot].battery
    level_wh = math.inf if battery is None else battery.first_wh
    for draw in draws(instance, robot, trips):
        level_wh -= draw.taken_wh
        if isinstance(draw.event, Charge):
            level_wh += draw.event.charged_wh
            yield level_wh


class Needs:
    """Energy that a robot with this battery needs for steps ahead, margin included."""

    def __init__(self, instance: Instance, legs: Legs, battery: Battery) -> None:
        self._instance, self._legs, self._battery = instance, legs, battery
        self.chargers = [s for s in instance.stations if s.charge is not None]

    def along(
        self, now_s: float, here: int, steps: Sequence[PlanStep], ready_s: float = 0.0
    ) -> float:
        """Up to the next planned charge, or to the end of the day; reloaded at `ready_s`."""
        return self._walk(now_s, here, steps, ready_s)

    def next_and_charger(self, now_s: float, here: int, step: PlanStep) -> float:
        """To do one step, and to get to a charger afterwards."""
        to_charger_wh = min((self.leg_wh(step.place, s) for s in self.chargers), default=math.inf)
        return self._walk(now_s, here, [step]) + to_charger_wh

    def leg_wh(self, here: int, station: Station) -> float:
        """To get to a station."""
        there = self._instance.place_index[station.place]
        if not math.isfinite(self._instance.travel_s[here, there]):
            return math.inf
        step = PlanStep(kind=StepKind.CHARGE, trip=0, place=there)
        return self._walk(0.0, here, [step])

    def _walk(
        self, now_s: float, here: int, steps: Sequence[PlanStep], ready_s: float = 0.0
    ) -> float:
        end_s, variance, metres = now_s, 0.0, 0.0
        for step in steps:
            if step.kind is not StepKind.DEPART:
                leg = here, step.place
                end_s += float(self._instance.travel_s[leg])
                variance += float(self._legs.travel_var_s2[leg])
                metres += float(self._instance.distance_m[leg])
            if step.kind is StepKind.CHARGE:
                break
            if step.kind is StepKind.HOME:
                # Charges at the depot are made while the robot is reloaded.
                ready_s = end_s + step.dwell_s
            elif step.kind is StepKind.DEPART:
                end_s = max(end_s, step.earliest_s, ready_s)
            else:
                end_s = max(end_s, step.earliest_s) + step.dwell_s
            variance += step.dwell_var_s2
            here = step.place
        lasts_s = end_s - now_s + MARGIN_DEVIATIONS * math.sqrt(variance)
        return self._battery.wh_per_m * metres + self._battery.base_w * lasts_s / HOUR_S
