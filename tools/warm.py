"""Compile what tests and benchmarks share, once, before every process of theirs would by itself.

``python -m tools.warm`` compiles what quick tests need, with ``--slow`` also what slow ones do.
"""

from __future__ import annotations

import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

# What two processes have to do at the same time: each takes about as long as the other.
SEARCHES = (("vns",), ("tabu", "ruin"))


def compile_searches(methods: tuple[str, ...], *, has_local_search: bool = False) -> None:
    """Compile some searches, or load them from disk."""
    from wardwise.fleet.solvers import warm_up

    for method in methods:
        warm_up(method)
        if has_local_search and method == "vns":
            warm_up(method, local_search=True, shake="cyclic")


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


def compile_attention() -> None:
    """Compile attention with maps over heads, for one thread and for several."""
    import torch

    from weightwise.multiplex import HeadAttention

    attention = HeadAttention(3, mixes=True, bias=True)
    q_BMNd = torch.zeros(2, 3, 256, 4)  # as many logits as threads share
    with torch.no_grad():
        for mix in (attention.before, attention.after):
            assert mix is not None
            mix.weight.fill_(1.0)  # maps that mix nothing are left out
        for num_threads in (1, 2):
            torch.set_num_threads(num_threads)
            attention(q_BMNd, q_BMNd, q_BMNd)


if __name__ == "__main__":
    is_slow = "--slow" in sys.argv[1:]
    with ProcessPoolExecutor(2) as pool:
        work = [
            pool.submit(compile_searches, methods, has_local_search=is_slow) for methods in SEARCHES
        ]
        work += [pool.submit(one) for one in (compile_soft_labels, compile_attention)]
        for one in work:
            one.result()
