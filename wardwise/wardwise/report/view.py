"""Everything the page shows, computed once and ready to be written out.

Widths and positions on time axes are percent of the axis.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wardwise.report.floormap import FloorMap, draw_floors, trip_paths
from wardwise.report.kpi import Kpis, summarise

if TYPE_CHECKING:
    from wardwise.fleet.check import Report
    from wardwise.fleet.plan import Plan, Stop, Trip
    from wardwise.fleet.problem import Instance, Request
    from wardwise.report.clock import Clock

PRIORITIES = {1: "stat", 2: "urgent", 3: "routine"}
EPSILON_S = 1e-6
NEVER_S = 1e12  # sorts what is not served behind all else


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A stretch of a time axis; `label` is read out and shown on hover."""

    kind: str
    left: float
    width: float
    label: str = ""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stop in the robot chart: the way there, the wait and the service, in one target."""

    row: int
    left: float
    width: float
    bars: tuple[Bar, ...]
    label: str
    is_late: bool


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One robot of the chart: its trips as frames, its stops, and everything else as bars."""

    robot: str
    frames: tuple[Bar, ...]
    blocks: tuple[Block, ...]
    bars: tuple[Bar, ...]


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


class Axis:
    """Time from 0 to the last window or return within the shifts, in percent."""

    def __init__(self, instance: Instance, plan: Plan) -> None:
        last_s = max(
            [0.0, *(t.return_s for t in plan.trips), *(r.due_s for r in instance.requests)]
        )
        self.end_s = max(1.0, min(last_s, max(robot.end_s for robot in instance.robots)))

    def at(self, time_s: float) -> float:
        """Where a moment stands, in percent."""
        # Infeasible plans may hold any time, even none: the axis keeps them in sight.
        inside_s = min(max(time_s, 0.0), self.end_s) if not math.isnan(time_s) else 0.0
        return round(100 * inside_s / self.end_s, 3)

    def bar(self, kind: str, start_s: float, end_s: float, label: str = "") -> Bar:
        """A stretch from one moment to another."""
        left = self.at(start_s)
        return Bar(kind=kind, left=left, width=round(self.at(end_s) - left, 3), label=label)


@dataclass(frozen=True, kw_only=True)
class View:
    """The page's content."""

    kpis: Kpis
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


def build_view(instance: Instance, plan: Plan, report: Report, clock: Clock) -> View:
    """Lay out a plan; stops of requests that the instance does not know are left out."""
    axis = Axis(instance, plan)
    visits = _visits(plan)
    rows = tuple(
        _row(index, request, instance, plan, visits.get(request.id), axis, clock)
        for index, request in enumerate(instance.requests)
    )
    number_of = {request.id: index for index, request in enumerate(instance.requests)}
    driven = plan.trips_by_robot()
    known = [robot.id for robot in instance.robots if robot.id in driven]
    by_robot = {robot: driven[robot] for robot in dict.fromkeys([*known, *driven])}
    return View(
        kpis=summarise(instance, plan, report),
        floor_map=draw_floors(instance),
        lanes=tuple(
            _lane(robot, trips, instance, rows, number_of, axis, clock)
            for robot, trips in by_robot.items()
        ),
        unused=tuple(robot.id for robot in instance.robots if robot.id not in by_robot),
        rows=rows,
        axis=axis,
        ticks=tuple((axis.at(time_s), label) for time_s, label in clock.ticks(axis.end_s)),
        cost_parts=_cost_parts(report),
        has_breakdown=any(trip.is_broken_off for trip in plan.trips),
        paths={
            robot: [
                {
                    "legs": legs,
                    "stops": [number_of.get(s.request, -1) for s in trip.stops],
                    "isBrokenOff": trip.is_broken_off,
                }
                for trip, legs in zip(trips, trip_paths(instance, trips), strict=True)
            ]
            for robot, trips in by_robot.items()
        },
    )


def _visits(plan: Plan) -> dict[str, _Visit]:
    """Where the requests are served."""
    pickups: dict[str, Stop] = {}
    visits: dict[str, _Visit] = {}
    for robot, trips in plan.trips_by_robot().items():
        for number, trip in enumerate(trips, start=1):
            for stop in trip.stops:
                if stop.is_pickup:
                    pickups[stop.request] = stop
                    continue
                pickup = pickups.get(stop.request)
                visits[stop.request] = _Visit(robot=robot, trip=number, stop=stop, pickup=pickup)
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


def _lane(
    robot: str,
    trips: tuple[Trip, ...],
    instance: Instance,
    rows: tuple[Row, ...],
    number_of: dict[str, int],
    axis: Axis,
    clock: Clock,
) -> Lane:
    frames, bars, blocks = [], [], []
    for number, trip in enumerate(trips, start=1):
        span = f"{clock.moment(trip.depart_s)} to {clock.moment(trip.return_s)}"
        label = f"Trip {number}, {span}" + (", broken off" if trip.is_broken_off else "")
        frames.append(axis.bar("trip", trip.depart_s, trip.return_s, label))
        if number > 1 and not trips[number - 2].is_broken_off:
            # Drawn right after the return; the robot may then still wait to leave.
            back_s = trips[number - 2].return_s
            bars.append(axis.bar("reload", back_s, back_s + instance.reload_s, "Reload"))
        left_s = trip.depart_s
        for stop in trip.stops:
            request = instance.request_by_id.get(stop.request)
            if request is None:
                continue
            end_s = stop.start_s + request.service_s
            if trip.is_broken_off:
                end_s = min(end_s, trip.return_s)
            row = rows[number_of[stop.request]]
            blocks.append(_block(row, stop, left_s, end_s, axis, clock))
            left_s = end_s
        way = "Way until the breakdown" if trip.is_broken_off else "Way home"
        bars.append(axis.bar("drive", left_s, trip.return_s, way))
        if trip.is_broken_off:
            label = f"Breaks down at {clock.moment(trip.return_s)}"
            bars.append(axis.bar("breakdown", trip.return_s, trip.return_s, label))
    return Lane(
        robot=robot,
        frames=tuple(frames),
        blocks=tuple(blocks),
        bars=tuple(bars),
    )


def _block(row: Row, stop: Stop, left_s: float, end_s: float, axis: Axis, clock: Clock) -> Block:
    whole = axis.bar("stop", left_s, end_s)
    is_late = row.status == "late" and not stop.is_pickup
    service = "pickup" if stop.is_pickup else "service"

    def part(kind: str, start_s: float, stop_s: float) -> Bar:
        share = 100 / max(whole.width, 1e-6)
        bar = axis.bar(kind, start_s, stop_s)
        left, width = (bar.left - whole.left) * share, bar.width * share
        return Bar(kind=kind, left=round(left, 1), width=round(width, 1))

    return Block(
        row=row.index,
        left=whole.left,
        width=whole.width,
        bars=(
            part("drive", left_s, stop.arrive_s),
            part("wait", stop.arrive_s, stop.start_s),
            part("late" if is_late else "service", stop.start_s, end_s),
        ),
        label=f"{row.id}, {row.place}, window {row.window}, "
        f"{service} {clock.moment(stop.start_s)}, {row.status}",
        is_late=is_late,
    )


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
