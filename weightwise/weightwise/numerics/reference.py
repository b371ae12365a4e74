"""The slow, obvious reference: rounding, scales and groups in plain tensor operations.

``round_values`` rounds to the nearest value of a format. With ``2^e`` the power of two at or
below ``|v|``, clamped from below at ``2^e_min``, neighbouring values of the format are
``2^(e-M)`` apart. Adding and subtracting the magic constant ``1.5 * 2^(e+23-M)`` moves the value
to a place where float32 itself has that spacing, so the addition does the rounding, ties to
even. No branch, no logarithm, no table. It is exact in float32 for M <= 21 and E <= 7; the
remaining formats take the same route in float64. Rounding up across a power of two needs no care:
the next power of two is on the grid.

Every group of elements has two numbers (`Scales`): its elements are multiplied by the first and
rounded; the results are divided by it or, where that is what tools do, multiplied by the second.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from weightwise.numerics.formats import parse
from weightwise.numerics.philox import random_words

if TYPE_CHECKING:
    from weightwise.numerics.formats import FloatFormat
    from weightwise.numerics.scaling import ScaledFormat, Scaling

Rounding = Literal["even", "away", "stochastic"]
NonFinite = Literal["raise", "propagate"]

NOT_FINITE = "Expected finite x, got infinite or NaN elements."

MAX_SCALE = 2.0**127  # the largest power of two in float32: a clamped scale multiplies exactly
# Least scale of a tensor in NVFP4: both factors of its blocks stay finite.
LEAST_TENSOR_SCALE = 2.0**-116
E4M3 = parse("float8_e4m3fn")
E8M0_NAN, E4M3_NAN = 0xFF, 0x7F


@dataclass(frozen=True, kw_only=True)
class Scales:
    """Scales of groups; tensors with the reduced dimensions kept.

    Parameters
    ----------
    up
        Factor before rounding, float32; NaN where a group is not finite.
    down
        Factor after rounding; None: division by ``up``.
    stored
        What is stored: S in its own type, or codes in uint8.
    tensor_scale
        The float32 scale of the whole tensor in NVFP4, shape ().
    """

    up: Tensor
    down: Tensor | None
    stored: Tensor
    tensor_scale: Tensor | None = None

    def scale_back(self, rounded: Tensor) -> Tensor:
        """Undo the scaling, in place."""
        return rounded.div_(self.up) if self.down is None else rounded.mul_(self.down)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Groups of equal shape in one tensor.

    Parameters
    ----------
    source
        View of the tensor.
    dims
        Dimensions over which a group extends.
    """

    source: Tensor
    dims: tuple[int, ...]


def round_values(v: Tensor, fmt: FloatFormat, rounding: Rounding, words: Tensor | None) -> Tensor:
    """Round float32 values within the range of the format, in place where it can.

    Working in place halves the time on a CPU: fresh memory costs more than the arithmetic. The
    sign of zero is lost here; the callers put it back. ``words`` are 32 random bits for each
    value, needed for stochastic rounding alone.
    """
    if fmt.exponent_bits == 8 or fmt.mantissa_bits > 21:
        v, integer, exponent_mask, digits = v.double(), torch.int64, 0x7FF << 52, 52
    else:
        integer, exponent_mask, digits = torch.int32, 0x7F800000, 23
    power = (v.view(integer) & exponent_mask).view(v.dtype).clamp_(min=2.0**fmt.e_min)
    if rounding == "even":
        magic = power.mul_(1.5 * 2.0 ** (digits - fmt.mantissa_bits))
        return v.add_(magic).sub_(magic)
    step = power.mul_(2.0**-fmt.mantissa_bits)
    steps = v.abs().div_(step)
    whole = steps.trunc()
    # Truncating |v| / step + 1/2 would round twice; the difference is exact.
    rest = steps.sub_(whole)
    if rounding == "away":
        is_up = rest >= 0.5
    else:
        assert words is not None
        is_up = (words >> 8).to(v.dtype).mul_(2.0**-24) < rest
    return whole.add_(is_up).mul_(step).copysign_(v)


def group_scales(amax: Tensor, fmt: ScaledFormat, tensor_amax: Tensor) -> Scales:
    """Return the scales of groups.

    Parameters
    ----------
    amax
        Largest magnitude of each group, float32.
    fmt
        Format with its kind of scales.
    tensor_amax
        Largest magnitude of the whole tensor, float32, shape ().
    """
    element, scaling = fmt.element, fmt.scaling
    if element.exponent_bits == 8:
        up = torch.ones_like(amax)
        stored = up
    elif scaling.scale == "e8m0":
        exponent = shared_exponent(amax, element, scaling)
        up = torch.ldexp(torch.ones_like(amax, dtype=torch.float64), -exponent).float()
        stored = torch.where(amax.isfinite(), exponent + 127, E8M0_NAN).to(torch.uint8)
    elif scaling.scale == "e4m3":
        return _two_level_scales(amax, fmt, tensor_amax)
    else:
        # Not fmt.max / amax, which torch computes as a product with the reciprocal: two roundings.
        up = (torch.full_like(amax, element.max) / amax).clamp_(max=MAX_SCALE)
        up = torch.where(amax == 0, 1.0, torch.where(amax.isfinite(), up, torch.nan))
        stored = up.to(getattr(torch, scaling.scale))
        up = stored.float()
    up = torch.where(amax.isfinite(), up, torch.nan)
    return Scales(up=up, down=None, stored=stored)


def shared_exponent(amax: Tensor, element: FloatFormat, scaling: Scaling) -> Tensor:
    """Exponent of the power of two of each group, -127 to 127 (OCP MX v1.0, section 6.3)."""
    bits = amax.view(torch.int32)
    if scaling.rule == "rceil":
        bits = (amax / torch.full_like(amax, element.max)).view(torch.int32)
        return ((bits >> 23) - 127 + (bits & 0x7FFFFF > 0)).clamp_(-127, 127)
    if scaling.rule == "even":
        # With E = 0 the leading bit is one of the M.
        bits = bits + (1 << 22 - element.mantissa_bits + (element.exponent_bits == 0))
    exponent = (bits >> 23) - 127 - element.e_max
    if scaling.rule == "ceil":
        exponent = exponent + (bits & 0x7FFFFF > 0)
    return exponent.clamp_(-127, 127)


def _two_level_scales(amax: Tensor, fmt: ScaledFormat, tensor_amax: Tensor) -> Scales:
    """NVFP4: an E4M3 scale for each block and one float32 scale for the tensor."""
    one, top = torch.ones_like(tensor_amax), torch.full_like(amax, fmt.element.max)
    outer = tensor_amax / torch.full_like(tensor_amax, E4M3.max * fmt.element.max)
    outer = torch.where(tensor_amax == 0, one, outer.clamp(min=LEAST_TENSOR_SCALE))
    least = E4M3.min_normal if fmt.scaling.smallest == "normal" else E4M3.min_subnormal
    inner = (amax / top / outer).clamp_(least, E4M3.max)
    inner = round_values(inner, E4M3, "even", None)
    is_finite = amax.isfinite()
    codes = torch.where(is_finite, E4M3.encode(inner.nan_to_num(E4M3.max)), E4M3_NAN)
    up = torch.where(is_finite, (one / outer) / inner, torch.nan)
    return Scales(up=up, down=inner * outer, stored=codes.to(torch.uint8), tensor_scale=outer)


def largest_magnitude(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Largest magnitude over some dimensions, which are kept, float32."""
    # Two reading passes are several times faster than writing |x| out first.
    return torch.maximum(x.amax(dims, keepdim=True), -x.amin(dims, keepdim=True)).float()


def split(x: Tensor, scaling: Scaling, axis: int) -> list[Group]:
    """Return views of a tensor by groups.

    Whole blocks and the shorter last one are two views, so that padding is never needed.
    """
    if x.numel() == 0:
        return []
    if scaling.granularity == "tensor":
        return [Group(source=x, dims=tuple(range(x.dim())))]
    axis %= x.dim()
    if scaling.block_size is None:
        return [Group(source=x, dims=(axis,))]
    length = x.shape[axis]
    size = min(scaling.block_size, length)
    whole = length - length % size
    blocks = x.narrow(axis, 0, whole).unflatten(axis, (whole // size, size))
    groups = [Group(source=blocks, dims=(axis + 1,))]
    if whole < length:
        groups.append(Group(source=x.narrow(axis, whole, length - whole), dims=(axis,)))
    return groups


def scale_groups(x: Tensor, fmt: ScaledFormat, axis: int) -> tuple[list[Group], list[Scales]]:
    """Return the groups of a tensor and the scales of each."""
    groups = split(x, fmt.scaling, axis)
    amaxes = [largest_magnitude(group.source, group.dims) for group in groups]
    if not amaxes:
        return [], []
    tensor_amax = torch.stack([amax.max() for amax in amaxes]).max()
    return groups, [group_scales(amax, fmt, tensor_amax) for amax in amaxes]


def round_group(
    group: Group, scales: Scales, fmt: FloatFormat, rounding: Rounding, words: Tensor | None
) -> Tensor:
    """Scale the elements of a group and round them: values of the format, float32."""
    limit = largest_value(fmt, torch.float32)
    scaled = (group.source * scales.up).clamp_(-limit, limit)
    return round_values(scaled, fmt, rounding, words).copysign_(group.source)


def quantize_into(
    x: Tensor,
    out: Tensor,
    fmt: ScaledFormat,
    axis: int,
    rounding: Rounding,
    seed: int,
    non_finite: NonFinite,
) -> None:
    """Fake-quantize ``x`` into ``out``, see `weightwise.numerics.fake_quantize`."""
    groups, scales = scale_groups(x, fmt, axis)
    # All groups are checked before the first is written, as ``out`` may be ``x``.
    if non_finite == "raise" and not all(bool(scale.up.isfinite().all()) for scale in scales):
        raise ValueError(NOT_FINITE)
    words = random_words(seed, positions(x)) if rounding == "stochastic" else None
    targets = split(out, fmt.scaling, axis)
    parts = [None] * len(groups) if words is None else split(words, fmt.scaling, axis)
    for group, scale, target, part in zip(groups, scales, targets, parts, strict=True):
        chosen = None if part is None else part.source
        rounded = round_group(group, scale, fmt.element, rounding, chosen)
        target.source.copy_(scale.scale_back(rounded))


def largest_value(fmt: FloatFormat, dtype: torch.dtype) -> float:
    """Return the largest value of the format that the dtype can hold."""
    info = torch.finfo(dtype)
    if fmt.max <= info.max:
        return fmt.max
    # The top binade of the dtype, filled up to M bits or to the dtype's own precision.
    top_power = 2.0 ** (math.frexp(info.max)[1] - 1)
    return top_power * (2.0 - max(info.eps, 2.0**-fmt.mantissa_bits))


def positions(x: Tensor) -> Tensor:
    """Position of each element in row-major order, whatever the strides."""
    return torch.arange(x.numel(), device=x.device).view(x.shape)
