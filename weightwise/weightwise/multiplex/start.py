"""The weights that a group of blocks starts from, and what a part of low rank adds to them.

The published code trains from scratch. Here a trained model is shared, and the choices are ours
(the paper is silent): the first block's weights, their mean, or those that change the outputs of
the group's linear layers least on calibration data,

    minimise  sum_i || X_i (W - W_i)^T ||^2        W = (sum_i W_i G_i) (sum_i G_i)^-1,

with ``G_i = X_i^T X_i`` of the inputs X_i of block i. Directions that no input has are drawn to the
mean by a small ridge. All else than weights of linear layers is the mean.
"""

# Shapes: O outputs, I inputs, K rank

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

from weightwise.multiplex.linears import linear_layers, matrix_of, stored

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor, nn

Start = Literal["first", "mean", "data"]
RIDGE = 1e-6  # of the mean square of an input


@torch.no_grad()
def group_start(
    blocks: Sequence[nn.Module],
    shared: Sequence[str],
    start: Start,
    products: Mapping[nn.Module, Tensor],
) -> dict[str, Tensor]:
    """Weights for a group of blocks.

    Parameters
    ----------
    blocks
        Blocks of the group, as they are.
    shared
        Parameters that they will share.
    start
        ``first``, ``mean`` or ``data``.
    products
        See `weightwise.multiplex.observe.input_products`; used by ``data`` only.

    Returns
    -------
    Tensors by name within the block.
    """
    if start == "first":
        return {name: blocks[0].get_parameter(name).detach().clone() for name in shared}
    values = {name: _mean([block.get_parameter(name) for block in blocks]) for name in shared}
    if start == "data":
        for name, layer in linear_layers(blocks[0], shared).items():
            layers = [block.get_submodule(name) for block in blocks]
            if all(one in products for one in layers):
                matrices = [matrix_of(one) for one in layers]
                found_OI = least_squares(matrices, [products[one] for one in layers])
                values[f"{name}.weight"] = stored(layer, found_OI.to(matrices[0].dtype))
    return values


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    total = sum(one.detach().double() for one in tensors)
    mean = torch.as_tensor(total) / len(tensors)
    return mean.to(tensors[0].dtype)


def least_squares(weights: Sequence[Tensor], products: Sequence[Tensor]) -> Tensor:
    """One matrix whose outputs are nearest to those of several, each on its own inputs.

    Parameters
    ----------
    weights
        Matrices W_i, shape (O, I).
    products
        G_i, shape (I, I), float64.

    Returns
    -------
    Shape (O, I), float64.
    """
    mean_OI = torch.stack([one.double() for one in weights]).mean(0)
    sum_II = torch.stack(list(products)).sum(0)
    # What the mean does wrong, W_i - mean, is what is left to solve for.
    wrong_OI = sum_II.new_zeros(mean_OI.shape)
    for weight_OI, product_II in zip(weights, products, strict=True):
        wrong_OI += (weight_OI.double() - mean_OI) @ product_II
    ridge = RIDGE * sum_II.diagonal().mean() + torch.finfo(sum_II.dtype).tiny
    sum_II = sum_II + ridge * torch.eye(len(sum_II), dtype=sum_II.dtype, device=sum_II.device)
    factor_II = torch.linalg.cholesky(sum_II)
    return mean_OI + torch.cholesky_solve(wrong_OI.T, factor_II).T


@torch.no_grad()
def low_rank(difference_OI: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Best approximation of a matrix by two thin ones.

    Parameters
    ----------
    difference_OI
        Matrix.
    rank
        At most the smaller side; more is cut down to it.

    Returns
    -------
    ``down`` (K, I) with orthonormal rows and ``up`` (O, K), whose product is the truncated singular
    value decomposition.
    """
    wide_OI = difference_OI.double()
    rank = min(rank, *wide_OI.shape)
    # The smaller of the two Gram matrices; its largest eigenvectors are singular vectors.
    if wide_OI.shape[1] <= wide_OI.shape[0]:
        down_KI = torch.linalg.eigh(wide_OI.T @ wide_OI).eigenvectors[:, -rank:].T
    else:
        left_OK = torch.linalg.eigh(wide_OI @ wide_OI.T).eigenvectors[:, -rank:]
        down_KI = torch.linalg.qr((left_OK.T @ wide_OI).T).Q.T
    up_OK = wide_OI @ down_KI.T
    return down_KI.to(difference_OI).contiguous(), up_OK.to(difference_OI).contiguous()
