"""Counts that all processes add up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.distributed as dist

if TYPE_CHECKING:
    from torch import Tensor


def over_processes(count: Tensor) -> Tensor:
    """Sum of a tensor over all processes, which must all call this; a copy."""
    total = count.clone()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
    return total
