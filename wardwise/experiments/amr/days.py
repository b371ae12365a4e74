"""Lackner-style days of a Solomon instance, lived through by our dispatcher."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wardwise.dynamism import make_dynamic
from wardwise.fleet.check import check
from wardwise.fleet.dispatch import Policy
from wardwise.fleet.problem import Costs
from wardwise.fleet.replay import Reoptimisation, known_part, replay_day
from wardwise.fleet.solvers import solve
from wardwise.io import read_instance

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

DEGREES = (10, 30, 50, 70, 90)
CLASSES = ("stat", "urgent", "routine")
# Days are repeatable: iterations are limited, time is not.
FOREVER_S = 1e9
REFERENCE_ITERATIONS, PLAN_ITERATIONS, EVENT_ITERATIONS = 20_000, 5_000, 1_000
# No price turns a request down, as in the reference study; denials are priced afterwards.
ANY_PRICE = (1e6, 1e6, 1e6)
PLENTY = 60
LIMITED_DEGREE = 50
SPARES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12)
FLEETS = tuple((spares, level) for spares in SPARES for level in (0, 1, 2) if level <= spares)
# Spares of the fleets that are re-optimised, too; nothing is protected there.
REOPTIMISED_SPARES = (0, 1, 2, 3, 5)
PLAIN, REOPTIMISED, FEWEST_FIRST = "plain", "reoptimised", "fewest_first"
LIMITED, LIMITED_REOPTIMISED = "limited", "limited_reoptimised"


@dataclass(frozen=True, kw_only=True)
class Day:
    """What became of one day; `revealed` and `denied` count dynamic requests by class.

    `robots_ratio` and `distance_ratio` are over those of the reference plan; `money` is
    the cost at the default prices with every robot that is owned.
    """

    instance: str
    degree: int
    seed: int
    arm: str
    spares: int
    protection: int
    robots_ratio: float
    distance_ratio: float
    revealed: tuple[int, ...]
    denied: tuple[int, ...]
    money: float
    num_violations: int


def live_all(path: Path, seeds: Sequence[int]) -> list[Day]:
    """All days of one instance."""
    base = replace(read_instance(path), costs=Costs(per_denial=ANY_PRICE))
    days = []
    for objective, arms in (("cost", (PLAIN, REOPTIMISED)), ("hierarchical", (FEWEST_FIRST,))):
        reference = plan(base, objective, REFERENCE_ITERATIONS, 0)
        for degree in DEGREES:
            for seed in seeds:
                dynamic = make_dynamic(base, reference, degree=degree / 100, seed=seed)
                morning = Morning(base, reference, dynamic, degree, seed, objective)
                days += [morning.live(arm, PLENTY, 0) for arm in arms]
                if objective == "cost" and degree == LIMITED_DEGREE:
                    days += [morning.live(LIMITED, *fleet) for fleet in FLEETS]
                    days += [morning.live(LIMITED_REOPTIMISED, n, 0) for n in REOPTIMISED_SPARES]
    print(f"{path.stem}: {len(days)} days", file=sys.stderr, flush=True)
    return days


class Morning:
    """A dynamic instance with the plan of what is known, to be lived through by several fleets."""

    def __init__(
        self,
        base: Instance,
        reference: Plan,
        dynamic: Instance,
        degree: int,
        seed: int,
        objective: str,
    ) -> None:
        self.reference = check(base, reference).cost
        self.dynamic, self.degree, self.seed = dynamic, degree, seed
        first = plan(known_part(dynamic), objective, PLAN_ITERATIONS, seed)
        # Robots are alike: those of the plan come first, then the spares.
        trips = tuple(replace(trip, robot=f"r{k}") for k, trip in enumerate(first.trips))
        self.first = replace(first, trips=trips)

    def live(self, arm: str, spares: int, protection: int) -> Day:
        """Live through the day with the robots of the plan and some spares."""
        owned = max(1, len(self.first.trips) + spares)
        robot = self.dynamic.robots[0]
        is_better = arm in (REOPTIMISED, LIMITED_REOPTIMISED)
        lived = replay_day(
            replace(self.dynamic, robots=tuple(replace(robot, id=f"r{k}") for k in range(owned))),
            policy=Policy(protection=(0, protection, protection), may_hold=is_better),
            first_plan=self.first,
            seed=self.seed,
            reoptimisation=Reoptimisation(max_iterations=EVENT_ITERATIONS) if is_better else None,
        )
        cost, out = lived.report.cost, {*lived.plan.denied}
        dynamic = [request for request in self.dynamic.requests if request.release_s > 0]
        denied = by_class(request.priority for request in dynamic if request.id in out)
        prices = Costs()
        losses = sum(price * n for price, n in zip(prices.per_denial, denied, strict=True))
        return Day(
            instance=self.dynamic.name.partition("-")[0],
            degree=self.degree,
            seed=self.seed,
            arm=arm,
            spares=spares,
            protection=protection,
            robots_ratio=cost.num_robots / self.reference.num_robots,
            distance_ratio=cost.distance_m / self.reference.distance_m,
            revealed=by_class(request.priority for request in dynamic),
            denied=denied,
            money=prices.per_robot * owned + prices.per_metre * cost.distance_m + losses,
            num_violations=len(lived.report.violations),
        )


def plan(instance: Instance, objective: str, iterations: int, seed: int) -> Plan:
    """Plan without a clock."""
    return solve(
        instance, objective=objective, time_limit=FOREVER_S, max_iterations=iterations, seed=seed
    )


def by_class(priorities: Iterable[int]) -> tuple[int, ...]:
    """Count of each class."""
    found = list(priorities)
    return tuple(found.count(priority) for priority in range(1, len(CLASSES) + 1))


def denied_pct(days: Sequence[Day], ranks: Sequence[int] = (0, 1, 2)) -> float:
    """Share of the dynamic requests of some classes that were denied, in per cent."""
    revealed = sum(day.revealed[rank] for day in days for rank in ranks)
    return 100 * sum(day.denied[rank] for day in days for rank in ranks) / max(1, revealed)
