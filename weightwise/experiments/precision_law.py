"""A law of loss with low-precision operands, fitted to 58 small models; and which operands matter.

Claims (arXiv 2501.02423), with P2, P4 and P6 quantized: the loss over the unquantized one grows
with D and falls with N, as powers; it is linear in log2 B; exponent bits matter slightly more than
mantissa bits, so E1M1 > E2M1 > E4M3; and Capybara describes all of it better than laws that know
only the number of bits. At 3 bits (E1M1): P5 alone is worst, P1, P3 and P5 alone raise the loss
clearly, P4 or P6 alone are best, P2 + P6 and P2 + P4 + P6 are about P2.

Here: two layers of width 32, 64 and 128 (27 thousand to 426 thousand weights) on 0.6 to 2.5
million bytes of Python's sources and manual, see precision_law.toml; the study of operands has
width 64, 1.2 million bytes and two seeds. The paper's models are a thousand times larger: what can
be compared is the direction and the form, not the constants. Rows with a goal are the claims.

Command   python weightwise/experiments/precision_law.py [FOLDER]
          keeps the runs in FOLDER and goes on where it was stopped
Cost      about 25 minutes on two CPU cores, 76 runs
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from weightwise.laws import constants, cross_validate, extrapolate, fit, read_runs
from weightwise.numerics import PrecisionConfig, Target
from weightwise.sweep import Sweep, read_records, read_sweep, run_sweep

SYSTEM = "precision-law"
SPEC = Path(__file__).with_suffix(".toml")
LAWS = ("capybara", "kumar", "chinchilla", "openai")
NUM_SAMPLES, LEVELS = 200, (0.05, 0.95)
# Operands of the second study; the last is what all runs of the first quantize.
ARMS = ("P1", "P2", "P3", "P4", "P5", "P6", "P2+P6", "P2+P4+P6")
ALL = ARMS[-1]
SEEDS = (1, 2)
# Losses that are "about" the same, in percent: a quarter of the axis of the paper's figure 2.
ABOUT_PERCENT = 0.5
# A run that diverged counts with the loss of guessing among 256 bytes and the end of a text.
GUESS = float(np.log(257))

Record = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Train what is missing and print all rows."""
    if arguments:
        return study(Path(arguments[0]))
    with tempfile.TemporaryDirectory(prefix="precision-law-") as folder:
        return study(Path(folder))


def study(folder: Path) -> int:
    """Both studies, with their runs in a folder."""
    grid = read_sweep(SPEC)
    for sweep in (grid, operands(grid)):
        result = run_sweep(sweep, folder / sweep.name)
        if not result.is_complete:
            print(f"{sweep.name}: stopped or failed, see {folder}", file=sys.stderr)
            return 1
    records = read_records(folder / grid.name / "runs.jsonl")
    emit("study_law_runs", len(records), "", (">=", 40), {"runs": [brief(r) for r in records]})
    penalties(Penalties(records))
    targets(read_records(folder / operands(grid).name / "runs.jsonl"))
    fits(folder / grid.name / "runs.jsonl")
    return 0


def operands(grid: Sweep) -> Sweep:
    """Runs that quantize one operand or some to E1M1, and none, in the middle size and budget."""
    plain = [run for run in grid.runs if run.precision.format is None]
    base = plain[len(plain) // 2]
    runs = []
    for seed in SEEDS:
        for arm in ("none", *ARMS):
            chosen = () if arm == "none" else tuple(Target(word) for word in arm.split("+"))
            precision = PrecisionConfig(format="e1m1", targets=chosen) if chosen else base.precision
            name = f"{arm.replace('+', '')}-s{seed}"
            runs.append(replace(base, name=name, seed=seed, precision=precision))
    return Sweep(name="operands", runs=tuple(runs))


class Penalties:
    """Losses over those of the unquantized run of the same size and budget."""

    def __init__(self, records: list[Record]) -> None:
        done = [record for record in records if record["status"] == "done"]
        plain = {_point(r): r["loss"] for r in done if r["format"] is None}
        self._of = {
            (r["format"], r["block_size"], *_point(r)): r["loss"] - plain[_point(r)]
            for r in done
            if r["format"] is not None
        }
        self.sizes, self.budgets = (sorted({point[axis] for point in plain}) for axis in (0, 1))

    def table(self, fmt: str, block: int | str = "channel") -> np.ndarray:
        """By size (rows) and budget (columns); NaN where there is no run."""
        return np.array([
            [self._of.get((fmt, block, size, budget), np.nan) for budget in self.budgets]
            for size in self.sizes
        ])  # fmt: skip

    def by_block(self, fmt: str, size: int, budget: int) -> dict[int, float]:
        """By the size of blocks, for one size and budget."""
        found = {
            key[1]: value
            for key, value in self._of.items()
            if key[0] == fmt and key[2:] == (size, budget) and isinstance(key[1], int)
        }
        return dict(sorted(found.items()))


def penalties(found: Penalties) -> None:
    """Direction and form of the loss that quantization adds, without any law."""
    tables = {name: found.table(name) for name in ("e1m1", "e1m2", "e2m1", "e4m3")}
    worst = tables["e1m1"]
    detail = {"penalty": worst.tolist(), "num_params": found.sizes, "num_tokens": found.budgets}
    growth = np.nanmean(worst[:, -1] - worst[:, 0])
    emit("study_law_growth_with_tokens", growth, "nats", (">=", 0), detail)
    fall = np.nanmean(worst[0] - worst[-1])
    emit("study_law_fall_with_params", fall, "nats", (">=", 0), detail)
    powers = slopes(worst, found.sizes, found.budgets)
    for name, value in powers.items():
        emit(f"study_law_{name}", value, "", (">=", 0) if "token" in name else ("<=", 0), {})
    means = {name: float(np.nanmean(table)) for name, table in tables.items()}
    for larger, smaller in pairwise(("e1m1", "e2m1", "e4m3")):
        difference = means[larger] - means[smaller]
        emit(f"study_law_{larger}_minus_{smaller}", difference, "nats", (">=", 0), means)
    # One bit more: in the exponent it should bring more than in the mantissa.
    difference = means["e1m2"] - means["e2m1"]
    emit("study_law_e1m2_minus_e2m1", difference, "nats", (">=", 0), means)
    blocks = found.by_block("e1m1", found.sizes[1], found.budgets[-1])
    sizes, added = np.array(list(blocks)), np.array(list(blocks.values()))
    fits_of = {name: line(x, added) for name, x in (("log2", np.log2(sizes)), ("linear", sizes))}
    detail = {"penalty_by_block": blocks, "r_squared": fits_of}
    emit("study_law_block_log2_r_squared", fits_of["log2"], "", (">=", 0.9), detail)
    difference = fits_of["log2"] - fits_of["linear"]
    emit("study_law_block_log2_minus_linear", difference, "", (">=", 0), detail)


def slopes(table: np.ndarray, sizes: list[int], budgets: list[int]) -> dict[str, float]:
    """Powers of D and N in the penalty, by least squares of its logarithm over positive entries."""
    size, budget = np.meshgrid(np.log(sizes), np.log(budgets), indexing="ij")
    kept = table > 0
    design = np.column_stack([np.ones(kept.sum()), budget[kept], size[kept]])
    _, by_tokens, by_params = np.linalg.lstsq(design, np.log(table[kept]), rcond=None)[0]
    return {"penalty_power_of_tokens": by_tokens, "penalty_power_of_params": by_params}


def line(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the variance of y that a straight line in x explains."""
    return float(np.corrcoef(x, y)[0, 1] ** 2)


def fits(path: Path) -> None:
    """Constants of Capybara with intervals, and errors of all laws on runs seen and unseen."""
    runs = read_runs(path)
    settings, losses = runs.settings, runs.losses
    found = fit("capybara", settings, losses, num_samples=NUM_SAMPLES)
    samples = [constants(sample) for sample in found.samples]
    values = constants(found.law)
    for name, value in values.items():
        ends = np.quantile([sample[name] for sample in samples], LEVELS).tolist()
        has_sign = name in ("alpha", "beta", "delta", "nu", "gamma")
        goal = (">=", 0) if has_sign else None
        emit(f"study_law_constant_{name}", value, "", goal, {"interval_90": ends})
    difference = values["delta"] - values["nu"]
    emit("study_law_delta_minus_nu", difference, "", (">=", 0), {"paper": 3.1926 - 2.9543})
    errors = {name: law_errors(name, settings, losses) for name in LAWS}
    for name, error in errors.items():
        for kind, value in error.items():
            emit(f"study_law_{kind}_{name}", value, "nats", None, {})
    for kind in errors["capybara"]:
        best = min(errors[name][kind] for name in LAWS[1:])
        difference = best - errors["capybara"][kind]
        emit(f"study_law_capybara_lead_{kind}", difference, "nats", (">=", 0), {})
    plain = settings[~settings.is_quantized], losses[~settings.is_quantized]
    dense = {name: fit(name, *plain).rmse for name in ("chinchilla", "openai")}
    difference = dense["openai"] - dense["chinchilla"]
    emit("study_law_16_bits_openai_minus_chinchilla", difference, "nats", (">=", 0), dense)


def law_errors(name: str, settings: Any, losses: np.ndarray) -> dict[str, float]:
    """Root mean squared errors of a law: on all runs, cross-validated, largest size unseen."""
    return {
        "rmse": fit(name, settings, losses).rmse,
        "rmse_cross_validated": cross_validate(name, settings, losses).rmse,
        "rmse_largest_size": extrapolate(name, settings, losses).rmse,
    }


def targets(records: list[Record]) -> None:
    """Which operands three bits hurt."""
    losses = {
        record["name"]: record["loss"] if record["status"] == "done" else GUESS
        for record in records
    }
    gaps = {
        arm: [losses[f"{arm.replace('+', '')}-s{s}"] - losses[f"none-s{s}"] for s in SEEDS]
        for arm in ARMS
    }
    for arm, by_seed in gaps.items():
        name = f"study_target_gap_{arm.replace('+', '')}"
        emit(name, mean(by_seed), "nats", None, {"by_seed": by_seed})
    gap = {arm: mean(by_seed) for arm, by_seed in gaps.items()}
    single = ARMS[:6]
    others = max(gap[arm] for arm in single if arm != "P5")
    emit("study_target_P5_minus_next", gap["P5"] - others, "nats", (">=", 0), gap)
    for arm in ("P1", "P3", "P5"):
        emit(f"study_target_{arm}_minus_all", gap[arm] - gap[ALL], "nats", (">=", 0), gap)
    best = max(gap["P4"], gap["P6"])
    others = min(gap[arm] for arm in ("P1", "P2", "P3", "P5"))
    emit("study_target_others_minus_P4_P6", others - best, "nats", (">=", 0), gap)
    plain = mean(losses[f"none-s{seed}"] for seed in SEEDS)
    for arm in ("P2+P6", ALL):
        percent = 100 * abs(gap[arm] - gap["P2"]) / (plain + gap["P2"])
        name = f"study_target_{arm.replace('+', '')}_from_P2"
        emit(name, percent, "%", ("<=", ABOUT_PERCENT), gap)


def brief(record: Record) -> list[Any]:
    """N, D, format, B and loss of a run."""
    return [record[key] for key in ("num_params", "num_tokens", "format", "block_size", "loss")]


def _point(record: Record) -> tuple[int, int]:
    return record["num_params"], record["num_tokens"]


def emit(
    name: str, value: float, unit: str, goal: tuple[str, float] | None, detail: dict[str, Any]
) -> None:
    """Print one measurement."""
    row = {"system": SYSTEM, "name": name, "value": float(value), "unit": unit, "goal": goal}
    print(json.dumps({**row, "detail": detail, "seed": SEEDS[0]}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
