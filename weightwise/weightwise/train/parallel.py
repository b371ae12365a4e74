"""The processes of a run, as torchrun starts them, and how the model is spread over them.

One process needs none of this. With more, every process holds the same recipe and takes its
share of every global batch; gradients are averaged, so that the step is the one that a single
process would make (sums differ in rounding).

With experts spread over processes (`weightwise.distributed.experts`), the P processes are a mesh:

    replicate   P / S groups, each of which holds all experts once
    shard       the S processes of a group, each of which holds E / S experts of every layer

and the weights of experts are DTensors on it. Nothing but `average_experts` touches their
gradients: those of a process hold the tokens of its whole group already.
"""

# Shapes: E experts of a layer, L experts of it in one process

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from weightwise.lm.experts import Experts
from weightwise.lm.spread import is_fully_sharded, is_spread
from weightwise.numerics import ScaledTensor
from weightwise.optim.groups import by_mesh

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor

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


def spread(
    model: LanguageModel, strategy: Literal["ddp", "fsdp"], expert_parallel: int, world: World
) -> nn.Module:
    """Prepare a model for training on all processes.

    Parameters
    ----------
    model
        The model, with the same weights in every process.
    strategy
        ``"ddp"`` keeps all weights in every process (Li et al., arXiv 2006.15704), ``"fsdp"``
        shards them block by block (Zhao et al., arXiv 2304.11277) and modifies ``model``.
    expert_parallel
        Processes S over which the specialised experts of a layer are spread, whatever is done
        with the other weights; 1 treats them like all others.
    world
        The processes; with one the model is returned as it is.

    Returns
    -------
    nn.Module
        What to call in training.

    Raises
    ------
    ValueError
        If the processes do not split into groups of ``expert_parallel``.
    """
    if world.size % expert_parallel:
        raise ValueError(
            f"train.expert_parallel: expected a divisor of the number of processes {world.size}, "
            f"got {expert_parallel}"
        )
    model.to(world.device)
    if world.size == 1:
        return model
    if expert_parallel > 1:
        _spread_experts(model, expert_parallel, world)
    experts = [name for name, weight in model.named_parameters() if is_spread(weight)]
    if strategy == "ddp":
        # The one way to tell it, although marked as internal.
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, experts)
        return _settled(
            DistributedDataParallel(model),
            torch.zeros(1, 1, dtype=torch.int64, device=world.device),
        )
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    ignored = {model.get_parameter(name) for name in experts}
    for block in model.blocks:
        fully_shard(block, mesh=mesh, ignored_params=ignored)
    fully_shard(model, mesh=mesh, ignored_params=ignored)
    return model


def replicate(model: nn.Module, example: Tensor, world: World) -> nn.Module:
    """Keep all weights in every process; buffers are left to the caller.

    Parameters
    ----------
    model
        The model, with the same weights in every process, in training mode.
    example
        An input for a first pass, which is in evaluation mode and leaves nothing behind.
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
    module = DistributedDataParallel(model, broadcast_buffers=False)
    module.eval()
    _settled(module, example.to(world.device))
    module.train()
    return module


def _settled(module: DistributedDataParallel, example: Tensor) -> DistributedDataParallel:
    """Let a first, small pass come before the first step.

    After that pass the tensors that are added up together are ordered anew, and with more than two
    processes the order decides in which sequence a sum is made. So every step of a run that goes
    on adds up like one of a run that was never stopped.
    """
    module(example).sum().backward()
    module.zero_grad(set_to_none=True)
    return module


def _spread_experts(model: nn.Module, expert_parallel: int, world: World) -> None:
    """Leave each process its own experts of every layer."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard

    mesh = init_device_mesh(
        world.device.type,
        (world.size // expert_parallel, expert_parallel),
        mesh_dim_names=("replicate", "shard"),
    )
    for module in _all_experts(model):
        module.group = mesh.get_group("shard")
        for name, weight in list(module.named_parameters()):
            own_LXY = weight.detach().chunk(expert_parallel)[mesh.get_local_rank("shard")]
            # A copy, so that the memory of the other experts is given back.
            shard = DTensor.from_local(
                own_LXY.clone(), mesh, (Replicate(), Shard(0)), run_check=False
            )
            module.register_parameter(name, nn.Parameter(shard))


def _all_experts(module: nn.Module) -> list[Experts]:
    return [part for part in module.modules() if isinstance(part, Experts)]


@contextmanager
def gradient_sync(module: nn.Module, is_last: bool) -> Iterator[None]:
    """Average gradients over processes after the last micro-batch of a step only."""
    if is_fully_sharded(module):
        cast("FSDPModule", module).set_requires_gradient_sync(is_last)
        yield
    elif isinstance(module, DistributedDataParallel) and not is_last:
        with module.no_sync():
            yield
    else:
        yield
    if is_last:
        average_experts(module)


@torch.no_grad()
def average_experts(module: nn.Module) -> None:
    """Give spread experts the mean gradient over all processes, as the other weights get it.

    Every process must call this.
    """
    for experts in _all_experts(module):
        for weight in experts.parameters() if experts.group is not None else ():
            if weight.grad is None:  # nobody chose an expert of this process
                weight.grad = torch.zeros_like(weight)
            mesh = cast("DTensor", weight).device_mesh
            own_LXY = cast("DTensor", weight.grad).to_local()
            own_LXY /= mesh.size()
            if mesh.size(0) > 1:
                dist.all_reduce(own_LXY, group=mesh.get_group("replicate"))


@torch.no_grad()
def clip_gradients(module: nn.Module, max_norm: float) -> Tensor:
    """Scale the gradients of all parameters down to a largest norm; every process must call this.

    Parameters
    ----------
    module
        Its parameters may be whole, sharded, or some of each.
    max_norm
        Largest norm over all parameters.

    Returns
    -------
    Tensor
        Norm before, the same in every process.
    """
    parts = by_mesh(module.parameters())
    norms = [
        full(get_total_norm([weight.grad for weight in part if weight.grad is not None]))
        for part in parts
    ]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for part in parts:
        clip_grads_with_norm_(part, max_norm, norm)
    return norm


def reshard(module: nn.Module) -> None:
    """Put sharded weights back in their place after a pass without gradients.

    The backward pass does that otherwise. Until then the outermost weights are whole, and not the
    objects that the optimizer knows.
    """
    if is_fully_sharded(module):
        cast("FSDPModule", module).reshard()


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded; every process must call this."""
    return tensor.full_tensor() if is_spread(tensor) else tensor


def whole_on_main(weight: Tensor) -> Tensor | None:
    """Bring a weight together on the CPU of the main process; every process must call this.

    Spread experts travel one of each process at a time, so that no device holds more than those.

    Parameters
    ----------
    weight
        Whole, sharded, or in few bits; without gradient.

    Returns
    -------
    Tensor or None
        The whole weight; ``None`` in all processes but the main one.
    """
    is_main = not dist.is_initialized() or dist.get_rank() == 0
    if isinstance(weight, ScaledTensor):
        return weight.decode().cpu() if is_main else None
    if not is_spread(weight) or weight.device_mesh.ndim == 1:
        whole = full(weight)
        return whole.cpu().contiguous() if is_main else None
    mesh, own_LXY = weight.device_mesh, weight.to_local()
    if mesh.get_local_rank("replicate"):
        return None
    whole_EXY = torch.empty(weight.shape, dtype=weight.dtype) if is_main else None
    for number, expert_XY in enumerate(own_LXY):
        received = [torch.empty_like(expert_XY) for _ in range(mesh.size(1))] if is_main else None
        dist.gather(expert_XY, received, dst=0, group=mesh.get_group("shard"))
        if whole_EXY is not None and received is not None:
            whole_EXY[number :: len(own_LXY)] = torch.stack(received).cpu()
    return whole_EXY
