"""The command line of a study: which parts to run, where runs stay, where figures go."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from study.runs import Runs, StoppedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from study.rows import Row

    Study = Callable[[Runs, Path], Iterator[Row]]

FIGURES = Path(__file__).resolve().parents[3] / "docs" / "results"


def run_studies(
    studies: Mapping[str, Study], arguments: Sequence[str], *, system: str, words: str, seed: int
) -> int:
    """Train what is missing, print all rows, draw the figures; returns the exit code.

    Parameters
    ----------
    studies
        The parts by name, in their order.
    arguments
        Those of the command line.
    system, seed
        What every row says.
    words
        Says what the study is about.
    """
    parser = argparse.ArgumentParser(description=words)
    parser.add_argument("folder", type=Path, nargs="?", help="of the runs; a temporary one if none")
    parser.add_argument("--jobs", type=int, help="runs at a time; one a core")
    parser.add_argument("--only", nargs="+", choices=studies, default=list(studies))
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the figures")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix=f"{system}-") as temporary:
        runs = Runs(options.folder or Path(temporary), options.jobs, system)
        try:
            for name in options.only:
                for row in studies[name](runs, options.figures):
                    print(json.dumps({"system": system, **row, "seed": seed}), flush=True)
        except StoppedError as error:
            print(error, file=sys.stderr)
            return 1
    return 0
