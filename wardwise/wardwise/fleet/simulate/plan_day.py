"""One random day of a plan: its robots carry it out, whatever the times turn out to be.

Nobody plans anew: the twin shows what the plan itself is worth, with the recourse of
`wardwise.fleet.simulate.plan_robot`. The day as it was driven goes to the referee.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import simpy

from wardwise.fleet.check import Constraint, Timing, check
from wardwise.fleet.facts import DrivenDay
from wardwise.fleet.simulate.plan_robot import PlanRobot, Reading
from wardwise.fleet.simulate.plan_steps import steps_of
from wardwise.fleet.simulate.plan_ways import PlanWays, doors_of

if TYPE_CHECKING:
    from wardwise.fleet.check import Report
    from wardwise.fleet.facts import Fact, Ride
    from wardwise.fleet.plan import Charge, Plan
    from wardwise.fleet.problem import Instance

# Late by less is rounding; the tolerance of the referee.
TOLERANCE_S = 1e-6
# What a plan may violate and be carried out all the same: it happens on any day.
OUTCOMES = (Constraint.LATE, Constraint.SHIFT, Constraint.BATTERY)


@dataclass(frozen=True, kw_only=True)
class RobotEnergy:
    """Energy books of one robot: ``start + charged = used + left``.

    Attributes
    ----------
    least_wh
        Lowest level of the day.
    is_below_reserve, is_stranded
        Whether the level fell below the reserve, and whether it fell to 0.
    num_detours, num_skips
        Charges put in and left out.
    """

    robot: str
    start_wh: float
    charged_wh: float
    used_wh: float
    left_wh: float
    least_wh: float
    is_below_reserve: bool
    is_stranded: bool
    num_detours: int
    num_skips: int


@dataclass(frozen=True, kw_only=True)
class PlanDay:
    """A day of a plan.

    Attributes
    ----------
    plan
        The day as it was driven, with measured times and charges.
    report
        The checker's verdict on it, with `Timing.EXECUTED`.
    late
        Requests whose service started past its last moment, or never.
    unserved
        Of these, those that were never served.
    late_returns
        Robots that were back after their shift, or never.
    charges
        Robot and charge, as they ended.
    energy
        Of robots with batteries.
    readings
        What robots did, in order.
    facts, rides
        The same and their rides in elevators, as a log of driven days has them.
    """

    plan: Plan
    report: Report
    seed: int
    late: tuple[str, ...]
    unserved: tuple[str, ...]
    late_returns: tuple[str, ...]
    charges: tuple[tuple[str, Charge], ...]
    energy: tuple[RobotEnergy, ...]
    readings: tuple[Reading, ...]
    facts: tuple[Fact, ...]
    rides: tuple[Ride, ...]

    def driven(self, day: int = 0) -> DrivenDay:
        """What was measured, under the number of a day, as a log has it."""
        return DrivenDay(
            day=day, seed=self.seed, facts=self.facts, rides=self.rides, unserved=self.unserved
        )


class PlanWorld:
    """What the robots of a day share: time, ways, slots, doors, and the log."""

    def __init__(self, instance: Instance, plan: Plan, ways: PlanWays) -> None:
        self.env = simpy.Environment()
        self.instance, self.ways = instance, ways
        self.slots = {
            station.id: simpy.Resource(self.env, station.num_slots) if station.num_slots else None
            for station in instance.stations
        }
        names = doors_of(instance.site) if instance.site else []
        self.doors = {name: simpy.Resource(self.env) for name in names}
        self.readings: list[Reading] = []
        self.facts: list[Fact] = []
        self.rides: list[Ride] = []
        self.charges: list[tuple[str, Charge]] = []
        self.robots = [
            PlanRobot(
                self,
                instance.robot_by_id[robot],
                steps_of(instance, ways.legs, robot, trips),
            )
            for robot, trips in plan.trips_by_robot().items()
        ]
        for robot in self.robots:
            self.env.process(robot.live())


def simulate_plan(
    instance: Instance, plan: Plan, *, seed: int = 0, uses_building: bool = False
) -> PlanDay:
    """Carry out a plan on one day with the randomness of the instance.

    Parameters
    ----------
    instance
        Without stated randomness it has the default one.
    plan
        Without violations but late service, overrun shifts and batteries below their
        reserve. Its sequences and charges count; its times do not.
    seed
        Of the day's luck; at least 0. Two plans under one seed meet the same luck
        wherever they do the same.
    uses_building
        Whether robots drive through the site and queue at elevators and doors.
        Otherwise only stations make them queue.

    Returns
    -------
    PlanDay

    Raises
    ------
    ValueError
        If the plan has other violations, `seed` is negative, or there is no building.
    """
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    require_drivable(instance, plan)
    return carry_out(instance, plan, PlanWays(instance, seed, uses_building=uses_building), seed)


def require_drivable(instance: Instance, plan: Plan) -> None:
    """Refuse a plan that is more than late or short of energy."""
    for violation in check(instance, plan).violations:
        if violation.constraint not in OUTCOMES:
            raise ValueError(f"plan: {violation.constraint}: {violation.message}")


def carry_out(instance: Instance, plan: Plan, ways: PlanWays, seed: int) -> PlanDay:
    """Let a day pass."""
    world = PlanWorld(instance, plan, ways)
    world.env.run()
    trips = tuple(trip for robot in world.robots for trip in robot.trips)
    driven = replace(plan, trips=trips, certificate=None)
    starts = {
        stop.request: stop.start_s for trip in trips for stop in trip.stops if not stop.is_pickup
    }
    planned = {stop.request for trip in plan.trips for stop in trip.stops}
    ends = {trip.robot: trip.return_s for trip in trips}
    asked = [request for request in instance.requests if request.id in planned]
    return PlanDay(
        plan=driven,
        report=check(instance, driven, timing=Timing.EXECUTED),
        seed=seed,
        late=tuple(
            request.id
            for request in asked
            if starts.get(request.id, math.inf) > request.latest_s + TOLERANCE_S
        ),
        unserved=tuple(request.id for request in asked if request.id not in starts),
        late_returns=tuple(
            each.robot.id
            for each in world.robots
            if each.is_stranded or ends[each.robot.id] > each.robot.end_s + TOLERANCE_S
        ),
        charges=tuple(world.charges),
        energy=tuple(_energy(robot) for robot in world.robots if robot.battery),
        readings=tuple(world.readings),
        facts=tuple(world.facts),
        rides=tuple(world.rides),
    )


def _energy(robot: PlanRobot) -> RobotEnergy:
    battery = robot.battery
    assert battery is not None
    return RobotEnergy(
        robot=robot.robot.id,
        start_wh=battery.battery.first_wh,
        charged_wh=battery.charged_wh,
        used_wh=battery.used_wh,
        left_wh=battery.level_wh,
        least_wh=battery.least_wh,
        is_below_reserve=battery.least_wh < battery.battery.reserve_wh - battery.slack_wh,
        is_stranded=robot.is_stranded,
        num_detours=robot.num_detours,
        num_skips=robot.num_skips,
    )
