"""Learning rate over the steps of a run: linear warm-up, then decay.

Steps count from 1. With peak rate p, floor f = p * min_lr_ratio, w warm-up steps and S decay
steps, the rate of step s is

    s <= w       p * s / w
    s >  w       f + (p - f) * g(t),   t = min(1, (s - w) / (S - w))

with g(t) = 1 (constant), 1 - t (linear) or (1 + cos(pi t)) / 2 (cosine, Loshchilov and Hutter,
arXiv 1608.03983). So the peak is reached at step w and the floor at step S, and kept after it.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScheduleConfig:
    """Shape of the learning rate.

    Parameters
    ----------
    kind
        Decay after the warm-up.
    peak_lr
        Highest rate, above 0.
    warmup_steps
        Steps of linear rise, at least 0.
    decay_steps
        Step S at which the floor is reached; ``None`` means the last step of the run. Set it to
        be able to lengthen a run later without changing the rates of the steps already made.
    min_lr_ratio
        Floor as a share of the peak, 0 to 1.
    """

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    peak_lr: float = Field(default=3e-4, gt=0.0, allow_inf_nan=False)
    warmup_steps: int = Field(default=0, ge=0)
    decay_steps: int | None = Field(default=None, ge=1)
    min_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)


def learning_rate(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """Rate of one optimizer step.

    Parameters
    ----------
    config
        Shape of the schedule.
    step
        Step s, counted from 1.
    num_steps
        Steps of the whole run, used where ``decay_steps`` is ``None``.

    Returns
    -------
    float
        Learning rate.
    """
    if step <= config.warmup_steps:
        return config.peak_lr * step / config.warmup_steps
    if config.kind == "constant":
        return config.peak_lr
    last = num_steps if config.decay_steps is None else config.decay_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, last - config.warmup_steps))
    rest = 1.0 - progress if config.kind == "linear" else (1.0 + math.cos(math.pi * progress)) / 2
    floor = config.peak_lr * config.min_lr_ratio
    return floor + (config.peak_lr - floor) * rest
