"""What `weightwise demo` ends with: loss, size and time of each format.

    python weightwise/benchmarks/demo.py

Two minutes on two idle cores.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from rich.console import Console

from weightwise.demo import run_demo
from weightwise.numerics import PrecisionConfig
from weightwise.recipes import demo
from weightwise.report import weight_bytes
from weightwise.train import read_metrics

SEED = 1
FORMATS = {"fp32": None, "e4m3": "e4m3", "e2m1": "e2m1"}


def main() -> None:
    """Run the demo in a new folder and read its metrics."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        start = time.perf_counter()
        run_demo(Path(folder), seed=SEED, console=Console(quiet=True))
        seconds = time.perf_counter() - start
        losses = {
            name: last_loss(next(Path(folder).glob(f"weightwise/{name}-*/metrics.jsonl")))
            for name in FORMATS
        }
    for name, format_name in FORMATS.items():
        size = weight_bytes(demo().model, PrecisionConfig(format=format_name))
        emit(f"demo_valid_loss_{name}", losses[name], "nats", {"vocab_size": 1024})
        emit(f"demo_block_weights_{name}", (size.blocks + size.scales) / 1e6, "MB", {})
        if name != "fp32":
            gap = 100 * (losses[name] / losses["fp32"] - 1)
            emit(f"demo_loss_above_fp32_{name}", round(gap, 3), "%", {})
    emit("demo_seconds", round(seconds, 1), "s", {"includes": "data, three runs, page"})


def last_loss(path: Path) -> float:
    """Validation loss of the last evaluation."""
    return [row["valid_loss"] for row in read_metrics(path) if "valid_loss" in row][-1]


def emit(name: str, value: float, unit: str, detail: dict[str, object]) -> None:
    """Print one measurement."""
    row = {"system": "foundation", "name": name, "value": value, "unit": unit, "goal": None}
    print(json.dumps({**row, "detail": detail, "seed": SEED}), flush=True)


if __name__ == "__main__":
    main()
