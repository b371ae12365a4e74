"""A moving average of the weights, kept by the optimizer.

After every step the average of each weight goes a little way towards it,

    average <- decay * average + (1 - decay) * weight

from where the weights stood before the first step. It moves slowly and is not drawn after what a
few batches reward, so it is what a preference run gives away (arXiv 2411.02265, section 3.2).

The average is a part of the optimizer's state. So it is sharded, saved and read back with the
moments, whatever holds the weights.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AVERAGE = "average"


class AveragingAdamW(torch.optim.AdamW):
    """AdamW that keeps a moving average of the weights.

    Attributes
    ----------
    average_decay
        Share of the average that a step keeps, above 0 and below 1; set before the first step.
    """

    average_decay: float

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move the weights, then the average."""
        weights = [weight for group in self.param_groups for weight in group["params"]]
        start = {
            weight: weight.detach().clone()
            for weight in weights
            if weight.grad is not None and AVERAGE not in self.state[weight]
        }
        result = super().step(closure)
        for weight in weights:
            if weight in start:
                self.state[weight][AVERAGE] = start[weight]
            if weight.grad is not None:
                self.state[weight][AVERAGE].lerp_(weight, 1.0 - self.average_decay)
        return result


@torch.no_grad()
def swap_average(optimizer: torch.optim.Optimizer) -> None:
    """Let weights and their averages change places; without averages nothing happens."""
    for weight, state in optimizer.state.items():
        if AVERAGE in state:
            kept = weight.detach().clone()
            weight.copy_(state[AVERAGE])
            state[AVERAGE].copy_(kept)


@contextmanager
def averaged(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Put the averages in the place of the weights for a while."""
    swap_average(optimizer)
    try:
        yield
    finally:
        swap_average(optimizer)
