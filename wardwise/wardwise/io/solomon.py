"""Text files of Solomon (1987) and of Gehring and Homberger (1999).

The name, the fleet (``NUMBER CAPACITY``), and one row a node: number, x, y, demand,
ready time, due time, service time. Row 0 is the depot, whose times are the day.
Distance and travel time are Euclidean, not rounded. An eighth column
``AVAIL. TIME`` (Necula, Breaban and Raschip 2017) is the moment a request becomes
known.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from wardwise.errors import InputError
from wardwise.fleet.problem import Place, Request
from wardwise.io.files import read_text
from wardwise.io.geometry import euclidean
from wardwise.io.plain import DEPOT_ID, plain_instance, write_plain
from wardwise.io.text import LARGEST, MAX_COUNT, Row, decimal, rows

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from wardwise.fleet.problem import Instance

COLUMNS = (
    "CUST NO.",
    "XCOORD.",
    "YCOORD.",
    "DEMAND",
    "READY TIME",
    "DUE DATE",
    "SERVICE TIME",
)
RELEASE_COLUMN = "AVAIL. TIME"


def read_solomon(path: str | os.PathLike[str]) -> Instance:
    """Read a Solomon, Gehring–Homberger or dynamic (eighth column) text file.

    Raises
    ------
    InputError
        Naming line, column and accepted range.
    """
    return parse_solomon(read_text(path), path)


def parse_solomon(text: str, path: str | os.PathLike[str]) -> Instance:
    """Read the text of a Solomon file; `path` is for messages only.

    Raises
    ------
    InputError
        Naming line, column and accepted range.
    """
    lines = rows(path, text)
    name = _next(lines, path, "the instance name").text
    _require_heading(lines, path, "VEHICLE")
    _require_heading(lines, path, "NUMBER CAPACITY")
    fleet = _next(lines, path, "NUMBER and CAPACITY")
    fleet.require_words("NUMBER CAPACITY", 2)
    num_robots = fleet.integer(0, "NUMBER", minimum=1)
    capacity = fleet.number(1, "CAPACITY")
    _require_heading(lines, path, "CUSTOMER")
    has_release = _read_columns(_next(lines, path, "the column names"))
    num_columns = len(COLUMNS) + has_release

    depot, day_s = _read_depot(_next(lines, path, "the depot"), num_columns)
    places = [depot]
    requests: dict[Request, int] = {}
    seen = {DEPOT_ID}
    for row in lines:
        place, request = _read_customer(row, num_columns, capacity)
        if place.id in seen:
            raise row.error("CUST NO.", f"expected each number once, got {place.id} again")
        seen.add(place.id)
        places.append(place)
        requests[request] = row.line
    if not requests:
        raise InputError(path, "expected at least one customer, got none", field="CUSTOMER")
    if len(requests) > MAX_COUNT:
        problem = f"expected at most {MAX_COUNT} customers, got {len(requests)}"
        raise InputError(path, problem, field="CUSTOMER")
    return plain_instance(
        path,
        name=name,
        places=tuple(places),
        requests=requests,
        num_robots=num_robots,
        capacity=capacity,
        day_s=day_s,
        distance=euclidean(places),
    )


def write_solomon(instance: Instance, path: str | os.PathLike[str]) -> None:
    """Write a Solomon file that reads back equal, with release times if there are any.

    Raises
    ------
    ValueError
        If the instance holds more than the format can.
    OSError
        If the file cannot be written.
    """
    write_plain(instance, path, format_solomon(instance), parse_solomon, "Solomon text")


def format_solomon(instance: Instance) -> str:
    """Text of a Solomon file, as good as the format allows."""
    has_release = any(request.release_s > 0 for request in instance.requests)
    header = [*COLUMNS, RELEASE_COLUMN] if has_release else list(COLUMNS)
    robot, depot = instance.robots[0], instance.places[0]
    numbers = [
        (depot.x_m, depot.y_m, 0.0, robot.start_s, robot.end_s, 0.0, 0.0),
        *(
            (
                instance.places[instance.place_index[r.place]].x_m,
                instance.places[instance.place_index[r.place]].y_m,
                r.load,
                r.ready_s,
                r.due_s,
                r.service_s,
                r.release_s,
            )
            for r in instance.requests
        ),
    ]
    table = [
        [id_, *(decimal(value) for value in row)][: len(header)]
        for id_, row in zip([depot.id, *(r.id for r in instance.requests)], numbers, strict=True)
    ]
    lines = [
        instance.name,
        "",
        "VEHICLE",
        "NUMBER     CAPACITY",
        f"{len(instance.robots):>6}     {decimal(robot.capacity):>8}",
        "",
        "CUSTOMER",
        "  ".join(header),
        "",
        *(
            "  ".join(word.rjust(len(head)) for head, word in zip(header, row, strict=True))
            for row in table
        ),
    ]
    return "\n".join(lines) + "\n"


def _next(lines: Iterator[Row], path: str | os.PathLike[str], what: str) -> Row:
    row = next(lines, None)
    if row is None:
        raise InputError(path, f"expected {what}, got the end of the file")
    return row


def _require_heading(lines: Iterator[Row], path: str | os.PathLike[str], heading: str) -> None:
    row = _next(lines, path, f"the line {heading!r}")
    if row.text.upper() != heading:
        raise row.error(heading, f"expected this heading, got {row.text[:40]!r}")


def _read_columns(row: Row) -> bool:
    """Whether the table has the release column; older copies vary in the dots."""
    heading = row.text.upper().replace(".", "")
    plain = " ".join(COLUMNS).replace(".", "")
    if heading == plain:
        return False
    if heading == f"{plain} {RELEASE_COLUMN.replace('.', '')}":
        return True
    problem = f"expected {' '.join(COLUMNS)!r}, got {row.text[:40]!r}"
    raise row.error("column names", problem)


def _read_depot(row: Row, num_columns: int) -> tuple[Place, tuple[float, float]]:
    row.require_words("depot", num_columns)
    row.integer(0, "CUST NO. of the depot", maximum=0)
    for word, field in ((3, "DEMAND"), (6, "SERVICE TIME"), (7, RELEASE_COLUMN)):
        if word < num_columns:
            row.number(word, f"{field} of the depot", maximum=0.0)
    return _read_place(row, DEPOT_ID), _read_window(row)


def _read_customer(row: Row, num_columns: int, capacity: float) -> tuple[Place, Request]:
    row.require_words("customer", num_columns)
    place = _read_place(row, str(row.integer(0, "CUST NO.")))
    ready_s, due_s = _read_window(row)
    request = Request(
        id=place.id,
        place=place.id,
        load=row.number(3, "DEMAND", maximum=capacity),
        ready_s=ready_s,
        due_s=due_s,
        service_s=row.number(6, "SERVICE TIME"),
    )
    if num_columns > len(COLUMNS):
        request = replace(request, release_s=row.number(7, RELEASE_COLUMN))
    return place, request


def _read_place(row: Row, place_id: str) -> Place:
    x_m = row.number(1, "XCOORD.", minimum=-LARGEST)
    y_m = row.number(2, "YCOORD.", minimum=-LARGEST)
    return Place(id=place_id, x_m=x_m, y_m=y_m)


def _read_window(row: Row) -> tuple[float, float]:
    ready_s = row.number(4, "READY TIME")
    due_s = row.number(5, "DUE DATE")
    if due_s < ready_s:
        problem = f"expected at least READY TIME = {ready_s:g}, got {due_s:g}"
        raise row.error("DUE DATE", problem)
    return ready_s, due_s
