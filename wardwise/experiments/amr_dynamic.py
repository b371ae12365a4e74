"""More dynamism, more robots; each spare robot saves less than the one before.

Claims (dynamic dispatch of hospital robots with prioritised requests; no table of the paper could
be had, so the values to reach are those of a reference study, made with PyVRP and plain
insertion): the more requests appear during the day, the more robots and distance it takes; each
further spare robot saves fewer denials than the one before; spares kept back for stat requests
move denials to lower classes. Re-optimisation between requests must beat plain insertion.

Here: the six Solomon instances that both that study and the public files have, Lackner-style days
with 10 to 90 % of the requests dynamic, priorities 20/30/50 %, hard windows, one trip a robot, no
diversion, robots that wait and then leave. Where it leaves room we chose: plans in advance
and the reference plan minimise the paper's money, 100 a robot and 1 a distance; ten seeds, since
two seeds have 115 dynamic requests in all at 10 %, and one denial more is then 0.9 points (the
first two seeds are in the details). Days from plans with the fewest robots, that study's own
choice, stand beside. With fleet enough no price makes the rules deny; denied are requests that no
robot reaches in time. Shares are those of the dynamic requests. Re-optimised days hold what finds
no place at once (D5). A limited fleet has the robots of the plan in advance and S spares, of which
R are kept for stat requests; its cost is that of the default prices, with every robot that is
owned.

Command   WARDWISE_DATA=... python wardwise/experiments/amr_dynamic.py
Cost      about five minutes on two CPU cores
Expect    robots 1.06 to 1.26 and distance 1.09 to 1.65 of the reference plan's without, 1.02 to
          1.07 and 1.02 to 1.11 with re-optimisation; 34, 20, 15, 12, 8 % denied with 0, 1, 2, 3, 5
          spares, and least cost with about ten
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from amr.days import (
    CLASSES,
    DEGREES,
    FEWEST_FIRST,
    FLEETS,
    LIMITED,
    LIMITED_REOPTIMISED,
    PLAIN,
    REOPTIMISED,
    REOPTIMISED_SPARES,
    SPARES,
    Day,
    denied_pct,
    live_all,
)

from wardwise.fleet.solvers import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parent.parent / "docs" / "results"
INSTANCES = ("C101", "C201", "R101", "R211", "RC101", "RC201")
SEEDS = tuple(range(1, 11))
SHEET_SEEDS = 2
# Reference study, plain insertion: robots and distance over the reference plan's, denied (%).
SHEET_DEGREES = {
    10: (1.08, 1.12, 2.0),
    30: (1.16, 1.40, 2.0),
    50: (1.24, 1.60, 1.6),
    70: (1.35, 1.91, 1.4),
    90: (1.42, 2.05, 1.3),
}
# Reference study: denied in per cent of stat, urgent, routine, by spares and protection.
SHEET_SPARES = {
    (0, 0): (46.8, 49.3, 48.3),
    (1, 0): (32.3, 32.3, 27.7), (1, 1): (29.1, 37.3, 35.2),
    (2, 0): (28.2, 25.3, 19.8), (2, 1): (24.1, 28.3, 24.8), (2, 2): (22.7, 32.3, 32.7),
    (3, 0): (20.9, 20.3, 14.4), (3, 1): (20.0, 22.7, 16.9), (3, 2): (16.4, 26.0, 22.3),
    (5, 0): (11.4, 11.7, 8.1), (5, 1): (10.0, 14.0, 9.4), (5, 2): (8.2, 15.7, 11.0),
}  # fmt: skip

Row = dict[str, Any]
Table = dict[tuple[int, int], list[Day]]  # by spares and protection


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    options = parse()
    warm_up()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=spawn) as pool:
        runs = [
            pool.submit(live_all, Path(data) / "solomon" / f"{name}.txt", options.seeds)
            for name in options.instances
        ]
        days = [day for run in runs for day in run.result()]
    draw(options.out, days)
    for row in rows(days):
        print(json.dumps({"system": "dispatch", "seed": options.seeds[0], **row}), flush=True)
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, the whole study."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--jobs", type=int, default=2, help="processes, each on other instances")
    add("--instances", type=lambda text: text.split(","), default=list(INSTANCES))
    add("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=list(SEEDS))
    add("--quick", action="store_true", help="the first two seeds, as in the reference study")
    add("--out", type=Path, help="folder for CSV and figures; in the repository by default")
    options = parser.parse_args()
    if options.quick:
        options.seeds = options.seeds[:SHEET_SEEDS]
    return options


MEASURES: dict[str, tuple[Callable[[Sequence[Day]], float], str]] = {
    "robots": (lambda days: mean(day.robots_ratio for day in days), "x"),
    "distance": (lambda days: mean(day.distance_ratio for day in days), "x"),
    "denied": (denied_pct, "%"),
}


def rows(days: Sequence[Day]) -> Iterator[Row]:
    """All measurements."""
    yield from degree_rows(days)
    table = limited(days)
    yield from spare_rows(table)
    yield from direction_rows(table)
    for spares in REOPTIMISED_SPARES:
        chosen = [d for d in days if (d.arm, d.spares) == (LIMITED_REOPTIMISED, spares)]
        detail = {"plain": denied_pct(table[spares, 0])}
        yield row(f"study_spares{spares}_reoptimised_denied", denied_pct(chosen), "%", None, detail)
    num_violations = sum(day.num_violations for day in days)
    yield row("study_violations", num_violations, "", ("==", 0), {"days": len(days)})


def limited(days: Sequence[Day]) -> Table:
    """Days of the limited fleets."""
    return {
        fleet: [d for d in days if d.arm == LIMITED and (d.spares, d.protection) == fleet]
        for fleet in FLEETS
    }


def row(
    name: str,
    value: float,
    unit: str,
    goal: tuple[str, float] | None = None,
    detail: Mapping[str, object] | None = None,
) -> Row:
    """One measurement."""
    return {"name": name, "value": value, "unit": unit, "goal": goal, "detail": detail or {}}


def degree_rows(days: Sequence[Day]) -> Iterator[Row]:
    """Robots, distance and denials by degree, and what re-optimisation saves."""
    for arm in (PLAIN, REOPTIMISED, FEWEST_FIRST):
        for degree, goals in SHEET_DEGREES.items():
            chosen = [day for day in days if (day.arm, day.degree) == (arm, degree)]
            first = [day for day in chosen if day.seed <= SHEET_SEEDS]
            for (what, (measure, unit)), goal in zip(MEASURES.items(), goals, strict=True):
                detail = {"first_two_seeds": measure(first), "days": len(chosen)}
                name = f"study_{arm}_dod{degree}_{what}"
                found = row(name, measure(chosen), unit, ("<=", goal), detail)
                yield {**found, "peer": f"reference study: {goal:g}"}
    for degree in DEGREES:
        plain, better = (
            mean(d.distance_ratio for d in days if (d.arm, d.degree) == (arm, degree))
            for arm in (PLAIN, REOPTIMISED)
        )
        name = f"study_reoptimised_dod{degree}_over_plain_distance"
        yield row(name, better / plain, "x", ("<", 1.0))


def spare_rows(table: Table) -> Iterator[Row]:
    """Denied by class, spares and protection, and the cost with every robot that is owned."""
    for fleet, goals in SHEET_SPARES.items():
        name = "study_spares{}_protected{}".format(*fleet)
        for rank, (kind, goal) in enumerate(zip(CLASSES, goals, strict=True)):
            found = row(f"{name}_{kind}_denied", denied_pct(table[fleet], [rank]), "%")
            yield {**found, "peer": f"reference study: {goal:g}"}
    money = {fleet: mean(day.money for day in days) for fleet, days in table.items()}
    for spares in SPARES:
        levels = {level: money[each, level] for each, level in FLEETS if each == spares}
        detail = {"by_protection": levels}
        yield row(f"study_cost_spares{spares}", min(levels.values()), "money", detail=detail)
    best = min(money, key=lambda fleet: money[fleet])
    yield row("study_cost_least_spares", best[0], "robots", detail={"protection": best[1]})


def direction_rows(table: Table) -> Iterator[Row]:
    """The directions: every spare helps, less and less; protection helps stat and costs others."""
    spares = sorted({spares for spares, _ in SHEET_SPARES})
    total = {count: denied_pct(table[count, 0]) for count in spares}
    steps = list(pairwise(spares))
    saved = [(total[low] - total[high]) / (high - low) for low, high in steps]
    for (low, high), points in zip(steps, saved, strict=True):
        yield row(f"study_spare_{low}_to_{high}_saves", points, "points each", (">=", 0.0))
    for (low, high), (before, after) in zip(steps[1:], pairwise(saved), strict=True):
        name = f"study_spare_{low}_to_{high}_saves_less"
        yield row(name, before - after, "points each", (">=", 0.0))
    for protection in (1, 2):
        pairs = [
            (table[spares, protection - 1], table[spares, protection])
            for spares, level in SHEET_SPARES
            if level == protection
        ]
        for what, ranks, sign in (("stat", [0], 1), ("lower", [1, 2], -1)):
            shifts = [sign * (denied_pct(a, ranks) - denied_pct(b, ranks)) for a, b in pairs]
            name = f"study_protection{protection}_{what}_{'saved' if sign > 0 else 'lost'}_least"
            yield row(name, min(shifts), "points", (">=", 0.0), {"by_spares": shifts})


def draw(out: Path | None, days: Sequence[Day]) -> None:
    """Write the table of all days and the figures."""
    sys.path.append(str(HERE.parent))  # the benchmarks' drawings serve here, too
    from amr import drawing

    drawing.write_table((out or HERE / "results") / "amr_dynamic.csv", days)
    measures = {what: MEASURES[what][0] for what in ("robots", "distance")}
    drawing.draw_degrees((out or FIGURES) / "dynamism.svg", days, measures, SHEET_DEGREES)
    drawing.draw_spares((out or FIGURES) / "spares.svg", days)


if __name__ == "__main__":
    raise SystemExit(main())
