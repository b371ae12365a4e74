"""JSON files of instances and plans, versioned, and exact on the way out and back.

Writers choose the shortest way to state the travel times from which the reader
gets the same bits: the building, straight lines at one speed, or tables. Each
writer reads its own text back before it touches the disk.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.errors import InputError
from wardwise.fleet.energy import Recharge
from wardwise.fleet.plan import Plan
from wardwise.fleet.problem import Instance
from wardwise.io.documents import layout, validated
from wardwise.io.files import read_text, write_text
from wardwise.io.geometry import euclidean
from wardwise.io.schemas import (
    INSTANCE_SCHEMA,
    PLAN_SCHEMA,
    EuclideanTravel,
    InstanceModel,
    MatrixTravel,
    PlanModel,
    Rows,
)

if TYPE_CHECKING:
    import os

    from wardwise.fleet.problem import Matrix, Place, Request, Robot, Station

# Younger than the first files of these schemas: written only where they say something, so that
# whoever knows only the older fields can read all that needs no others.
_YOUNGER_FIELDS = {
    "origin": None,
    "is_pickup": False,
    "is_broken_off": False,
    "available_s": 0.0,
    "battery": None,
    "charge": None,
    "charges": (),
    "certificate": None,
}


def read_json(path: str | os.PathLike[str]) -> Instance:
    """Read an instance.

    Raises
    ------
    InputError
        Naming the JSON field, or line and column where it is no JSON.
    """
    return parse_json(read_text(path), path)


# Numbers at both ends of the range may overflow when combined: the way becomes
# infinite, and the request unreachable.
@np.errstate(over="ignore", invalid="ignore")
def parse_json(text: str, path: str | os.PathLike[str]) -> Instance:
    """Read the JSON text of an instance; `path` is for messages only.

    Raises
    ------
    InputError
        Naming the JSON field, or line and column where it is no JSON.
    """
    model = validated(InstanceModel, text, path)
    travel_s, distance_m, travel_var_s2 = _read_travel(model, path)
    try:
        return Instance(
            name=model.name,
            places=model.places,
            requests=model.requests,
            robots=model.robots,
            travel_s=travel_s,
            distance_m=distance_m,
            travel_var_s2=travel_var_s2,
            stations=model.stations,
            reload_s=model.reload_s,
            costs=model.costs,
            site=model.site,
            recharge=model.recharge,
            randomness=model.randomness,
            promise=model.promise,
        )
    except ValueError as error:
        subject, _, problem = str(error).partition(": ")
        field = _fields_by_subject(model).get(subject)
        text = problem if field else str(error)
        raise InputError(path, text, field=field) from error


def write_json(instance: Instance, path: str | os.PathLike[str]) -> None:
    """Write an instance that reads back equal.

    Raises
    ------
    ValueError
        If a number or a name is outside what the reader accepts.
    OSError
        If the file cannot be written.
    """
    text = format_json(instance)
    if parse_json(text, path) != instance:
        raise ValueError("instance: expected tuples, text and plain numbers, got other types")
    write_text(path, text)


@np.errstate(over="ignore", invalid="ignore")
def format_json(instance: Instance) -> str:
    """JSON text of an instance."""
    document: dict[str, Any] = {"schema": INSTANCE_SCHEMA, "name": instance.name}
    for name in ("places", "requests", "robots", "stations"):
        document[name] = [_fields(item) for item in getattr(instance, name)]
    document["reload_s"] = instance.reload_s
    document["costs"] = dataclasses.asdict(instance.costs)
    document["travel"] = _travel_document(instance)
    if instance.recharge is not Recharge.PARTIAL:
        document["recharge"] = instance.recharge
    for name in ("randomness", "promise"):
        if getattr(instance, name) is not None:
            document[name] = dataclasses.asdict(getattr(instance, name))
    if instance.site is not None:
        document["site"] = dataclasses.asdict(instance.site)
    return layout(document) + "\n"


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan; whether it is feasible is for the checker to say.

    Raises
    ------
    InputError
        Naming the JSON field, or line and column where it is no JSON.
    """
    model = validated(PlanModel, read_text(path), path)
    return Plan(
        instance=model.instance,
        trips=model.trips,
        denied=model.denied,
        certificate=model.certificate,
    )


def write_plan(plan: Plan, path: str | os.PathLike[str]) -> None:
    """Write a plan that reads back equal.

    Raises
    ------
    ValueError
        If a time is not finite or a name is outside what the reader accepts.
    OSError
        If the file cannot be written.
    """
    text = layout({"schema": PLAN_SCHEMA, **_fields(plan)}) + "\n"
    validated(PlanModel, text, path)
    write_text(path, text)


def _fields(item: Place | Request | Robot | Station | Plan) -> dict[str, Any]:
    """Fields of an object and of all inside it, without the younger ones at rest."""

    def chosen(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if _YOUNGER_FIELDS.get(name, ...) != value}

    return dataclasses.asdict(item, dict_factory=chosen)


def _fields_by_subject(model: InstanceModel) -> dict[str, str]:
    """Places in the document of what the problem's own messages start with."""
    subjects = {
        f"{what} {item.id!r}": f"{name}[{row}]"
        for what, name in (("request", "requests"), ("station", "stations"), ("robot", "robots"))
        for row, item in enumerate(getattr(model, name))
    }
    plural = {what: f"{what}s" for what in ("place", "request", "robot", "station")}
    tables = {name: f"travel.{name}" for name in ("travel_s", "distance_m", "travel_var_s2")}
    return {**subjects, **plural, **tables, "places": "places", "robots": "robots"}


def _read_travel(
    model: InstanceModel, path: str | os.PathLike[str]
) -> tuple[Matrix, Matrix, Matrix | None]:
    """Times, metres and, if known, variances between all places."""
    travel = model.travel
    if isinstance(travel, MatrixTravel):
        size = len(model.places)
        variance = travel.travel_var_s2
        return (
            _matrix(path, "travel_s", travel.travel_s, size),
            _matrix(path, "distance_m", travel.distance_m, size),
            None if variance is None else _matrix(path, "travel_var_s2", variance, size),
        )
    if isinstance(travel, EuclideanTravel):
        if len({place.floor for place in model.places}) > 1:
            problem = "expected all on one floor, as travel.kind is 'euclidean'"
            raise InputError(path, problem, field="places")
        distance_m = euclidean(model.places)
        return distance_m / travel.speed_m_per_s, distance_m, None
    if model.site is None:
        raise InputError(path, "expected a site, as travel.kind is 'site'", field="site")
    try:
        found = model.site.travel([place.id for place in model.places])
    except ValueError as error:
        raise InputError(path, str(error), field="travel") from error
    except ArithmeticError as error:
        problem = f"expected lengths and speeds of usual size, got: {error}"
        raise InputError(path, problem, field="site") from error
    return found.travel_s, found.distance_m, found.travel_var_s2


def _matrix(path: str | os.PathLike[str], name: str, table: Rows, size: int) -> Matrix:
    """Shape (size, size), with infinity for null."""
    if len(table) != size:
        problem = f"expected {size} rows, one a place, got {len(table)}"
        raise InputError(path, problem, field=f"travel.{name}")
    for row, values in enumerate(table):
        if len(values) != size:
            problem = f"expected {size} numbers, one a place, got {len(values)}"
            raise InputError(path, problem, field=f"travel.{name}[{row}]")
    return np.array([[math.inf if v is None else v for v in row] for row in table], dtype=float)


def _travel_document(instance: Instance) -> dict[str, Any]:
    """The shortest statement that gives the same matrices."""
    if instance.site is not None and instance.travel_var_s2 is not None:
        known = instance.site.points
        if all(place.id in known for place in instance.places):
            found = instance.site.travel([place.id for place in instance.places])
            if (
                np.array_equal(found.travel_s, instance.travel_s)
                and np.array_equal(found.distance_m, instance.distance_m)
                and np.array_equal(found.travel_var_s2, instance.travel_var_s2)
            ):
                return {"kind": "site"}
    speed_m_per_s = _speed(instance)
    if speed_m_per_s is not None:
        return {"kind": "euclidean", "speed_m_per_s": speed_m_per_s}
    document: dict[str, Any] = {"kind": "matrix"}
    for name in ("travel_s", "distance_m", "travel_var_s2"):
        matrix = getattr(instance, name)
        if matrix is not None:
            document[name] = [
                [value if math.isfinite(value) else None for value in row]
                for row in matrix.tolist()
            ]
    return document


def _speed(instance: Instance) -> float | None:
    """Speed at which straight lines give exactly the instance's matrices, if there is one."""
    on_one_floor = len({place.floor for place in instance.places}) == 1
    if not on_one_floor or instance.travel_var_s2 is not None:
        return None
    distance_m = euclidean(instance.places)
    longest = np.unravel_index(np.argmax(distance_m), distance_m.shape)
    if not np.array_equal(distance_m, instance.distance_m) or instance.travel_s[longest] <= 0:
        return None
    # A speed that somebody chose has few digits; the quotient may be off in the last.
    speed_m_per_s = float(f"{distance_m[longest] / instance.travel_s[longest]:.12g}")
    is_exact = speed_m_per_s > 0 and np.array_equal(distance_m / speed_m_per_s, instance.travel_s)
    return speed_m_per_s if is_exact else None
