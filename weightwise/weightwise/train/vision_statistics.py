"""Running statistics of batch normalization that do not depend on the number of processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.train.parallel import World


class RunningStatistics:
    """Running statistics of batch normalization over the micro-batches of a step.

    Each micro-batch moves them from where they were before the step; the step ends at the mean.

    Parameters
    ----------
    model
        Any model.
    """

    def __init__(self, model: nn.Module) -> None:
        layers = [one for one in model.modules() if isinstance(one, nn.BatchNorm2d)]
        self._now = [
            x for one in layers for x in (one.running_mean, one.running_var) if x is not None
        ]
        self._before: list[Tensor] = []
        self._sums: list[Tensor] = []

    def begin(self) -> None:
        """Remember where they are."""
        self._before = [one.clone() for one in self._now]
        self._sums = [torch.zeros_like(one) for one in self._now]

    def add(self) -> None:
        """Take note of a micro-batch."""
        if not self._now:
            return
        torch._foreach_add_(self._sums, self._now)
        torch._foreach_copy_(self._now, self._before)

    def end(self, count: int, world: World) -> None:
        """Go to the mean over all micro-batches, ``count`` in all processes."""
        if not self._now:
            return
        flat = world.sum(torch.cat(self._sums)) / count
        torch._foreach_copy_(self._now, list(flat.split([len(one) for one in self._now])))
