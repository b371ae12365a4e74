"""Batteries never below their reserve, charges that are possible, and slots of stations.

The level falls by `Battery.wh_per_m` for each metre and by `Battery.base_w` at all
times, from the start of the shift, but when the robot charges; at a charge it rises by
the stated amount. So of every robot, energy at the start and energy charged are energy
taken and energy left. The level is compared with the reserve at every stop, at the
start of every charge, where it is lowest, and at the end of every trip. After a
violation the level counts as the reserve: what follows is not blamed for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.check.verdict import Constraint, Violation, violation
from wardwise.fleet.check.visits import DEPOT, depot_charges, metres, visits
from wardwise.fleet.energy import Recharge
from wardwise.fleet.plan import Charge, Stop

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wardwise.fleet.energy import Battery
    from wardwise.fleet.plan import Plan, Trip
    from wardwise.fleet.problem import Instance

HOUR_S = 3600.0
# Of the capacity: sums in another order, and the tolerance of linear programmes.
ENERGY_TOLERANCE = 1e-7


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Energy that a robot has taken since the event before; a trip stands for its end."""

    event: Stop | Charge | Trip
    taken_wh: float


def draws(instance: Instance, robot_id: str, trips: Sequence[Trip]) -> Iterator[Draw]:
    """Energy taken by a robot with a battery, event by event."""
    robot = instance.robot_by_id.get(robot_id)
    battery = None if robot is None else robot.battery
    if robot is None or battery is None:
        return
    now_s = robot.start_s
    for trip in trips:
        for charge in depot_charges(instance, trip):
            yield Draw(event=charge, taken_wh=_base_wh(battery, now_s, charge.start_s))
            now_s = charge.end_s
        place: int | None = DEPOT
        for visit in visits(instance, trip):
            driven_wh = battery.wh_per_m * metres(instance, place, visit.place)
            base_wh = _base_wh(battery, now_s, visit.event.start_s)
            yield Draw(event=visit.event, taken_wh=driven_wh + base_wh)
            event = visit.event
            now_s = event.end_s if isinstance(event, Charge) else event.start_s
            place = visit.place
        # How far a robot came on the leg on which it broke down, no plan states.
        home_m = 0.0 if trip.is_broken_off else metres(instance, place, DEPOT)
        base_wh = _base_wh(battery, now_s, trip.return_s)
        yield Draw(event=trip, taken_wh=battery.wh_per_m * home_m + base_wh)
        now_s = trip.return_s


def energy_violations(
    instance: Instance, robot_id: str, trips: Sequence[Trip], tolerance_s: float
) -> Iterator[Violation]:
    """Empty batteries, and charges that are unknown, too quick, too much or too little."""
    robot = instance.robot_by_id.get(robot_id)
    if robot is None:
        return
    if robot.battery is None:
        for charge in (charge for trip in trips for charge in trip.charges):
            finding = f"is charged at station {charge.station!r}, but has no battery"
            yield violation(Constraint.CHARGING, robot_id, None, finding)
        return
    battery, level_wh = robot.battery, robot.battery.first_wh
    slack_wh = ENERGY_TOLERANCE * battery.capacity_wh
    for draw in draws(instance, robot_id, trips):
        event = draw.event
        level_wh -= draw.taken_wh
        if level_wh < battery.reserve_wh - slack_wh:
            request = event.request if isinstance(event, Stop) else None
            finding = f"{_where(event)} {level_wh:.10g} Wh left, its reserve is "
            finding += f"{battery.reserve_wh:.10g}"
            yield violation(Constraint.BATTERY, robot_id, request, finding)
            level_wh = battery.reserve_wh
        if isinstance(event, Charge) and math.isfinite(event.charged_wh):
            for constraint, finding in _charge_findings(
                instance, battery, level_wh, event, tolerance_s
            ):
                yield violation(constraint, robot_id, None, finding)
            level_wh = min(level_wh + max(event.charged_wh, 0.0), battery.capacity_wh)


def slot_violations(instance: Instance, plan: Plan, tolerance_s: float) -> Iterator[Violation]:
    """Charges that start while all slots of their station are taken."""
    for station in instance.stations:
        if station.num_slots is None:
            continue
        charges = sorted(
            (charge.start_s, charge.end_s, trip.robot)
            for trip in plan.trips
            for charge in trip.charges
            if charge.station == station.id
            and math.isfinite(charge.start_s)
            and math.isfinite(charge.end_s)
        )
        ends: list[float] = []
        for start_s, end_s, robot in charges:
            ends = [end for end in ends if end > start_s + tolerance_s]
            if len(ends) >= station.num_slots:
                finding = f"is charged at station {station.id!r} from {start_s:.10g}, all of its "
                finding += f"{station.num_slots} slots are taken until {min(ends):.10g}"
                yield violation(Constraint.SLOTS, robot, None, finding)
            else:
                ends.append(end_s)


def _base_wh(battery: Battery, from_s: float, to_s: float) -> float:
    """Drawn for being switched on; none where a time is not finite, which is reported."""
    wh = battery.base_w * (to_s - from_s) / HOUR_S
    return wh if math.isfinite(wh) else 0.0


def _where(event: Stop | Charge | Trip) -> str:
    if isinstance(event, Stop):
        return "is served with"
    return f"is at station {event.station!r} with" if isinstance(event, Charge) else "is back with"


def _charge_findings(
    instance: Instance, battery: Battery, level_wh: float, charge: Charge, tolerance_s: float
) -> Iterator[tuple[Constraint, str]]:
    """What is wrong with a charge that starts at a level."""
    where, slack_wh = f"station {charge.station!r}", ENERGY_TOLERANCE * battery.capacity_wh
    station = instance.station_by_id.get(charge.station)
    if station is None:
        yield Constraint.UNKNOWN_STATION, f"is charged at {where}, which does not exist"
        return
    if station.charge is None:
        yield Constraint.CHARGING, f"is charged at {where}, which has no charger"
        return
    if charge.charged_wh < -slack_wh:
        yield Constraint.CHARGING, f"is charged {charge.charged_wh:.10g} Wh at {where}"
        return
    after_wh = level_wh + charge.charged_wh
    if after_wh > battery.capacity_wh + slack_wh:
        finding = f"is charged to {after_wh:.10g} Wh at {where}, it holds {battery.capacity_wh:g}"
        yield Constraint.OVERCHARGE, finding
    if instance.recharge is Recharge.FULL and after_wh < battery.capacity_wh - slack_wh:
        finding = f"is charged to {after_wh:.10g} Wh at {where}, full is {battery.capacity_wh:g}"
        yield Constraint.RECHARGE, finding
    needed_s = station.charge.time_s(level_wh, min(after_wh, battery.capacity_wh))
    lasts_s = charge.end_s - charge.start_s
    if lasts_s < needed_s - tolerance_s:
        finding = f"is charged {charge.charged_wh:.10g} Wh at {where} in {lasts_s:.10g} s, "
        yield Constraint.CHARGING, f"{finding}which takes {needed_s:.10g}"
