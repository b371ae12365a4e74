"""Bytes that a model's weights take when stored in a low-precision format.

A quantized matrix costs 1 + E + M bits an element and one scale for each group of elements.
Embeddings, head and norm gains are not quantized and count 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from weightwise.lm import matrix_shapes, num_parameters, num_stored_parameters

if TYPE_CHECKING:
    from weightwise.lm import ModelConfig
    from weightwise.numerics import PrecisionConfig

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
    fmt = precision.scaled_format
    if fmt is None:
        return WeightBytes(blocks=FULL_BYTES * num_in_blocks, scales=0, rest=rest)
    shapes = matrix_shapes(config)
    total_bits = sum(fmt.storage_bits(shape) for shape in shapes)
    element_bits = num_in_blocks * fmt.element.bits
    return WeightBytes(
        blocks=ceil(element_bits / 8), scales=ceil((total_bits - element_bits) / 8), rest=rest
    )
