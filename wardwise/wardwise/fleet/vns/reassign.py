"""Trips to the fewest robots: the "AMR decrease" of plans with several trips.

Each trip is given the times at which it would be driven alone, and the fewest robots for
such times are a matching (`bounds.fewest_robots`). The chains of trips are then driven
through, with their batteries and promises, as delays pass from trip to trip.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.fleet.bounds import fewest_robots
from wardwise.fleet.vns.edits import is_kept
from wardwise.fleet.vns.labels import empty_routes, refresh

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.vns.labels import Routes
    from wardwise.fleet.vns.model import Model

# How late trips depart that are looked at, from as early as they can to as late as they can.
POSTPONED = (0.0, 0.5, 1.0)


def fewer_robots(model: Model, rows: Mapping[int, Sequence[int]]) -> dict[int, list[int]] | None:
    """Give the trips of a plan to fewer of its robots.

    Parameters
    ----------
    rows
        Of each robot that leaves home, the vertices of its feasible route.

    Returns
    -------
    New routes of some of the robots, the trips themselves unchanged; `None` where no fewer
    robots are found. With trips whose times leave no choice, and robots alike that need not
    charge between trips, no fewer would do.
    """
    trips = [trip for row in rows.values() for trip in trips_of(row)]
    for share in POSTPONED:
        times = [_alone(model, min(rows), trip, share) for trip in trips]
        starts, ends = zip(*times, strict=True)
        chains = fewest_robots(starts, ends, model.reload).trips
        if len(chains) < len(rows):
            found = _assign(model, list(rows), [[trips[t] for t in chain] for chain in chains])
            if found is not None:
                return found
    return None


def trips_of(row: Sequence[int]) -> list[list[int]]:
    """Vertices of each trip of a route, without the depot."""
    depots = [p for p, v in enumerate(row) if v == 0]
    return [list(row[p + 1 : q]) for p, q in pairwise(depots)]


def _alone(model: Model, robot: int, trip: Sequence[int], share: float) -> tuple[float, float]:
    """Departure and end of a trip of its own: no later than it can be, and without idle waits."""
    row = [0, *trip, 0]
    takes = [float(model.service[i] + model.travel[i, j]) for i, j in pairwise(row)]
    latest = float(model.end[robot])
    for i, leg_s in zip(reversed(row[:-1]), reversed(takes), strict=True):
        latest = min(latest - leg_s, float(model.latest[i]))
    early = max(float(model.start[robot]), *(float(model.available[v]) for v in trip))
    depart = early + share * max(latest - early, 0.0)
    end = depart
    for j, leg_s in zip(row[1:], takes, strict=True):
        end = max(end + leg_s, float(model.earliest[j]))
    start = end
    for i, leg_s in zip(reversed(row[:-1]), reversed(takes), strict=True):
        start = min(start - leg_s, float(model.latest[i]))
    return max(start, early), end


def _assign(
    model: Model, robots: Sequence[int], chains: Sequence[Sequence[Sequence[int]]]
) -> dict[int, list[int]] | None:
    """Each chain of trips to the first robot that can drive it."""
    routes, free = empty_routes(model), list(robots)
    found: dict[int, list[int]] = {}
    for chain in chains:
        row = [0, *(v for trip in chain for v in (*trip, 0))]
        robot = next((k for k in free if _is_feasible(model, routes, k, row)), None)
        if robot is None:
            return None
        free.remove(robot)
        found[robot] = row
    return found


def _is_feasible(model: Model, routes: Routes, robot: int, row: Sequence[int]) -> bool:
    if len(row) > routes.node.shape[1]:
        return False
    routes.node[robot, : len(row)] = row
    routes.length[robot] = len(row)
    return bool(refresh(model, routes, robot)) and bool(is_kept(model, routes, robot))
