"""Cross-entropy with sparse soft targets beside dense ones that are rebuilt, forward and backward.

``rebuild``   the target of all classes is filled with the residual, stored values scattered into
              it, and multiplied with the log-softmax: what trainings without a sparse loss do.
``formula``   the same sparse formula with its gradient in torch's operations, row by row nothing
              compiled: what the compiled rows save.

CPU time on one thread and wall time on two, batch 128. Contenders run in turn, round by round;
medians count. Bytes are what a training step holds beyond logits and their gradient.

    python weightwise/benchmarks/tinyvit_loss.py [time bytes]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import torch

from weightwise.distill import loss_rows
from weightwise.distill.losses import SoftLoss

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM = "tinyvit"
BATCH = 128
# classes, stored entries, rounds, goal on one thread
SIZES = ((21_841, 100, 41, 1.6), (1_000, 10, 401, 1.0))
PEER = "dense targets rebuilt from the store, torch 2.13.0"


def main() -> None:
    """Measure what the arguments ask for, by default everything."""
    for part in sys.argv[1:] or ["time", "bytes"]:
        {"time": measure_time, "bytes": measure_bytes}[part]()


def emit(name: str, value: float, unit: str, **rest: Any) -> None:
    """Print a measurement."""
    print(json.dumps({"system": SYSTEM, "name": name, "value": value, "unit": unit, **rest}))
    sys.stdout.flush()


def inputs(num_classes: int, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a student and what a store has of its teacher."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, num_classes, generator=generator, requires_grad=True)
    teacher = 3 * torch.randn(BATCH, num_classes, generator=generator)
    value, index = teacher.softmax(1).topk(k)
    kind = torch.int16 if num_classes <= 32_767 else torch.uint16
    return logits, index.to(kind), value.half()


def rebuild(logits: torch.Tensor, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """The loss with a target of all classes (TinyViT, equations 1 and 2)."""
    value, num_classes = value.float(), logits.shape[1]
    rest = (1 - value.sum(1, keepdim=True)) / (num_classes - index.shape[1])
    target = rest.expand_as(logits).clone().scatter_(1, index.long(), value)
    return -(target * logits.log_softmax(1)).sum(1).mean()


def formula(logits: torch.Tensor, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Our loss with torch's operations in place of the compiled rows."""
    compiled = loss_rows.can_compile
    loss_rows.can_compile = lambda _: False
    try:
        loss = SoftLoss()(logits, index, value)
        loss.backward()
    finally:
        loss_rows.can_compile = compiled
    return loss


def contenders(num_classes: int, k: int) -> dict[str, Callable[[], object]]:
    """Forward and backward of each."""
    logits, index, value = inputs(num_classes, k)
    ours = SoftLoss()

    def fresh(step: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            logits.grad = None
            step()

        return run

    return {
        "ours": fresh(lambda: ours(logits, index, value).backward()),
        "rebuild": fresh(lambda: rebuild(logits, index, value).backward()),
        "formula": fresh(lambda: formula(logits, index, value)),
    }


def interleaved(
    steps: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median milliseconds of each, in turn."""
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for number in range(rounds + 3):
        for kind, step in steps.items():
            start = clock()
            step()
            if number >= 3:
                seconds[kind].append(clock() - start)
    return {kind: 1e3 * statistics.median(values) for kind, values in seconds.items()}


def measure_time() -> None:
    """How many times as fast as dense targets; the floor is a copy of the logits and back."""
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        torch.set_num_threads(threads)
        for num_classes, k, rounds, goal in SIZES:
            steps = contenders(num_classes, k)
            source = torch.zeros(BATCH, num_classes)
            steps["clone"] = source.clone
            ms = interleaved(steps, rounds, clock)
            detail = {
                "milliseconds": {kind: round(value, 3) for kind, value in ms.items()},
                "batch": BATCH, "classes": num_classes, "k": k, "threads": threads,
                "rounds": rounds,
            }  # fmt: skip
            name = f"soft_loss_speedup_{num_classes}_{threads}t"
            emit(name, ms["rebuild"] / ms["ours"], "x", goal=[">=", goal], peer=PEER,
                 detail=detail, seed=0)  # fmt: skip


def measure_bytes() -> None:
    """What is kept for the backward pass, and is neither logits nor per row alone."""
    num_classes, k, *_ = SIZES[0]
    held = {}
    for kind, loss in (("ours", SoftLoss()), ("rebuild", rebuild)):
        logits, index, value = inputs(num_classes, k)
        saved: dict[int, int] = {}

        def note(x: torch.Tensor, saved: dict[int, int] = saved) -> torch.Tensor:
            saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            loss(logits, index, value)
        saved.pop(logits.untyped_storage().data_ptr(), None)
        held[kind] = sum(saved.values())
    share = held["ours"] / held["rebuild"]
    emit("soft_loss_bytes", share, "x", goal=["<=", 0.02], peer=PEER, seed=0,
         detail={"kept bytes": held, "batch": BATCH, "classes": num_classes, "k": k})  # fmt: skip


if __name__ == "__main__":
    main()
