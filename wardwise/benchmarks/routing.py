"""PyVRP behind `solve` against its reference figures, and our own methods beside it.

Reads R101, C101 and RC208 and plans each for ten seconds on one thread, once
for distance and once for fewest robots. The reference figures were measured
with PyVRP 0.14.1 at ten seconds, fleet-first with a fixed cost of 10^6, and
integers scaled by 100. PyVRP's result depends on its seed, so the medians over
three are compared. Every plan must pass `check`.

Needs `WARDWISE_DATA`. RC208 is taken from `WARDWISE_DATA` too where it is
there; otherwise from PyVRP's source distribution, which holds it as test data.

    WARDWISE_DATA=… python wardwise/benchmarks/routing.py
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from wardwise.fleet.check import check
from wardwise.fleet.solvers import solve, warm_up
from wardwise.io import read_instance

SECONDS = 10.0
SEEDS = [1, 2, 3]
PYVRP = "pyvrp==0.14.1"
# Instance: objective: (robots, distance) of PyVRP at ten seconds.
REFERENCE = {
    "R101": {"distance": (20, 1642.88), "hierarchical": (19, 1650.80)},
    "C101": {"distance": (10, 828.94), "hierarchical": (10, 828.94)},
    "RC208": {"distance": (4, 785.42), "hierarchical": (3, 837.64)},
}
METHODS = ("pyvrp", "ruin", "insertion")


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        for name, goals in REFERENCE.items():
            instance = read_instance(find(name, Path(data), Path(folder)))
            for objective, (robots, distance) in goals.items():
                for method in METHODS:
                    measure(instance, name, objective, method, robots, distance)
    return 0


def find(name: str, data: Path, folder: Path) -> Path:
    """Path of an instance: the data folder's, or unpacked from PyVRP's source distribution."""
    path = data / "solomon" / f"{name}.txt"
    if path.exists():
        return path
    print(f"{name} is not in {path.parent}: unpacking it from {PYVRP}", file=sys.stderr)
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
         "--dest", folder, PYVRP],
        check=True, stdout=sys.stderr,
    )  # fmt: skip
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        member = next(m for m in archive.getmembers() if m.name.endswith(f"tests/data/{name}.vrp"))
        member.name = f"{name}.vrp"
        archive.extract(member, folder, filter="data")
    return folder / f"{name}.vrp"


def measure(instance, name, objective, method, robots, distance):
    """Plan with every seed; print the median over seeds of robots and distance."""
    seeds = SEEDS if method == "pyvrp" else SEEDS[:1]
    costs, seconds = [], []
    for seed in seeds:
        start = time.perf_counter()
        plan = solve(instance, method=method, objective=objective, time_limit=SECONDS, seed=seed)
        seconds.append(round(time.perf_counter() - start, 2))
        report = check(instance, plan)
        assert report.is_feasible, report.violations
        assert report.cost.num_denied == 0
        costs.append(report.cost)
    found = [[cost.num_robots, round(cost.distance_m, 2)] for cost in costs]
    common = {
        "system": "foundation",
        "peer": f"PyVRP 0.14.1: {robots} robots, {distance}",
        "seed": seeds[0],
        "detail": {"robots_and_distance_by_seed": found, "seeds": seeds, "seconds": seconds},
    }
    ratio = statistics.median(cost.distance_m for cost in costs) / distance
    rows = [
        ("robots", statistics.median(cost.num_robots for cost in costs), "robots", ["==", robots]),
        ("distance_ratio", ratio, "x", ["<=", 1.01]),
    ]
    for what, value, unit, goal in rows:
        row = {
            "name": f"routing_{name}_{objective}_{method}_{what}",
            "value": value,
            "unit": unit,
            # The goal is to have PyVRP's quality behind `solve`; ours stand beside it.
            "goal": goal if method == "pyvrp" else None,
        }
        print(json.dumps({**common, **row}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
