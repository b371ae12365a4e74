"""Latency of models on the device at hand: measured, and guessed from others that were."""

# Shapes: N models, F features of them

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.optimize import nnls

from weightwise.vision.counts import macs
from weightwise.vision.fuse import fuse
from weightwise.vision.tiny_vit import TinyViT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from weightwise.vision.config import TinyViTConfig

WARM_UP = 2  # rounds that do not count


def built(config: TinyViTConfig) -> nn.Module:
    """A model as it is used: random weights, normalizations folded."""
    return fuse(TinyViT(config).eval())


@lru_cache(maxsize=1 << 14)
def macs_of(config: TinyViTConfig) -> int:
    """Multiplications for one image, counted as the published ones are."""
    return macs(config).total


def guessed_seconds(
    configs: Sequence[TinyViTConfig], measured: Mapping[TinyViTConfig, float]
) -> NDArray[np.float64]:
    """What models may take, after what others have taken.

    Seconds are a sum of MACs, of convolutional blocks and of attention blocks, each times a number
    of at least 0, and of a constant: small models spend more time on starting operations than on
    multiplying. The numbers are those of the least squares of relative errors; while there are
    fewer measurements than numbers, MACs alone count.
    """
    known_NF = _features(list(measured))
    seconds_N = np.array(list(measured.values()))
    if len(seconds_N) < known_NF.shape[1]:
        known_NF[:, 1:] = 0.0
    scale_F = np.maximum(known_NF.max(axis=0), 1e-300)  # so that columns are of one size
    number_F, _ = nnls(known_NF / scale_F / seconds_N[:, None], np.ones(len(seconds_N)))
    return np.asarray(_features(configs) @ (number_F / scale_F))


def _features(configs: Sequence[TinyViTConfig]) -> NDArray[np.float64]:
    rows = [(macs_of(one), one.depths[0], sum(one.depths[1:]), 1) for one in configs]
    return np.array(rows, dtype=np.float64)


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
    clock
        ``wall``, or ``cpu``: seconds that this process has computed, which other programs on the
        machine disturb less; for CPUs and one thread.
    build
        Makes a model of its factors.
    """

    batch_size: int = 1
    rounds: int = 15
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    clock: Literal["wall", "cpu"] = "wall"
    build: Callable[[TinyViTConfig], nn.Module] = built

    def __post_init__(self) -> None:
        for name in ("batch_size", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if self.clock not in ("wall", "cpu"):
            raise ValueError(f"clock: expected wall or cpu, got {self.clock!r}")

    @property
    def identity(self) -> str:
        """What journals call this measure: times of another one are not to be mixed with its."""
        return f"{self.batch_size} images, {self.dtype}, {self.device}, {self.clock}"

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
        return time.perf_counter() if self.clock == "wall" else time.process_time()
