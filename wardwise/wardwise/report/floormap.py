"""Floor plans and robot paths in the coordinates of the page's drawings.

A building becomes one drawing per floor. An instance without a building becomes
one drawing of its coordinates, in which robots move along straight lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.check.visits import visits
from wardwise.fleet.plan import Charge

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from wardwise.fleet.plan import Trip
    from wardwise.fleet.problem import Instance
    from wardwise.site import Corridor, Site

MARGIN = 50.0
WIDTH = 700.0  # drawing units of the longer floor; type and symbols are sized for this
MIN_UNITS_PER_M = 3.0  # of a building; wider drawings scroll in their frame
MAX_LABELS = 60  # of a scatter map, whose points are not labelled beyond


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point of a drawing; `index` is its number in the paths, `side` where its label goes."""

    index: int
    x: float
    y: float
    kind: str
    label: str
    side: str
    title: str
    has_charger: bool = False


@dataclass(frozen=True, kw_only=True)
class Line:
    """A corridor of a drawing; `door` says where a door symbol stands, `one_way` an arrow."""

    x1: float
    y1: float
    x2: float
    y2: float
    has_door: bool = False
    is_one_way: bool = False


@dataclass(frozen=True, kw_only=True)
class FloorDrawing:
    """One floor, `width` by `height` drawing units."""

    level: int
    name: str
    width: float
    height: float
    lines: tuple[Line, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True, kw_only=True)
class FloorMap:
    """All floors, lowest first, and `points` [x, y, floor] by index for the paths."""

    floors: tuple[FloorDrawing, ...]
    points: list[list[float]]


def draw_floors(instance: Instance) -> FloorMap:
    """Floor plans of the instance's building, or the scatter map of its places."""
    chargers = _chargers(instance)
    if instance.site is None:
        return _draw_scatter(instance, chargers)
    return _draw_site(instance.site, chargers)


def _chargers(instance: Instance) -> dict[str, str]:
    """Places with stations that charge, and what to say about them."""
    found: dict[str, list[str]] = {}
    for station in instance.stations:
        if station.charge is not None:
            count = station.num_slots
            slots = "any number of slots" if count is None else f"{count} slot{'s'[: count != 1]}"
            found.setdefault(station.place, []).append(f"station {station.id}, {slots}")
    return {place: "; ".join(texts) for place, texts in found.items()}


def charger_points(instance: Instance) -> dict[str, int]:
    """Point index of every station that charges, by its id."""
    points = list(instance.site.points if instance.site else instance.place_index)
    return {s.id: points.index(s.place) for s in instance.stations if s.charge is not None}


@dataclass(frozen=True, kw_only=True)
class TripPath:
    """Point indices passed on every leg of a trip; `charges` are the legs to stations."""

    legs: list[list[int]]
    charges: list[int]


def trip_paths(instance: Instance, trips: Iterable[Trip]) -> list[TripPath]:
    """For every trip its legs: to each stop or station, then the way home, if any."""
    leg = cache(_Ways(instance).between)
    depot = instance.places[0].id
    paths = []
    for trip in trips:
        known = [visit for visit in visits(instance, trip) if visit.place is not None]
        places = [instance.places[visit.place].id for visit in known if visit.place is not None]
        places = [depot, *places, *([] if trip.is_broken_off else [depot])]
        paths.append(
            TripPath(
                legs=[leg(a, b) for a, b in pairwise(places)],
                charges=[k for k, visit in enumerate(known) if isinstance(visit.event, Charge)],
            )
        )
    return paths


def timed_ways(
    instance: Instance, pairs: Iterable[tuple[int, int]]
) -> dict[tuple[int, int], list[int]]:
    """For pairs of places the points passed, each with the permille of the time until there.

    Returns
    -------
    dict
        By the places' indices a flat list: point, 0, point, permille, ..., point, 1000.
    """
    ways = _Ways(instance)
    ids = [place.id for place in instance.places]
    found = {(a, b): ways.between(ids[a], ids[b]) for a, b in pairs}
    passed = sorted({point for way in found.values() for point in way})
    since_s = ways.travel_s(passed)
    timed = {}
    for pair, way in found.items():
        # A part of a quickest path is a quickest path itself.
        reached_s = [since_s[way[0], point] for point in way]
        whole_s = max(reached_s[-1], 1e-9)
        timed[pair] = [
            value
            for point, at_s in zip(way, reached_s, strict=True)
            for value in (point, round(1000 * at_s / whole_s))
        ]
    return timed


class _Ways:
    """Quickest paths in the point indices of the drawings."""

    def __init__(self, instance: Instance) -> None:
        self._instance, self._site = instance, instance.site
        self._points = list(self._site.points if self._site else instance.place_index)
        self._rows = {point: row for row, point in enumerate(self._points)}

    def between(self, start: str, end: str) -> list[int]:
        way = self._site.path(start, end) if self._site else (start, end)
        return [self._rows[point] for point in way]

    def travel_s(self, points: list[int]) -> dict[tuple[int, int], float]:
        """Time between any two of `points`."""
        matrix = (
            self._instance.travel_s[np.ix_(points, points)]
            if not self._site
            else (self._site.travel([self._points[point] for point in points]).travel_s)
        )
        return {
            (a, b): float(matrix[row, column])
            for row, a in enumerate(points)
            for column, b in enumerate(points)
        }


def _draw_site(site: Site, chargers: Mapping[str, str]) -> FloorMap:
    points = list(site.points.values())
    scale = _Scale([p.x_m for p in points], [p.y_m for p in points], MIN_UNITS_PER_M)
    top_m = {
        f.level: max((p.y_m for p in points if p.floor == f.level), default=0.0)
        for f in site.floors
    }
    xy = {p.id: scale.place(p.x_m, p.y_m, top_m[p.floor]) for p in points}
    landings = {lift.landing(f) for lift in site.elevators for f in lift.floors}
    kinds = {p.id: "elevator" if p.id in landings else str(p.kind) for p in points}
    neighbours: dict[str, list[str]] = {p.id: [] for p in points}
    for c in site.corridors:
        neighbours[c.start].append(c.end)
        neighbours[c.end].append(c.start)
    drawings = []
    for floor in sorted(site.floors, key=lambda floor: floor.level):
        lines = tuple(
            _line(c, xy) for c in site.corridors if site.points[c.start].floor == floor.level
        )
        marks = tuple(
            Mark(
                index=row,
                x=xy[p.id][0],
                y=xy[p.id][1],
                kind=kinds[p.id],
                label=p.name,
                side=_free_side(xy[p.id], [xy[q] for q in neighbours[p.id]]),
                title=_title(f"{p.name or p.id} ({kinds[p.id]})", chargers.get(p.id)),
                has_charger=kinds[p.id] == "charger" or p.id in chargers,
            )
            for row, p in enumerate(points)
            if p.floor == floor.level
        )
        depth_m = top_m[floor.level] - min((points[m.index].y_m for m in marks), default=0.0)
        drawings.append(
            FloorDrawing(
                level=floor.level,
                name=floor.name,
                width=scale.width,
                height=scale.height(depth_m),
                lines=lines,
                marks=marks,
            )
        )
    return FloorMap(floors=tuple(drawings), points=[[*xy[p.id], float(p.floor)] for p in points])


def _title(name: str, station: str | None) -> str:
    return name if station is None else f"{name}, {station}"


def _line(corridor: Corridor, xy: dict[str, tuple[float, float]]) -> Line:
    (x1, y1), (x2, y2) = xy[corridor.start], xy[corridor.end]
    has_door = corridor.door_s > 0
    return Line(x1=x1, y1=y1, x2=x2, y2=y2, has_door=has_door, is_one_way=corridor.one_way)


def _free_side(here: tuple[float, float], around: list[tuple[float, float]]) -> str:
    """Side of a point that its corridors leave free for a label."""
    goes_up = any(y < here[1] for _, y in around)
    goes_down = any(y > here[1] for _, y in around)
    if goes_up and goes_down:
        return "left"
    return "below" if goes_up else "above"


def _draw_scatter(instance: Instance, chargers: Mapping[str, str]) -> FloorMap:
    places = instance.places
    scale = _Scale([p.x_m for p in places], [p.y_m for p in places], 0.0)
    ys = [p.y_m for p in places]
    xy = [scale.place(p.x_m, p.y_m, max(ys)) for p in places]
    height = scale.height(max(ys) - min(ys))
    marks = tuple(
        Mark(
            index=row,
            x=x,
            y=y,
            kind=("charger" if place.id in chargers else "place") if row else "dock",
            label=place.id if row and len(places) <= MAX_LABELS else "" if row else "Depot",
            side="above" if row else "below",
            title=_title(f"{'Place' if row else 'Depot'} {place.id}", chargers.get(place.id)),
            has_charger=place.id in chargers,
        )
        for row, (place, (x, y)) in enumerate(zip(places, xy, strict=True))
    )
    drawing = FloorDrawing(
        level=0, name="Places", width=scale.width, height=height, lines=(), marks=marks
    )
    return FloorMap(floors=(drawing,), points=[[x, y, 0.0] for x, y in xy])


class _Scale:
    """Metres to drawing units, y downwards from the top of a floor, alike on all floors."""

    def __init__(self, xs: list[float], ys: list[float], min_scale: float) -> None:
        self._left = min(xs)
        span_x, span_y = max(xs) - min(xs), max(ys) - min(ys)
        self._scale = max((WIDTH - 2 * MARGIN) / max(span_x, span_y, 1e-9), min_scale)
        self.width = round(span_x * self._scale + 2 * MARGIN, 1)

    def height(self, depth_m: float) -> float:
        return round(depth_m * self._scale + 2 * MARGIN, 1)

    def place(self, x_m: float, y_m: float, top_m: float) -> tuple[float, float]:
        x = MARGIN + (x_m - self._left) * self._scale
        return round(x, 1), round(MARGIN + (top_m - y_m) * self._scale, 1)
