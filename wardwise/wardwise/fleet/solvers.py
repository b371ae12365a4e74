"""One function for all ways to solve a fleet problem.

A method is a function that improves plans until its `Watch` says stop. Time
limit, iteration limit, progress and Ctrl-C are handled here, once for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from wardwise.fleet.check import check
from wardwise.fleet.peer_pyvrp import run_pyvrp
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.schedule import schedule
from wardwise.fleet.search.construct import insertion
from wardwise.fleet.search.packed import Objective, Packed, pack
from wardwise.fleet.search.ruin import ruin
from wardwise.fleet.search.tabu import rehearse, tabu
from wardwise.fleet.search.watch import Progress, Watch

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.search.fleet import Fleet

__all__ = ["METHODS", "Objective", "Progress", "solve", "warm_up"]

Method = Callable[[Packed, Generator, Watch], None]

METHODS: dict[str, Method] = {
    "ruin": ruin,
    "tabu": tabu,
    "insertion": insertion,
    "pyvrp": run_pyvrp,
}


def solve(
    instance: Instance,
    *,
    method: str = "ruin",
    objective: str = "hierarchical",
    time_limit: float = 10.0,
    max_iterations: int | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Plan:
    """Plan the day of a fleet.

    Parameters
    ----------
    instance
        What has to be carried, and by whom.
    method
        ``ruin``: ruin and recreate; ``tabu``: tabu search, without transfers;
        ``insertion``: constructions only, milliseconds; ``pyvrp``: the PyVRP solver
        (extra ``pyvrp``).
    objective
        ``hierarchical``: fewest robots, then distance; ``distance``; ``cost``: money
        of `Costs`. The first two deny a request only if no insertion is feasible.
    time_limit
        Seconds, checked once there is a plan; compilation does not count.
    max_iterations
        Limit on iterations of the method; without an effective time limit the
        same seed then gives the same plan, bit for bit.
    seed
        Seed of all randomness.
    on_progress
        Called with every improvement.

    Returns
    -------
    Plan
        The best plan found; also after Ctrl-C, once there is one.

    Raises
    ------
    ValueError
        On an unknown method or objective, a limit out of range, or a missing extra.
    KeyboardInterrupt
        On Ctrl-C before there is a plan.
    """
    _require_arguments(method, objective, time_limit, max_iterations, seed)
    warm_up(method)
    packed = pack(instance, Objective(objective))

    def report(fleet: Fleet, elapsed_s: float, iteration: int) -> None:
        if on_progress is not None:
            on_progress(_progress(instance, fleet, elapsed_s, iteration))

    watch = Watch(time_limit=time_limit, max_iterations=max_iterations, on_improvement=report)
    try:
        METHODS[method](packed, np.random.default_rng(seed), watch)
    except KeyboardInterrupt:
        if watch.best is None:
            raise
    assert watch.best is not None
    return _to_plan(instance, watch.best)


@cache
def warm_up(method: str = "ruin") -> None:
    """Compile the kernels of a method, or load them from disk; seconds the first time, then none.

    `solve` calls this before its clock starts. Programs call it first to tell
    their user what the wait is for.
    """
    tiny = Instance(
        name="tiny",
        places=(Place(id="depot"), Place(id="ward")),
        requests=tuple(
            Request(id=str(k), place="ward", kind=kind, due_s=9.0, load=1.0, tolerance_s=1.0)
            for k, kind in enumerate((Kind.COLLECT, Kind.COLLECT, Kind.DELIVER))
        ),
        robots=tuple(Robot(id=str(k), capacity=1.0, end_s=9.0, max_trips=1) for k in range(2)),
        travel_s=np.ones((2, 2)) - np.eye(2),
        distance_m=np.ones((2, 2)) - np.eye(2),
    )
    for objective in (Objective.HIERARCHICAL, Objective.COST):
        watch = Watch(time_limit=60.0, max_iterations=12, on_improvement=lambda *_: None)
        search = rehearse if method == "tabu" else ruin
        search(pack(tiny, objective), np.random.default_rng(0), watch)


def _require_arguments(
    method: str, objective: str, time_limit: float, max_iterations: int | None, seed: int
) -> None:
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if objective not in list(Objective):
        raise ValueError(f"objective: expected one of {', '.join(Objective)}, got {objective!r}")
    if not (math.isfinite(time_limit) and time_limit >= 0):
        raise ValueError(f"time_limit: expected seconds of at least 0, got {time_limit}")
    if max_iterations is not None and max_iterations < 1:
        raise ValueError(f"max_iterations: expected at least 1, got {max_iterations}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")


def _to_plan(instance: Instance, fleet: Fleet) -> Plan:
    partner, is_pickup = fleet.packed.partner, fleet.packed.is_pickup

    def names(nodes: list[int]) -> list[str]:
        requests = (int(partner[node]) if is_pickup[node] else node for node in nodes)
        return [instance.requests[node - 1].id for node in requests]

    routes = {
        instance.robots[robot].id: [names(trip) for trip in trips]
        for robot, trips in fleet.trips().items()
    }
    return schedule(instance, routes, names(fleet.unserved()))


def _progress(instance: Instance, fleet: Fleet, elapsed_s: float, iteration: int) -> Progress:
    # The checker recomputes the cost: a search's own figure is never shown.
    cost = check(instance, _to_plan(instance, fleet)).cost
    return Progress(
        elapsed_s=elapsed_s,
        num_robots=cost.num_robots,
        distance_m=cost.distance_m,
        cost=cost.total,
        iteration=iteration,
    )
