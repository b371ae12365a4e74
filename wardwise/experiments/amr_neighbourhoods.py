"""What each neighbourhood, kind of shake and property does for a plan.

Claim (scheduling of hospital robots in a stochastic environment; no table of the paper could
be had): a variable neighbourhood search that uses properties of the problem is better than
existing methods. Which of its parts earn their time is not told.

Here: six electric Solomon instances with partial recharge and a generated hospital day with
batteries, several trips and late goods. A variant has all moves, none (the reduced search),
all but one or one alone, after either kind of shake; each runs for the same iterations and
for the same time, and its robots and metres stand beside those of the reduced search with
strings, the default. Of the properties, charging during reloads (P8) is switched off by a
hospital without a charger at the depot, and robots by matching (P6) are counted on the first
plan. Useless stations (P5) and ended scans (P3) have no switch; their tests say that they
lose nothing.

Command   WARDWISE_DATA=... python wardwise/experiments/amr_neighbourhoods.py
Cost      about 80 minutes on two CPU cores with the default 10 seconds a plan
Expect    descents shorten plans in equal iterations, not in equal time: the reduced search
          with strings is the best one on hospital days
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from robust.rows import row

from wardwise.fleet.check import check
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.solvers import warm_up
from wardwise.fleet.vns.model import model
from wardwise.fleet.vns.moves import ALL, NONE, Move
from wardwise.fleet.vns.search import Search
from wardwise.fleet.vns.solve import SHAKES, vns
from wardwise.generate import generate_hospital
from wardwise.io import read_evrptw

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from robust.rows import Row

    from wardwise.fleet.problem import Instance

ELECTRIC = ("c101", "r105", "rc101", "c205", "r205", "rc205")
ITERATIONS = 3000
DEFAULT = "strings_reduced"


class Variant(NamedTuple):
    """Moves of the descents and kind of the shakes."""

    moves: Move
    shake: str


class Result(NamedTuple):
    """A plan by the referee's figures."""

    robots: int
    metres: float
    is_sound: bool


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    options = parse()
    for local_search, shake in product((False, True), SHAKES):
        warm_up("vns", local_search=local_search, shake=shake)
    for measured in rows(days(Path(data), options.instances), options.seeds, options.seconds):
        found = {"system": "stochastic", "seed": options.seeds[0], **measured}
        print(json.dumps(found), flush=True)
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, the whole study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    names = [*ELECTRIC, "hospital"]
    add("--instances", type=lambda text: text.split(","), default=names)
    add("--seeds", type=lambda text: [int(s) for s in text.split(",")], default=[1, 2])
    add("--seconds", type=float, default=10.0, help="time of each plan")
    return parser.parse_args()


def days(data: Path, names: Sequence[str]) -> dict[str, Instance]:
    """Instances by name."""
    hospital = generate_hospital(batteries=True, seed=1)
    return {
        name: hospital
        if name == "hospital"
        else read_evrptw(data / "evrptw" / "100" / f"{name}_21.txt")
        for name in names
    }


def variants() -> dict[str, Variant]:
    """All variants by name, the default first."""
    found = {DEFAULT: Variant(NONE, SHAKES[0])}
    found |= {f"{shake}_all": Variant(ALL, shake) for shake in SHAKES}
    found["cyclic_reduced"] = Variant(NONE, SHAKES[1])
    for move in Move:
        name = str(move.name).lower()
        found[f"strings_without_{name}"] = Variant(ALL & ~move, SHAKES[0])
        found[f"strings_{name}_alone"] = Variant(move, SHAKES[0])
    return found


def rows(instances: Mapping[str, Instance], seeds: Sequence[int], seconds: float) -> Iterator[Row]:
    """All measurements; variants take turns, so that a busy machine is unfair to none."""
    limits = {
        "iterations": {"max_iterations": ITERATIONS, "time_limit": 3600.0},
        "time": {"time_limit": seconds},
    }
    for equal, limit in limits.items():
        results: dict[str, list[Result]] = {name: [] for name in variants()}
        for instance in instances.values():
            for seed in seeds:
                for name, variant in variants().items():
                    results[name].append(plan(instance, variant, seed, limit))
        yield from compared(equal, results)
    if "hospital" in instances:
        yield from reload_rows(instances["hospital"], seeds, limits["time"])
        yield from matching_rows(instances["hospital"])


def plan(instance: Instance, variant: Variant, seed: int, limit: Mapping[str, Any]) -> Result:
    """One plan."""
    found = vns(instance, local_search=variant.moves, shake=variant.shake, seed=seed, **limit)
    report = check(instance, found)
    is_sound = report.is_feasible and not found.denied
    return Result(report.cost.num_robots, report.cost.distance_m, is_sound)


def compared(equal: str, results: Mapping[str, Sequence[Result]]) -> Iterator[Row]:
    """Robots and metres of each variant over those of the default."""
    for name, found in results.items():
        pairs = list(zip(found, results[DEFAULT], strict=True))
        more = sum(a.robots - b.robots for a, b in pairs)
        ratio = mean(a.metres / b.metres for a, b in pairs)
        detail = {"robots_more": more, "plans": len(pairs), "equal": equal}
        yield row(f"neighbourhoods_{name}_equal_{equal}_metres", ratio, "x", detail=detail)
    faults = sum(not each.is_sound for found in results.values() for each in found)
    yield row(f"neighbourhoods_equal_{equal}_unsound", faults, "", ("==", 0))


def reload_rows(
    instance: Instance, seeds: Sequence[int], limit: Mapping[str, Any]
) -> Iterator[Row]:
    """Robots and metres with and without a charger where robots reload (property P8)."""
    home = instance.places[0].id
    away = tuple(s for s in instance.stations if s.place != home or s.charge is None)
    default = variants()[DEFAULT]
    for name, day in (("with", instance), ("without", replace(instance, stations=away))):
        found = [plan(day, default, seed, limit) for seed in seeds]
        detail = {"robots": mean(each.robots for each in found)}
        metres = mean(each.metres for each in found)
        yield row(f"neighbourhoods_{name}_charging_at_depot_metres", metres, "m", detail=detail)


def matching_rows(instance: Instance) -> Iterator[Row]:
    """Robots of the first plan before and after its trips go to the fewest (property P6)."""
    search = Search(model(instance, Objective.HIERARCHICAL), 1)
    search.construct({})
    yield row("neighbourhoods_first_robots", len(search.used()), "robots")
    search.reassign()
    yield row("neighbourhoods_first_robots_matched", len(search.used()), "robots")


if __name__ == "__main__":
    raise SystemExit(main())
