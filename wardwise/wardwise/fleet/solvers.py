"""One function for all ways to solve a fleet problem.

A method is a function that improves plans of a `Job` until its limits say stop.
Refusals, progress and Ctrl-C are handled here, once for all.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.check import check
from wardwise.fleet.energy import Battery, ChargeCurve
from wardwise.fleet.peer_pyvrp import run_pyvrp
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.schedule import schedule
from wardwise.fleet.search.construct import insertion
from wardwise.fleet.search.packed import Objective, Packed, pack
from wardwise.fleet.search.ruin import ruin
from wardwise.fleet.search.tabu import rehearse, tabu
from wardwise.fleet.search.watch import Progress, Watch
from wardwise.fleet.vns.moves import ALL, NONE
from wardwise.fleet.vns.solve import SHAKES, vns

if TYPE_CHECKING:
    from numpy.random import Generator

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.search.fleet import Fleet

__all__ = ["METHODS", "SHAKES", "Objective", "Progress", "default_method", "solve", "warm_up"]


@dataclass(kw_only=True)
class Job:
    """What a method is asked to do, and the best that it has found."""

    instance: Instance
    objective: Objective
    time_limit: float
    max_iterations: int | None
    seed: int
    on_progress: Callable[[Progress], None] | None
    local_search: bool = False
    shake: str = "strings"
    best: Callable[[], Plan] | None = None

    def improve(self, best: Callable[[], Plan], elapsed_s: float, iteration: int) -> None:
        """Take a plan that beats all before, and tell the caller of it."""
        self.best = best
        if self.on_progress is None:
            return
        # The checker recomputes the cost: a search's own figure is never shown.
        cost = check(self.instance, best()).cost
        self.on_progress(
            Progress(
                elapsed_s=elapsed_s,
                num_robots=cost.num_robots,
                distance_m=cost.distance_m,
                cost=cost.total,
                iteration=iteration,
            )
        )


Method = Callable[[Job], None]
Search = Callable[[Packed, "Generator", Watch], None]


def _over_chains(search: Search) -> Method:
    """A search over chains of trips as a method."""

    def run(job: Job) -> None:
        def improve(fleet: Fleet, elapsed_s: float, iteration: int) -> None:
            job.improve(lambda: _to_plan(job.instance, fleet), elapsed_s, iteration)

        watch = Watch(
            time_limit=job.time_limit, max_iterations=job.max_iterations, on_improvement=improve
        )
        search(pack(job.instance, job.objective), np.random.default_rng(job.seed), watch)

    return run


def _vns(job: Job) -> None:
    vns(
        job.instance,
        objective=job.objective,
        time_limit=job.time_limit,
        max_iterations=job.max_iterations,
        seed=job.seed,
        local_search=ALL if job.local_search else NONE,
        shake=job.shake,
        on_plan=job.improve,
    )


METHODS: dict[str, Method] = {
    "ruin": _over_chains(ruin),
    "tabu": _over_chains(tabu),
    "insertion": _over_chains(insertion),
    "pyvrp": _over_chains(run_pyvrp),
    "vns": _vns,
}


def solve(
    instance: Instance,
    *,
    method: str | None = None,
    objective: str = "hierarchical",
    time_limit: float = 10.0,
    max_iterations: int | None = None,
    seed: int = 0,
    local_search: bool = False,
    shake: str = "strings",
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
        (extra ``pyvrp``); ``vns``: variable neighbourhood search, without transfers, the
        only one for batteries, goods that come later, and promises. `None`: ``vns`` where
        nothing else serves, else ``ruin``.
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
    local_search, shake
        Of ``vns`` alone: whether a descent over all neighbourhoods follows shakes that come
        near to the best plan (without, the search is reduced to shakes and better in equal
        time), and what shakes do: ``strings`` takes strings of stops out and puts them
        back, ``cyclic`` lets segments of two to four routes change places.
    on_progress
        Called with every improvement.

    Returns
    -------
    Plan
        The best plan found; also after Ctrl-C, once there is one.

    Raises
    ------
    ValueError
        On an unknown method or objective, a limit out of range, a missing extra, or an
        instance that the method does not serve.
    KeyboardInterrupt
        On Ctrl-C before there is a plan.
    """
    method = method or default_method(instance)
    _require_arguments(method, objective, time_limit, max_iterations, seed)
    _require_search(method, shake, local_search=local_search)
    if method != "vns":
        _require_plain(instance)
    warm_up(method, local_search=local_search, shake=shake)
    job = Job(
        instance=instance,
        objective=Objective(objective),
        time_limit=time_limit,
        max_iterations=max_iterations,
        seed=seed,
        on_progress=on_progress,
        local_search=local_search,
        shake=shake,
    )
    try:
        METHODS[method](job)
    except KeyboardInterrupt:
        if job.best is None:
            raise
    assert job.best is not None
    return job.best()


def default_method(instance: Instance) -> str:
    """``vns`` for batteries, goods that come later and promises, which need it; else ``ruin``."""
    return "ruin" if _beyond_chains(instance) is None else "vns"


@cache
def warm_up(method: str = "ruin", *, local_search: bool = False, shake: str = SHAKES[0]) -> None:
    """Compile the kernels of a method, or load them from disk; seconds the first time, then none.

    `solve` calls this before its clock starts. Programs call it first to tell
    their user what the wait is for.
    """
    if method == "vns":
        tiny = _tiny(Battery(capacity_wh=9.0, wh_per_m=1.0))
        moves = ALL if local_search else NONE
        vns(tiny, max_iterations=12, time_limit=60.0, local_search=moves, shake=shake)
        return
    for objective in (Objective.HIERARCHICAL, Objective.COST):
        watch = Watch(time_limit=60.0, max_iterations=12, on_improvement=lambda *_: None)
        search = rehearse if method == "tabu" else ruin
        search(pack(_tiny(None), objective), np.random.default_rng(0), watch)


def _tiny(battery: Battery | None) -> Instance:
    """A ward with three requests and two robots."""
    charge = ChargeCurve.linear(9.0, 1.0)
    return Instance(
        name="tiny",
        places=(Place(id="depot"), Place(id="ward")),
        requests=tuple(
            Request(id=str(k), place="ward", kind=kind, due_s=9.0, load=1.0, tolerance_s=1.0)
            for k, kind in enumerate((Kind.COLLECT, Kind.COLLECT, Kind.DELIVER))
        ),
        robots=tuple(
            Robot(id=str(k), capacity=1.0, end_s=9.0, max_trips=1, battery=battery)
            for k in range(2)
        ),
        stations=(Station(id="S", place="ward", num_slots=None, charge=charge),) if battery else (),
        travel_s=np.ones((2, 2)) - np.eye(2),
        distance_m=np.ones((2, 2)) - np.eye(2),
    )


def _beyond_chains(instance: Instance) -> str | None:
    """What of an instance the searches over chains do not know, or nothing."""
    for robot in instance.robots:
        if robot.battery is not None:
            return f"robot {robot.id!r}: battery: expected none"
    for request in instance.requests:
        if request.available_s > 0:
            return f"request {request.id!r}: available_s: expected 0"
    if instance.promise is not None:
        return "instance: promise: expected none"
    return None


def _require_plain(instance: Instance) -> None:
    finding = _beyond_chains(instance)
    if finding is not None:
        raise ValueError(f"{finding} for this method; use --method vns")


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


def _require_search(method: str, shake: str, *, local_search: bool) -> None:
    if shake not in SHAKES:
        raise ValueError(f"shake: expected one of {', '.join(SHAKES)}, got {shake!r}")
    if method != "vns" and (shake != SHAKES[0] or local_search):
        name, value = ("local_search", False) if local_search else ("shake", SHAKES[0])
        raise ValueError(f"{name}: expected {value} for method {method}; only vns has a choice")


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
