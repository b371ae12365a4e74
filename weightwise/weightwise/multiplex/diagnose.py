"""What sharing does to training: gradients of each execution, and how much alike features stay.

The paper's reading of plain sharing (arXiv 2204.07154): gradients of all executions become large
and alike, and the features of late ones leave those of the original model. Both are numbers here.
"""

# Shapes: R rows (tokens of all batches), C and D channels

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from weightwise.multiplex.observe import Batch, call, evaluating
from weightwise.multiplex.stages import find_stages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


def gradient_norms(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> dict[str, float]:
    """Norm of the gradient that each execution gives to the weights it shares.

    Parameters
    ----------
    model
        With or without sharing.
    loss
        Computes a number from the model.

    Returns
    -------
    By dotted name of the block, in the model's order; the sum of the gradients themselves, not of
    these norms, is the gradient of a shared weight. No gradients are left behind.
    """
    stages = find_stages(model)
    copies = {}
    with ExitStack() as stack:
        for stage in stages:
            for name, block in zip(stage.block_names(model), stage.blocks(model), strict=True):
                copies[name] = stack.enter_context(_untied(block, stage.shared))
        flat = [one for own in copies.values() for one in own]
        found = iter(torch.autograd.grad(loss(model), flat, allow_unused=True))
    norms = {}
    for name, own in copies.items():
        gradients = [next(found) for _ in own]
        squares = [float(one.double().square().sum()) for one in gradients if one is not None]
        norms[name] = sum(squares) ** 0.5
    return norms


@contextmanager
def _untied(block: nn.Module, shared: Sequence[str]) -> Iterator[list[nn.Parameter]]:
    """Give a block parameters of its own for a while, over the same memory."""
    kept = {name: block.get_parameter(name) for name in shared}
    own = {name: nn.Parameter(one.detach()) for name, one in kept.items()}
    try:
        _set(block, own)
        yield list(own.values())
    finally:
        _set(block, kept)


def _set(block: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    for name, one in parameters.items():
        parent, _, leaf = name.rpartition(".")
        setattr(block.get_submodule(parent), leaf, one)


def linear_cka(x_RC: Tensor, y_RD: Tensor) -> float:
    """Centred kernel alignment of two sets of features with linear kernels.

    Parameters
    ----------
    x_RC, y_RD
        Features of the same rows.

    Returns
    -------
    ``|Y^T X|^2 / (|X^T X| |Y^T Y|)`` of the centred features, Frobenius norms: 1 for features that
    are a rotation and a scale apart, near 0 for unrelated ones; 0 for constant ones.

    Raises
    ------
    ValueError
        If the rows do not fit.

    References
    ----------
    Kornblith et al., Similarity of Neural Network Representations Revisited, arXiv 1905.00414,
    section 3.
    """
    if x_RC.dim() != 2 or y_RD.dim() != 2 or len(x_RC) != len(y_RD):
        raise ValueError(
            f"features: expected matrices with the same rows, got {tuple(x_RC.shape)} and "
            f"{tuple(y_RD.shape)}"
        )
    x_RC, y_RD = (one.double() - one.double().mean(0) for one in (x_RC, y_RD))
    scale = (x_RC.T @ x_RC).norm() * (y_RD.T @ y_RD).norm()
    return float((y_RD.T @ x_RC).square().sum() / scale) if scale > 0 else 0.0


def block_similarity(
    model: nn.Module, reference: nn.Module, batches: Sequence[Batch]
) -> dict[str, float]:
    """Compare the output of each block with that of the same block of another model.

    Parameters
    ----------
    model, reference
        Models of one architecture, such as a multiplexed one and its original.
    batches
        Inputs, at least one.

    Returns
    -------
    `linear_cka` by dotted name of the block.

    Raises
    ------
    ValueError
        If there are no inputs, or the blocks do not fit.
    """
    if not batches:
        raise ValueError("batches: expected at least 1, got none")
    first, second = (_features(one, batches) for one in (model, reference))
    if set(first) != set(second):
        raise ValueError("reference: expected blocks of the same names")
    return {name: linear_cka(first[name], second[name]) for name in first}


def _features(model: nn.Module, batches: Sequence[Batch]) -> dict[str, Tensor]:
    """Rows of features that each block gives."""
    found: dict[str, list[Tensor]] = {}

    def keep(name: str, out: Any) -> None:
        first = out if isinstance(out, Tensor) else out[0]
        found.setdefault(name, []).append(first.detach().flatten(0, -2))

    with evaluating(model), ExitStack() as stack:
        for stage in find_stages(model):
            for name, block in zip(stage.block_names(model), stage.blocks(model), strict=True):
                hook = block.register_forward_hook(lambda _, __, out, name=name: keep(name, out))
                stack.callback(hook.remove)
        for batch in batches:
            call(model, batch)
    return {name: torch.cat(rows) for name, rows in found.items()}
