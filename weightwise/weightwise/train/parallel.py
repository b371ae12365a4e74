"""The processes of a run, as torchrun starts them, and how the model is spread over them.

One process needs none of this. With more, every process holds the same recipe and takes its
share of every global batch; gradients are averaged, so that the step is the one that a single
process would make (sums differ in rounding).
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightwise.lm import LanguageModel


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run and the place of this one among them.

    Parameters
    ----------
    rank
        Number of this process, from 0.
    size
        Number of processes.
    local_rank
        Number of this process on its machine.
    device
        Where this process computes.
    """

    rank: int
    size: int
    local_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()

    def sum(self, values: Tensor) -> Tensor:
        """Add a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return bool(self.sum(torch.tensor(int(flag), device=self.device)).item())


@contextmanager
def open_world() -> Iterator[World]:
    """Join the processes that torchrun started, or stand alone; leave them at the end.

    Communication goes through NCCL on CUDA devices and through Gloo otherwise.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if size > 1:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        world = World(rank=rank, size=size, local_rank=local_rank, device=device)
        yield world
        # Gloo aborts now and then when one process leaves while another still talks to it.
        world.barrier()
    finally:
        if size > 1:
            dist.destroy_process_group()


def spread(model: LanguageModel, strategy: Literal["ddp", "fsdp"], world: World) -> nn.Module:
    """Prepare a model for training on all processes.

    Parameters
    ----------
    model
        The model, with the same weights in every process.
    strategy
        ``"ddp"`` keeps all weights in every process (Li et al., arXiv 2006.15704), ``"fsdp"``
        shards them block by block (Zhao et al., arXiv 2304.11277) and modifies ``model``.
    world
        The processes; with one the model is returned as it is.

    Returns
    -------
    nn.Module
        What to call in training.
    """
    model.to(world.device)
    if world.size == 1:
        return model
    if strategy == "ddp":
        return DistributedDataParallel(model)
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


@contextmanager
def gradient_sync(module: nn.Module, is_last: bool) -> Iterator[None]:
    """Average gradients over processes after the last micro-batch of a step only."""
    if isinstance(module, FSDPModule):
        module.set_requires_gradient_sync(is_last)
        yield
    elif isinstance(module, DistributedDataParallel) and not is_last:
        with module.no_sync():
            yield
    else:
        yield


def reshard(module: nn.Module) -> None:
    """Put sharded weights back in their place after a pass without gradients.

    The backward pass does that otherwise. Until then the outermost weights are whole, and not the
    objects that the optimizer knows.
    """
    if isinstance(module, FSDPModule):
        module.reshard()


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
