"""What shared weights cost, what wins it back, and trained models at half their weights.

Claims (arXiv 2204.07154): sharing one set of weights by all blocks harms training, whose gradients
become large and alike; transforms of each execution and a teacher make up for it, down to one set
of weights for all of DeiT-B. Ours: a trained model shrinks to half its weights and keeps what it
can do, better than by plain sharing or with half its blocks.

Here: six executions of width 32 on 500 digits of 8 x 8 pixels, 400 steps, see minivit/digits.py;
and the recipes digits-vit and demo, the latter with six blocks, see minivit/shrunk.py. Three seeds
of weights and of the order of training, of originals, teachers and students alike. All kinds have
the rate that is best for the one that shares nothing, on a seed and images of their own; `rates`
shows the others. Rows with a goal are the claims.

Command   python weightwise/experiments/minivit.py [FOLDER] [--jobs N] [--only STUDY ...]
          keeps the runs in FOLDER and goes on where it was stopped; --jobs is for language models
Cost      about half an hour on one CPU core, 78 runs
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from minivit.runs import MiniRuns, Scale
from minivit.studies import ablation, language, one, rates, stability, vision
from study.command import run_studies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from study.command import Study
    from study.rows import Row
    from study.runs import Runs

SYSTEM = "minivit"
SCALE = Scale()


def with_runs(study: Callable[[MiniRuns, Path], Iterator[Row]]) -> Study:
    """A study whose runs are those of this page."""

    def started(runs: Runs, figures: Path) -> Iterator[Row]:
        return study(MiniRuns(runs, SCALE), figures)

    return started


STUDIES = {
    name: with_runs(study)
    for name, study in {
        "ablation": ablation, "rates": rates, "stability": stability, "one": one,
        "vision": vision, "language": language,
    }.items()
}  # fmt: skip

if __name__ == "__main__":
    # Small products gain nothing from more threads, and sums keep their order.
    torch.set_num_threads(1)
    raise SystemExit(
        run_studies(
            STUDIES,
            sys.argv[1:],
            system=SYSTEM,
            words=__doc__.splitlines()[0],
            seed=SCALE.seeds[0],
        )
    )
