"""Bytes that a model's weights take when stored in a low-precision format.

A quantized matrix costs 1 + E + M bits an element and one float32 scale for each group of
elements. Embeddings, head and norm gains are not quantized and count 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from weightwise.lm import matrix_shapes, num_parameters, num_stored_parameters
from weightwise.numerics import parse

if TYPE_CHECKING:
    from weightwise.lm import ModelConfig
    from weightwise.numerics import PrecisionConfig

SCALE_BYTES = 4
FULL_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class WeightBytes:
    """Stored size of one model.

    Parameters
    ----------
    blocks
        Bytes of the elements of the matrices inside the blocks.
    scales
        Bytes of their scales.
    rest
        Bytes of embeddings, head and norm gains.
    """

    blocks: int
    scales: int
    rest: int

    @property
    def quantized(self) -> int:
        """Bytes of what the format applies to, scales included."""
        return self.blocks + self.scales

    @property
    def total(self) -> int:
        """Bytes of the whole model."""
        return self.blocks + self.scales + self.rest


def weight_bytes(config: ModelConfig, precision: PrecisionConfig) -> WeightBytes:
    """Count the bytes of a model whose block matrices are stored in a format.

    Parameters
    ----------
    config
        Settings of the model.
    precision
        Format and groups of the forward weights; without a format all is float32.

    Returns
    -------
    WeightBytes
        Bytes by part; elements that do not fill a byte are packed.
    """
    num_in_blocks = num_parameters(config)
    rest = FULL_BYTES * (num_stored_parameters(config) - num_in_blocks)
    if precision.format is None:
        return WeightBytes(blocks=FULL_BYTES * num_in_blocks, scales=0, rest=rest)
    bits = parse(precision.format).bits
    shapes = matrix_shapes(config)
    groups = sum(num_groups(rows, columns, precision) for rows, columns in shapes)
    return WeightBytes(
        blocks=ceil(num_in_blocks * bits / 8), scales=SCALE_BYTES * groups, rest=rest
    )


def num_groups(rows: int, columns: int, precision: PrecisionConfig) -> int:
    """Scales of one matrix whose groups run along its columns, the inputs of the layer."""
    if precision.granularity == "tensor":
        return 1
    if precision.granularity == "channel":
        return rows
    assert precision.block_size is not None  # checked where the config is made
    return rows * ceil(columns / precision.block_size)
