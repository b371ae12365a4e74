"""VRPLIB text: capacitated routing, with time windows or without, in one trip or several.

Read are the types CVRP, VRPTW, CVRPTW, MTVRPTW and MTVRPTWR; lengths given as ``EXPLICIT
FULL_MATRIX``, row = from, or as ``EUC_2D``, taken in double precision and not
rounded. Node 1 is the depot. Node n is customer n - 1, as in the ``.sol`` files of
CVRPLIB, so that place ids run from "0" and request ids from "1".

In a file of type MTVRPTWR (several trips, windows, release times: the instances of
Yang 2023, Transportation Science 57(1), after Cattaruzza, Absi and Feillet 2016) loads
are delivered, each stands at the depot from its release time on, and vehicles may
reload there as often as they like, which takes no time. ``EUC_2D`` lengths are then cut
to one decimal, the convention in which solutions of these files are published. MTVRPTW
is the same, and release times may be missing.

What the file leaves open is filled in without binding: without ``VEHICLES`` there
is a robot a customer, and the day of a CVRP is long enough to visit all in one tour.
A keyword or section that is not listed below is refused, since leaving it out could
change the problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.errors import InputError, quote
from wardwise.fleet.problem import Kind, Place, Request
from wardwise.io.files import read_text
from wardwise.io.geometry import cut_to_tenths, euclidean
from wardwise.io.plain import plain_instance, write_plain
from wardwise.io.text import LARGEST, Row, decimal, rows

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.problem import Instance, Matrix

RELEASED = "MTVRPTWR"
MULTI_TRIP = ("MTVRPTW", RELEASED)
TYPES = ("CVRP", "VRPTW", "CVRPTW", *MULTI_TRIP)
KEYWORDS = (
    "NAME",
    "COMMENT",
    "TYPE",
    "DIMENSION",
    "CAPACITY",
    "VEHICLES",
    "SERVICE_TIME",
    "EDGE_WEIGHT_TYPE",
    "EDGE_WEIGHT_FORMAT",
)
NODES = "NODE_COORD_SECTION"
WEIGHTS = "EDGE_WEIGHT_SECTION"
DEMANDS = "DEMAND_SECTION"
DEPOTS = "DEPOT_SECTION"
WINDOWS = "TIME_WINDOW_SECTION"
SERVICE = "SERVICE_TIME_SECTION"
RELEASES = "RELEASE_TIME_SECTION"
RELOADS = "VEHICLES_RELOAD_DEPOT_SECTION"
SECTIONS = (NODES, WEIGHTS, DEMANDS, DEPOTS, WINDOWS, SERVICE, RELEASES, RELOADS)
DEPOT = 1


@dataclass(frozen=True, kw_only=True)
class _Section:
    """A heading such as DEMAND_SECTION and the lines below it."""

    heading: Row
    rows: list[Row]


@dataclass(frozen=True, kw_only=True)
class _Parts:
    """A file taken apart: the words after each keyword, and the sections."""

    path: str | os.PathLike[str]
    values: Mapping[str, Row]
    sections: Mapping[str, _Section]

    def value(self, keyword: str) -> Row:
        """Return the words after a keyword that must be there."""
        if keyword not in self.values:
            raise InputError(self.path, "expected this keyword, got none", field=keyword)
        return self.values[keyword]

    def choice(self, keyword: str, allowed: Sequence[str]) -> str:
        """Return the value of a keyword that must be one of `allowed`."""
        row = self.value(keyword)
        if row.text not in allowed:
            raise row.error(keyword, f"expected {' or '.join(allowed)}, got {quote(row.text)}")
        return row.text

    def name(self) -> str:
        """Return the instance's name, of one word or more."""
        row = self.value("NAME")
        if not row.words:
            raise row.error("NAME", "expected a name, got none")
        return row.text

    def scalar(self, keyword: str) -> Row:
        """Return the value of a keyword that must be one word."""
        row = self.value(keyword)
        row.require_words(keyword, 1)
        return row

    def section(self, name: str) -> _Section:
        """Return a section that must be there."""
        if name not in self.sections:
            raise InputError(self.path, "expected this section, got none", field=name)
        return self.sections[name]


def read_vrplib(path: str | os.PathLike[str]) -> Instance:
    """Read a VRPLIB file.

    Raises
    ------
    InputError
        Naming line, keyword or section, and accepted range.
    """
    return parse_vrplib(read_text(path), path)


def parse_vrplib(text: str, path: str | os.PathLike[str]) -> Instance:
    """Read the text of a VRPLIB file; `path` is for messages only.

    Raises
    ------
    InputError
        Naming line, keyword or section, and accepted range.
    """
    parts = _split(text, path)
    type_ = parts.choice("TYPE", TYPES)
    has_windows, is_multi_trip = type_ != "CVRP", type_ in MULTI_TRIP
    size = parts.scalar("DIMENSION").integer(0, "DIMENSION", minimum=2)
    capacity = parts.scalar("CAPACITY").number(0, "CAPACITY")
    num_robots = _read_vehicles(parts, most=size - 1)
    _require_depot(parts.section(DEPOTS))
    places, distance = _read_lengths(parts, type_, size)
    demands = _read_loads(parts, DEMANDS, size, capacity)
    services = _read_services(parts, size, is_required=has_windows)
    # One tour through all places by the longest ways takes no longer; 1 covers rounding.
    horizon_s = 1.0 + math.ceil(distance.max(axis=1).sum() + sum(services.values()))
    windows = dict.fromkeys(range(1, size + 1), (0.0, horizon_s))
    if has_windows or WINDOWS in parts.sections:
        windows = _read_windows(parts, size)
    releases = dict.fromkeys(range(1, size + 1), 0.0)
    if is_multi_trip:
        _require_reloads(parts.section(RELOADS), num_robots)
    else:
        _require_none(parts, (RELEASES, RELOADS))
    if type_ == RELEASED or RELEASES in parts.sections:
        releases = _read_loads(parts, RELEASES, size, LARGEST)

    demand_rows = _by_node(parts.section(DEMANDS), size)
    requests = {
        Request(
            id=places[node - 1].id,
            place=places[node - 1].id,
            load=demands[node],
            ready_s=windows[node][0],
            due_s=windows[node][1],
            service_s=services[node],
            kind=Kind.DELIVER if is_multi_trip else Kind.COLLECT,
            available_s=releases[node],
        ): demand_rows[node].line
        for node in range(DEPOT + 1, size + 1)
    }
    return plain_instance(
        path,
        name=parts.name(),
        places=places,
        requests=requests,
        num_robots=num_robots,
        capacity=capacity,
        day_s=windows[DEPOT],
        distance=distance,
        max_trips=None if is_multi_trip else 1,
    )


def _read_vehicles(parts: _Parts, most: int) -> int:
    """Vehicles, or as many as could be of use."""
    if "VEHICLES" not in parts.values:
        return most
    return parts.scalar("VEHICLES").integer(0, "VEHICLES", minimum=1)


def _read_lengths(parts: _Parts, type_: str, size: int) -> tuple[tuple[Place, ...], Matrix]:
    """Places, and the lengths between them from coordinates or from a table."""
    is_euclidean = parts.choice("EDGE_WEIGHT_TYPE", ("EXPLICIT", "EUC_2D")) == "EUC_2D"
    if is_euclidean and WEIGHTS in parts.sections:
        raise parts.section(WEIGHTS).heading.error(WEIGHTS, "expected none with EUC_2D, got some")
    places = _read_places(parts, size, is_required=is_euclidean)
    return places, _lengths(places, type_) if is_euclidean else _read_matrix(parts, size)


def write_vrplib(instance: Instance, path: str | os.PathLike[str]) -> None:
    """Write a VRPLIB file that reads back equal: of type MTVRPTWR for deliveries, else VRPTW.

    Raises
    ------
    ValueError
        If the instance holds more than the format can.
    OSError
        If the file cannot be written.
    """
    write_plain(instance, path, format_vrplib(instance), parse_vrplib, "VRPLIB text")


def format_vrplib(instance: Instance) -> str:
    """Text of a VRPLIB file, as good as the format allows."""
    robot, requests = instance.robots[0], instance.requests
    type_ = RELEASED if any(r.kind is Kind.DELIVER for r in requests) else "VRPTW"
    is_euclidean = np.array_equal(instance.distance_m, _lengths(instance.places, type_))
    header = {
        "NAME": instance.name,
        "TYPE": type_,
        "DIMENSION": len(instance.places),
        "VEHICLES": len(instance.robots),
        "CAPACITY": decimal(robot.capacity),
        "EDGE_WEIGHT_TYPE": "EUC_2D" if is_euclidean else "EXPLICIT",
    }
    weights: list[str] = []
    if not is_euclidean:
        header["EDGE_WEIGHT_FORMAT"] = "FULL_MATRIX"
        weights = ["\t".join(map(decimal, row)) for row in instance.distance_m.tolist()]
    windows = [(robot.start_s, robot.end_s), *((r.ready_s, r.due_s) for r in requests)]
    several_trips: list[str] = []
    if type_ == RELEASED:
        several_trips = [
            *_section(RELEASES, [(0.0,), *((r.available_s,) for r in requests)]),
            *_section(RELOADS, [(DEPOT,)] * len(instance.robots)),
        ]
    lines = [
        *(f"{keyword} : {value}" for keyword, value in header.items()),
        *([WEIGHTS, *weights] if weights else []),
        *_section(NODES, [(place.x_m, place.y_m) for place in instance.places]),
        *_section(DEMANDS, [(0.0,), *((request.load,) for request in requests)]),
        *(DEPOTS, "1", "-1"),
        *_section(SERVICE, [(0.0,), *((request.service_s,) for request in requests)]),
        *_section(WINDOWS, windows),
        *several_trips,
        "EOF",
    ]
    return "\n".join(lines) + "\n"


def _section(heading: str, values: Sequence[Sequence[float]]) -> list[str]:
    """Lines of a section with a row a node."""
    table = ("\t".join([str(node), *map(decimal, row)]) for node, row in enumerate(values, start=1))
    return [heading, *table]


def _split(text: str, path: str | os.PathLike[str]) -> _Parts:
    """Tell keywords from sections; both stand at most once, and EOF ends the file."""
    values: dict[str, Row] = {}
    sections: dict[str, _Section] = {}
    current: _Section | None = None
    is_over = False
    for row in rows(path, text):
        keyword, colon, value = (part.strip() for part in row.text.partition(":"))
        if is_over:
            raise row.error("EOF", f"expected nothing more, got {quote(row.text)}")
        if keyword in values or keyword in sections:
            raise row.error(keyword, "expected once, got it again")
        if keyword == "EOF":
            is_over = True
        elif keyword in SECTIONS and not value:
            current = sections[keyword] = _Section(heading=row, rows=[])
        elif current is not None and not keyword[:1].isalpha():
            current.rows.append(row)
        elif keyword in KEYWORDS and colon and current is None:
            values[keyword] = Row(path=path, line=row.line, words=tuple(value.split()))
        else:
            problem = f"expected a known keyword or section, got {quote(row.text)}"
            raise InputError(path, problem, line=row.line)
    if not is_over:
        raise InputError(path, "expected this line at the end, got none", field="EOF")
    return _Parts(path=path, values=values, sections=sections)


def _require_depot(section: _Section) -> None:
    words = [word for row in section.rows for word in row.words]
    # Files of several trips leave the -1 out.
    if words not in (["1", "-1"], ["1"]):
        problem = f"expected the one depot 1, then -1, got {quote(' '.join(words))}"
        raise section.heading.error(DEPOTS, problem)


def _by_node(
    section: _Section, size: int, *, what: str = "node", keyword: str = "DIMENSION"
) -> dict[int, Row]:
    """Rows of a section by the number that they start with: each of 1 to `size` once."""
    name = section.heading.words[0].rstrip(":")
    table: dict[int, Row] = {}
    for row in section.rows:
        number = row.integer(0, f"{name} {what}", minimum=1, maximum=size)
        if number in table:
            raise row.error(f"{name} {what}", f"expected each once, got {number} again")
        table[number] = row
    if len(table) != size:
        problem = f"expected {size} rows as in {keyword}, got {len(table)}"
        raise section.heading.error(name, problem)
    return table


def _lengths(places: Sequence[Place], type_: str) -> Matrix:
    """Straight lines, cut to one decimal where solutions are published so; shape (P, P)."""
    return cut_to_tenths(euclidean(places)) if type_ in MULTI_TRIP else euclidean(places)


def _read_places(parts: _Parts, size: int, *, is_required: bool) -> tuple[Place, ...]:
    """Places "0" to "size - 1"; all at the origin where a matrix comes without coordinates."""
    if NODES not in parts.sections and not is_required:
        return tuple(Place(id=str(k)) for k in range(size))
    table = _by_node(parts.section(NODES), size)
    places: list[Place] = []
    for node in range(1, size + 1):
        row = table[node]
        row.require_words(NODES, 3)
        x_m = row.number(1, f"{NODES} x", minimum=-LARGEST)
        y_m = row.number(2, f"{NODES} y", minimum=-LARGEST)
        places.append(Place(id=str(node - 1), x_m=x_m, y_m=y_m))
    return tuple(places)


def _read_matrix(parts: _Parts, size: int) -> Matrix:
    """Shape (size, size); lines may break anywhere, as other writers do."""
    parts.choice("EDGE_WEIGHT_FORMAT", ("FULL_MATRIX",))
    section = parts.section(WEIGHTS)
    count = sum(len(row.words) for row in section.rows)
    if count != size * size:
        problem = f"expected {size} x {size} = {size * size} numbers, got {count}"
        raise section.heading.error(WEIGHTS, problem)
    weights = [row.number(k, WEIGHTS) for row in section.rows for k in range(len(row.words))]
    return np.array(weights).reshape(size, size)


def _read_loads(parts: _Parts, name: str, size: int, maximum: float) -> dict[int, float]:
    """One number a node, 0 at the depot."""
    numbers: dict[int, float] = {}
    for node, row in _by_node(parts.section(name), size).items():
        row.require_words(name, 2)
        at_depot = node == DEPOT
        field = f"{name} of the depot" if at_depot else name
        numbers[node] = row.number(1, field, maximum=0.0 if at_depot else maximum)
    return numbers


def _read_services(parts: _Parts, size: int, *, is_required: bool) -> dict[int, float]:
    """Service times by node: the keyword's for all customers, or those of the section."""
    if "SERVICE_TIME" not in parts.values:
        if is_required or SERVICE in parts.sections:
            return _read_loads(parts, SERVICE, size, LARGEST)
        return dict.fromkeys(range(1, size + 1), 0.0)
    if SERVICE in parts.sections:
        problem = "expected none with SERVICE_TIME, got some"
        raise parts.section(SERVICE).heading.error(SERVICE, problem)
    service_s = parts.scalar("SERVICE_TIME").number(0, "SERVICE_TIME")
    return {node: 0.0 if node == DEPOT else service_s for node in range(1, size + 1)}


def _read_windows(parts: _Parts, size: int) -> dict[int, tuple[float, float]]:
    """First and last moment to start service at a node; at the depot, the day."""
    windows: dict[int, tuple[float, float]] = {}
    for node, row in _by_node(parts.section(WINDOWS), size).items():
        row.require_words(WINDOWS, 3)
        ready_s, due_s = row.number(1, f"{WINDOWS} ready"), row.number(2, f"{WINDOWS} due")
        if due_s < ready_s:
            problem = f"expected at least the ready time {ready_s:g}, got {due_s:g}"
            raise row.error(f"{WINDOWS} due", problem)
        windows[node] = ready_s, due_s
    return windows


def _require_none(parts: _Parts, names: Sequence[str]) -> None:
    """Refuse sections that only vehicles with several trips have."""
    for name in names:
        if name in parts.sections:
            problem = f"expected none without TYPE {' or '.join(MULTI_TRIP)}, got some"
            raise parts.section(name).heading.error(name, problem)


def _require_reloads(section: _Section, num_robots: int) -> None:
    """Every vehicle may reload, at the depot."""
    for row in _by_node(section, num_robots, what="vehicle", keyword="VEHICLES").values():
        row.require_words(RELOADS, 2)
        row.integer(1, f"{RELOADS} depot", minimum=DEPOT, maximum=DEPOT)
