"""Rounding and scaled fake-quantization: the slow, obvious reference.

``round_to_format`` rounds to the nearest value of a format. With ``2^e`` the power of two at or
below ``|v|``, clamped from below at ``2^e_min``, neighbouring values of the format are
``2^(e-M)`` apart. Adding and subtracting the magic constant ``1.5 * 2^(e+23-M)`` moves the value
to a place where float32 itself has that spacing, so the addition does the rounding, ties to
even. No branch, no logarithm, no table. It is exact in float32 for M <= 21 and E <= 7; the
remaining formats take the same route in float64. Rounding up across a power of two needs no care:
the next power of two is on the grid.

``fake_quantize`` scales each group of elements to the largest value of the format, rounds, and
scales back (arXiv 2501.02423, equation 7)::

    S_g = FP_max / max|X_g|,    result = round(X_g * S_g) / S_g

Decisions where the paper is silent:

* S is a float32 number; the products and the division run in float32 whatever the input type.
* A group of zeros has S = 1. S never exceeds 2^127, so groups of magnitude below
  ``FP_max * 2^-127`` (1e-36 and less) stay finite but are rounded more coarsely.
* At the other end, the last ulp below the largest float32 can come back as infinity when E <= 1.
* The last block of a row may be shorter and has a scale of its own; nothing is padded.
* Formats with E = 8 have the range of float32: they are rounded unscaled, S = 1, as a cast to
  bfloat16 does, and saturate at the largest value that float32 can hold.
* The sign of zero is kept, as in hardware: -0.0 and small negative numbers give -0.0.
* M = 0 (powers of two): a tie between 2^k and 2^(k+1) goes up, a tie between 0 and 2^e_min goes
  to 0. A rule by parity of the code would send every second tie down.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from weightwise.numerics.formats import FloatFormat

Ties = Literal["even", "away"]
Granularity = Literal["tensor", "channel", "block"]
NonFinite = Literal["raise", "propagate"]

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_MAX_SCALE = 2.0**127  # the largest power of two in float32: a clamped scale multiplies exactly


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Which elements share one scale.

    Parameters
    ----------
    granularity
        ``"tensor"``: all of them. ``"channel"``: those along one axis. ``"block"``: runs of
        ``block_size`` consecutive elements along one axis.
    block_size
        Elements per block, at least 1; only with ``"block"``.

    Raises
    ------
    ValueError
        If ``block_size`` is out of range, missing, or given without blocks.
    """

    granularity: Granularity = "channel"
    block_size: int | None = None

    def __post_init__(self) -> None:
        if self.granularity not in ("tensor", "channel", "block"):
            raise ValueError(
                f"Expected granularity 'tensor', 'channel' or 'block', got {self.granularity!r}."
            )
        if self.granularity != "block" and self.block_size is not None:
            raise ValueError(f"Expected block_size only with blocks, got {self.block_size}.")
        if self.granularity == "block" and (self.block_size is None or self.block_size < 1):
            raise ValueError(f"Expected block_size >= 1 with blocks, got {self.block_size}.")


def round_to_format(x: Tensor, fmt: FloatFormat, *, ties: Ties = "even") -> Tensor:
    """Round each element to the nearest value of a format, without scaling.

    Magnitudes above the largest value saturate, infinities included; NaN stays NaN. The result
    carries no gradient.

    Parameters
    ----------
    x
        Tensor of any shape; float32, bfloat16 or float16.
    fmt
        The format to round to.
    ties
        ``"even"``: ties go to the value with the even code; ``"away"``: away from zero.

    Returns
    -------
    Tensor of the shape and dtype of ``x``. A format finer than a 16-bit ``x`` loses what that
    dtype cannot hold, and saturates at the largest value of the format that it can.

    Raises
    ------
    ValueError
        If the dtype or ``ties`` is not one of those named above.

    References
    ----------
    Format and rounding: arXiv 2501.02423, section 3.1.
    """
    _check(x, ties)
    with torch.no_grad():
        limit = _limit(fmt, x.dtype)
        return _round_(x.float().clamp(-limit, limit), fmt, ties).copysign_(x).to(x.dtype)


def fake_quantize(
    x: Tensor,
    fmt: FloatFormat,
    scaling: Scaling,
    *,
    axis: int = -1,
    ties: Ties = "even",
    non_finite: NonFinite = "raise",
    out: Tensor | None = None,
) -> Tensor:
    """Round each group of elements to a format scaled to the group's largest magnitude.

    Parameters
    ----------
    x
        Tensor of any shape and strides; float32, bfloat16 or float16.
    fmt
        The element format.
    scaling
        Which elements form a group.
    axis
        The axis along which channels and blocks run; without meaning for one scale per tensor.
    ties
        As in `round_to_format`.
    non_finite
        ``"raise"``: infinities and NaN are refused (on a GPU the check waits for the device).
        ``"propagate"``: every element of a group that holds one becomes NaN.
    out
        Tensor of the shape and dtype of ``x`` that receives the result; ``x`` itself is allowed.

    Returns
    -------
    Tensor of the shape and dtype of ``x``, or ``out``. It carries no gradient: the layers that
    train through it define their own (see `weightwise.numerics.linear`).

    Raises
    ------
    ValueError
        If an argument is outside what is named above, or ``x`` is not finite and must be.

    References
    ----------
    arXiv 2501.02423, equation 7.
    """
    _check(x, ties)
    if non_finite not in ("raise", "propagate"):
        raise ValueError(f"Expected non_finite 'raise' or 'propagate', got {non_finite!r}.")
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise ValueError(
            f"Expected out of shape {tuple(x.shape)} and {x.dtype}, "
            f"got {tuple(out.shape)} and {out.dtype}."
        )
    with torch.no_grad():
        x = x.detach()
        result = torch.empty_like(x) if out is None else out.detach()
        limit = _limit(fmt, torch.float32)
        groups = _groups(x, result, scaling, axis)
        scales = [_scale(source, dims, fmt) for source, _, dims in groups]
        # All groups are checked before the first is written, as ``out`` may be ``x``.
        if non_finite == "raise" and not all(bool(scale.isfinite().all()) for scale in scales):
            raise ValueError("Expected finite x, got infinite or NaN elements.")
        for (source, target, _), scale in zip(groups, scales, strict=True):
            rounded = _round_((source * scale).clamp_(-limit, limit), fmt, ties)
            target.copy_(rounded.copysign_(source).div_(scale))
    return result if out is None else out


def _check(x: Tensor, ties: Ties) -> None:
    if x.dtype not in _DTYPES:
        raise ValueError(f"Expected dtype float32, bfloat16 or float16, got {x.dtype}.")
    if ties not in ("even", "away"):
        raise ValueError(f"Expected ties 'even' or 'away', got {ties!r}.")


def _limit(fmt: FloatFormat, dtype: torch.dtype) -> float:
    """Return the largest value of the format that the dtype can hold."""
    info = torch.finfo(dtype)
    if fmt.max <= info.max:
        return fmt.max
    # The top binade of the dtype, filled up to M bits or to the dtype's own precision.
    top_power = 2.0 ** (math.frexp(info.max)[1] - 1)
    return top_power * (2.0 - max(info.eps, 2.0**-fmt.mantissa_bits))


def _round_(v: Tensor, fmt: FloatFormat, ties: Ties) -> Tensor:
    """Round float32 values within the range of the format, in place where it can.

    Working in place halves the time on a CPU: fresh memory costs more than the arithmetic. The
    sign of zero is lost here; the callers put it back.
    """
    if fmt.exponent_bits == 8 or fmt.mantissa_bits > 21:
        v, integer, exponent_mask, digits = v.double(), torch.int64, 0x7FF << 52, 52
    else:
        integer, exponent_mask, digits = torch.int32, 0x7F800000, 23
    power = (v.view(integer) & exponent_mask).view(v.dtype).clamp_(min=2.0**fmt.e_min)
    if ties == "away":
        return _round_half_away(v, power.mul_(2.0**-fmt.mantissa_bits))
    magic = power.mul_(1.5 * 2.0 ** (digits - fmt.mantissa_bits))
    return v.add_(magic).sub_(magic)


def _round_half_away(v: Tensor, step: Tensor) -> Tensor:
    """Round to multiples of ``step`` (powers of two), ties away from zero.

    Truncating ``|v| / step + 1/2`` would round twice in float32; every operation here is exact.
    """
    truncated = (v / step).trunc_().mul_(step)
    is_up = (v - truncated).abs_().mul_(2) >= step
    return truncated.add_(step.copysign(v).mul_(is_up))


def _scale(group: Tensor, dims: tuple[int, ...], fmt: FloatFormat) -> Tensor:
    """Return S_g in float32 with the reduced dimensions kept; NaN where the group is not finite."""
    # Two reading passes are several times faster than writing |x| out first.
    amax = torch.maximum(group.amax(dims, keepdim=True), -group.amin(dims, keepdim=True)).float()
    if fmt.exponent_bits == 8:
        return torch.where(amax.isfinite(), 1.0, torch.nan)
    # Not fmt.max / amax, which torch computes as a product with the reciprocal: two roundings.
    scale = (torch.full_like(amax, fmt.max) / amax).clamp_(max=_MAX_SCALE)
    scale = torch.where(amax.isfinite(), scale, torch.nan)
    return torch.where(amax == 0, 1.0, scale)


def _groups(
    x: Tensor, out: Tensor, scaling: Scaling, axis: int
) -> list[tuple[Tensor, Tensor, tuple[int, ...]]]:
    """Return views of ``x`` and ``out`` and the dimensions over which a group extends.

    Whole blocks and the shorter last one are two views, so that padding is never needed.
    """
    if x.numel() == 0:
        return []
    if scaling.granularity == "tensor":
        return [(x, out, tuple(range(x.dim())))]
    if not -x.dim() <= axis < x.dim():
        raise ValueError(f"Expected axis in {-x.dim()} to {x.dim() - 1}, got {axis}.")
    axis %= x.dim()
    if scaling.block_size is None:
        return [(x, out, (axis,))]
    length = x.shape[axis]
    size = min(scaling.block_size, length)
    whole = length - length % size
    x_blocks, out_blocks = (
        t.narrow(axis, 0, whole).unflatten(axis, (whole // size, size)) for t in (x, out)
    )
    x_tail, out_tail = (t.narrow(axis, whole, length - whole) for t in (x, out))
    groups: list[tuple[Tensor, Tensor, tuple[int, ...]]] = [(x_blocks, out_blocks, (axis + 1,))]
    if whole < length:
        groups.append((x_tail, out_tail, (axis,)))
    return groups
