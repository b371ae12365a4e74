"""Proven optima of the small electric VRPTW files, and what leaving legs out is worth.

Every file with 5, 10 or 15 customers below `WARDWISE_DATA` is solved with full and with
partial recharge, on one thread after warm-up; goal below 5 s each. Each is solved again
without arc elimination. `MAX_REQUESTS` and the limit on labels hold: what is refused is a
row, too.

    WARDWISE_DATA=… python wardwise/benchmarks/stochastic_exact.py [FOLDER]
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from wardwise.fleet.bounds import least_fleet
from wardwise.fleet.check import check
from wardwise.fleet.energy import Recharge
from wardwise.fleet.exact import solve_exact
from wardwise.io.evrptw import read_evrptw

SYSTEM = "stochastic"
GOAL_S = 5.0


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(data or "") / "evrptw"
    paths = sorted(path for size in ("5", "10", "15") for path in (folder / size).glob("*.txt"))
    if not paths:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    for recharge in Recharge:
        solve_exact(read_evrptw(paths[0], recharge=recharge))  # compiles
    for path in paths:
        for recharge in Recharge:
            measure(path, recharge)
    return 0


def measure(path: Path, recharge: Recharge) -> None:
    """Rows of one file: the optimum and its time, labels and time without elimination."""
    instance = read_evrptw(path, recharge=recharge)
    name = f"exact_{path.stem}_{recharge}"
    begin_s = time.perf_counter()
    try:
        solved = solve_exact(instance)
    except ValueError as refusal:
        spent_s = time.perf_counter() - begin_s
        emit(f"{name}_refused", spent_s, "s", None, {"refusal": str(refusal)})
        return
    spent_s = time.perf_counter() - begin_s
    cost = check(instance, solved.plan).cost
    detail: dict[str, object] = {
        "robots": cost.num_robots,
        "distance_m": round(cost.distance_m, 3),
        "is_proven": solved.is_proven,
        "labels": solved.num_labels,
        "ways": solved.num_ways,
        "least_robots": least_fleet(instance).robots,
    }
    emit(name, spent_s, "s", ["<=", GOAL_S], detail)
    begin_s = time.perf_counter()
    whole = solve_exact(instance, eliminates=False)
    whole_s = time.perf_counter() - begin_s
    labels = whole.num_labels / solved.num_labels
    emit(f"{name}_labels_without_elimination", labels, "x", None, {})
    emit(f"{name}_time_without_elimination", whole_s / spent_s, "x", None, {})


def emit(name: str, value: float, unit: str, goal: object, detail: dict[str, object]) -> None:
    row = {"system": SYSTEM, "name": name, "value": value, "unit": unit, "peer": None}
    print(json.dumps({**row, "goal": goal, "detail": detail}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
