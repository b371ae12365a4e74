"""Compile what tests and benchmarks share, once, before every process of theirs would by itself."""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# What two processes have to do at the same time: each takes about as long as the other.
SEARCHES = (("vns",), ("tabu", "ruin"))


def compile_searches(methods: tuple[str, ...]) -> None:
    """Compile some searches, or load them from disk."""
    from wardwise.fleet.solvers import warm_up

    for method in methods:
        warm_up(method)


def compile_soft_labels() -> None:
    """Compile the store of soft labels and the loss: write, pack, read and train on a few."""
    import torch

    from weightwise.distill import (
        SoftLabels,
        SoftLoss,
        StoreConfig,
        StoreWriter,
        as_tensors,
        augmentation_seeds,
        pack,
        top_k,
    )

    config = StoreConfig(classes=20, k=3, keys="name")
    names = [f"{number}.png" for number in range(8)]
    logits = torch.linspace(-1, 1, 160).view(8, 20).requires_grad_()
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder, "plain"), Path(folder, "packed")
        with StoreWriter(plain, config, epoch=0) as writer:
            writer.append(names, augmentation_seeds(0, 0, names), *top_k(logits, config))
        pack(plain, packed)
        SoftLabels(packed).gather(0, names)
        labels = SoftLabels(plain)
        labels.contains(0, names)
        batch = labels.gather(0, names)
    index, value, _ = as_tensors(batch)
    SoftLoss()(logits, index, value).backward()


if __name__ == "__main__":
    with ProcessPoolExecutor(2) as pool:
        work = [pool.submit(compile_searches, methods) for methods in SEARCHES]
        work.append(pool.submit(compile_soft_labels))
        for one in work:
            one.result()
