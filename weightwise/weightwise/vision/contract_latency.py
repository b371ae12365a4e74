"""Latency of models on the device at hand."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import torch

from weightwise.vision.fuse import fuse
from weightwise.vision.tiny_vit import TinyViT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from weightwise.vision.config import TinyViTConfig

WARM_UP = 2  # rounds that do not count


def built(config: TinyViTConfig) -> nn.Module:
    """A model as it is used: random weights, normalizations folded."""
    return fuse(TinyViT(config).eval())


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Median seconds of a forward pass of each of some models.

    Models run in turn, round by round, so that what slows the device down meets all of them.

    Parameters
    ----------
    batch_size
        Images at a time, at least 1.
    rounds
        Runs of each model, at least 1; two more before them do not count.
    device
        Where they run.
    dtype
        Of weights and images.
    build
        Makes a model of its factors.
    """

    batch_size: int = 1
    rounds: int = 15
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    build: Callable[[TinyViTConfig], nn.Module] = built

    def __post_init__(self) -> None:
        for name in ("batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")

    def __call__(self, configs: Sequence[TinyViTConfig]) -> list[float]:
        """Measure models on images of zeros."""
        models = [self.build(one).to(self.device, self.dtype) for one in configs]
        images = [
            torch.zeros(self.batch_size, 3, one.image_size, one.image_size, dtype=self.dtype)
            .to(self.device).contiguous(memory_format=torch.channels_last)
            for one in configs
        ]  # fmt: skip
        seconds: list[list[float]] = [[] for _ in configs]
        with torch.inference_mode():
            for _ in range(WARM_UP + self.rounds):
                for place, (model, image) in enumerate(zip(models, images, strict=True)):
                    start = self._now()
                    model(image)
                    seconds[place].append(self._now() - start)
        return [median(one[WARM_UP:]) for one in seconds]

    def _now(self) -> float:
        """The time when all that was asked of the device is done."""
        if torch.device(self.device).type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
