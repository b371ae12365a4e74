"""From the routes of a search to a timed plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.fleet.check import check
from wardwise.fleet.plan import Plan
from wardwise.fleet.vns.charges import drive
from wardwise.fleet.vns.timing import Timer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wardwise.fleet.problem import Instance
    from wardwise.fleet.vns.model import Model


def to_plan(
    instance: Instance, model: Model, rows: Mapping[int, Sequence[int]], denied: Iterable[int]
) -> Plan:
    """Time the routes of a search.

    Parameters
    ----------
    rows
        Of each robot that leaves home, the vertices of its route.
    denied
        Vertices of requests that are turned down.

    Raises
    ------
    ValueError
        Naming what the referee finds, where the routes cannot be driven for want of a
        free slot at a station.
    """
    timer = Timer(instance=instance, model=model)
    trips = [
        trip
        for robot, row in rows.items()
        for trip in timer.trips(robot, row, drive(model, robot, row).charged_wh)
    ]
    refused = tuple(instance.requests[v - 1].id for v in denied)
    plan = Plan(instance=instance.name, trips=tuple(trips), denied=refused)
    violations = check(instance, plan).violations
    if violations:
        raise ValueError(f"{instance.name}: {violations[0].message}")
    return plan
