"""How long the compiled loops take for one move and for one place of an insertion.

Tabu search: iterations from the best construction of every Solomon file (100
customers, hard windows), shortest distance. The time is that of whole iterations,
execution of moves and upkeep of the sums included, over all moves they evaluate.
A move is evaluated when it is known not to be the best: most are so by their
distance alone, which `weighed_share` tells apart.

Insertion: a tenth of the customers is taken out of a plan, and each of them scans
all places in all chains, a hundred times over.

CPU time of one thread; medians over the files.

    WARDWISE_DATA=... python wardwise/benchmarks/moves.py
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from wardwise.fleet.search.construct import cheapest_first
from wardwise.fleet.search.insertion import best_insertion, plan_weights
from wardwise.fleet.search.packed import Objective, Packed, pack
from wardwise.fleet.search.tabu import Tabu, TabuParams
from wardwise.fleet.search.tabu_memory import CLOCK, EVALUATED, WEIGHED
from wardwise.fleet.search.watch import Watch
from wardwise.fleet.solvers import warm_up
from wardwise.io import read_instance

if TYPE_CHECKING:
    from wardwise.fleet.search.chains import Chains
    from wardwise.fleet.search.fleet import Fleet
    from wardwise.fleet.search.insertion import Weights
    from wardwise.fleet.search.packed import Ints

ITERATIONS, REPETITIONS, SEED = 3000, 100, 1
GOAL = ["<=", 10.0]


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    warm_up("tabu")
    moves: dict[str, tuple[float, float, float]] = {}
    places: dict[str, float] = {}
    for path in sorted((Path(data) / "solomon").glob("*.txt")):
        packed = pack(read_instance(path), Objective.DISTANCE)
        moves[path.stem] = move_ns(packed)
        places[path.stem] = place_ns(packed)
        print(f"{path.stem} {moves[path.stem][0]:.1f} {places[path.stem]:.2f} ns", file=sys.stderr)
    columns = zip(*moves.values(), strict=True)
    ns, weighed, per_iteration = (statistics.median(column) for column in columns)
    detail = {
        "by_file": {name: round(values[0], 2) for name, values in moves.items()},
        "weighed_share": round(weighed, 4),
        "moves_per_iteration": round(per_iteration),
    }
    print_row("tabu_move_evaluation", ns, GOAL, detail)
    by_file = {name: round(value, 2) for name, value in places.items()}
    print_row("insertion_position_evaluation", statistics.median(places.values()), None,
              {"by_file": by_file})  # fmt: skip
    return 0


def move_ns(packed: Packed) -> tuple[float, float, float]:
    """Nanoseconds a move, share of moves weighed in full, and moves an iteration."""
    rng = np.random.default_rng(SEED)
    watch = Watch(time_limit=1e9, max_iterations=ITERATIONS, on_improvement=lambda *_: None)
    search = Tabu(cheapest_first(packed), rng, watch, TabuParams())
    start = time.thread_time()
    search.run()
    seconds = time.thread_time() - start
    tally = search.tally
    evaluated = int(tally[EVALUATED])
    return 1e9 * seconds / evaluated, tally[WEIGHED] / evaluated, evaluated / tally[CLOCK]


def place_ns(packed: Packed) -> float:
    """Nanoseconds a place of a scan through all chains."""
    fleet: Fleet = cheapest_first(packed)
    nodes = np.arange(1, len(packed.place), 10)
    fleet.release(nodes)
    weights = plan_weights(packed)
    scan_often(packed, fleet.chains, weights, nodes, 1)
    start = time.thread_time()
    scan_often(packed, fleet.chains, weights, nodes, REPETITIONS)
    seconds = time.thread_time() - start
    used = fleet.chains.length[fleet.chains.length > 2]
    # One idle robot stands for all: they are alike.
    num_places = int((used - 1).sum()) + 1
    return 1e9 * seconds / (REPETITIONS * len(nodes) * num_places)


@njit
def scan_often(packed: Packed, chains: Chains, weights: Weights, nodes: Ints, times: int) -> float:
    """Sum of the cheapest prices, so that no scan is left out."""
    total = 0.0
    for _ in range(times):
        for u in nodes:
            total += best_insertion(packed, chains, weights, u)[0]
    return total


def print_row(
    name: str, ns: float, goal: list[str | float] | None, detail: dict[str, object]
) -> None:
    row = {
        "system": "dispatch",
        "name": name,
        "value": round(ns, 3),
        "unit": "ns",
        "goal": goal,
        "seed": SEED,
        "detail": {"files": "Solomon, 100 customers", **detail},
    }
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
