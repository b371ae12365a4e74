"""What no plan can do better, and what no good plan contains.

Bounds on robots and trips, the fewest robots for trips that are settled, and legs that no
feasible plan drives. All hold for plans on mean times; with a `Deviation` also for plans that
keep promises under random times.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wardwise.fleet.energy import HOUR_S, Range
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.plan import Trip
    from wardwise.fleet.problem import Instance, Request

Floats = NDArray[np.float64]
TOLERANCE = 1e-9
TOLERANCE_S = 1e-6


class Deviation(NamedTuple):
    """How far a promise makes times exceed their means: `z` standard deviations.

    Parameters
    ----------
    z
        Shape (requests,) or one number: standard normal quantile of the promise, at least 0.
    leg_var_s2
        Shape (places, places): variance of each leg.
    service_var_s2
        Shape (requests,): variance of each service time.
    """

    z: Floats | float
    leg_var_s2: Floats
    service_var_s2: Floats


def direct_legs(instance: Instance, deviation: Deviation | None = None) -> NDArray[np.bool_]:
    """Legs from request to request that a feasible plan may contain.

    Returns
    -------
    Shape (requests, requests): whether a robot may drive from the first straight to the
    second. The diagonal is False.

    Notes
    -----
    A leg i-j is impossible if one of three things holds.

    *Time.* Service of i starts at `earliest_s` of i or later, so j is reached no earlier than
    that plus the service at i and the leg; if the mean of these and z standard deviations
    exceed `latest_s` of j, the promise is broken whatever came before: a later or a random
    start only makes j later.

    *Load.* Two collected loads are aboard together at the end of a trip that serves both, two
    delivered ones at its start; their sum must fit the largest robot. (A delivery and a
    collection need not meet.)

    *Energy.* The robot comes to i from a charge and to another one, or to the depot, after
    j. Where no detour takes less energy than the leg, it takes at least the least leg from
    any of them to i (`Range`), the leg, and the least leg from j to any of them, on one
    battery.
    """
    requests = instance.requests
    here, there = _ends(instance)
    legs = np.ix_(here, there)
    legs_s = instance.travel_s[legs]
    if deviation is not None:
        variance_s2 = deviation.service_var_s2[:, None] + deviation.leg_var_s2[legs]
        legs_s = legs_s + deviation.z * np.sqrt(variance_s2)
    return (
        _in_time(requests, legs_s)
        & _fit_together(instance)
        & _on_one_charge(instance, here, there)
        & ~np.eye(len(requests), dtype=np.bool_)
    )


def possible_legs(instance: Instance, deviation: Deviation | None = None) -> NDArray[np.bool_]:
    """Pairs of requests that a feasible plan may serve one after the other, charges between.

    Returns
    -------
    Shape (requests, requests): `direct_legs`, and those over stations that are in time with
    mean times, without the time to charge. (Standard deviations of two legs together can be
    less than that of one, so none is counted.)
    """
    here, there = _ends(instance)
    stations = _chargers(instance)
    found = direct_legs(instance, deviation)
    if not len(stations) or not instance.batteries:
        return found
    between = instance.travel_s[np.ix_(stations, stations)].copy()
    for k in range(len(stations)):
        np.minimum(between, between[:, k, None] + between[None, k, :], out=between)
    onward = (between[:, :, None] + instance.travel_s[np.ix_(stations, there)][None]).min(axis=1)
    onward = np.minimum(onward, instance.travel_s[np.ix_(stations, there)])
    detour = (instance.travel_s[np.ix_(here, stations)][:, :, None] + onward[None]).min(axis=1)
    over = _in_time(instance.requests, detour) & _fit_together(instance)
    return np.asarray(found | (over & ~np.eye(len(here), dtype=np.bool_)))


def _ends(instance: Instance) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places at which each request is left, and at which it is entered."""
    places = instance.place_index
    return (
        np.array([places[r.place] for r in instance.requests], dtype=np.int64),
        np.array([places[r.stop_place(is_pickup=True)] for r in instance.requests], dtype=np.int64),
    )


def _chargers(instance: Instance) -> NDArray[np.int64]:
    places = instance.place_index
    return np.array([places[s.place] for s in instance.stations if s.charge], dtype=np.int64)


def _in_time(requests: Sequence[Request], legs_s: Floats) -> NDArray[np.bool_]:
    """Whether service of the second can start in time after that of the first."""
    # The window of a transfer opens for its pickup and closes for its drop.
    ready_s = np.array([r.earliest_s for r in requests])
    latest_s = np.array([r.latest_s if r.origin is None else np.inf for r in requests])
    service_s = np.array([r.service_s for r in requests])
    return np.asarray((ready_s + service_s)[:, None] + legs_s <= latest_s + TOLERANCE_S)


def _fit_together(instance: Instance) -> NDArray[np.bool_]:
    most = max(robot.capacity for robot in instance.robots) * (1 + TOLERANCE)
    load = np.array([request.load for request in instance.requests])
    kind = np.array([request.kind for request in instance.requests])
    meet = (kind[:, None] == kind[None, :]) & (kind != Kind.TRANSFER)[:, None]
    return np.asarray(~meet | (load[:, None] + load[None, :] <= most))


def _on_one_charge(
    instance: Instance, here: NDArray[np.int64], there: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether some full battery lasts from a charger over both requests to another."""
    found = np.zeros((len(here), len(here)), dtype=np.bool_)
    if any(robot.battery is None for robot in instance.robots):
        return ~found
    chargers = _chargers(instance).tolist()
    service_s = np.array([request.service_s for request in instance.requests])
    for battery in instance.batteries:
        reach = Range.of(battery, chargers, instance.distance_m, instance.travel_s)
        if not _obeys_triangles(reach.leg_wh):
            return np.ones_like(found)
        base_wh = battery.base_w * service_s / HOUR_S
        taken_wh = (reach.out_wh[here] + base_wh)[:, None] + reach.leg_wh[np.ix_(here, there)]
        taken_wh = taken_wh + (base_wh + reach.home_wh[there])[None, :]
        usable_wh = battery.capacity_wh - battery.reserve_wh
        found |= taken_wh <= usable_wh * (1 + TOLERANCE)
    return found


def _obeys_triangles(matrix: Floats) -> bool:
    slack = TOLERANCE * max(1.0, float(matrix[np.isfinite(matrix)].max(initial=0.0)))
    return all(
        bool((matrix <= matrix[:, k, None] + matrix[None, k, :] + slack).all())
        for k in range(len(matrix))
    )


class Chains(NamedTuple):
    """Fewest robots for settled trips: of each robot the numbers of its trips in order."""

    trips: tuple[tuple[int, ...], ...]

    @property
    def num_robots(self) -> int:
        """How many robots are needed."""
        return len(self.trips)


def fewest_robots(
    start_s: Sequence[float], end_s: Sequence[float], turn_s: float | Floats = 0.0
) -> Chains:
    """Drive settled trips with the fewest robots.

    Parameters
    ----------
    start_s
        Shape (trips,): latest start of each trip.
    end_s
        Shape (trips,): end of each trip, or the quantile of its end that a promise asks for.
    turn_s
        Time between the end of a trip and the start of the next: reload and charge; one
        number or shape (trips, trips).

    Raises
    ------
    ValueError
        When a trip ends before it starts, or times of the turn are negative.

    Notes
    -----
    A trip can follow another iff the other's end and the turn are no later than its start.
    Trips take time, so that following is a partial order when turns are equal, and in any
    case has no cycles. Robots are chains that cover it, and every chain has one trip more
    than it has links; a set of links in which each trip has at most one predecessor and one
    successor is a matching between trips as predecessors and trips as successors. So the
    fewest chains are trips less the largest matching (Fulkerson 1956; Dilworth 1950). For
    fixed times and no turns that is the largest number of trips that overlap.

    Where the order is not transitive (turns that depend on the pair), the chains found still
    need only their own links to hold.
    """
    from scipy.sparse import csr_array  # slow to import
    from scipy.sparse.csgraph import maximum_bipartite_matching

    starts, ends = np.asarray(start_s, dtype=np.float64), np.asarray(end_s, dtype=np.float64)
    turns = np.asarray(turn_s, dtype=np.float64)
    if (ends < starts).any():
        trip = int(np.flatnonzero(ends < starts)[0])
        raise ValueError(
            f"trip {trip}: end_s: expected at least start_s = {starts[trip]:g}, got {ends[trip]:g}"
        )
    if not (turns >= 0).all():
        raise ValueError(f"turn_s: expected at least 0, got {turns.min():g}")
    num = len(starts)
    if num == 0:
        return Chains(trips=())
    follows = ends[:, None] + turns <= starts[None, :] + TOLERANCE_S
    # Trips without length must not follow each other in a circle.
    order = np.lexsort((np.arange(num), ends, starts))
    rank = np.empty(num, dtype=np.int64)
    rank[order] = np.arange(num)
    follows &= rank[:, None] < rank[None, :]
    after = maximum_bipartite_matching(csr_array(follows), perm_type="column")
    heads = sorted(set(range(num)) - set(after[after >= 0].tolist()), key=lambda k: starts[k])
    return Chains(trips=tuple(tuple(_chain(after, head)) for head in heads))


def _chain(after: NDArray[np.int32], head: int) -> list[int]:
    chain = [head]
    while after[chain[-1]] >= 0:
        chain.append(int(after[chain[-1]]))
    return chain


def largest_overlap(start_s: Sequence[float], end_s: Sequence[float]) -> int:
    """How many intervals share a moment at most; an end and a start at once do not overlap."""
    events = [(float(end), -1) for end in end_s] + [(float(start), 1) for start in start_s]
    running, most = 0, 0
    for _, change in sorted(events):
        running += change
        most = max(most, running)
    return most


def chains_of(trips: Sequence[Trip], reload_s: float) -> Chains:
    """Fewest robots for planned trips, their times left as they are."""
    return fewest_robots(
        [trip.depart_s for trip in trips], [trip.return_s for trip in trips], reload_s
    )


class Least(NamedTuple):
    """Lower bounds: trips by load; robots by overlap, by busy time, and altogether."""

    trips: int
    robots_by_overlap: int
    robots_by_time: int
    robots: int


def least_fleet(instance: Instance) -> Least:
    """Bound the trips and robots of every plan that serves all requests.

    Notes
    -----
    *Trips.* What is collected in a trip is aboard at its end, what is delivered at its
    start: neither sum exceeds the largest capacity Q, so there are at least the larger sum
    over Q trips. Loads above Q / 2 need a trip each. If robots make at most R trips, that
    asks for as many robots as trips over R.

    *Overlap.* Service of a request starts in its window, so it runs at every moment between
    `latest_s` and `earliest_s + service_s` where the second is later. Requests whose such
    intervals share a moment need a robot each. A transfer is left out.

    *Time.* Every request takes its service and the least leg by which it can be reached; of
    all legs back to the depot at least one a robot is driven. Robots are busy within their
    shifts, so their number is at least the sum over the longest shift.
    """
    requests = instance.requests
    if not requests:
        return Least(0, 0, 0, 0)
    trips = _least_trips(instance)
    single = [r for r in requests if r.origin is None and r.latest_s < r.earliest_s + r.service_s]
    overlap = largest_overlap(
        [r.latest_s for r in single], [r.earliest_s + r.service_s for r in single]
    )
    shift_s = max(robot.end_s - robot.start_s for robot in instance.robots)
    by_time = math.ceil(_busy_s(instance) / shift_s * (1 - TOLERANCE)) if shift_s > 0 else 1
    limits = [robot.max_trips for robot in instance.robots]
    by_trips = 1
    if None not in limits:
        by_trips = math.ceil(trips / max(limit for limit in limits if limit is not None))
    return Least(trips, overlap, by_time, max(1, overlap, by_time, by_trips))


def _least_trips(instance: Instance) -> int:
    most = max(robot.capacity for robot in instance.robots)
    counts = [1]
    for kind in (Kind.COLLECT, Kind.DELIVER):
        loads = [request.load for request in instance.requests if request.kind is kind]
        if most > 0:
            counts.append(math.ceil(math.fsum(loads) / most * (1 - TOLERANCE)))
        counts.append(sum(load > most / 2 * (1 + TOLERANCE) for load in loads))
    return max(counts)


def _busy_s(instance: Instance) -> float:
    """Service of all requests and the least leg to each."""
    travel_s = instance.travel_s
    stops = [
        (request, instance.place_index[place])
        for request in instance.requests
        for place in dict.fromkeys((request.stop_place(is_pickup=True), request.place))
    ]
    counts = np.bincount([place for _, place in stops], minlength=len(travel_s))
    busy_s = 0.0
    others = travel_s + np.where(np.eye(len(travel_s), dtype=np.bool_), np.inf, 0.0)
    for request, place in stops:
        # Two requests at one place are served in one visit; the leg between them is 0 or more.
        least_s = float(travel_s[place, place]) if counts[place] > 1 else np.inf
        busy_s += request.service_s + min(least_s, float(others[:, place].min()))
    return busy_s
