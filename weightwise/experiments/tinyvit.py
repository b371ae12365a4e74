"""What a stored teacher is worth: students of a third of its size, on pairs of digits.

Claims (arXiv 2207.10666): training from a store is training beside the teacher; a distilled
student is better than one of the same labels; a few classes of an image are enough; a distilled
student relates classes as its teacher does; small models fail on what is hard.

Here: images of 32 x 32 pixels with two digits, a hundred classes, 4000 images of which training
sees each six times; three seeds, see tinyvit/recipes.py. Where labels are wrong, the teacher has
learned from the same wrong labels. Labels alone get the best of three rates and three smoothings
on a tuning split; teachers and distilled students are not tuned. Rows with a goal are the claims.

Command   python weightwise/experiments/tinyvit.py [FOLDER] [--only STUDY ...]
          keeps the runs in FOLDER and goes on where it was stopped; one run at a time, and several
          commands with one FOLDER share the work (--jobs has no meaning here)
Cost      about forty minutes on one CPU core, 74 runs
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from study.command import run_studies
from tinyvit.recipes import Scale
from tinyvit.runs import VisionRuns
from tinyvit.studies import kept, learned, online, wrong

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from study.command import Study
    from study.rows import Row
    from study.runs import Runs

SYSTEM = "tinyvit"
SCALE = Scale()


def on_images(study: Callable[[VisionRuns, Path], Iterator[Row]]) -> Study:
    """A study whose runs are those of vision models."""

    def started(runs: Runs, figures: Path) -> Iterator[Row]:
        return study(VisionRuns(runs.folder, SCALE), figures)

    return started


STUDIES = {
    name: on_images(study)
    for name, study in {
        "online": online, "wrong": wrong, "kept": kept, "learned": learned,
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
