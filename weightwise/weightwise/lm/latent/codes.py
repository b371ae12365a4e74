"""Vectors in few bits for a cache: a small whole number per feature, a scale per group of them.

G neighbouring features z of one token share a scale a. Codes of b bits are

    symmetric   code = round(z / a),        a = max|z| / (2^(b-1) - 1),        z' = a * code
    asymmetric  code = round((z - m) / a),  a = (max z - m) / (2^b - 1), m = min z,
                z' = a * code + m

with ties to even (sheet CLLA, 3.3). Nothing is shared between tokens, so that a cache only ever
appends. Scales and minima are rounded to float16 before codes are computed; what training sees,
what the cache keeps and what attention reads are then the same numbers, bit for bit. The product
of a float16 number and a code is exact in float32, so no order of operations and no fused
instruction changes it.

Where the sheet leaves a choice:

* A scale is at least 2^-14, the smallest number that float16 holds in full, and at most its largest
  one; what lies beyond saturates. Below, a scale of few bits could no longer reach the group's
  largest element. Magnitudes below 2^-15 therefore become 0; outer scales move a model whose
  latents are that small.
* Symmetric codes go from -(2^(b-1) - 1) to 2^(b-1) - 1, so that -z has the codes of z with the
  other sign. The one code more at the lower end would only ever serve saturated numbers.
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
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from weightwise.lm.latent import code_kernels

if TYPE_CHECKING:
    from weightwise.lm.latent.config import CodeConfig

LEAST_SCALE, LARGEST_HALF = 2.0**-14, 65504.0
RESOLUTION = 2.0**-10  # of float16, relative


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
        if code_kernels.fits(x):
            codes = _new(x.shape[:-1], x.shape[-1], config)
            code_kernels.encode_into(x, codes.code, codes.scale, codes.minimum, config)
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
        if code_kernels.fits(rows):
            out = torch.empty(rows.shape)
            code_kernels.fake_into(rows, out, config)
            return out.to(x.dtype)
        stored, scale, minimum = _quantize(rows, config)
        return _values(stored, scale, minimum, config, x.shape[-1]).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(_: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


def _new(shape: torch.Size, width: int, config: CodeConfig) -> Codes:
    groups = num_groups(width, config)
    code = torch.empty(*shape, groups * config.group_width * config.bits // 8, dtype=torch.uint8)
    scale = torch.empty(*shape, groups, dtype=torch.float16)
    return Codes(code, scale, None if config.is_symmetric else torch.empty_like(scale))


def _quantize(x: Tensor, config: CodeConfig) -> tuple[Tensor, Tensor, Tensor | None]:
    """Stored numbers, uint8 of shape (..., N, G), scales and minima."""
    width, group, bits = x.shape[-1], config.group_width, config.bits
    groups = num_groups(width, config)
    # Padding repeats the last feature, which leaves the range of its group as it is.
    last = x[..., -1:].expand(*x.shape[:-1], groups * group - width)
    grouped = torch.cat((x, last), dim=-1).unflatten(-1, (groups, group))
    if config.is_symmetric:
        top, offset, minimum = 2 ** (bits - 1) - 1, 2 ** (bits - 1), None
        scale = _half_scale(grouped.abs().amax(-1) / top)
        code = (grouped / scale.float().unsqueeze(-1)).round().clamp(-top, top) + offset
    else:
        top, offset = 2**bits - 1, 0
        # Adding 0 gives -0.0 the sign that compiled code gives it.
        minimum = (grouped.amin(-1).clamp(-LARGEST_HALF, LARGEST_HALF) + 0.0).half()
        low = minimum.float()
        step = torch.maximum((grouped.amax(-1) - low) / top, low.abs() * RESOLUTION)
        scale = _half_scale(step)
        steps = (grouped - low.unsqueeze(-1)) / scale.float().unsqueeze(-1)
        code = steps.round().clamp(0, top)
    stored = code.to(torch.uint8)
    stored.flatten(-2)[..., width:] = offset
    return stored, scale, minimum


def _half_scale(step: Tensor) -> Tensor:
    return step.clamp(LEAST_SCALE, LARGEST_HALF).half()


def _values(
    stored: Tensor, scale: Tensor, minimum: Tensor | None, config: CodeConfig, width: int
) -> Tensor:
    """Float32 numbers of stored ones of shape (..., N, G)."""
    scale = scale.float().unsqueeze(-1)
    if minimum is None:
        values: Tensor = (stored.float() - 2 ** (config.bits - 1)) * scale
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
