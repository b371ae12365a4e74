"""Vectors in few bits for a cache: a small whole number per feature, a scale per group of them.

G neighbouring features z of one token share a scale a. Codes of b bits are

    symmetric   code = round(z / a),        a = max|z| / (2^(b-1) - 1),        z' = a * code
    asymmetric  code = round((z - m) / a),  a = (max z - m) / (2^b - 1), m = min z,
                z' = a * code + m

with ties to even (sheet CLLA, 3.3). Nothing is shared between tokens, so that a cache only ever
appends. Scales and minima are rounded to float16 before codes are computed; what training sees,
what the cache keeps and what attention reads are then the same numbers, bit for bit. The product
of a float16 number and a code is exact in float32, so no fused instruction changes it.

**Smaller steps.** These scales put the ends of the range on codes, where they have no error at all.
Steps that are smaller by up to half of one in all still leave every element within a/2 of a code;
and symmetric codes reach to -2^(b-1) as well if the scale takes the sign that puts the largest
element there. With the scale rule ``error``, a few such grids are tried and the one with the least
squared error is taken: that of 4 bits falls by a fourth for symmetric codes and a sixth for
asymmetric ones, at no byte more. A grid is tried only if it reaches both ends of the group. An
error counts at least one, so that a group that was quantised before finds its grid again, or
another that holds all of it exactly.

Where the sheet leaves a choice:

* A scale is at least 2^-14, the smallest number that float16 holds in full, and at most its largest
  one; what lies beyond saturates. Below, a scale of few bits could no longer reach the group's
  largest element. Magnitudes below 2^-15 therefore become 0; outer scales move a model whose
  latents are that small.
* Without the sign, symmetric codes end at -(2^(b-1) - 1). In both ways -z is quantised to the
  negative of what z is.
* An asymmetric scale is at least |m| / 2^10, float16's resolution at m. Otherwise a group far from
  0 that hardly varies would be lost in the rounding of m.

With that, quantising float32 numbers twice is quantising once, and the error is at most a/2 where
nothing saturates. A group with a NaN is NaN as a whole.

**Layout.** A symmetric code is stored with 2^(b-1) added. Rows are padded to whole groups with
codes of 0 that belong to no feature. The codes of a row are one stream of bits in bytes, lowest
bits first: of two nibbles in a byte, the lower one is the even feature's; eight codes of 3 bits
are 3 bytes.
"""

# Shapes: W features, N = ceil(W / G) groups of G features, Q bytes, ... rows of any shape

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from weightwise.lm.latent import code_grids, code_kernels
from weightwise.numerics.kernels import has_triton

if TYPE_CHECKING:
    from collections.abc import Iterator

    from weightwise.lm.latent.config import CodeConfig

LEAST_SCALE, LARGEST_HALF = 2.0**-14, 65504.0
RESOLUTION = 2.0**-10  # of float16, relative
ERROR_STEPS, LARGEST_ERROR = 2.0**16, 2.0**20


@dataclass(frozen=True)
class Codes:
    """Rows of packed codes.

    Parameters
    ----------
    code
        Bytes, uint8, shape (..., Q).
    scale
        Scales of the groups, float16, shape (..., N).
    minimum
        Values of code 0, float16, shape (..., N); ``None`` for symmetric codes.
    """

    code: Tensor
    scale: Tensor
    minimum: Tensor | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of all parts."""
        parts = (self.code, self.scale, self.minimum)
        return sum(part.numel() * part.element_size() for part in parts if part is not None)


def num_groups(width: int, config: CodeConfig) -> int:
    """Groups N of a row, the last one padded."""
    return ceil(width / config.group_width)


def bytes_per_row(width: int, config: CodeConfig) -> int:
    """Bytes that a row takes, padding and scales counted (sheet CLLA, 3.4).

    Parameters
    ----------
    width
        Features W.
    config
        How they are stored.
    """
    group_bits = config.group_width * config.bits + (16 if config.is_symmetric else 32)
    return num_groups(width, config) * group_bits // 8


def encode(x: Tensor, config: CodeConfig) -> Codes:
    """Quantise rows; without a gradient.

    Parameters
    ----------
    x
        Rows of W features, shape (..., W), of any floating type; float32 is computed with.
    config
        How to store them.
    """
    with torch.no_grad():
        x = x.detach().float()
        kernels = _kernels(x)
        if kernels is not None:
            codes = _new(x, config)
            kernels.encode_into(x, codes.code, codes.scale, codes.minimum, config)
            return codes
        stored, scale, minimum = _quantize(x, config)
        return Codes(_pack(stored, config.bits), scale, minimum)


def decode(codes: Codes, config: CodeConfig, width: int, dtype: torch.dtype) -> Tensor:
    """Numbers that codes stand for.

    Parameters
    ----------
    codes
        Rows as `encode` gives them.
    config
        How they are stored.
    width
        Features W of a row, without padding.
    dtype
        Of the result; numbers are computed in float32 and rounded to it.

    Returns
    -------
    Tensor
        Shape (..., W).
    """
    if code_kernels.fits(codes.scale):
        out = torch.empty(*codes.code.shape[:-1], width)
        code_kernels.decode_into(codes.code, codes.scale, codes.minimum, out, config)
        return out.to(dtype)
    stored = _unpack(codes.code, config.bits).unflatten(-1, (-1, config.group_width))
    return _values(stored, codes.scale, codes.minimum, config, width).to(dtype)


def fake_quantize(x: Tensor, config: CodeConfig) -> Tensor:
    """What `decode` gives for the codes of ``x``, bit for bit; the gradient passes unchanged.

    Parameters
    ----------
    x
        Rows of W features, shape (..., W).
    config
        How they would be stored.

    Returns
    -------
    Tensor
        Shape and type of ``x``.
    """
    quantized: Tensor = _StraightThrough.apply(x, config)  # type: ignore[no-untyped-call]
    return quantized


class _StraightThrough(torch.autograd.Function):
    """Rounding with the derivative 1: scales are constants, and codes do not leave their range."""

    @staticmethod
    def forward(x: Tensor, config: CodeConfig) -> Tensor:
        rows = x.detach().float()
        kernels = _kernels(rows)
        if kernels is not None:
            out = torch.empty_like(rows, memory_format=torch.contiguous_format)
            kernels.fake_into(rows, out, config)
            return out.to(x.dtype)
        stored, scale, minimum = _quantize(rows, config)
        return _values(stored, scale, minimum, config, x.shape[-1]).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(_: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def _kernels(x: Tensor) -> Any:
    """The module that has compiled code for a tensor; ``None`` where only plain operations fit."""
    if code_kernels.fits(x):
        return code_kernels
    is_left = torch.compiler.is_compiling() or not x.numel()
    if x.device.type == "cuda" and has_triton() and not is_left:
        from weightwise.lm.latent import triton_encode

        return triton_encode
    return None


def _new(x: Tensor, config: CodeConfig) -> Codes:
    groups = num_groups(x.shape[-1], config)
    num_bytes = groups * config.group_width * config.bits // 8
    code = x.new_empty(*x.shape[:-1], num_bytes, dtype=torch.uint8)
    scale = x.new_empty(*x.shape[:-1], groups, dtype=torch.float16)
    return Codes(code, scale, None if config.is_symmetric else torch.empty_like(scale))


def _quantize(x: Tensor, config: CodeConfig) -> tuple[Tensor, Tensor, Tensor | None]:
    """Stored numbers, uint8 of shape (..., N, G), scales and minima."""
    width, group, groups = x.shape[-1], config.group_width, num_groups(x.shape[-1], config)
    # Padding repeats the last feature, which leaves the range of its group as it is.
    last = x[..., -1:].expand(*x.shape[:-1], groups * group - width)
    is_feature = torch.arange(groups * group, device=x.device).unflatten(0, (groups, group)) < width
    x = torch.cat((x, last), dim=-1).unflatten(-1, (groups, group))
    trials = _symmetric_grids(x, config) if config.is_symmetric else _asymmetric_grids(x, config)
    best = next(trials)
    unit = ERROR_STEPS / (best.scale * best.scale)
    least_error = _error(x, best, unit, is_feature)
    for trial in trials if config.scale_rule == "error" else ():
        error = _error(x, trial, unit, is_feature)
        is_better = trial.is_fit & (error < least_error)
        least_error = torch.where(is_better, error, least_error)
        best = _Grid(
            *(torch.where(is_better, new, old) for new, old in zip(trial, best, strict=True))
        )
    offset = 2 ** (config.bits - 1) if config.is_symmetric else 0
    stored = (_steps(x, best) + offset).to(torch.uint8)
    stored.flatten(-2)[..., width:] = offset
    minimum = None if config.is_symmetric else best.start.half()
    return stored, best.scale.half(), minimum


class _Grid(NamedTuple):
    """Values of code 0, scales, codes and whether they cover their group; shape (..., N)."""

    start: Tensor
    scale: Tensor
    least: Tensor
    most: Tensor
    is_fit: Tensor


def _symmetric_grids(x: Tensor, config: CodeConfig) -> Iterator[_Grid]:
    most = 2 ** (config.bits - 1) - 1
    high, low = x.amax(-1), x.amin(-1)
    top, other = torch.maximum(high, -low), torch.minimum(high, -low)
    sign = torch.where(high > -low, -1.0, 1.0)
    zero = torch.zeros_like(top)
    for excess in code_grids.SYMMETRIC_GRIDS.tolist():
        is_wide = excess >= 1
        scale = _half_scale(top / (most + excess))
        inverse, least = 1 / scale, -most - is_wide
        is_fit = (top * inverse > -least - 0.5) & (top * inverse <= -least + 0.5)
        if is_wide:
            scale, is_fit = scale * sign, is_fit & (other * inverse <= most + 0.5)
        yield _Grid(zero, scale, zero + least, zero + most, is_fit)


def _asymmetric_grids(x: Tensor, config: CodeConfig) -> Iterator[_Grid]:
    most = 2**config.bits - 1
    high, low = x.amax(-1), x.amin(-1)
    start = _half(low)
    coarsest = start.abs() * RESOLUTION
    zero = torch.zeros_like(start)
    for excess, shift in code_grids.ASYMMETRIC_GRIDS.tolist():
        scale = _half_scale(torch.maximum((high - start) / (most + excess), coarsest))
        inverse, shifted = 1 / scale, _half(start + shift * scale)
        first, last = (low - shifted) * inverse, (high - shifted) * inverse
        is_fit = (first >= -0.5) & (first <= 0.5) & (last > most - 0.5) & (last <= most + 0.5)
        is_fit &= scale >= shifted.abs() * RESOLUTION
        yield _Grid(shifted, scale, zero, zero + most, is_fit)


def _half(x: Tensor) -> Tensor:
    return x.clamp(-LARGEST_HALF, LARGEST_HALF).half().float() + 0.0  # -0.0 becomes 0.0


def _half_scale(step: Tensor) -> Tensor:
    return _half(step.clamp(min=LEAST_SCALE))


def _steps(x: Tensor, grid: _Grid) -> Tensor:
    """Codes as whole float32 numbers, shape (..., N, G)."""
    inverse = 1 / grid.scale.unsqueeze(-1)
    steps = ((x - grid.start.unsqueeze(-1)) * inverse).round()
    return steps.clamp(grid.least.unsqueeze(-1), grid.most.unsqueeze(-1))


def _error(x: Tensor, grid: _Grid, unit: Tensor, is_feature: Tensor) -> Tensor:
    """Squared errors in whole units, rounded up; summed up, the same in any order."""
    values = _steps(x, grid) * grid.scale.unsqueeze(-1) + grid.start.unsqueeze(-1)
    error = values - x
    units = (error * error * unit.unsqueeze(-1)).clamp(max=LARGEST_ERROR).to(torch.int32)
    return ((units + (error != 0)) * is_feature).sum(-1, dtype=torch.int32)


def _values(
    stored: Tensor, scale: Tensor, minimum: Tensor | None, config: CodeConfig, width: int
) -> Tensor:
    """Float32 numbers of stored ones of shape (..., N, G)."""
    scale = scale.float().unsqueeze(-1)
    if minimum is None:
        # Adding 0 takes the sign from zeros, which a negative scale would bring.
        values: Tensor = (stored.float() - 2 ** (config.bits - 1)) * scale + 0.0
    else:
        values = stored.float() * scale + minimum.float().unsqueeze(-1)
    return values.flatten(-2)[..., :width]


def _word(bits: int) -> tuple[int, torch.dtype]:
    """Bytes that hold a whole number of codes, and a type for them."""
    return (3, torch.int32) if bits == 3 else (1, torch.uint8)


def _pack(stored: Tensor, bits: int) -> Tensor:
    num_bytes, dtype = _word(bits)
    per_word = 8 * num_bytes // bits
    codes = stored.flatten(-2).to(dtype)
    codes = codes.unflatten(-1, (codes.shape[-1] // per_word, per_word))
    word: Tensor = (codes << _shifts(per_word, bits, codes)).sum(-1, dtype=dtype)
    if num_bytes > 1:
        word = (word.unsqueeze(-1) >> _shifts(num_bytes, 8, word) & 255).flatten(-2)
    return word.to(torch.uint8)


def _unpack(code: Tensor, bits: int) -> Tensor:
    num_bytes, dtype = _word(bits)
    word: Tensor = code.to(dtype)
    if num_bytes > 1:
        parts = word.unflatten(-1, (word.shape[-1] // num_bytes, num_bytes))
        word = (parts << _shifts(num_bytes, 8, word)).sum(-1, dtype=dtype)
    shifts = _shifts(8 * num_bytes // bits, bits, word)
    stored: Tensor = (word.unsqueeze(-1) >> shifts & 2**bits - 1).flatten(-2)
    return stored


def _shifts(count: int, bits: int, like: Tensor) -> Tensor:
    return torch.arange(0, count * bits, bits, dtype=like.dtype, device=like.device)
