"""What training in 8 bits costs in loss, with models of half a million weights.

Claims (arXiv 2310.18313): 8-bit gradients, optimizer states and weights train like 16-bit ones; a
float16 master with a scale, an E4M3 first and a float16 second moment are enough, while an 8-bit
master or second moment is not; dividing gradients before an 8-bit sum loses small ones, afterwards
large ones; fine-tuning is as good.

Here: three layers of width 128, half a million bytes of Python's sources and manual, 400 steps,
three seeds; see eightbit/runs.py. In the ablation products stay in float32. Rows with a goal are
the claims.

Command   python weightwise/experiments/fp8_lm.py [FOLDER] [--jobs N] [--only STUDY ...]
          keeps the runs in FOLDER and goes on where it was stopped
Cost      about a quarter of an hour on two CPU cores, 39 runs
"""

from __future__ import annotations

import sys

from eightbit.runs import SEEDS
from eightbit.studies import decoupling, levels, scaling, tuning
from study.command import run_studies

SYSTEM = "fp8-lm"
STUDIES = {"levels": levels, "decoupling": decoupling, "scaling": scaling, "tuning": tuning}

if __name__ == "__main__":
    raise SystemExit(
        run_studies(
            STUDIES, sys.argv[1:], system=SYSTEM, words=__doc__.splitlines()[0], seed=SEEDS[0]
        )
    )
