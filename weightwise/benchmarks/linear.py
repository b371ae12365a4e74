"""Time of a quantized linear layer, forward and backward, against nn.Linear.

    python weightwise/benchmarks/linear.py [--repeats N]

The paper's targets: the weight in both products that use it and the input in the product that
gives the weight's gradient. Both layers take turns; medians of ratios. One thread: CPU time of the
process; two: time on the wall.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

import torch
from peers.clock import SEED, compare, emit, threads
from torch import nn

from weightwise.numerics import PrecisionConfig, QuantizedLinear

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SYSTEM = "precision-law"
TOKENS = 1024
SHAPES = ((4096, 1024), (1024, 4096))  # features in and out
GOAL = ("<=", 1.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15, help="repetitions of each timing")
    repeats = parser.parse_args().repeats
    for num_threads in (1, 2):
        with threads(num_threads):
            for features_in, features_out in SHAPES:
                time_layer(features_in, features_out, num_threads, repeats)


def time_layer(features_in: int, features_out: int, num_threads: int, repeats: int) -> None:
    """Row of one shape of layer."""
    generator = torch.Generator().manual_seed(SEED)
    x = torch.randn(TOKENS, features_in, generator=generator)
    dy = torch.randn(TOKENS, features_out, generator=generator)
    precision = PrecisionConfig(format="e4m3")
    quantized = QuantizedLinear(features_in, features_out, precision=precision)
    plain = nn.Linear(features_in, features_out)
    times = compare(step(plain, x, dy), {"ours": step(quantized, x, dy)}, repeats)["ours"]
    label = f"{features_in}_to_{features_out}_{num_threads}t"
    print(f"{label:<18}{times.ratio:>8.3f} plain layers", file=sys.stderr)
    emit(
        SYSTEM, name=f"linear_over_plain_{label}", value=round(times.ratio, 3), unit="x",
        peer="torch nn.Linear", goal=GOAL,
        detail={
            "format": "e4m3@channel", "targets": "+".join(precision.targets), "tokens": TOKENS,
            "dtype": "float32", "threads": num_threads, **times.detail(),
        },
    )  # fmt: skip


def step(layer: nn.Linear, x: Tensor, dy: Tensor) -> Callable[[], None]:
    """One forward and one backward pass with all gradients."""
    own = x.clone().requires_grad_()

    def work() -> None:
        own.grad = None
        layer.zero_grad()
        layer(own).backward(dy)

    return work


if __name__ == "__main__":
    main()
