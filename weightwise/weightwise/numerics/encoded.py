"""Tensors stored in a format: packed codes and their scales.

`encode` gives what hardware would keep; decoding it gives the very result of `fake_quantize`
(except that integers have one zero). Codes lie in row-major order as one stream of bits, least
significant bit first: two E2M1 codes a byte with the first in the low half, as in
``torch.float4_e2m1fn_x2``, four 6-bit codes in three bytes, one 8-bit code a byte.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from weightwise.numerics import reference
from weightwise.numerics.philox import random_words
from weightwise.numerics.quantize import check, check_axis
from weightwise.numerics.reference import E4M3, E8M0_NAN
from weightwise.numerics.scaling import ScaledFormat

if TYPE_CHECKING:
    from weightwise.numerics.reference import Rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedTensor:
    """A tensor in a scaled format.

    Parameters
    ----------
    fmt
        Its format.
    shape, axis, dtype
        Shape, the axis along which groups run, and the dtype of the tensor that was encoded.
    codes
        Packed codes, uint8 of shape (ceil(elements * bits / 8),).
    scales
        One for each group: shape of the tensor with ``axis`` shortened to the number of groups
        along it, shape () with one group. float32 and bfloat16: S, by which values are divided;
        uint8: E8M0 codes (2^(code - 127)) or E4M3 codes, with which they are multiplied.
    tensor_scale
        The second factor of E4M3 scales, float32 of shape (); None with all others.
    """

    fmt: ScaledFormat
    shape: tuple[int, ...]
    axis: int
    dtype: torch.dtype
    codes: Tensor
    scales: Tensor
    tensor_scale: Tensor | None

    @property
    def num_bytes(self) -> int:
        """Bytes of codes and scales together."""
        parts = [self.codes, self.scales, self.tensor_scale]
        return sum(part.numel() * part.element_size() for part in parts if part is not None)

    def decode(self, dtype: torch.dtype | None = None) -> Tensor:
        """Return the values.

        Parameters
        ----------
        dtype
            float32, bfloat16 or float16; that of the encoded tensor by default.

        Returns
        -------
        Tensor of shape ``shape``.
        """
        element = self.fmt.element
        codes = unpack(self.codes, element.bits, prod(self.shape)).reshape(self.shape)
        values = element.decode(codes).float()
        groups = reference.split(values, self.fmt.scaling, self.axis)
        for group, scales in zip(groups, self._scales_of(groups), strict=True):
            self._scale_back(group.source, scales)
        return values.to(dtype or self.dtype)

    def _scales_of(self, groups: list[reference.Group]) -> list[Tensor]:
        """Scales in the shapes of the groups, reduced dimensions kept."""
        shapes = [
            [1 if dim in group.dims else size for dim, size in enumerate(group.source.shape)]
            for group in groups
        ]
        if len(groups) < 2:
            return [self.scales.reshape(shape) for shape in shapes]
        whole = self.scales.shape[self.axis] - 1
        parts = self.scales.split([whole, 1], self.axis)
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def _scale_back(self, values: Tensor, scales: Tensor) -> None:
        if self.tensor_scale is not None:
            values.mul_(E4M3.decode(scales).float() * self.tensor_scale)
        elif scales.dtype == torch.uint8:
            power = torch.ldexp(torch.ones(()).double(), scales.double() - 127)
            values.mul_(torch.where(scales == E8M0_NAN, torch.nan, power).float())
        else:
            values.div_(scales.float())


def encode(
    x: Tensor,
    fmt: ScaledFormat | str,
    *,
    axis: int = -1,
    rounding: Rounding = "even",
    seed: int = 0,
) -> EncodedTensor:
    """Store a tensor in a format.

    Parameters
    ----------
    x, fmt, axis, rounding, seed
        As in `weightwise.numerics.fake_quantize`. Groups that are not finite come back as NaN.

    Raises
    ------
    ValueError
        If an argument is outside what is accepted there.
    """
    check(x, rounding, seed)
    fmt = ScaledFormat.parse(fmt) if isinstance(fmt, str) else fmt
    check_axis(x, fmt, axis)
    axis = axis % max(1, x.dim())
    with torch.no_grad():
        x = x.detach()
        groups, scales = reference.scale_groups(x, fmt, axis)
        words = random_words(seed, reference.positions(x)) if rounding == "stochastic" else None
        parts = [None] * len(groups) if words is None else reference.split(words, fmt.scaling, axis)
        codes = torch.empty(x.shape, dtype=torch.int64, device=x.device)
        targets = reference.split(codes, fmt.scaling, axis)
        for group, scale, target, part in zip(groups, scales, targets, parts, strict=True):
            chosen = None if part is None else part.source
            rounded = reference.round_group(group, scale, fmt.element, rounding, chosen)
            rounded = torch.where(scale.up.isfinite(), rounded, 0.0)
            target.source.copy_(fmt.element.encode(rounded))
        return EncodedTensor(
            fmt=fmt, shape=tuple(x.shape), axis=axis, dtype=x.dtype,
            codes=pack(codes.reshape(-1), fmt.element.bits),
            scales=_join(x, groups, scales, axis, fmt),
            tensor_scale=scales[0].tensor_scale if scales else None,
        )  # fmt: skip


def _join(
    x: Tensor,
    groups: list[reference.Group],
    scales: list[reference.Scales],
    axis: int,
    fmt: ScaledFormat,
) -> Tensor:
    """Scales of whole and of shorter blocks in one tensor."""
    if not groups:
        return torch.empty(0, device=x.device)
    if fmt.scaling.granularity == "tensor":
        return scales[0].stored.reshape(())
    rest = list(x.shape)
    shapes = []
    for scale in scales:
        rest[axis] = scale.stored.numel() // (x.numel() // x.shape[axis])
        shapes.append(list(rest))
    parts = [scale.stored.reshape(shape) for scale, shape in zip(scales, shapes, strict=True)]
    return torch.cat(parts, dim=axis)


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes into bytes, least significant bit first.

    Parameters
    ----------
    codes
        int64 of shape (n,), each from 0 to ``2^bits - 1``.
    bits
        Width of a code, 1 to 32.

    Returns
    -------
    uint8 tensor of shape (ceil(n * bits / 8),); bits behind the last code are zero.
    """
    num_bytes = -(-codes.numel() * bits // 8)
    padded = torch.nn.functional.pad(codes, (0, -codes.numel() % 8)).reshape(-1, 8)
    packed = torch.zeros(len(padded), bits, dtype=torch.int64, device=codes.device)
    for byte in range(bits):
        for i in range(8):
            shift = i * bits - 8 * byte
            if -bits < shift < 8:
                part = padded[:, i] << shift if shift >= 0 else padded[:, i] >> -shift
                packed[:, byte] |= part & 0xFF
    return packed.to(torch.uint8).reshape(-1)[:num_bytes]


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Return the first ``count`` codes that `pack` put into bytes, int64 of shape (count,)."""
    padded = torch.nn.functional.pad(packed.long(), (0, -packed.numel() % bits)).reshape(-1, bits)
    codes = torch.zeros(len(padded), 8, dtype=torch.int64, device=packed.device)
    for byte in range(bits):
        for i in range(8):
            shift = i * bits - 8 * byte
            if -bits < shift < 8:
                part = padded[:, byte] >> shift if shift >= 0 else padded[:, byte] << -shift
                codes[:, i] |= part & (1 << bits) - 1
    return codes.reshape(-1)[:count]
