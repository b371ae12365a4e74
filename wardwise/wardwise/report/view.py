"""Everything the page shows, computed once and ready to be written out.

Widths and positions on time axes are percent of the axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wardwise.report.axis import Axis
from wardwise.report.floormap import FloorMap, draw_floors, trip_paths
from wardwise.report.kpi import ElectricKpis, Kpis, summarise
from wardwise.report.lanes import Drawing
from wardwise.report.service import PRIORITIES

if TYPE_CHECKING:
    from wardwise.fleet.check import Report
    from wardwise.fleet.plan import Plan, RequestRisk, Stop, Trip
    from wardwise.fleet.problem import Instance, Request
    from wardwise.report.axis import Bar
    from wardwise.report.clock import Clock
    from wardwise.report.energy import EnergyKpis
    from wardwise.report.lanes import Lane
    from wardwise.report.service import ServiceKpis

EPSILON_S = 1e-6
NEVER_S = 1e12  # sorts what is not served behind all else


@dataclass(frozen=True, kw_only=True)
class Row:
    """One request of the table; `sort` holds the values its columns sort by."""

    index: int
    id: str
    place: str
    kind: str
    load: str
    priority: str
    window: str
    robot: str
    trip: int
    start: str
    status: str
    sort: tuple[float | str, ...]
    window_bar: Bar
    service_bars: tuple[Bar, ...]
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class View:
    """The page's content."""

    kpis: Kpis
    energy: EnergyKpis | None
    service: ServiceKpis | None
    floor_map: FloorMap
    lanes: tuple[Lane, ...]
    unused: tuple[str, ...]
    rows: tuple[Row, ...]
    axis: Axis
    ticks: tuple[tuple[float, str], ...]
    cost_parts: tuple[tuple[str, str, float, float], ...]
    has_breakdown: bool
    paths: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Visit:
    """Where a request stands in the plan; `trip` counts from 1 within its robot.

    Of a transfer, `stop` is the drop.
    """

    robot: str
    trip: int
    stop: Stop
    pickup: Stop | None
    risk: RequestRisk | None


def build_view(instance: Instance, plan: Plan, report: Report, clock: Clock) -> View:
    """Lay out a plan; stops of requests that the instance does not know are left out."""
    axis = Axis(instance, plan)
    visits = _visits(plan)
    rows = tuple(
        _row(index, request, instance, plan, visits.get(request.id), axis, clock)
        for index, request in enumerate(instance.requests)
    )
    driven = plan.trips_by_robot()
    known = [robot.id for robot in instance.robots if robot.id in driven]
    by_robot = {robot: driven[robot] for robot in dict.fromkeys([*known, *driven])}
    kpis = summarise(instance, plan, report)
    drawing = Drawing(instance=instance, rows={row.id: row for row in rows}, axis=axis, clock=clock)
    return View(
        kpis=kpis,
        energy=kpis.energy if isinstance(kpis, ElectricKpis) else None,
        service=kpis.service if isinstance(kpis, ElectricKpis) else None,
        floor_map=draw_floors(instance),
        lanes=tuple(drawing.lane(robot, trips) for robot, trips in by_robot.items()),
        unused=tuple(robot.id for robot in instance.robots if robot.id not in by_robot),
        rows=rows,
        axis=axis,
        ticks=tuple((axis.at(time_s), label) for time_s, label in clock.ticks(axis.end_s)),
        cost_parts=_cost_parts(report),
        has_breakdown=any(trip.is_broken_off for trip in plan.trips),
        paths=_paths(instance, by_robot),
    )


def _paths(instance: Instance, by_robot: dict[str, tuple[Trip, ...]]) -> dict[str, Any]:
    """What the map draws of each trip; `charges` are the legs that end at a station."""
    number_of = {request.id: index for index, request in enumerate(instance.requests)}
    return {
        robot: [
            {
                "legs": path.legs,
                "stops": [number_of.get(s.request, -1) for s in trip.stops],
                "isBrokenOff": trip.is_broken_off,
                **({"charges": path.charges} if path.charges else {}),
            }
            for trip, path in zip(trips, trip_paths(instance, trips), strict=True)
        ]
        for robot, trips in by_robot.items()
    }


def _visits(plan: Plan) -> dict[str, _Visit]:
    """Where the requests are served."""
    risks = plan.certificate.requests if plan.certificate else ()
    risk_of = {risk.request: risk for risk in risks}
    pickups: dict[str, Stop] = {}
    visits: dict[str, _Visit] = {}
    for robot, trips in plan.trips_by_robot().items():
        for number, trip in enumerate(trips, start=1):
            for stop in trip.stops:
                if stop.is_pickup:
                    pickups[stop.request] = stop
                    continue
                visits[stop.request] = _Visit(
                    robot=robot,
                    trip=number,
                    stop=stop,
                    pickup=pickups.get(stop.request),
                    risk=risk_of.get(stop.request),
                )
    return visits


def _row(
    index: int,
    request: Request,
    instance: Instance,
    plan: Plan,
    visit: _Visit | None,
    axis: Axis,
    clock: Clock,
) -> Row:
    status = _status(request, visit, plan)
    place = _way(instance, request)
    window = f"{clock.moment(request.earliest_s)} – {clock.moment(request.due_s)}"
    service_bars, start_s = [], NEVER_S
    if visit:
        start_s = visit.stop.start_s
        kind = "late" if status == "late" else "service"
        service_bars.append(axis.bar(kind, start_s, start_s + request.service_s))
    if visit and visit.pickup:
        pickup_s = visit.pickup.start_s
        service_bars.append(axis.bar("service", pickup_s, pickup_s + request.service_s))
    robot, trip = (visit.robot, visit.trip) if visit else ("", 0)
    return Row(
        index=index,
        id=request.id,
        place=place,
        kind=str(request.kind),
        load=f"{request.load:g}",
        priority=PRIORITIES[request.priority],
        window=window,
        robot=robot,
        trip=trip,
        start=clock.moment(start_s) if visit else "–",
        status=status,
        sort=_sort_keys(request, place, robot, start_s, status),
        window_bar=axis.bar("window", request.earliest_s, request.due_s),
        service_bars=tuple(service_bars),
        facts=(
            ("Request", request.id),
            ("Place", place),
            (
                "Transport",
                f"{request.kind}, {request.load:g} slots, {PRIORITIES[request.priority]}",
            ),
            ("Window", window),
            *(_visit_facts(request, visit, clock) if visit else ()),
            ("Status", status),
        ),
    )


def _sort_keys(
    request: Request, place: str, robot: str, start_s: float, status: str
) -> tuple[float | str, ...]:
    """What the columns of the table sort by, from left to right."""
    when = request.earliest_s
    return (
        request.id, place, str(request.kind), request.load, request.priority, when, robot,
        start_s if math.isfinite(start_s) else NEVER_S, status,
    )  # fmt: skip


def _visit_facts(request: Request, visit: _Visit, clock: Clock) -> list[tuple[str, str]]:
    """What the plan says about one request."""

    def service(stop: Stop) -> str:
        span_s = (stop.start_s, stop.start_s + request.service_s)
        return " – ".join(clock.moment(time_s, with_seconds=True) for time_s in span_s)

    start_s = visit.stop.start_s
    facts = [
        ("Robot", f"{visit.robot}, trip {visit.trip}"),
        *([("Pickup", service(visit.pickup))] if visit.pickup else []),
        ("Arrives", clock.moment(visit.stop.arrive_s, with_seconds=True)),
        ("Waits", clock.span(start_s - visit.stop.arrive_s)),
        ("Service", service(visit.stop)),
    ]
    if start_s - request.due_s > EPSILON_S:
        facts.append(("Late", clock.span(start_s - request.due_s)))
    if visit.risk:
        share, upper = 100 * visit.risk.late_share, 100 * visit.risk.upper
        facts.append(("Late on random days", f"{share:.2f} %, at most {upper:.2f} %"))
    return facts


def _status(request: Request, visit: _Visit | None, plan: Plan) -> str:
    if visit:
        return "late" if visit.stop.start_s > request.due_s + EPSILON_S else "on time"
    return "denied" if request.id in plan.denied else "missing"


def _place_name(instance: Instance, place: str) -> str:
    node = instance.site.points.get(place) if instance.site else None
    return node.name if node and node.name else place


def _way(instance: Instance, request: Request) -> str:
    """Where a request is served, of a transfer from where to where."""
    place = _place_name(instance, request.place)
    return f"{_place_name(instance, request.origin)} → {place}" if request.origin else place


def _cost_parts(report: Report) -> tuple[tuple[str, str, float, float], ...]:
    """Kind, name, money and percent of the four parts of the cost."""
    cost = report.cost
    parts = (
        ("robots", "Robots", cost.robot_cost),
        ("distance", "Distance", cost.distance_cost),
        ("late", "Lateness", cost.lateness_cost),
        ("denied", "Denials", cost.denial_cost),
    )
    whole = max(cost.total, 1e-9)
    return tuple((kind, name, money, round(100 * money / whole, 2)) for kind, name, money in parts)
