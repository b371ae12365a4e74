"""Time and result of fits: 350 runs with eight constants, and the digitised Chinchilla runs.

    WEIGHTWISE_DATA=... python weightwise/benchmarks/law_fit.py

The runs are the paper's grid (table 3) with losses of the published law and normal noise of 0.005
nats. Times are CPU seconds of the process, every start included; medians.
"""

from __future__ import annotations

import csv
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weightwise.laws import CAPYBARA, Settings, constants, fit, read_settings

if TYPE_CHECKING:
    from weightwise.laws import Fit

SYSTEM = "precision-law"
REPEATS, NOISE, SEED = 7, 0.005, 1


def main() -> int:
    folder = os.environ.get("WEIGHTWISE_DATA")
    if not folder:
        print("set WEIGHTWISE_DATA to the folder of scaling-law data", file=sys.stderr)
        return 2
    settings = read_settings(Path(folder) / "table3_configurations.csv")
    settings = settings[settings.granularity != "tensor"]
    rng = np.random.default_rng(SEED)
    losses = CAPYBARA.loss(settings) + NOISE * rng.standard_normal(len(settings))
    for objective in ("huber", "squares"):
        seconds, found = timed("capybara", settings, losses, objective)
        emit(
            name=f"fit_capybara_{objective}_time", value=seconds, unit="s", goal=("<", 1.0),
            detail={"runs": len(settings), "constants": constants(found.law)},
        )  # fmt: skip
    settings, losses = chinchilla_runs(Path(folder) / "chinchilla_svg_extracted.csv")
    seconds, found = timed("chinchilla", settings, losses, "huber")
    emit(
        name="fit_chinchilla_objective", value=found.objective, unit="",
        goal=("<=", 0.00101828), peer="Besiroglu et al. 2024: 0.00101827403 with 4500 starts",
        detail={"runs": len(settings), "cpu_s": seconds, "constants": constants(found.law)},
    )  # fmt: skip
    return 0


def timed(name: str, settings: Settings, losses: np.ndarray, objective: str) -> tuple[float, Fit]:
    """Median CPU seconds of a fit, and the fit."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        found = fit(name, settings, losses, objective=objective)
        seconds.append(time.process_time() - start)
    return statistics.median(seconds), found


def chinchilla_runs(path: Path) -> tuple[Settings, np.ndarray]:
    """The 240 runs that the source kept: all but the five of highest loss."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    size, compute, loss = (
        np.array([float(row[column]) for row in rows])
        for column in ("Model Size", "Training FLOP", "loss")
    )
    kept = np.argsort(loss)[:-5]
    return Settings.of(size[kept], compute[kept] / 6 / size[kept]), loss[kept]


def emit(**row: Any) -> None:
    """Print one measurement as a JSON line."""
    print(json.dumps({"system": SYSTEM, **row}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
