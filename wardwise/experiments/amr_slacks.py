"""Quantile slacks keep what a running day promises; mean slacks let requests down.

Claim (a planner that knows how random times are should answer requests with it, too): where the
dispatcher leaves each later stop a quantile of its arrival in place of the mean, those that it
accepts are served in time as often as promised, at the cost of more denials.

Here: mornings of generated hospitals with 24 wards, three hours each, timetables known and all
else called in; fleets of four, six and eight robots; the same plan in advance, the same calls and
the same luck for all. Times are random as by default (legs with the variances of the building,
services with cv 0.2), crowded (legs and services with cv 0.4), or the robots drive through the
building and queue for its elevators, of which slacks know the waits but not the queues. Arms: mean
slacks, and quantiles for promises of 1, 5 and 10 %. A request is let down if it was accepted when
it was called in, and then starts past its last moment or is given up because a robot is late.

Command   python wardwise/experiments/amr_slacks.py
Cost      about two minutes on two CPU cores
Expect    mean slacks let down 1.3, 3.2 and 2.8 % in the three crowds; quantiles for a promise of
          5 % let down 0.1, 0.7 and 1.0 %, and deny 1.0 to 3.1 points more
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from robust.rows import row

from wardwise.fleet.dispatch import Policy, Slacks, Status, warm_up
from wardwise.fleet.randomness import Promise, Randomness, Spread
from wardwise.fleet.replay import known_part
from wardwise.fleet.simulate import Disturbances, simulate
from wardwise.fleet.solvers import solve
from wardwise.generate import generate_hospital

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from robust.rows import Row

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.simulate import Simulation

FLEETS = (4, 6, 8)
SHARES = (0.01, 0.05, 0.1)
# Arms by the share that is promised; 0: mean slacks.
MEAN = 0.0
SEEDS = tuple(range(1, 11))
NUM_DAYS = 4
NUM_WARDS, HOURS = 24, 3.0
# Days are repeatable: iterations are limited, time is not.
FOREVER_S, PLAN_ITERATIONS = 1e9, 500
CROWDED_CV = 0.4
CROWDS: Mapping[str, tuple[Randomness, Disturbances]] = {
    "usual": (Randomness(), Disturbances(travel_cv=None, service_cv=0.2)),
    "crowded": (
        Randomness(travel=Spread(cv=CROWDED_CV), service=Spread(cv=CROWDED_CV), uses_matrix=False),
        Disturbances(travel_cv=CROWDED_CV, service_cv=CROWDED_CV),
    ),
    "elevators": (
        Randomness(),
        Disturbances(travel_cv=None, service_cv=0.2, uses_elevators=True),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Count:
    """What became of the requests that were called in, and of the day's money."""

    num_called: int = 0
    num_accepted: int = 0
    num_late: int = 0
    num_given_up: int = 0
    num_denied: int = 0
    cost: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(**{name: value + vars(other)[name] for name, value in vars(self).items()})

    @property
    def let_down_pct(self) -> float:
        """Of those accepted at once."""
        return 100 * (self.num_late + self.num_given_up) / max(1, self.num_accepted)

    @property
    def denied_pct(self) -> float:
        """Of all called in, denied in the end."""
        return 100 * self.num_denied / max(1, self.num_called)

    @property
    def denied_at_once_pct(self) -> float:
        """Of all called in, denied when they were."""
        return 100 * (self.num_called - self.num_accepted) / max(1, self.num_called)


# By crowd, fleet and arm.
Table = dict[tuple[str, int, float], Count]


def main() -> int:
    options = parse()
    warm_up()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        runs = [pool.submit(live_all, seed, options.days, options.wards) for seed in options.seeds]
        tables = [run.result() for run in runs]
    for measured in rows(tables, len(options.seeds) * options.days):
        print(
            json.dumps({"system": "stochastic", "seed": options.seeds[0], **measured}), flush=True
        )
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, the whole study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--jobs", type=int, default=2, help="processes, each on other hospitals")
    add("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=list(SEEDS))
    add("--days", type=int, default=NUM_DAYS, help="days of luck for each hospital")
    add("--wards", type=int, default=NUM_WARDS)
    return parser.parse_args()


def live_all(seed: int, num_days: int, num_wards: int) -> Table:
    """All fleets, crowds and arms in one hospital."""
    table: Table = defaultdict(Count)
    for num_robots in FLEETS:
        hospital = generate_hospital(
            num_wards=num_wards, num_robots=num_robots, hours=HOURS, dynamic=True, seed=seed
        )
        plan = solve(
            known_part(hospital),
            objective="cost",
            time_limit=FOREVER_S,
            max_iterations=PLAN_ITERATIONS,
            seed=seed,
        )
        for crowd in CROWDS:
            for share in (MEAN, *SHARES):
                for day in range(num_days):
                    lived = live(hospital, plan, crowd, share, seed + 1000 * day)
                    table[crowd, num_robots, share] += counted(hospital, lived)
    return dict(table)


def live(hospital: Instance, plan: Plan, crowd: str, share: float, seed: int) -> Simulation:
    """One day of the twin under one arm."""
    law, disturbances = CROWDS[crowd]
    promise = Promise(late_share=(share,) * 3, return_share=share) if share else None
    return simulate(
        replace(hospital, randomness=law, promise=promise),
        plan=plan,
        policy=Policy(slacks=Slacks.QUANTILE if share else Slacks.MEAN),
        disturbances=disturbances,
        seed=seed,
    )


def counted(hospital: Instance, day: Simulation) -> Count:
    """What became of the requests that were called in."""
    answers = [decision for record in day.records for decision in record.decisions]
    first = {decision.request: decision.status for decision in reversed(answers)}
    starts = {
        stop.request: stop.start_s
        for trip in day.plan.trips
        for stop in trip.stops
        if not stop.is_pickup
    }
    called = [request for request in hospital.requests if request.release_s > 0]
    accepted = [request for request in called if first[request.id] is Status.ACCEPTED]
    return Count(
        num_called=len(called),
        num_accepted=len(accepted),
        num_late=sum(starts.get(r.id, 0.0) > r.latest_s + 1e-6 for r in accepted),
        num_given_up=sum(r.id not in starts for r in accepted),
        num_denied=sum(r.id not in starts for r in called),
        cost=day.figures.cost,
    )


def rows(tables: Sequence[Table], num_days: int) -> Iterator[Row]:
    """All measurements: of each crowd and arm over all fleets, and by fleet in the detail."""
    for crowd in CROWDS:
        found = {share: _summed(tables, crowd, share) for share in (MEAN, *SHARES)}
        for share, by_fleet in found.items():
            total = sum(by_fleet.values(), Count())
            arm = f"promised{100 * share:g}" if share else "mean"
            name = f"slacks_{crowd}_{arm}"
            is_known = crowd != "elevators"  # queues are in no slack
            goal = ("<=", 100 * share) if share and is_known else None
            detail = {
                "by_robots": {n: count.let_down_pct for n, count in by_fleet.items()},
                "accepted": total.num_accepted,
                "late": total.num_late,
                "given_up": total.num_given_up,
                "days": num_days,
            }
            yield row(f"{name}_let_down", total.let_down_pct, "%", goal, detail)
            detail = {
                "by_robots": {n: count.denied_pct for n, count in by_fleet.items()},
                "at_once": total.denied_at_once_pct,
            }
            yield row(f"{name}_denied", total.denied_pct, "%", None, detail)
            yield row(f"{name}_cost", total.cost / num_days / len(FLEETS), "money")


def _summed(tables: Sequence[Table], crowd: str, share: float) -> dict[int, Count]:
    return {
        num_robots: sum((table[crowd, num_robots, share] for table in tables), Count())
        for num_robots in FLEETS
    }


if __name__ == "__main__":
    raise SystemExit(main())
