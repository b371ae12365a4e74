"""Answers of a running day: how fast, against full re-solves, and at what cost.

Insertion: the whole `Dispatcher.submit`, journal without fsync and explanation
included, with about 100 and 1,000 open stops (Gehring-Homberger r1_2_1 and
rc1_10_1) and on days of a hospital; the compiled loop in it; and the ratio to full
re-solves of the same state with the same request by PyVRP, OR-Tools and VROOM.

Policy: the cost of days on one Solomon instance of each class with half of the
requests dynamic, and of R101 and RC201 with 90 %. Hard windows, one trip a robot,
collections, priorities 20/30/50 %, default prices. Ours answers by the rules and
re-optimises after each request; the other policy re-solves everything by PyVRP
with 0.3 s for each request, from its last plan, and keeps all promises. Both start
from the same plan. Then the ten public dynamic files, where nobody is denied for
a price.

One process, one thread. Single days go to `results/dynamic.csv`.

    WARDWISE_DATA=... python wardwise/benchmarks/dynamic.py
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from peers import days, latency, results
from peers.open_day import open_day

from wardwise.fleet.dispatch import warm_up
from wardwise.io import read_instance

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).resolve().parent
THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PARTS = ("insertion", "resolve", "policy", "dvrptw")
LARGE = {100: "r1_2_1", 1000: "rc1_10_1"}
# Instance and degree; one of each class, and two days with nearly everything dynamic.
POLICY_DAYS = {
    "R101": (0.5, 0.9), "C101": (0.5,), "RC101": (0.5,),
    "R202": (0.5,), "C201": (0.5,), "RC201": (0.5, 0.9),
}  # fmt: skip
SEED = 1
NUM_STATES, NUM_NEW, REPETITIONS = 4, 100, 6
RESOLVES_PER_STATE = 10
HOSPITAL_SEEDS = tuple(range(1, 11))
PUBLIC_S = 0.05


def main() -> int:
    data = os.environ.get("WARDWISE_DATA")
    if not data:
        print("set WARDWISE_DATA to the folder of routing instances", file=sys.stderr)
        return 2
    options = parse()
    for name in THREADS:
        os.environ[name] = "1"
    warm_up()
    table: list[days.Lived] = []
    makers = {"insertion": insertion, "resolve": resolve, "policy": policy, "dvrptw": dvrptw}
    for part in options.parts:
        for row in makers[part](options, Path(data), table):
            print(json.dumps({**row, "seed": SEED}), flush=True)
    if table:
        write(options.out or HERE / "results", table)
    return 0


def parse() -> argparse.Namespace:
    """Options; without any, everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])

    def words(text: str) -> list[str]:
        return text.split(",")

    add = parser.add_argument
    add("--parts", type=words, default=list(PARTS), help=",".join(PARTS))
    add("--instances", type=words, help="of the parts policy and dvrptw; all by default")
    add("--quick", action="store_true", help="one state, one repetition, 50 %% days alone")
    add("--out", type=Path, help="folder for the CSV; in the repository by default")
    return parser.parse_args()


def insertion(
    options: argparse.Namespace,
    data: Path,
    table: list[days.Lived],  # noqa: ARG001
) -> Iterator[latency.Row]:
    """Whole call and compiled loop."""
    num_states, repetitions = (1, 1) if options.quick else (NUM_STATES, REPETITIONS)
    sizes = {
        size: [
            open_day(
                data / "gehring_homberger" / f"{name}.txt",
                num_open=size,
                num_new=NUM_NEW,
                seed=SEED + k,
            )
            for k in range(num_states)
        ]
        for size, name in LARGE.items()
    }
    yield from latency.submit_rows(sizes, repetitions)
    yield from latency.kernel_rows(sizes, repetitions)
    yield from latency.hospital_rows(HOSPITAL_SEEDS[:1] if options.quick else HOSPITAL_SEEDS)


def resolve(
    options: argparse.Namespace,
    data: Path,
    table: list[days.Lived],  # noqa: ARG001
) -> Iterator[latency.Row]:
    """Ratios to full re-solves with about 100 open stops."""
    num_states, per_state = (1, 2) if options.quick else (NUM_STATES, RESOLVES_PER_STATE)
    path = data / "gehring_homberger" / f"{LARGE[100]}.txt"
    states = [
        open_day(path, num_open=100, num_new=per_state, seed=SEED + k) for k in range(num_states)
    ]
    yield from latency.resolve_rows(states, per_state)


def policy(
    options: argparse.Namespace, data: Path, table: list[days.Lived]
) -> Iterator[latency.Row]:
    """Cost of days under our dispatcher over that under a policy of re-solves."""
    wanted = [
        (data / "solomon" / f"{name}.txt", degree)
        for name, degrees in POLICY_DAYS.items()
        for degree in degrees[: 1 if options.quick else None]
        if options.instances is None or name in options.instances
    ]
    found = list(days.policy_days(wanted, SEED))
    table += found
    if found:
        yield from days.policy_rows(found)


def dvrptw(
    options: argparse.Namespace, data: Path, table: list[days.Lived]
) -> Iterator[latency.Row]:
    """The public dynamic files."""
    paths = [
        path
        for path in sorted((data / "dvrptw").glob("*.txt"))
        if options.instances is None or path.stem in options.instances
    ]
    found = list(days.public_days(paths, PUBLIC_S, SEED))
    table += found
    sizes = {path.stem: len(read_instance(path).requests) for path in paths}
    yield from days.public_rows(found, sizes, results.read_best(data / "best_known.csv"))


def write(folder: Path, table: list[days.Lived]) -> None:
    """Write a line for each day."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "dynamic.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(days.Lived._fields)
        for day in table:
            writer.writerow([f"{v:.4f}" if isinstance(v, float) else v for v in day])


if __name__ == "__main__":
    raise SystemExit(main())
