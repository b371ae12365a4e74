"""What punctuality costs: robots and metres of a day that is late on few days in a hundred.

The requests that are known beforehand are planned for mean times, and once for each
promise by the chance-constrained search. The fleet may grow meanwhile: more robots like
those of the instance stand by, and the search takes as few as it can.

A search has luck, and a stricter one may find what a laxer one missed. So all plans
found are driven on the same random days, and each promise is given the best plan that
keeps it, whichever search it came from: fewest requests turned down, then fewest
robots, then fewest metres. The plans that keep a stricter promise are a part of those
that keep a laxer one, because bounds and days are the same; and the least of a part is
never below the least of the whole. So what a promise costs never falls as it gets
stricter, and nothing is cheaper than the plan for mean times, which is the best of all.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import count, islice
from typing import TYPE_CHECKING

from wardwise.fleet.chance import certify, service_levels
from wardwise.fleet.chance.certify import CONFIDENCE, least_scenarios
from wardwise.fleet.check import check
from wardwise.fleet.sizing.levels import Confidence, Level
from wardwise.fleet.solvers import solve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.randomness import Promise
    from wardwise.fleet.solvers import Progress

# Robots that may be taken, for each that the instance has.
GROWTH = 2


def size_for_promises(
    instance: Instance,
    promises: Sequence[Promise],
    *,
    max_robots: int | None = None,
    time_limit: float = 10.0,
    max_iterations: int | None = None,
    seed: int = 0,
    num_scenarios: int = 20_000,
    is_stopped: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, Promise | None, Progress | None], None] = lambda *_: None,
) -> Confidence:
    """Plan a day for mean times and for each promise, and compare the plans.

    Parameters
    ----------
    instance
        Its promise is left out of account, as are requests with ``release_s`` above 0.
        All its robots are alike.
    promises
        At least one; their order does not matter.
    max_robots
        Robots that a plan may take at most; `None`: twice as many as the instance has.
    time_limit, max_iterations
        Of each search; without an effective time limit the same seed gives the same
        result.
    seed
        Of the searches and of the random days, which are the same for all plans.
    num_scenarios
        Random days; more where the strictest promise takes more to be certified.
    is_stopped
        Asked after each search whether that was the last one.
    on_progress
        Called with the number of searches done, the promise that is planned for, and,
        whenever its search finds a better plan, with that.

    Returns
    -------
    Confidence
        Of all promises; after Ctrl-C of those that were planned for by then.

    Raises
    ------
    ValueError
        If robots differ, if nothing is known beforehand, or a parameter is out of range.
    KeyboardInterrupt
        On Ctrl-C before there is a plan.
    """
    day, num_left_out = _known_part(instance)
    day = with_robots(day, GROWTH * len(day.robots) if max_robots is None else max_robots)
    if not promises:
        raise ValueError("promises: expected at least one, got none")
    num_scenarios = max(num_scenarios, *(least_scenarios(p, CONFIDENCE) for p in promises))
    lax_first = sorted(dict.fromkeys(promises), key=_laxity, reverse=True)
    plans: dict[Promise | None, Plan] = {}
    try:
        for promise in (None, *lax_first):
            tell = partial(on_progress, len(plans), promise)
            tell(None)
            promised = replace(day, promise=promise)
            plans[promise] = solve(
                promised,
                method="vns",
                time_limit=time_limit,
                max_iterations=max_iterations,
                seed=seed,
                on_progress=tell,
            )
            if is_stopped():
                break
    except KeyboardInterrupt:
        if not plans:
            raise
    return Confidence(
        instance=day,
        seed=seed,
        num_scenarios=num_scenarios,
        bound_confidence=CONFIDENCE,
        num_left_out=num_left_out,
        is_complete=len(plans) == 1 + len(lax_first) and not is_stopped(),
        levels=_levels(day, plans, num_scenarios, seed),
    )


def _laxity(promise: Promise) -> tuple[float, float]:
    """Larger for a promise of which no share is smaller."""
    return min(promise.late_share), sum(promise.late_share)


def with_robots(instance: Instance, num_robots: int) -> Instance:
    """The instance with another number of robots, all alike.

    Raises
    ------
    ValueError
        If the robots of the instance are not alike, or none are wanted.
    """
    robots = instance.robots
    if num_robots < 1:
        raise ValueError(f"max_robots: expected at least 1, got {num_robots}")
    for robot in robots[1:]:
        if robot.kind != robots[0].kind:
            raise ValueError(
                f"robots: expected all alike, so that there can be more of them; {robot.id!r} "
                f"differs from {robots[0].id!r}"
            )
    names = (f"{robots[0].id}-{k}" for k in count(2))
    new = (name for name in names if name not in instance.robot_by_id)
    more = (replace(robots[0], id=name) for name in new)
    added = islice(more, max(0, num_robots - len(robots)))
    return replace(instance, robots=(*robots[:num_robots], *added))


def _known_part(instance: Instance) -> tuple[Instance, int]:
    """The requests that are known beforehand, and how many are not."""
    known = tuple(request for request in instance.requests if request.release_s == 0)
    if not known:
        raise ValueError("requests: expected some with release_s 0, known beforehand, got none")
    return replace(instance, requests=known), len(instance.requests) - len(known)


def _levels(
    day: Instance,
    plans: Mapping[Promise | None, Plan],
    num_scenarios: int,
    seed: int,
) -> tuple[Level, ...]:
    """Give every promise the best plan that keeps it; where none does, its own."""
    best_first = sorted(plans.values(), key=lambda plan: _price(day, plan))

    def drive(plan: Plan, promise: Promise | None) -> Level:
        promised = replace(day, promise=promise)
        driven = certify(promised, plan, num_scenarios=num_scenarios, seed=seed, jobs=None)
        return _level(promised, driven)

    levels = [drive(best_first[0], None)]
    for promise, own in plans.items():
        if promise is None:
            continue
        tried = (drive(plan, promise) for plan in best_first)
        kept = next((level for level in tried if level.certificate.holds), None)
        levels.append(kept or drive(own, promise))
    return tuple(levels)


def _price(day: Instance, plan: Plan) -> tuple[int, int, float]:
    cost = check(day, plan).cost
    # To the millimetre: among equals the first search has the plan, not the order of a sum.
    return cost.num_denied, cost.num_robots, round(cost.distance_m, 3)


def _level(promised: Instance, plan: Plan) -> Level:
    cost = check(promised, plan).cost
    assert plan.certificate is not None
    return Level(
        promise=promised.promise,
        num_robots=cost.num_robots,
        distance_m=cost.distance_m,
        classes=service_levels(promised, plan.certificate),
        plan=plan,
    )
