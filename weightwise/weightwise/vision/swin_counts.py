"""Parameters and multiply-accumulates of a Swin or Mini-Swin from its settings alone.

`swin_macs` counts as the published code does, so that its totals are the published ones: one
operation for an element of a layer normalization, none for a softmax or a bias.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING

from weightwise.vision.counts import Macs
from weightwise.vision.swin_config import NUM_STAGES, PATCH

if TYPE_CHECKING:
    from weightwise.vision.swin_config import SwinConfig


def swin_macs(config: SwinConfig, image_size: int | tuple[int, int] | None = None) -> Macs:
    """Count multiply-accumulates of the forward pass of one image.

    Parameters
    ----------
    config
        Settings.
    image_size
        Side, or height and width, at least 1; ``None`` means that of the settings.

    Returns
    -------
    Counts by kind of operation, with the tokens that fill up windows. Maps over heads count as
    ``attention``, depthwise convolutions as ``conv``.

    Raises
    ------
    ValueError
        If a side is below 1.
    """
    size = config.image_size if image_size is None else image_size
    sides = (size, size) if isinstance(size, int) else size
    if min(sides) < 1:
        raise ValueError(f"image_size: expected at least 1, got {size}")
    total, before = Macs(), 0
    for stage, (width, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        rows, columns = (ceil(side / (PATCH * 2**stage)) for side in sides)
        area = rows * columns
        if stage:
            # The published count of a merge's normalization leaves the filled-up border out.
            total += Macs(linear=area * 2 * width * width, norm=before * width // 2)
        else:
            total += Macs(conv=area * 3 * PATCH**2 * width, norm=area * width)
        block = _block(config, stage, rows, columns)
        for _ in range(depth):
            total += block
        before = area
    last = config.widths[-1]
    # The published code takes the last map for four times as large, and its normalization for free.
    return total + Macs(linear=last * config.num_classes, pool=4 * last * before)


def num_swin_parameters(config: SwinConfig) -> int:
    """Count trainable parameters, those that executions share once.

    Parameters
    ----------
    config
        Settings.
    """
    width, last = config.width, config.widths[-1]
    total = (3 * PATCH**2 + 3) * width + 2 * last + (last + 1) * config.num_classes
    for stage in range(NUM_STAGES):
        width, heads, hidden = config.widths[stage], config.num_heads[stage], config.hidden(stage)
        executions, sets = config.depths[stage], len(config.groups[stage])
        if stage:
            total += 2 * width * width + 4 * width  # of a merge, from 4 times half the width
        # Query, key, value and projection; two layers of the MLP; the table of biases.
        weights = 4 * width * (width + 1) + 2 * width * hidden + hidden + width
        total += sets * (weights + heads * (2 * config.window - 1) ** 2)
        total += 4 * width * (executions if config.own_norms else sets)
        if config.mixes:
            total += executions * 2 * heads * (heads + 1)
        if config.local != "none":
            total += executions * width * (config.local_kernel**2 + 3)
    return total


def _block(config: SwinConfig, stage: int, rows: int, columns: int) -> Macs:
    width, heads = config.widths[stage], config.num_heads[stage]
    area = rows * columns
    sides = [min(length, config.window) for length in (rows, columns)]
    tokens = sides[0] * sides[1]
    windows = ceil(rows / sides[0]) * ceil(columns / sides[1])
    seen = windows * tokens
    return Macs(
        conv=area * width * config.local_kernel**2 * (config.local != "none"),
        linear=4 * seen * width**2 + 2 * area * width * config.hidden(stage),
        attention=2 * seen * tokens * (width + heads**2 * config.mixes),
        norm=area * width * (2 + (config.local != "none")),
    )
