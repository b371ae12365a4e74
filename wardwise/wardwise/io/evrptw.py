"""Text files of Schneider, Stenger and Goeke (2014): the electric VRPTW.

One row a node under the column names ``StringID Type x y demand ReadyTime DueDate
ServiceTime``, in any order; types are d (depot), f (station) and c (customer). Then the
lines ``Q`` (battery), ``C`` (load), ``r`` (energy a unit of distance), ``g`` (time to
charge a unit of energy) and ``v`` (speed), each with its number between slashes.

Distances are Euclidean, not rounded, and take the distance over ``v``. Energy is
counted in watt-hours: the file's unit is taken for one. Vehicles leave the depot full
and make one trip each; there are as many as customers. Stations have room for all, and
those where the depot stands share its place. The file holds no name: it is called as
the file is.

References
----------
Schneider, Stenger and Goeke 2014, Transportation Science 48(4), 500-520.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from wardwise.errors import InputError, quote
from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.problem import Instance, Place, Request, Robot, Station
from wardwise.io.files import read_text
from wardwise.io.geometry import euclidean
from wardwise.io.text import LARGEST, MAX_COUNT, Row, rows

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

ID = "StringID"
TYPE = "Type"
NUMBERS = ("x", "y", "demand", "ReadyTime", "DueDate", "ServiceTime")
COLUMNS = (ID, TYPE, *NUMBERS)
# A full battery that charges in a second, or lasts for a millimetre, is a slip of the pen.
PARAMETERS = {"Q": 1e-6, "C": 0.0, "r": 0.0, "g": 1e-9, "v": 1e-6}

_HEADING = re.compile(rf"(?:.*\s)?{ID}\s", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Node:
    """One row of the table; of stations and the depot, `request` holds the hours."""

    row: Row
    kind: str
    place: Place
    request: Request


def is_evrptw(text: str) -> bool:
    """Whether the first line of a text, without blanks before it, names these columns."""
    return _HEADING.match(text) is not None


def read_evrptw(path: str | os.PathLike[str], recharge: Recharge = Recharge.PARTIAL) -> Instance:
    """Read an instance of the electric VRPTW.

    Parameters
    ----------
    recharge
        Whether stations may charge less than the full battery, which files do not say.

    Raises
    ------
    InputError
        Naming line, column or parameter, and accepted range.
    """
    return replace(parse_evrptw(read_text(path), path), recharge=recharge)


def parse_evrptw(text: str, path: str | os.PathLike[str]) -> Instance:
    """Read the text of such a file, for any amount of charge; `path` names the instance.

    Raises
    ------
    InputError
        Naming line, column or parameter, and accepted range.
    """
    lines = rows(path, text)
    heading = next(lines, None)
    if heading is None:
        raise InputError(path, "expected the column names, got an empty file")
    columns = _read_columns(heading)
    nodes: dict[str, _Node] = {}
    values: dict[str, float] = {}
    for row in lines:
        if row.words[-1].startswith("/"):
            _read_parameter(row, values)
            continue
        node = _read_node(row, columns)
        if node.place.id in nodes:
            raise row.error(ID, f"expected each once, got {quote(node.place.id)} again")
        nodes[node.place.id] = node
    for name in PARAMETERS:
        if name not in values:
            raise InputError(path, f"expected a line '{name} ... /number/', got none", field=name)
    for what, most in (("d", 1), ("f", MAX_COUNT), ("c", MAX_COUNT)):
        count = len(_of_kind(nodes, what))
        if count > most or (count == 0 and what != "f"):
            problem = f"expected {'1' if most == 1 else f'up to {most}'} of {what}, got {count}"
            raise InputError(path, problem, field=TYPE)
    (depot,) = _of_kind(nodes, "d")
    for node in nodes.values():
        _require_fitting(node, depot, values["C"])
    return _instance(path, nodes, values)


def _read_columns(row: Row) -> dict[str, int]:
    """Number of the word that each column has in a row."""
    names = [word.casefold() for word in row.words]
    if sorted(names) != sorted(name.casefold() for name in COLUMNS):
        problem = f"expected {' '.join(COLUMNS)!r} in any order, got {quote(row.text)}"
        raise row.error("column names", problem)
    return {name: names.index(name.casefold()) for name in COLUMNS}


def _read_parameter(row: Row, values: dict[str, float]) -> None:
    """One of the lines such as ``Q Vehicle fuel tank capacity /77.75/``."""
    name, number = row.words[0], row.words[-1]
    if name not in PARAMETERS:
        raise row.error("parameter", f"expected one of {' '.join(PARAMETERS)}, got {quote(name)}")
    if name in values:
        raise row.error(name, "expected once, got it again")
    if len(number) < 3 or not number.endswith("/"):
        raise row.error(name, f"expected a number between slashes, got {quote(number)}")
    bare = replace(row, words=(number[1:-1],))
    values[name] = bare.number(0, name, minimum=PARAMETERS[name])


def _read_node(row: Row, columns: Mapping[str, int]) -> _Node:
    row.require_words("node", len(COLUMNS))
    id_, kind = row.words[columns[ID]], row.words[columns[TYPE]]
    if not id_.isprintable():
        raise row.error(ID, f"expected printable text, got {quote(id_)}")
    if kind not in ("d", "f", "c"):
        raise row.error(TYPE, f"expected d, f or c, got {quote(kind)}")
    x_m, y_m = (row.number(columns[name], name, minimum=-LARGEST) for name in ("x", "y"))
    # Nothing is carried to, or done at, the depot and stations.
    most = LARGEST if kind == "c" else 0.0
    ready_s, due_s = (row.number(columns[name], name) for name in ("ReadyTime", "DueDate"))
    if due_s < ready_s:
        raise row.error("DueDate", f"expected at least ReadyTime = {ready_s:g}, got {due_s:g}")
    request = Request(
        id=id_,
        place=id_,
        load=row.number(columns["demand"], "demand", maximum=most),
        ready_s=ready_s,
        due_s=due_s,
        service_s=row.number(columns["ServiceTime"], "ServiceTime", maximum=most),
    )
    return _Node(row=row, kind=kind, place=Place(id=id_, x_m=x_m, y_m=y_m), request=request)


def _of_kind(nodes: Mapping[str, _Node], kind: str) -> list[_Node]:
    return [node for node in nodes.values() if node.kind == kind]


def _require_fitting(node: _Node, depot: _Node, capacity: float) -> None:
    """Refuse loads that no vehicle takes, and stations that close: ours have no hours."""
    mine, day = node.request, depot.request
    if mine.load > capacity:
        problem = f"expected at most C = {capacity:g}, got {mine.load:g}"
        raise node.row.error("demand", problem)
    if node.kind == "f" and (mine.ready_s > day.ready_s or mine.due_s < day.due_s):
        problem = f"expected the depot's hours, {day.ready_s:g} to {day.due_s:g}, or longer, "
        problem += f"got {mine.ready_s:g} to {mine.due_s:g}"
        raise node.row.error("ReadyTime, DueDate", problem)


def _instance(
    path: str | os.PathLike[str], nodes: Mapping[str, _Node], values: Mapping[str, float]
) -> Instance:
    (depot,), customers = _of_kind(nodes, "d"), _of_kind(nodes, "c")
    stations = {node.place.id: node.place for node in _of_kind(nodes, "f")}
    at_depot = {
        id_ for id_, p in stations.items() if (p.x_m, p.y_m) == (depot.place.x_m, depot.place.y_m)
    }
    elsewhere = (place for id_, place in stations.items() if id_ not in at_depot)
    places = (depot.place, *elsewhere, *(node.place for node in customers))
    distance = euclidean(places)
    robot = Robot(
        id="1",
        capacity=values["C"],
        start_s=depot.request.ready_s,
        end_s=depot.request.due_s,
        max_trips=1,
        battery=Battery(capacity_wh=values["Q"], wh_per_m=values["r"]),
    )
    charge = ChargeCurve.linear(values["Q"], values["g"])
    try:
        return Instance(
            name=Path(path).stem,
            places=places,
            requests=tuple(node.request for node in customers),
            robots=tuple(replace(robot, id=str(k + 1)) for k in range(len(customers))),
            travel_s=distance / values["v"],
            distance_m=distance,
            stations=tuple(
                Station(
                    id=id_,
                    place=depot.place.id if id_ in at_depot else id_,
                    num_slots=None,
                    charge=charge,
                )
                for id_ in stations
            ),
        )
    except ValueError as error:
        subject, _, problem = str(error).partition(": ")
        lines = {f"request {id_!r}": node.row.line for id_, node in nodes.items()}
        raise InputError(path, problem, line=lines.get(subject), field=subject) from error
