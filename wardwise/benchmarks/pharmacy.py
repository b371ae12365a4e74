"""The dispensing machine: exact sequences, free paths, simulation, answers of a running day, pairs.

Each part says in its file in `adds/` what is compared, with whom and how. One process, one thread;
times are CPU seconds after warm-up, medians of repetitions that take turns, unless a part says
otherwise. Free paths and the running day are timed on the wall: run it on an idle machine.

    python wardwise/benchmarks/pharmacy.py [--quick] [--parts chain,programs]
"""

from __future__ import annotations

import os

THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
for _name in THREADS:  # before anything starts threads
    os.environ[_name] = "1"

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402

from adds import chain, free_paths, pairing, recursion, running_day  # noqa: E402

PARTS = {
    "chain": chain.day_rows,
    "programs": chain.program_rows,
    "paths": free_paths.rows,
    "recursion": recursion.rows,
    "online": running_day.rows,
    "pairing": pairing.rows,
}
SYSTEM = "pharmacy"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS), help=",".join(PARTS))
    parser.add_argument("--quick", action="store_true", help="small sizes, fewer repetitions")
    options = parser.parse_args()
    wanted = options.parts.split(",")
    if unknown := [name for name in wanted if name not in PARTS]:
        print(f"--parts: there is no {', '.join(unknown)}", file=sys.stderr)
        return 2
    for name in wanted:
        print(name, file=sys.stderr)
        for row in PARTS[name](is_quick=options.quick):
            print(json.dumps({"system": SYSTEM, **row}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
