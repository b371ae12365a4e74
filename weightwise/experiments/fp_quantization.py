"""Which formats and which operands training can bear, on a model of 160,000 weights.

Claims (arXiv 2501.02423): with P2, P4 and P6 quantized the loss rises as bits fall; at 3 bits
(E1M1) quantizing the gradient in the weight product (P5) alone hurts most, the input (P1) less,
the weight (P2) hardly.

Here: the recipe `demo` with 300 steps, channel scales, two seeds; the gap is the mean difference
of the validation loss to the unquantized run of the same seed. Model and run are thousands of
times smaller than the paper's: only the order is comparable. Rows with a goal are differences
that the paper says are positive.

Command   python weightwise/experiments/fp_quantization.py
Cost      about four minutes on two CPU cores
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from weightwise.numerics import PrecisionConfig, Target
from weightwise.recipes import load_recipe
from weightwise.train import train

SEEDS = (1, 2)
STEPS = 300
ARMS = {
    "e4m3": PrecisionConfig(format="e4m3"),
    "e2m1": PrecisionConfig(format="e2m1"),
    "e1m1": PrecisionConfig(format="e1m1"),
    "e1m1_P1_only": PrecisionConfig(format="e1m1", targets=(Target.P1,)),
    "e1m1_P2_only": PrecisionConfig(format="e1m1", targets=(Target.P2,)),
    "e1m1_P5_only": PrecisionConfig(format="e1m1", targets=(Target.P5,)),
}
# The paper says that the first gap is larger than the second.
LARGER = (
    ("e2m1", "e4m3"),
    ("e1m1", "e2m1"),
    ("e1m1_P5_only", "e1m1_P1_only"),
    ("e1m1_P1_only", "e1m1_P2_only"),
)


def main() -> None:
    """Train all arms and print the gaps and their order."""
    with tempfile.TemporaryDirectory(prefix="fp-") as folder:
        base = [loss(PrecisionConfig(), seed, Path(folder)) for seed in SEEDS]
        gaps = {
            arm: [
                loss(precision, seed, Path(folder)) - start
                for seed, start in zip(SEEDS, base, strict=True)
            ]
            for arm, precision in ARMS.items()
        }
    for arm, by_seed in gaps.items():
        emit(f"study_gap_{arm}", statistics.mean(by_seed), None, {"by_seed": by_seed, "base": base})
    for larger, smaller in LARGER:
        differences = [a - b for a, b in zip(gaps[larger], gaps[smaller], strict=True)]
        name = f"study_gap_{larger}_minus_{smaller}"
        emit(name, statistics.mean(differences), [">=", 0.0], {"by_seed": differences})


def loss(precision: PrecisionConfig, seed: int, folder: Path) -> float:
    """Validation loss of one arm in nats per token."""
    recipe = replace(load_recipe("demo", [f"train.steps={STEPS}"]), precision=precision, seed=seed)
    name = f"{precision.format}-{'+'.join(precision.targets)}-{seed}"
    result = train(recipe, folder / name, console=Console(quiet=True))
    print(f"{name}: {result.valid_loss:.4f}", file=sys.stderr)
    assert result.valid_loss is not None
    return result.valid_loss


def emit(name: str, value: float, goal: list[object] | None, detail: dict[str, object]) -> None:
    """Print one measurement."""
    row = {"system": "foundation", "name": name, "value": value, "unit": "nats", "goal": goal}
    print(json.dumps({**row, "detail": detail, "seed": SEEDS[0]}), flush=True)


if __name__ == "__main__":
    main()
