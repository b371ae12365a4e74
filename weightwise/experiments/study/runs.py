"""Runs of a study: each made once and kept, with its record and what it has logged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from weightwise.sweep import Sweep, read_records, run_sweep
from weightwise.train import read_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from weightwise.train import Recipe

Record = dict[str, Any]
Metrics = list[dict[str, float]]

BYTES = 257  # and the end of a text
# A run that diverged counts with the loss of guessing.
GUESS = math.log(BYTES)


class StoppedError(RuntimeError):
    """Not all runs could be made; what is there is kept, and the next call goes on."""


class Runs:
    """Makes runs that are missing.

    Parameters
    ----------
    folder
        Where runs and their records stay.
    jobs
        Runs at a time; None for one a core.
    name
        Of the study.

    Attributes
    ----------
    folder
        The same, absolute.
    """

    def __init__(self, folder: Path, jobs: int | None, name: str) -> None:
        self.folder = folder.resolve()
        self._jobs = jobs
        self._name = name

    def make(self, recipes: Iterable[Recipe]) -> list[Record]:
        """Records of runs in the order asked for; missing ones are made first.

        Raises
        ------
        StoppedError
            If a run was stopped or failed.
        """
        wanted = tuple(recipes)
        result = run_sweep(Sweep(name=self._name, runs=wanted), self.folder, jobs=self._jobs)
        if not result.is_complete:
            raise StoppedError(f"{self.folder}: runs are missing, see failed.jsonl")
        records = {record["name"]: record for record in read_records(result.records)}
        return [records[recipe.name] for recipe in wanted]

    def losses(self, recipes: Iterable[Recipe]) -> list[float]:
        """Validation losses, nats a token."""
        return [loss_of(record) for record in self.make(recipes)]

    def run_dir(self, recipe: Recipe) -> Path:
        """Folder of a run."""
        return self.folder / "runs" / recipe.name

    def metrics(self, recipe: Recipe) -> Metrics:
        """What a run that is made has logged."""
        return read_metrics(self.run_dir(recipe) / "metrics.jsonl")


def loss_of(record: Record) -> float:
    """Validation loss of a run."""
    return float(record["loss"]) if record["status"] == "done" else GUESS
