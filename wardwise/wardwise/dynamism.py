"""Requests that appear during the day: how to make them, and how to measure them.

`make_dynamic` turns an instance and a reference plan for it into a Lackner-style
dynamic one. A share of the requests, the degree of dynamism, is chosen at random;
each becomes known between 0 and the last moment at which the reference plan could
still be carried out without knowing it earlier. The rule is believed to be that of
Gendreau, Guertin, Potvin and Taillard (1999).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.check import check
from wardwise.fleet.problem import NUM_PRIORITIES, Kind

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.plan import Plan, Stop
    from wardwise.fleet.problem import Instance

DEPOT = 0


def make_dynamic(
    instance: Instance,
    reference_plan: Plan,
    *,
    degree: float,
    seed: int,
    priority_mix: Sequence[float] = (0.2, 0.3, 0.5),
    tolerance_s: Sequence[float] | None = None,
) -> Instance:
    """Make a share of the requests appear during the day, and give all of them priorities.

    The release of a chosen request is uniform between 0 and the earlier of its ready
    time and the latest departure towards it in the reference plan: from the stop
    before it, or from the depot for a first stop and for goods to deliver, which are
    loaded there. A request whose window opens at 0 therefore stays known beforehand
    even if it is chosen, as in the public dynamic files.

    With one seed, a higher degree adds dynamic requests and changes no other.

    Parameters
    ----------
    instance
        Its releases and priorities are replaced.
    reference_plan
        Feasible, and serving every request.
    degree
        Share of the requests that are chosen, 0 to 1.
    seed
        Of the choice, the releases and the priorities.
    priority_mix
        Chances of stat, urgent and routine, independent of all else; sum 1.
    tolerance_s
        Seconds by which each priority may start late; `None` keeps what each request
        has.

    Returns
    -------
    Instance
        Named after the base, the degree in percent and the seed. `depart_late` makes
        of the reference plan one that a dispatcher could have carried out.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    return draw_dynamic(
        instance,
        latest_releases(instance, reference_plan),
        degree=degree,
        seed=seed,
        priority_mix=priority_mix,
        tolerance_s=tolerance_s,
    )


def draw_dynamic(
    instance: Instance,
    latest_s: Mapping[str, float],
    *,
    degree: float,
    seed: int,
    priority_mix: Sequence[float] = (0.2, 0.3, 0.5),
    tolerance_s: Sequence[float] | None = None,
) -> Instance:
    """Do what `make_dynamic` does, for whoever draws many days from one reference plan.

    Parameters
    ----------
    latest_s
        What `latest_releases` found.

    Raises
    ------
    ValueError
        Naming the parameter and its range.
    """
    if not 0 <= degree <= 1:
        raise ValueError(f"degree: expected 0 to 1, got {degree}")
    if len(priority_mix) != NUM_PRIORITIES or not (
        min(priority_mix) >= 0 and math.isclose(math.fsum(priority_mix), 1.0)
    ):
        raise ValueError(
            f"priority_mix: expected {NUM_PRIORITIES} shares of at least 0 and sum 1, "
            f"got {tuple(priority_mix)}"
        )
    if tolerance_s is not None and len(tolerance_s) != NUM_PRIORITIES:
        raise ValueError(f"tolerance_s: expected {NUM_PRIORITIES} values, got {len(tolerance_s)}")
    # All draws are made for all requests: what one request gets depends on no other's fate.
    rng = np.random.default_rng(seed)
    count = len(instance.requests)
    rank = rng.permutation(count)
    shares = rng.random(count)
    priorities = 1 + rng.choice(NUM_PRIORITIES, size=count, p=priority_mix)
    requests = tuple(
        replace(
            request,
            release_s=float(share) * latest_s[request.id] if is_chosen else 0.0,
            priority=int(priority),
            tolerance_s=(
                request.tolerance_s if tolerance_s is None else float(tolerance_s[priority - 1])
            ),
        )
        for request, is_chosen, share, priority in zip(
            instance.requests, rank < round(degree * count), shares, priorities, strict=True
        )
    )
    name = f"{instance.name}-dod{100 * degree:g}-seed{seed}"
    return replace(instance, name=name, requests=requests)


def depart_late(instance: Instance, plan: Plan) -> Plan:
    """Let robots wait where they are, and leave as late as the next start allows.

    Parameters
    ----------
    instance
        The plan's own, or one made from it, whose name the plan then takes.
    plan
        Feasible; keeps its starts of service and returns.
    """
    trips = []
    for trip in plan.trips:
        first = trip.stops[0]
        stops = tuple(replace(stop, arrive_s=stop.start_s) for stop in trip.stops)
        depart_s = first.start_s - _travel_s(instance, DEPOT, first)
        trips.append(replace(trip, depart_s=depart_s, stops=stops))
    return replace(plan, instance=instance.name, trips=tuple(trips))


def degree_of_dynamism(instance: Instance) -> float:
    """Share of the requests that become known after the start of the day."""
    dynamic = sum(request.release_s > 0 for request in instance.requests)
    return dynamic / max(len(instance.requests), 1)


def edod_tw(instance: Instance) -> float:
    """Effective degree of dynamism with time windows: how short the notice is.

    The mean over all requests of 1 - (due - release) / horizon, where the horizon is
    the last end of a shift: 0 if all are due at its end and known from the start.

    References
    ----------
    A. Larsen, "The dynamic vehicle routing problem", Technical University of Denmark,
    2000.
    """
    horizon_s = max(robot.end_s for robot in instance.robots)
    urgency = (1 - (r.due_s - r.release_s) / horizon_s for r in instance.requests)
    return math.fsum(urgency) / max(len(instance.requests), 1)


def latest_releases(instance: Instance, plan: Plan) -> dict[str, float]:
    """Last moment at which each request may become known, for `plan` to stay possible.

    Raises
    ------
    ValueError
        If the plan is infeasible or denies a request.
    """
    report = check(instance, plan)
    faults = [violation.message for violation in report.violations]
    faults += [f"request {request!r} is denied" for request in plan.denied]
    if faults:
        raise ValueError(
            f"reference_plan: expected it to be feasible and to deny nothing, but {faults[0]}"
        )
    latest_s: dict[str, float] = {}
    for trip in depart_late(instance, plan).trips:
        here = DEPOT
        for stop in trip.stops:
            request = instance.request_by_id[stop.request]
            left_s = stop.start_s - _travel_s(instance, here, stop)
            if request.kind is Kind.DELIVER:
                left_s = trip.depart_s
            # A transfer's pickup comes first and settles it.
            latest_s.setdefault(request.id, max(0.0, min(request.ready_s, left_s)))
            here = _place(instance, stop)
    return latest_s


def _place(instance: Instance, stop: Stop) -> int:
    request = instance.request_by_id[stop.request]
    return instance.place_index[request.stop_place(is_pickup=stop.is_pickup)]


def _travel_s(instance: Instance, origin: int, stop: Stop) -> float:
    return float(instance.travel_s[origin, _place(instance, stop)])
