"""Lackner-style dynamic instances: a table of comma-separated values.

Lackner (2004) made requests of Solomon's instances appear during the day; his files
are not public, and what stands here is our own format for instances made alike (see
`wardwise.dynamism`). Lines that start with ``#`` come first: the name, the fleet,
and how the instance was made. Then the column names, the depot (id 0, whose times
are the day) and one row a request. Distance and travel time are Euclidean, not
rounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.errors import InputError, quote
from wardwise.fleet.problem import NUM_PRIORITIES, Kind, Place, Request
from wardwise.io.files import read_text
from wardwise.io.geometry import euclidean
from wardwise.io.plain import DEPOT_ID, plain_instance, write_plain
from wardwise.io.text import LARGEST, MAX_COUNT, Row, decimal

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from wardwise.fleet.problem import Instance

COLUMNS = (
    "id",
    "x",
    "y",
    "demand",
    "ready",
    "due",
    "service",
    "release",
    "priority",
    "kind",
)
TOLERANCE_COLUMN = "tolerance"
KINDS = (Kind.COLLECT, Kind.DELIVER)
FLEET = ("name", "robots", "capacity")
PROVENANCE = ("base", "degree of dynamism", "seed", "reference cost")
LARGEST_SEED = 10**15 - 1


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """How a dynamic instance was made.

    Parameters
    ----------
    base
        Name of the static instance.
    degree
        Share of the requests that were chosen to be dynamic, 0 to 1.
    seed
        Of the choice, the release times and the priorities; below 10^15.
    reference_cost
        Of the plan that the release times were drawn from; in the literature its
        distance.
    """

    base: str
    degree: float
    seed: int
    reference_cost: float

    def __post_init__(self) -> None:
        if not self.base or self.base != self.base.strip() or not self.base.isprintable():
            raise ValueError(
                f"provenance: base: expected printable text without outer spaces, got {self.base!r}"
            )
        if not 0 <= self.degree <= 1:
            raise ValueError(f"provenance: degree: expected 0 to 1, got {self.degree}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"provenance: seed: expected 0 to {LARGEST_SEED}, got {self.seed}")
        if not 0 <= self.reference_cost <= LARGEST:
            raise ValueError(
                f"provenance: reference_cost: expected 0 to {LARGEST:g}, got {self.reference_cost}"
            )


def read_lackner(path: str | os.PathLike[str]) -> Instance:
    """Read a Lackner-style file.

    Raises
    ------
    InputError
        Naming line, column and accepted range.
    """
    return parse_lackner(read_text(path), path)


def read_provenance(path: str | os.PathLike[str]) -> Provenance | None:
    """Read how the instance in a Lackner-style file was made, if the file says so.

    Raises
    ------
    InputError
        Naming line, column and accepted range.
    """
    lines = _rows(read_text(path), path)
    return _read_provenance(_read_header(lines, path)[0], path)


def parse_lackner(text: str, path: str | os.PathLike[str]) -> Instance:
    """Read the text of a Lackner-style file; `path` is for messages only.

    Raises
    ------
    InputError
        Naming line, column and accepted range.
    """
    lines = _rows(text, path)
    header, columns = _read_header(lines, path)
    _read_provenance(header, path)
    for key in FLEET:
        if key not in header:
            raise InputError(path, f"expected a line '# {key}: ...', got none", field=key)
    capacity = header["capacity"].number(0, "capacity")
    depot_row = next(lines, None)
    if depot_row is None:
        raise InputError(path, "expected the depot, got the end of the file", field="id")
    depot, day_s = _read_depot(depot_row, columns)
    places, requests, seen = [depot], dict[Request, int](), {DEPOT_ID}
    for row in lines:
        place, request = _read_request(row, columns, capacity)
        if place.id in seen:
            raise row.error("id", f"expected each number once, got {place.id} again")
        seen.add(place.id)
        places.append(place)
        requests[request] = row.line
    if not 1 <= len(requests) <= MAX_COUNT:
        problem = f"expected 1 to {MAX_COUNT} requests, got {len(requests)}"
        raise InputError(path, problem, field="id")
    return plain_instance(
        path,
        name=header["name"].words[0],
        places=tuple(places),
        requests=requests,
        num_robots=header["robots"].integer(0, "robots", minimum=1),
        capacity=capacity,
        day_s=day_s,
        distance=euclidean(places),
    )


def write_lackner(
    instance: Instance, path: str | os.PathLike[str], provenance: Provenance | None = None
) -> None:
    """Write a Lackner-style file that reads back equal, with tolerances if there are any.

    Raises
    ------
    ValueError
        If the instance holds more than the format can.
    OSError
        If the file cannot be written.
    """
    text = format_lackner(instance, provenance)
    write_plain(instance, path, text, parse_lackner, "Lackner-style CSV")


def format_lackner(instance: Instance, provenance: Provenance | None = None) -> str:
    """Text of a Lackner-style file, as good as the format allows."""
    robot, depot = instance.robots[0], instance.places[0]
    fleet = (instance.name, str(len(instance.robots)), decimal(robot.capacity))
    head = list(zip(FLEET, fleet, strict=True))
    if provenance is not None:
        made = (
            provenance.base,
            decimal(provenance.degree),
            str(provenance.seed),
            decimal(provenance.reference_cost),
        )
        head += zip(PROVENANCE, made, strict=True)
    has_tolerance = any(request.tolerance_s > 0 for request in instance.requests)
    columns = (*COLUMNS, TOLERANCE_COLUMN) if has_tolerance else COLUMNS
    day = (depot.x_m, depot.y_m, 0.0, robot.start_s, robot.end_s, 0.0, 0.0)
    table = [(depot.id, *map(decimal, day), "0", "depot", "0")]
    for request in instance.requests:
        place = instance.places[instance.place_index[request.place]]
        numbers = (
            place.x_m,
            place.y_m,
            request.load,
            request.ready_s,
            request.due_s,
            request.service_s,
            request.release_s,
        )
        last = (str(request.priority), request.kind.value, decimal(request.tolerance_s))
        table.append((request.id, *map(decimal, numbers), *last))
    lines = [
        *(f"# {key}: {value}" for key, value in head),
        ",".join(columns),
        *(",".join(row[: len(columns)]) for row in table),
    ]
    return "\n".join(lines) + "\n"


def _rows(text: str, path: str | os.PathLike[str]) -> Iterator[Row]:
    """Lines that hold anything, split at commas; a comment is one word."""
    for line, content in enumerate(text.split("\n"), start=1):
        content = content.strip()
        words = [content] if content.startswith("#") else content.split(",")
        if content:
            yield Row(path=path, line=line, words=tuple(word.strip() for word in words))


def _read_header(
    lines: Iterator[Row], path: str | os.PathLike[str]
) -> tuple[dict[str, Row], tuple[str, ...]]:
    """Values of the comment lines by key, and the column names.

    A comment without a colon is prose; with one, the key must be known.
    """
    header: dict[str, Row] = {}
    for row in lines:
        if not row.words[0].startswith("#"):
            return header, _read_columns(row)
        key, colon, value = (part.strip() for part in row.words[0].lstrip("#").partition(":"))
        if not colon:
            continue
        if key not in (*FLEET, *PROVENANCE):
            expected = ", ".join((*FLEET, *PROVENANCE))
            raise row.error("comment", f"expected one of {expected}, got {quote(key)}")
        if key in header:
            raise row.error(key, "expected once, got it again")
        if not value or not value.isprintable():
            raise row.error(key, f"expected a printable value, got {quote(value)}")
        header[key] = Row(path=path, line=row.line, words=(value,))
    raise InputError(path, "expected the column names, got the end of the file", field="id")


def _read_columns(row: Row) -> tuple[str, ...]:
    columns = tuple(word.lower() for word in row.words)
    if columns not in (COLUMNS, (*COLUMNS, TOLERANCE_COLUMN)):
        expected = f"{','.join(COLUMNS)} and at most {TOLERANCE_COLUMN}"
        raise row.error("column names", f"expected {expected}, got {quote(','.join(row.words))}")
    return columns


def _read_provenance(header: dict[str, Row], path: str | os.PathLike[str]) -> Provenance | None:
    present = [key for key in PROVENANCE if key in header]
    if not present:
        return None
    for key in PROVENANCE:
        if key not in header:
            problem = f"expected it beside {present[0]}, got none"
            raise InputError(path, problem, field=key)
    base, degree, seed, cost = (header[key] for key in PROVENANCE)
    return Provenance(
        base=base.words[0],
        degree=degree.number(0, PROVENANCE[1], maximum=1.0),
        seed=seed.integer(0, PROVENANCE[2], maximum=LARGEST_SEED),
        reference_cost=cost.number(0, PROVENANCE[3]),
    )


def _read_depot(row: Row, columns: tuple[str, ...]) -> tuple[Place, tuple[float, float]]:
    row.require_words("depot", len(columns))
    row.integer(0, "id of the depot", maximum=0)
    for word, column in enumerate(columns):
        if column in ("demand", "service", "release", "priority", TOLERANCE_COLUMN):
            row.number(word, f"{column} of the depot", maximum=0.0)
    if row.words[9] != "depot":
        raise row.error("kind", f"expected depot, got {quote(row.words[9])}")
    return _read_place(row, DEPOT_ID), _read_window(row)


def _read_request(row: Row, columns: tuple[str, ...], capacity: float) -> tuple[Place, Request]:
    row.require_words("request", len(columns))
    place = _read_place(row, str(row.integer(0, "id")))
    ready_s, due_s = _read_window(row)
    if row.words[9] not in KINDS:
        raise row.error("kind", f"expected {' or '.join(KINDS)}, got {quote(row.words[9])}")
    has_tolerance = len(columns) > len(COLUMNS)
    request = Request(
        id=place.id,
        place=place.id,
        kind=Kind(row.words[9]),
        load=row.number(3, "demand", maximum=capacity),
        ready_s=ready_s,
        due_s=due_s,
        service_s=row.number(6, "service"),
        release_s=row.number(7, "release"),
        priority=row.integer(8, "priority", minimum=1, maximum=NUM_PRIORITIES),
        tolerance_s=row.number(10, TOLERANCE_COLUMN) if has_tolerance else 0.0,
    )
    return place, request


def _read_place(row: Row, place_id: str) -> Place:
    x_m = row.number(1, "x", minimum=-LARGEST)
    y_m = row.number(2, "y", minimum=-LARGEST)
    return Place(id=place_id, x_m=x_m, y_m=y_m)


def _read_window(row: Row) -> tuple[float, float]:
    ready_s = row.number(4, "ready")
    return ready_s, row.number(5, "due", minimum=ready_s)
