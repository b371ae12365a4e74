"""The figures by which a day is judged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.check.visits import depot_charges
from wardwise.report.energy import EnergyKpis, energy_kpis
from wardwise.report.service import ServiceKpis, service_kpis

if TYPE_CHECKING:
    from wardwise.fleet.check import Report
    from wardwise.fleet.plan import Plan, Trip
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class Kpis:
    """Figures of one plan.

    Parameters
    ----------
    on_time_pct
        Requests whose service starts by `due_s`, in percent of all requests; denied
        ones count against it.
    late_min
        Sum of delays past `due_s`.
    utilisation_pct
        Time in which used robots drive, serve or reload, in percent of their shifts.
    """

    is_feasible: bool
    num_violations: int
    num_requests: int
    robots_used: int
    robots_owned: int
    distance_m: float
    on_time_pct: float
    num_late: int
    late_min: float
    num_denied: int
    utilisation_pct: float
    trips_per_robot: float
    cost: float


@dataclass(frozen=True, kw_only=True)
class ElectricKpis(Kpis):
    """Figures of a plan whose robots have batteries or which carries a certificate."""

    energy: EnergyKpis | None
    service: ServiceKpis | None


def summarise(instance: Instance, plan: Plan, report: Report) -> Kpis:
    """Figures of `plan`; amounts and money come from the independent check.

    Parameters
    ----------
    report
        What `wardwise.fleet.check.check` says about the same instance and plan.

    Returns
    -------
    Kpis
        `ElectricKpis` where robots that are used have batteries, or the plan has a
        certificate.
    """
    cost = report.cost
    stops = [stop for trip in plan.trips for stop in trip.stops]
    served = {stop.request for stop in stops if not stop.is_pickup}
    num_served = len(served & instance.request_by_id.keys())
    used = plan.trips_by_robot()
    busy_s = sum(_busy_s(instance, trips) for trips in used.values())
    robots = [instance.robot_by_id[name] for name in used if name in instance.robot_by_id]
    shift_s = sum(robot.end_s - robot.start_s for robot in robots)
    kpis = Kpis(
        is_feasible=report.is_feasible,
        num_violations=len(report.violations),
        num_requests=len(instance.requests),
        robots_used=cost.num_robots,
        robots_owned=len(instance.robots),
        distance_m=cost.distance_m,
        on_time_pct=_percent(num_served - cost.num_late, len(instance.requests), empty=100.0),
        num_late=cost.num_late,
        late_min=cost.lateness_s / 60,
        num_denied=cost.num_denied,
        utilisation_pct=_percent(busy_s, shift_s, empty=0.0),
        trips_per_robot=len(plan.trips) / len(used) if used else 0.0,
        cost=cost.total,
    )
    energy, service = energy_kpis(instance, plan, report), service_kpis(instance, plan)
    if energy is None and service is None:
        return kpis
    return ElectricKpis(**vars(kpis), energy=energy, service=service)


def _busy_s(instance: Instance, trips: tuple[Trip, ...]) -> float:
    """Time of one robot outside the depot less waits and charges, plus reloading between trips.

    After a trip that was broken off the robot is repaired, which is no work.
    """
    out_s = sum(trip.return_s - trip.depart_s for trip in trips)
    wait_s = sum(stop.start_s - stop.arrive_s for trip in trips for stop in trip.stops)
    # Charges before a departure are made at the depot.
    charge_s = sum(
        charge.end_s - charge.arrive_s
        for trip in trips
        for charge in trip.charges[len(depot_charges(instance, trip)) :]
    )
    num_reloads = sum(not trip.is_broken_off for trip in trips[:-1])
    return out_s - wait_s - charge_s + instance.reload_s * num_reloads


def _percent(part: float, whole: float, *, empty: float) -> float:
    return 100 * part / whole if whole > 0 else empty
