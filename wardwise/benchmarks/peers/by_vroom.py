"""VROOM (pyvroom) on a plain instance, on one thread.

VROOM answers once, at its end. Its six exploration levels are run to their end,
each with a clock of its own; where the deepest does not end within a budget, it
is run again and stopped there. The best of all that fits a budget counts, so
VROOM is granted the budget once for each level.

Fewest vehicles: a fixed cost first; then one vehicle fewer as long as all jobs
find a place, within the same clock.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import vroom

from .found import DISTANCE, Log
from .numbers import length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .found import Found
    from .numbers import Numbers, Routes

LEVELS = range(6)
# Distance units that a vehicle costs when the fewest are sought.
FIXED_COST = 10_000
PROFILE = "car"
# VROOM's clock is the wall's, ours counts CPU time: a run to its end gets this many budgets of
# wall time, and a run to be stopped is repeated with a longer limit while other programs slow it.
WALL_FACTOR = 4.0
TRIES = 3
# Shares of the budget: where a stopped run should end, and where it is late enough.
AIM, ENOUGH = 0.97, 0.9


def run(
    numbers: Numbers, objective: str, budgets: Sequence[float], seed: int
) -> dict[float, list[Found]]:
    """Solutions of every level for each budget; VROOM has no random choice, `seed` is unused."""
    del seed
    found: list[Found] = []
    longest = max(budgets)
    for level in LEVELS:
        log = _run_level(numbers, objective, level, longest * WALL_FACTOR)
        found += log.found
    return {
        budget: found if log.cpu_s <= budget else [*found, *_stopped(numbers, objective, budget)]
        for budget in budgets
    }


def model(numbers: Numbers, num_vehicles: int, fixed_cost: int) -> vroom.Input:
    """Translate the instance."""
    problem = vroom.Input()
    problem.set_durations_matrix(PROFILE, numbers.travel)
    problem.set_costs_matrix(PROFILE, numbers.distance)
    day = vroom.TimeWindow(numbers.ready[0], numbers.due[0])
    problem.add_vehicle(
        [
            vroom.Vehicle(
                vehicle,
                start=0,
                end=0,
                profile=PROFILE,
                capacity=[numbers.capacity],
                time_window=day,
                costs=vroom.VehicleCosts(fixed=fixed_cost),
            )
            for vehicle in range(num_vehicles)
        ]
    )
    problem.add_job(
        [
            vroom.Job(
                node,
                location=node,
                pickup=[numbers.load[node]],
                default_service=numbers.service[node],
                time_windows=[vroom.TimeWindow(numbers.ready[node], numbers.due[node])],
            )
            for node in range(1, len(numbers.load))
        ]
    )
    return problem


def routes_of(solution: vroom.Solution) -> dict[int, list[int]]:
    """Jobs of each vehicle that has any, in driving order."""
    table = solution.routes
    by_vehicle: dict[int, list[int]] = {}
    for vehicle, step, job in zip(table["vehicle_id"], table["type"], table["id"], strict=True):
        if step == "job":
            by_vehicle.setdefault(int(vehicle), []).append(int(job))
    return by_vehicle


def _run_level(numbers: Numbers, objective: str, level: int, wall_s: float) -> Log:
    """Solve, and for the fewest vehicles again with one fewer, within seconds on the wall."""
    is_distance = objective == DISTANCE
    fixed_cost = 0 if is_distance else FIXED_COST * numbers.scale
    num_vehicles = numbers.num_robots
    until_s = time.perf_counter() + wall_s
    log = Log(is_process=True)
    while num_vehicles > 0 and (left_s := until_s - time.perf_counter()) > 0:
        problem = model(numbers, num_vehicles, fixed_cost)
        solution = problem.solve(level, nb_threads=1, timeout=timedelta(seconds=left_s))
        if solution.unassigned:
            break
        routes: Routes = list(routes_of(solution).values())
        log.add(routes, length(numbers, routes))
        if is_distance:
            break
        num_vehicles = len(routes) - 1
    return log


def _stopped(numbers: Numbers, objective: str, budget_s: float) -> list[Found]:
    """Solutions of the deepest level, stopped just before the budget of CPU time is used up."""
    wall_s = AIM * budget_s
    found: list[Found] = []
    for _ in range(TRIES):
        log = _run_level(numbers, objective, LEVELS[-1], wall_s)
        found += log.found
        if log.cpu_s >= ENOUGH * budget_s:
            break
        wall_s *= AIM * budget_s / max(log.cpu_s, 0.01 * budget_s)
    return found
