"""What the parts of a mixture of experts are worth, with models of two hundred thousand weights.

Claims (arXiv 2411.02265, which prints no ablations): tokens beyond the capacity of an expert are
better recycled than dropped; experts learn better at 0.31 of the rate of other weights; activated
weights do more with experts than in a dense model; at equal compute the loss is a flat parabola
in log N, whose bottom moves as a power of the compute; a balance loss evens the loads; and
fine-tuning followed by preferences makes answers that are preferred.

Here: four layers of width 64, a shared and eight specialised experts, half a million bytes of
Python's sources and manual, see mixture/runs.py; evaluation without capacity. Learning rates are
chosen with seed 0 and compared with seeds 1 to 3, on a grid that grows until the best is inside.
The law has its own runs, two layers of width 8 to 64. Rows with a goal are the claims.

Command   python weightwise/experiments/moe.py [FOLDER] [--jobs N] [--only STUDY ...]
          keeps the runs in FOLDER and goes on where it was stopped
Cost      about half an hour on one CPU core, 80 runs
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mixture.law import law
from mixture.post import post
from mixture.rates import rates
from mixture.runs import SEEDS, Runs, StoppedError
from mixture.studies import dense, load, overflow, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mixture.rows import Row

    Study = Callable[[Runs, Path], Iterator[Row]]

SYSTEM = "moe"
FIGURES = Path(__file__).resolve().parents[2] / "docs" / "results"
STUDIES: dict[str, Study] = {
    "overflow": overflow,
    "dense": dense,
    "load": load,
    "recipe": recipe,
    "rates": rates,
    "law": law,
    "post": post,
}


def main(arguments: Sequence[str]) -> int:
    """Train what is missing, print all rows, draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="of the runs; a temporary one if none")
    parser.add_argument("--jobs", type=int, help="runs at a time; one a core")
    parser.add_argument("--only", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="moe-") as temporary:
        runs = Runs(options.folder or Path(temporary), options.jobs)
        try:
            for name in options.only:
                for row in STUDIES[name](runs, options.figures):
                    print(json.dumps({"system": SYSTEM, **row, "seed": SEEDS[0]}), flush=True)
        except StoppedError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
