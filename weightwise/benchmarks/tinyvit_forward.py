"""TinyViT: time of the forward pass of 8 images of 224 pixels beside timm's, in float32.

``eager``    the fused model, and the plain one, beside timm's: CPU time on one thread and wall time
             on two. Both have the same weights, and their logits are compared first.
``compile``  the fused model and timm's, both through torch.compile, on one thread; and the fused
             model without a compiler beside timm's with one. Compiling takes minutes.

Contenders run in turn, round by round; medians count. A ratio is timm's time over ours.

    python weightwise/benchmarks/tinyvit_forward.py [eager compile]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from weightwise.vision import VARIANTS, TinyViT, fuse

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from torch import Tensor, nn

SYSTEM = "tinyvit"
BATCH, SIZE = 8, 224
ROUNDS, WARM = 11, 2
GOALS = {"5m": 1.25, "11m": 1.0, "21m": 1.25}


def main() -> None:
    """Measure what the arguments ask for, by default everything."""
    timm = import_timm()
    for part in sys.argv[1:] or ["eager", "compile"]:
        for name in GOALS:
            {"eager": measure_eager, "compile": measure_compiled}[part](timm, name)


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


def models(timm: ModuleType, name: str) -> tuple[dict[str, nn.Module], Tensor, float]:
    """Both with the same weights, images, and the largest difference of logits."""
    theirs = timm.create_model(f"tiny_vit_{name}_224", num_classes=1000).eval()
    plain = TinyViT(VARIANTS[name]).eval()
    plain.load_state_dict(theirs.state_dict())
    images = torch.randn(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    contenders = {"timm": theirs, "fused": fuse(plain), "plain": plain}
    with torch.inference_mode():
        found, wanted = contenders["fused"](images), theirs(images)
    return contenders, images, (found - wanted).abs().max().item()


def measure_eager(timm: ModuleType, name: str) -> None:
    """Without a compiler, on one thread and on two."""
    contenders, images, difference = models(timm, name)
    for threads, clock in ((1, time.process_time), (2, time.perf_counter)):
        torch.set_num_threads(threads)
        seconds = interleaved(contenders, images, clock)
        suffix = "" if threads == 1 else "_two_threads"
        detail = describe(seconds, threads) | {"largest difference": difference}
        peer = f"timm {timm.__version__}, eager"
        emit(f"forward_{name}{suffix}", seconds["timm"] / seconds["fused"], "x",
             goal=[">=", GOALS[name]], peer=peer, detail=detail, seed=0)  # fmt: skip
        emit(f"forward_plain_{name}{suffix}", seconds["timm"] / seconds["plain"], "x",
             goal=[">=", 1.0], peer=peer, detail=detail, seed=0)  # fmt: skip


def measure_compiled(timm: ModuleType, name: str) -> None:
    """With torch.compile, on one thread."""
    torch.set_num_threads(1)
    contenders, images, _ = models(timm, name)
    del contenders["plain"]
    contenders |= {f"{kind} compiled": torch.compile(one) for kind, one in contenders.items()}
    seconds = interleaved(contenders, images, time.process_time)
    detail, peer = describe(seconds, 1), f"timm {timm.__version__}, torch.compile"
    compiled = seconds["timm compiled"]
    emit(f"forward_compiled_{name}", compiled / seconds["fused compiled"], "x",
         goal=[">=", 1.0], peer=peer, detail=detail, seed=0)  # fmt: skip
    emit(f"forward_{name}_over_compiled", compiled / seconds["fused"], "x",
         goal=[">=", 1.0], peer=peer, detail=detail, seed=0)  # fmt: skip


def describe(seconds: dict[str, float], threads: int) -> dict[str, Any]:
    """Milliseconds an image, and how they were measured."""
    each = {kind: round(1e3 * value / BATCH, 2) for kind, value in seconds.items()}
    return {"milliseconds an image": each, "threads": threads, "batch": BATCH, "rounds": ROUNDS}


def interleaved(
    contenders: dict[str, nn.Module], images: Tensor, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each, in turn."""
    seconds: dict[str, list[float]] = {kind: [] for kind in contenders}
    with torch.inference_mode():
        for number in range(ROUNDS + WARM):
            for kind, model in contenders.items():
                start = clock()
                model(images)
                if number >= WARM:
                    seconds[kind].append(clock() - start)
    return {kind: statistics.median(values) for kind, values in seconds.items()}


if __name__ == "__main__":
    main()
