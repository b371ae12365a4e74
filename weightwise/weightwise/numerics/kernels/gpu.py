"""Fake-quantization on GPUs, in Triton: a program handles a tile of groups times elements.

Groups that fit into a tile are read once: largest magnitude, factors, rounding and scaling back
happen in registers. Of longer groups a first kernel finds the largest magnitudes, by atomic
maximum over their bits, and a second one rounds. Axes are strides; nothing is transposed.

Every operation is the one that the reference does: quotients are rounded correctly where Triton's
own division is not, and multiplications and additions are never fused, which would round once
where the reference rounds twice. Tests run the kernels in Triton's interpreter where no GPU is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import torch
import triton

from weightwise.numerics.kernels import constants, tiles
from weightwise.numerics.kernels.layout import arrange
from weightwise.numerics.reference import NOT_FINITE

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.numerics.reference import NonFinite, Rounding
    from weightwise.numerics.scaling import ScaledFormat

TILE = 4096  # elements
LARGEST_TILE = 16384  # of one long group: what the registers of a program hold
LEAST_NEIGHBOURS = 16  # groups side by side where they run across memory: whole sectors are read
NEIGHBOURS = 32  # the same where groups are cut anyway
ELEMENTS_PER_WARP = 512
WIDE = 1 << 30  # elements above which positions take 64 bits


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How the groups of an array of shape (outer, length, inner) are cut into tiles.

    Parameters
    ----------
    place
        Number of groups, length, inner, elements of a group, groups along the length, and tiles
        that a group is cut into.
    num_tiles
        All of them.
    options
        What the kernels are compiled for: the shape of a tile, and whether positions take 64 bits.
    """

    place: tuple[int, int, int, int, int, int]
    num_tiles: int
    options: dict[str, Any]

    @property
    def num_groups(self) -> int:
        """Groups in all."""
        return self.place[0]

    @property
    def is_whole(self) -> bool:
        """Whether a tile holds all of its groups."""
        return self.place[-1] == 1

    @classmethod
    def of(cls, shape: tuple[int, ...], size: int) -> Tiling:
        """Cut groups of ``size`` elements along the middle axis, the last ones shorter."""
        outer, length, inner = shape
        num_blocks = ceil(length / size)
        num_groups = outer * num_blocks * inner
        chunk, side = triton.next_power_of_2(size), triton.next_power_of_2(inner)
        least = min(LEAST_NEIGHBOURS, side)
        if chunk * least > LARGEST_TILE:
            chunk = TILE // min(NEIGHBOURS, side)
        groups = min(max(TILE // chunk, least), triton.next_power_of_2(num_groups))
        num_chunks = ceil(size / chunk)
        return cls(
            place=(num_groups, length, inner, size, num_blocks, num_chunks),
            num_tiles=ceil(num_groups / groups) * num_chunks,
            options={
                "GROUPS": groups, "CHUNK": chunk, "IS_WIDE": outer * length * inner > WIDE,
                "num_warps": min(max(groups * chunk // ELEMENTS_PER_WARP, 1), 16),
                "enable_fp_fusion": False,
            },
        )  # fmt: skip


def quantize_into(
    x: Tensor,
    out: Tensor,
    fmt: ScaledFormat,
    axis: int,
    rounding: Rounding,
    seed: int,
    non_finite: NonFinite,
) -> None:
    """Fake-quantize ``x`` into ``out``, see `weightwise.numerics.fake_quantize`.

    The kernels are queued. Only the check of ``non_finite="raise"`` waits for the device.
    """
    with torch.cuda.device_of(x):
        layout = arrange(x, out, fmt, axis, keep_order=rounding == "stochastic")
        tiling = Tiling.of(layout.x.shape, layout.size)
        worst = torch.zeros(1, dtype=torch.int32, device=x.device)
        is_checked = non_finite == "raise"
        is_in_place = layout.x.data_ptr() == layout.out.data_ptr()
        if fmt.scaling.scale == "e4m3" or (is_checked and is_in_place):
            _find_tops(layout.x, Tiling.of((1, x.numel(), 1), x.numel()), worst)
        if is_checked and is_in_place:
            _refuse(worst)
        tops = worst
        if not tiling.is_whole:
            tops = worst.new_zeros(tiling.num_groups)
            _find_tops(layout.x, tiling, tops)
        _quantize(
            layout.x, layout.out, tiling, tops, worst, constants.constants_of(fmt, rounding), seed,
            is_checked=is_checked,
        )  # fmt: skip
        if is_checked and not is_in_place:
            _refuse(worst)
        if layout.out.data_ptr() != out.data_ptr():
            out.copy_(layout.out.view(out.shape))


def _refuse(worst: Tensor) -> None:
    """Raise if the largest magnitude is not finite."""
    if int(worst) >= constants.INFINITY_BITS:
        raise ValueError(NOT_FINITE)


def _find_tops(x: Tensor, tiling: Tiling, tops: Tensor) -> None:
    """Raise ``tops`` to the bits of each group's largest magnitude."""
    tiles.find_tops[(tiling.num_tiles,)](x, tops, *tiling.place, **tiling.options)


def _quantize(
    x: Tensor,
    out: Tensor,
    tiling: Tiling,
    tops: Tensor,
    worst: Tensor,
    c: constants.Constants,
    seed: int,
    *,
    is_checked: bool,
) -> None:
    """Fake-quantize all tiles; ``worst`` is raised to magnitudes that are not finite."""
    tiles.quantize_tiles[(tiling.num_tiles,)](
        x, out, tops, worst, *tiling.place,
        float(c.limit), int(c.e_min_bits), int(c.shift), c.e_max, c.half, float(c.least), seed,
        **options_of(tiling, c, is_checked=is_checked),
    )  # fmt: skip


def options_of(tiling: Tiling, c: constants.Constants, *, is_checked: bool) -> dict[str, Any]:
    """What `tiles.quantize_tiles` is compiled for."""
    _, length, inner, size, *_ = tiling.place
    return tiling.options | {
        "SCALE": c.scale,
        "RULE": c.rule,
        "ROUNDING": c.rounding,
        "IS_DIVIDED": c.scale in (constants.FLOAT32, constants.BFLOAT16),
        "IS_WHOLE": tiling.is_whole,
        "IS_CHECKED": is_checked,
        "IN_FOURS": inner == 1 and length % 4 == 0 and size % 4 == 0,
    }
