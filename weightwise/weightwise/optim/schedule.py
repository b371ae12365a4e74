"""Learning rate over the steps of a run: linear warm-up, decay, and where asked for annealing.

Steps count from 1. With peak rate p, floor f = p * min_lr_ratio, w warm-up steps and S decay
steps, the rate of step s is

    s <= w       p * s / w
    s >  w       f + (p - f) * g(t),   t = min(1, (s - w) / (S - w))

with g(t) = 1 (constant), 1 - t (linear) or (1 + cos(pi t)) / 2 (cosine, Loshchilov and Hutter,
arXiv 1608.03983). So the peak is reached at step w and the floor at step S, and kept after it.

With annealing (arXiv 2411.02265, section 2.3.2) the decay ends at step A = S * anneal_from with
the rate p * anneal_ratio, high enough to learn much from ordinary data, and the rest of the way
to the floor is a straight line. The shapes and the rate at A are ours; the paper names the last
5 % and a tenth of the peak.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator
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
    anneal_from
        Share of the decay steps after which annealing begins, above 0 and below 1; ``None`` for
        none.
    anneal_ratio
        Rate at that step as a share of the peak, ``min_lr_ratio`` to 1.
    """

    kind: Literal["cosine", "linear", "constant"] = "cosine"
    peak_lr: float = Field(default=3e-4, gt=0.0, allow_inf_nan=False)
    warmup_steps: int = Field(default=0, ge=0)
    decay_steps: int | None = Field(default=None, ge=1)
    min_lr_ratio: float = Field(default=0.0, ge=0.0, le=1.0)
    anneal_from: float | None = Field(default=None, gt=0.0, lt=1.0)
    anneal_ratio: float = Field(default=0.3, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _check_annealing(self) -> Self:
        if self.anneal_from is None:
            return self
        if self.anneal_ratio < self.min_lr_ratio:
            raise ValueError(
                f"anneal_ratio: expected min_lr_ratio {self.min_lr_ratio} to 1, "
                f"got {self.anneal_ratio}"
            )
        if self.kind == "constant":
            raise ValueError("anneal_from: expected none with kind constant")
        return self


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
    high, low, first = config.peak_lr, config.peak_lr * config.min_lr_ratio, config.warmup_steps
    is_linear = config.kind == "linear"
    turn = annealing_start(config, num_steps)
    if turn is not None:
        middle = config.peak_lr * config.anneal_ratio
        if step > turn:
            high, first, is_linear = middle, turn, True
        else:
            low, last = middle, turn
    progress = min(1.0, (step - first) / max(1, last - first))
    rest = 1.0 - progress if is_linear else (1.0 + math.cos(math.pi * progress)) / 2
    return low + (high - low) * rest


def annealing_start(config: ScheduleConfig, num_steps: int) -> int | None:
    """Last step before annealing; None without it.

    Parameters
    ----------
    config
        Shape of the schedule.
    num_steps
        Steps of the whole run, used where ``decay_steps`` is ``None``.
    """
    if config.anneal_from is None:
        return None
    last = num_steps if config.decay_steps is None else config.decay_steps
    return max(config.warmup_steps, round(last * config.anneal_from))
