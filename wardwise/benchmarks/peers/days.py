"""Whole days: our dispatcher against a policy of full re-solves, and the public dynamic files."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from statistics import mean, median
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.dynamism import make_dynamic
from wardwise.fleet.check import check
from wardwise.fleet.dispatch import Policy
from wardwise.fleet.problem import Costs
from wardwise.fleet.replay import Reoptimisation, known_part, replay_day
from wardwise.fleet.solvers import solve
from wardwise.io import read_instance

from .driven import drive
from .found import DISTANCE
from .resolve import resolve_pyvrp
from .rows import row
from .study import version_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from wardwise.fleet.check import Report
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

    from .results import Best
    from .rows import Row

PYVRP_S = 0.3
GOAL_S = 0.3
SECONDS = (0.3, 0.05)
POLICY_GOAL = 1.05
ITERATIONS = 20_000
FOREVER_S = 1e9
# No price turns a request of the public files down: they know no denials.
ANY_PRICE = (1e6, 1e6, 1e6)


class Lived(NamedTuple):
    """One day under one policy; a line of the table."""

    instance: str
    policy: str
    robots: int
    distance: float
    denied: int
    cost: float
    answer_p99_ms: float
    violations: int


def policy_days(paths: Sequence[tuple[Path, float]], seed: int) -> Iterator[Lived]:
    """Live through each day under every policy, all from the same first plan."""
    for path, degree in paths:
        base = read_instance(path)
        reference = plan(base, "hierarchical", seed)
        instance = make_dynamic(base, reference, degree=degree, seed=seed)
        first = plan(known_part(instance), "cost", seed)
        yield ours(instance, "plain", first, None, seed)
        for seconds in SECONDS:
            yield ours(instance, f"reoptimised_{seconds:g}s", first, seconds, seed)
        driven = drive(instance, first, partial(resolve_pyvrp, budget_s=PYVRP_S, seed=seed))
        if driven.num_unused:
            print(
                f"{instance.name}: {driven.num_unused} answers of PyVRP left aside", file=sys.stderr
            )
        yield lived(instance, "pyvrp", driven.report, driven.plan, driven.seconds)


def policy_rows(days: Sequence[Lived]) -> Iterator[Row]:
    """Cost of each policy of ours over that of the re-solve policy."""
    by_policy: dict[str, dict[str, Lived]] = {}
    for day in days:
        by_policy.setdefault(day.policy, {})[day.instance] = day
    peers = by_policy.pop("pyvrp")
    for policy, mine in by_policy.items():
        ratios = {name: day.cost / peers[name].cost for name, day in mine.items()}
        is_goal = policy == f"reoptimised_{GOAL_S:g}s"
        yield row(
            f"policy_{policy}_cost_ratio",
            mean(ratios.values()),
            "x",
            goal=("<=", POLICY_GOAL) if is_goal else None,
            peer=f"pyvrp {version_of('pyvrp')}, {PYVRP_S:g} s an event",
            detail={
                "ratio": {name: round(ratio, 4) for name, ratio in ratios.items()},
                "cost": {name: round(day.cost, 2) for name, day in mine.items()},
                "peer_cost": {name: round(day.cost, 2) for name, day in peers.items()},
                "answer_p99_ms": median(day.answer_p99_ms for day in mine.values()),
                "peer_answer_p99_ms": median(day.answer_p99_ms for day in peers.values()),
            },
        )
    yield row("policy_violations", sum(d.violations for d in days), "violations", goal=("==", 0))


def public_days(paths: Sequence[Path], seconds: float, seed: int) -> Iterator[Lived]:
    """Live through the public dynamic files, without and with re-optimisation."""
    for path in paths:
        instance = replace(read_instance(path), name=path.stem, costs=Costs(per_denial=ANY_PRICE))
        first = plan(known_part(instance), "cost", seed)
        yield ours(instance, "plain", first, None, seed)
        yield ours(instance, "reoptimised", first, seconds, seed)


def public_rows(
    days: Sequence[Lived], sizes: dict[str, int], best: dict[tuple[str, str], Best]
) -> Iterator[Row]:
    """What was served, and how; no results of others are known for single files.

    A day that serves all is no shorter than the best known plan for its base,
    in arcs cut to one decimal.
    """
    for day in days:
        name = f"dvrptw_{day.instance}_{day.policy}"
        known = best.get((day.instance.partition("-")[0].upper(), DISTANCE))
        served = 100 * (1 - day.denied / sizes[day.instance])
        yield row(f"{name}_served", served, "%")
        yield row(f"{name}_robots", day.robots, "robots")
        goal = (">=", known.distance) if known and not day.denied else None
        yield row(f"{name}_distance", day.distance, "", goal=goal)
        yield row(f"{name}_p99", day.answer_p99_ms, "ms")


def ours(instance: Instance, name: str, first: Plan, seconds: float | None, seed: int) -> Lived:
    """The day under our dispatcher, with so much re-optimisation after each request."""
    better = None
    if seconds is not None:
        better = Reoptimisation(seconds=seconds, max_iterations=10**9)
    # Held requests may find their place when the routes change.
    policy = Policy(may_hold=better is not None)
    day = replay_day(instance, policy=policy, first_plan=first, reoptimisation=better, seed=seed)
    return lived(instance, name, day.report, day.plan, day.latency_s)


def lived(
    instance: Instance, policy: str, report: Report, plan: Plan, seconds: Sequence[float]
) -> Lived:
    """Sum up a day."""
    print(f"{instance.name}, {policy}: {report.cost.total:.2f}", file=sys.stderr, flush=True)
    return Lived(
        instance=instance.name,
        policy=policy,
        robots=report.cost.num_robots,
        distance=report.cost.distance_m,
        denied=len(plan.denied),
        cost=report.cost.total,
        answer_p99_ms=1e3 * float(np.quantile(seconds, 0.99)),
        violations=len(report.violations),
    )


def plan(instance: Instance, objective: str, seed: int) -> Plan:
    """Plan without a clock."""
    found = solve(
        instance, objective=objective, time_limit=FOREVER_S, max_iterations=ITERATIONS, seed=seed
    )
    assert check(instance, found).is_feasible
    return found
