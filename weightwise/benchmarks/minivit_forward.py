"""MiniViT: time of the forward pass of 8 images of 224 pixels beside the unshared models.

Each row names a Mini model and its original. The original runs in timm's implementation and in
ours, plain and with `fuse`; the faster one of the two unfused counts. A ratio is the time of the
Mini model over that, so that 1 means that its own maps and terms cost nothing. CPU time on one
thread, float32. The maps over heads are drawn, as identities would be skipped.

Contenders run in turn, round by round; medians count.

    python weightwise/benchmarks/minivit_forward.py [NAME ...]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from weightwise.multiplex.mixing import HeadMix
from weightwise.vision.deit import DeiT
from weightwise.vision.deit_config import DEIT_VARIANTS
from weightwise.vision.swin import Swin
from weightwise.vision.swin_config import SWIN_VARIANTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import nn

SYSTEM = "minivit"
BATCH, SIZE = 8, 224
ROUNDS, WARM = 11, 2


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A Mini model, its original, what timm calls that, and the largest ratio of times."""

    mini: Callable[[], nn.Module]
    plain: Callable[[], nn.Module]
    timm: str
    goal: float


def deits(name: str) -> Pair:
    """DeiT of a size, in pairs of executions."""
    return Pair(
        mini=lambda: DeiT(DEIT_VARIANTS[f"mini-{name}"]),
        plain=lambda: DeiT(DEIT_VARIANTS[name]),
        timm=f"deit_{ {'ti': 'tiny', 's': 'small', 'b': 'base'}[name] }_patch16_224",
        goal=1.15,
    )


def swins(name: str) -> Pair:
    """Swin of a size, with windows of 7 tokens."""
    return Pair(
        mini=lambda: Swin(SWIN_VARIANTS[f"mini-{name}"]),
        plain=lambda: Swin(SWIN_VARIANTS[name]),
        timm=f"swin_{ {'t': 'tiny', 's': 'small', 'b': 'base'}[name] }_patch4_window7_224",
        goal=1.10,
    )


PAIRS = {f"deit_{name}": deits(name) for name in ("ti", "s")} | {"swin_t": swins("t")}


def main() -> None:
    """Measure the pairs that the arguments name, by default all."""
    timm = import_timm()
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PAIRS:
        measure(timm, name, PAIRS[name])


def import_timm() -> ModuleType:
    """Make timm importable beside a torch without CUDA."""
    sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
    from timm_shim import declare_operators

    declare_operators()
    import timm

    module: ModuleType = timm
    return module


def emit(name: str, value: float, unit: str, **rest: Any) -> None:
    """Print a measurement."""
    print(json.dumps({"system": SYSTEM, "name": name, "value": value, "unit": unit, **rest}))
    sys.stdout.flush()


def measure(timm: ModuleType, name: str, pair: Pair) -> None:
    """Compare a Mini model with its original."""
    contenders = {"mini": pair.mini(), "plain": pair.plain(), "timm": timm.create_model(pair.timm)}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in contenders["mini"].modules():
            if isinstance(module, HeadMix):
                module.weight += 0.02 * torch.randn(module.weight.shape, generator=generator)
    seconds = interleaved(contenders)
    original = min(seconds["plain"], seconds["timm"])
    each = {kind: round(1e3 * value / BATCH, 2) for kind, value in seconds.items()}
    detail = {"milliseconds an image": each, "threads": 1, "batch": BATCH, "rounds": ROUNDS}
    peer = f"timm {timm.__version__} or ours, eager"
    emit(f"forward_mini_{name}", seconds["mini"] / original, "x", goal=["<=", pair.goal],
         peer=peer, detail=detail, seed=0)  # fmt: skip
    emit(f"forward_plain_{name}", seconds["timm"] / seconds["plain"], "x", goal=[">=", 1.0],
         peer=f"timm {timm.__version__}, eager", detail=detail, seed=0)  # fmt: skip


def interleaved(contenders: dict[str, nn.Module]) -> dict[str, float]:
    """Median seconds of each, in turn."""
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    seconds: dict[str, list[float]] = {kind: [] for kind in contenders}
    for model in contenders.values():
        model.eval()
    with torch.inference_mode():
        for number in range(ROUNDS + WARM):
            for kind, model in contenders.items():
                start = time.process_time()
                model(images)
                if number >= WARM:
                    seconds[kind].append(time.process_time() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


if __name__ == "__main__":
    main()
