"""The static comparison: every solver on every instance, each plan judged by our checker.

Different instances run in different processes, the solvers of one instance one
after the other, so that all of them meet the same load of the machine. All
clocks count CPU time.
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import cache
from importlib import metadata
from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.check import check
from wardwise.io import read_instance

from . import ours, results
from .found import DISTANCE, best_within
from .numbers import TENTHS, THOUSANDTHS, cut_tenths, numbers, to_plan
from .results import SOLOMON, Key, Result

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

    from .found import Found

PEERS = ("pyvrp", "ortools", "vroom")
PACKAGES = {"pyvrp": "pyvrp", "ortools": "ortools", "vroom": "pyvroom"}
WITHOUT_CHANCE = ("ortools", "vroom")


class Task(NamedTuple):
    """One solver on one file: everything that one run can answer."""

    set: str
    path: Path
    objective: str
    solver: str
    budgets: tuple[float, ...]
    seed: int

    def key(self, budget_s: float) -> Key:
        """Key of the result at one budget."""
        name = self.path.stem
        version = version_of(self.solver)
        return Key(self.set, name, self.objective, self.solver, version, budget_s, self.seed)


def run_all(tasks: Sequence[Task], jobs: int, cache_file: Path | None) -> dict[Key, Result]:
    """Run what the cache does not hold, grouped by instance; returns all results asked for."""
    known = results.read(cache_file) if cache_file else {}
    wanted = {task.key(budget) for task in tasks for budget in task.budgets}
    found = {key: known[key] for key in wanted & known.keys()}
    groups: dict[Path, list[Task]] = {}
    for task in tasks:
        missing = tuple(budget for budget in task.budgets if task.key(budget) not in found)
        if missing:
            groups.setdefault(task.path, []).append(task._replace(budgets=missing))
    total_s = sum(cpu_seconds(task) for group in groups.values() for task in group)
    print(
        f"{len(found)} results known, {len(wanted) - len(found)} to find: "
        f"about {total_s / 60 / jobs:.0f} min in {jobs} process(es)",
        file=sys.stderr,
    )
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=spawn) as pool:
        runs = [pool.submit(run_group, group, cache_file) for group in groups.values()]
        for run in runs:
            found |= {result.key: result for result in run.result()}
    return found


def cpu_seconds(task: Task) -> float:
    """Expected CPU time of a task; only our methods and PyVRP's fleet search run per budget."""
    longest, total = max(task.budgets), sum(task.budgets)
    if task.solver == "vroom":
        # All levels end within 35 s on 100 customers, with fewest vehicles about twice that.
        return total - longest + min(longest * 6, 60)
    is_read_at_all = task.solver in PEERS and (task.solver != "pyvrp" or task.objective == DISTANCE)
    return longest if is_read_at_all else total


def run_group(tasks: Sequence[Task], cache_file: Path | None) -> list[Result]:
    """Run the tasks of one instance and keep each answer at once."""
    found = []
    for task in tasks:
        answers = list(run_task(task))
        if cache_file:
            results.append(cache_file, answers)
        found += answers
        print("\n".join(_line(answer) for answer in answers), file=sys.stderr, flush=True)
    return found


def run_task(task: Task) -> Iterator[Result]:
    """Run one solver and judge what it had within each budget."""
    instance = load(task.path, is_cut=task.set == SOLOMON and task.objective == DISTANCE)
    if ours.is_ours(task.solver):
        for budget in task.budgets:
            plan, cpu_s = ours.run(instance, task.solver, task.objective, budget, task.seed)
            yield judge(instance, plan, task.key(budget), cpu_s)
        return
    for budget, found in _by_peer(instance, task).items():
        best = best_within(found, budget, task.objective)
        if best is None:
            yield Result(task.key(budget), None, None, None)
            continue
        try:
            plan = to_plan(instance, best.routes)
        except ValueError as error:
            print(f"{task.path.stem}, {task.solver}: {error}", file=sys.stderr)
            yield Result(task.key(budget), None, None, best.cpu_s)
            continue
        yield judge(instance, plan, task.key(budget), best.cpu_s)


def judge(instance: Instance, plan: Plan, key: Key, cpu_s: float) -> Result:
    """The verdict of the checker on a complete plan; denials are not allowed here."""
    report = check(instance, plan)
    if not report.is_feasible or report.cost.num_denied:
        print(f"{key.instance}, {key.solver}: {report.violations[:3]}", file=sys.stderr)
        return Result(key, None, None, cpu_s)
    return Result(key, report.cost.num_robots, report.cost.distance_m, cpu_s)


@cache
def load(path: Path, *, is_cut: bool) -> Instance:
    """Read an instance, with arcs cut to one decimal or in doubles."""
    instance = read_instance(path)
    if not is_cut:
        return instance
    cut = cut_tenths(instance)
    return replace(instance, travel_s=cut, distance_m=cut)


@cache
def version_of(solver: str) -> str:
    """Version of a solver's code."""
    return metadata.version(PACKAGES[solver]) if solver in PACKAGES else ours.version()


def _by_peer(instance: Instance, task: Task) -> dict[float, list[Found]]:
    """Feasible solutions of a peer for each budget."""
    from . import by_ortools, by_pyvrp, by_vroom

    run = {"pyvrp": by_pyvrp.run, "ortools": by_ortools.run, "vroom": by_vroom.run}[task.solver]
    is_tenths = task.set == SOLOMON and task.objective == DISTANCE
    whole = numbers(instance, TENTHS if is_tenths else THOUSANDTHS)
    return run(whole, task.objective, task.budgets, task.seed)


def _line(result: Result) -> str:
    """One result for people."""
    key = result.key
    plan = f"{result.vehicles} {result.distance:.2f}" if result.is_feasible else "no plan"
    cpu = "" if result.cpu_s is None else f", {result.cpu_s:.2f} s"
    return f"{key.instance} {key.objective} {key.solver} {key.budget_s:g} s: {plan}{cpu}"
