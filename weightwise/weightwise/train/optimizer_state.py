"""Optimizer state on disk, in the format of `torch.distributed.checkpoint`.

Every process writes and reads its own share, and the shares need not be the same on reading:
sharded state can be read whole and the other way round.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from weightwise.fp8.checkpoint import live_state, settle
from weightwise.optim import AdamW8

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn


def save_optimizer(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, num_processes: int
) -> None:
    """Write the state of every parameter; every process must call this.

    Parameters
    ----------
    folder
        Where to write.
    model
        The model itself, not what data parallelism wraps around it.
    optimizer
        Its optimizer, after at least one step. Its settings are not written: the recipe has them.
    num_processes
        Processes that call this together.
    """
    from torch.distributed.checkpoint.state_dict_saver import save  # takes a second to import

    with _single_process_is_fine():
        save(_state_of(model, optimizer), checkpoint_id=folder, no_dist=num_processes == 1)


def load_optimizer(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, num_processes: int
) -> None:
    """Read what `save_optimizer` wrote into a new optimizer; every process must call this.

    Parameters
    ----------
    folder
        Where it was written, by any number of processes.
    model, num_processes
        As for `save_optimizer`.
    optimizer
        A new one, with learning rate 0.
    """
    # A step with zero gradients and the learning rate 0 of a new optimizer moves nothing; it makes
    # the tensors that the state is then read into.
    for weight in _trained(model).values():
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    from torch.distributed.checkpoint.state_dict_loader import load

    with _single_process_is_fine():
        load(_state_of(model, optimizer), checkpoint_id=folder, no_dist=num_processes == 1)
    if isinstance(optimizer, AdamW8):
        settle(optimizer)


def _state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Tensors to write or to read into, by name of the parameter."""
    if isinstance(optimizer, AdamW8):
        return live_state(model, optimizer)
    return _by_name(model, optimizer)


def _by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """State of each parameter under the parameter's name; a tied one appears once."""
    named = _trained(model)
    # The optimizer would answer a weight that it does not know with an empty state.
    assert all(weight in optimizer.state for weight in named.values())
    return {name: optimizer.state[weight] for name, weight in named.items()}


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@contextmanager
def _single_process_is_fine() -> Iterator[None]:
    """Torch warns about a single process even when told that there is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
