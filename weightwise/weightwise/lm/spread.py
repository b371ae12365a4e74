"""Weights that are spread over processes as `torch.distributed.tensor.DTensor`.

That package takes longer to import than the rest of this library. Where nobody has imported it
there are no such tensors, and a process that works alone never does.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_spread(tensor: object) -> TypeGuard[DTensor]:
    """Whether a tensor is a `DTensor`."""
    package = sys.modules.get("torch.distributed.tensor")
    return package is not None and isinstance(tensor, package.DTensor)


def is_fully_sharded(module: object) -> bool:
    """Whether `torch.distributed.fsdp.fully_shard` has been applied to a module."""
    package = sys.modules.get("torch.distributed.fsdp")
    return package is not None and isinstance(module, package.FSDPModule)
