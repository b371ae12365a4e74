"""A fixed rotation that spreads every feature of a vector over all others.

Few bits suit vectors whose features are alike: one that is much larger than its neighbours sets
the step of them all. The rotation mixes all features with equal weights. It is orthogonal,
symmetric, and so its own inverse: a matrix W that reads plain vectors x reads rotated ones when its
own rows are rotated, (W R)(R x) = W x, which costs nothing afterwards (sheet CLLA, 3.3).

A width of m * 2^k with odd m is taken as m by 2^k. Along the second axis stands Sylvester's
Hadamard matrix, in k rounds of sums and differences. Along the first stands the discrete Hartley
transform, (cos(2 pi i j / m) + sin(2 pi i j / m)) / sqrt(m) (Bracewell 1983), which is orthogonal
and symmetric for every m, and for m = 2 Hadamard's. So no width is refused and none needs padding.

Every row is computed in one order whatever stands beside it: a token that comes alone has the bits
that it has within a prompt.
"""

# Shapes: W = M * P features, M odd and P a power of two, R rows

from __future__ import annotations

from functools import cache
from math import pi, sqrt
from typing import Any

import numba as _numba
import numpy as np
import torch
from torch import Tensor

from weightwise.lm.latent.code_kernels import fits

numba: Any = _numba
compiled: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


def rotate_features(x: Tensor) -> Tensor:
    """Rotate rows; twice is not at all, but for rounding.

    Parameters
    ----------
    x
        Rows of W features, shape (..., W), W at least 1, of any floating type; computed in float32.

    Returns
    -------
    Tensor
        Shape and type of ``x``, with a gradient.
    """
    rotated: Tensor = _Rotation.apply(x)  # type: ignore[no-untyped-call]
    return rotated


class _Rotation(torch.autograd.Function):
    """A symmetric map, and so its own derivative's transpose."""

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        rows = x.detach().float()
        return (_compiled if fits(rows) else _plain)(rows).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(_: Any, grad: Tensor) -> Tensor:
        return rotate_features(grad)


def _compiled(x: Tensor) -> Tensor:
    rows_RW = x.reshape(x.shape[:-1].numel(), x.shape[-1])
    out_RW = torch.empty_like(rows_RW, memory_format=torch.contiguous_format)
    rotate_rows(rows_RW.numpy(), out_RW.numpy(), _matrix(x.shape[-1]).numpy())
    return out_RW.view(x.shape)


def _plain(x: Tensor) -> Tensor:
    matrix_MM = _matrix(x.shape[-1]).to(x.device)
    odd, power = len(matrix_MM), x.shape[-1] // len(matrix_MM)
    x_MP = x.unflatten(-1, (odd, power))
    step = 1
    while step < power:
        first, second = x_MP.unflatten(-1, (power // (2 * step), 2, step)).unbind(-2)
        x_MP = torch.stack((first + second, first - second), dim=-2).flatten(-3)
        step *= 2
    total: Tensor = matrix_MM[:, :1] * x_MP[..., :1, :]
    for i in range(1, odd):
        total = total + matrix_MM[:, i : i + 1] * x_MP[..., i : i + 1, :]
    rotated: Tensor = total.flatten(-2)
    return rotated


@cache
def _matrix(width: int) -> Tensor:
    """What stands along the first axis, with the norm of both: shape (M, M)."""
    odd = width // (width & -width)
    index = torch.arange(odd, dtype=torch.float64)
    angle_MM: Tensor = 2 * pi / odd * (index.outer(index) % odd)
    matrix_MM: Tensor = (angle_MM.cos() + angle_MM.sin()) / sqrt(width)
    return matrix_MM.float()


@compiled
def rotate_rows(x: Any, out: Any, matrix: Any) -> None:
    """Rotate rows of shape (R, W)."""
    odd = matrix.shape[0]
    power = x.shape[1] // odd
    here, there = np.empty((odd, power), np.float32), np.empty((odd, power), np.float32)
    for r in range(x.shape[0]):
        for block in range(odd):
            here[block] = x[r, block * power : (block + 1) * power]
        step = 1
        while step < power:
            for block in range(odd):
                add_and_subtract(here[block], there[block])
            here, there = there, here
            step *= 2
        for i in range(odd):
            total = out[r, i * power : (i + 1) * power]
            for j in range(power):
                total[j] = matrix[i, 0] * here[0, j]
            for block in range(1, odd):
                factor = matrix[i, block]
                for j in range(power):
                    total[j] += factor * here[block, j]


@compiled
def add_and_subtract(x: Any, out: Any) -> None:
    """One round: sums of neighbours, then their differences.

    As many rounds as there are bits in a place bring every bit to where it was.
    """
    half = x.shape[0] // 2
    for i in range(half):
        out[i] = x[2 * i] + x[2 * i + 1]
        out[half + i] = x[2 * i] - x[2 * i + 1]
