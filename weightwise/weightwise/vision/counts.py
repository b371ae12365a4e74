"""Parameters and multiply-accumulates of a TinyViT from its settings alone.

Contraction looks at thousands of settings; none of them needs a model to be counted. The published
figures (1.3, 2.0, 4.3, 13.8 and 27.0 G, table 1 of arXiv 2207.10666) are those of fvcore, which
counts two operations for an element of a batch normalization, five for one of a layer normalization
and one for one of the final mean. `Macs.total` counts them too; `Macs.products` does not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from math import ceil
from typing import TYPE_CHECKING

from weightwise.vision.config import STRIDE

if TYPE_CHECKING:
    from weightwise.vision.config import TinyViTConfig

BATCH_NORM, LAYER_NORM = 2, 5


@dataclass(frozen=True, kw_only=True)
class Macs:
    """Multiply-accumulates of the forward pass of one image.

    Parameters
    ----------
    conv, linear
        Of convolutions and linear layers, without biases.
    attention
        Of queries by keys and of weights by values.
    norm, pool
        Of normalizations and of the mean over tokens, as fvcore counts them.
    """

    conv: int = 0
    linear: int = 0
    attention: int = 0
    norm: int = 0
    pool: int = 0

    def __add__(self, other: Macs) -> Macs:
        sums = {
            one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(self)
        }
        return Macs(**sums)

    @property
    def products(self) -> int:
        """Of matrix products and convolutions alone."""
        return self.conv + self.linear + self.attention

    @property
    def total(self) -> int:
        """All that fvcore counts."""
        return self.products + self.norm + self.pool


def macs(config: TinyViTConfig, image_size: int | tuple[int, int] | None = None) -> Macs:
    """Count multiply-accumulates of the forward pass of one image.

    Parameters
    ----------
    config
        Settings.
    image_size
        Side, or height and width, at least 1; ``None`` means that of the settings.

    Returns
    -------
    Counts by kind of operation, with the tokens that fill up windows.

    Raises
    ------
    ValueError
        If a side is below 1.
    """
    size = config.image_size if image_size is None else image_size
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"image_size: expected at least 1, got {size}")
    maps = [(ceil(height / scale), ceil(width / scale)) for scale in (2, STRIDE, 8, 16, 32)]
    areas = [rows * columns for rows, columns in maps]
    first, last = config.widths[0], config.widths[3]
    total = _conv(areas[0], first // 2, 27) + _conv(areas[1], first, 9 * (first // 2))
    total += _times(config.depths[0], _mbconv(areas[1], first, config.hidden(0)))
    for stage in (1, 2, 3):
        total += _merge(areas[stage], areas[stage + 1], *config.widths[stage - 1 : stage + 1])
        total += _times(config.depths[stage], _block(config, stage, *maps[stage + 1]))
    head = Macs(linear=last * config.num_classes, norm=LAYER_NORM * last, pool=last * areas[4])
    return total + head


def num_parameters(config: TinyViTConfig) -> int:
    """Count trainable parameters, running statistics left out.

    Parameters
    ----------
    config
        Settings.
    """
    first, last = config.widths[0], config.widths[3]
    total = _conv_weights(first // 2, 27) + _conv_weights(first, 9 * (first // 2))
    hidden = config.hidden(0)
    total += config.depths[0] * sum(
        _conv_weights(outputs, fan_in)
        for outputs, fan_in in ((hidden, first), (hidden, 9), (first, hidden))
    )
    for stage in (1, 2, 3):
        before, width = config.widths[stage - 1 : stage + 1]
        total += sum(_conv_weights(width, fan_in) for fan_in in (before, 9, width))
        table = config.num_heads[stage - 1] * config.windows[stage - 1] ** 2
        hidden = config.hidden(stage)
        # Two layer normalizations; query, key, value and projection; two layers of the MLP.
        block = 4 * width + 4 * width * (width + 1) + 2 * width * hidden + hidden + width
        total += config.depths[stage] * (block + table + _conv_weights(width, 9))
    return total + 2 * last + (last + 1) * config.num_classes


def _conv_weights(outputs: int, fan_in: int) -> int:
    """Filters, and gain and shift of the normalization."""
    return outputs * (fan_in + 2)


def _conv(area: int, outputs: int, fan_in: int) -> Macs:
    """Convolution and normalization onto a map of so many places."""
    return Macs(conv=area * outputs * fan_in, norm=BATCH_NORM * area * outputs)


def _mbconv(area: int, width: int, hidden: int) -> Macs:
    return _conv(area, hidden, width) + _conv(area, hidden, 9) + _conv(area, width, hidden)


def _merge(before: int, after: int, inputs: int, outputs: int) -> Macs:
    return (
        _conv(before, outputs, inputs) + _conv(after, outputs, 9) + _conv(after, outputs, outputs)
    )


def _block(config: TinyViTConfig, stage: int, rows: int, columns: int) -> Macs:
    width, hidden, window = config.widths[stage], config.hidden(stage), config.windows[stage - 1]
    area = rows * columns
    seen = ceil(rows / window) * ceil(columns / window) * window**2
    attention = Macs(
        linear=4 * seen * width**2,
        attention=2 * seen * window**2 * width,
        norm=LAYER_NORM * seen * width,
    )
    mlp = Macs(linear=2 * area * width * hidden, norm=LAYER_NORM * area * width)
    return attention + mlp + _conv(area, width, 9)


def _times(count: int, macs: Macs) -> Macs:
    return Macs(**{one.name: count * getattr(macs, one.name) for one in fields(macs)})
