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

import sys

from mixture.law import law
from mixture.post import post
from mixture.rates import rates
from mixture.runs import SEEDS
from mixture.studies import dense, load, overflow, recipe
from study.command import run_studies

SYSTEM = "moe"
STUDIES = {
    "overflow": overflow,
    "dense": dense,
    "load": load,
    "recipe": recipe,
    "rates": rates,
    "law": law,
    "post": post,
}

if __name__ == "__main__":
    raise SystemExit(
        run_studies(
            STUDIES, sys.argv[1:], system=SYSTEM, words=__doc__.splitlines()[0], seed=SEEDS[0]
        )
    )
