"""What the kernels need to know of a format, as numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from weightwise.numerics.reference import E4M3 as E4M3_FORMAT
from weightwise.numerics.scaling import RULES

if TYPE_CHECKING:
    from weightwise.numerics.reference import Rounding
    from weightwise.numerics.scaling import ScaledFormat

EVEN, AWAY, STOCHASTIC = range(3)
FLOAT32, BFLOAT16, E8M0, E4M3 = range(4)
FLOOR, CEIL, NEAREST, RCEIL = range(4)
INFINITY_BITS = 0x7F800000

ROUNDINGS = {"even": EVEN, "away": AWAY, "stochastic": STOCHASTIC}
SCALES = {"float32": FLOAT32, "bfloat16": BFLOAT16, "e8m0": E8M0, "e4m3": E4M3}


class Constants(NamedTuple):
    """What the kernels know of a format.

    Parameters
    ----------
    limit
        Largest value.
    e_min_bits
        Bits of ``2^e_min``.
    shift
        ``(23 - M) * 2^23``: makes a power of two the magic constant of its binade.
    fraction
        ``2^-M``: step of a binade over its power of two.
    scale, rule
        Kind of scales, and of choosing a power of two.
    e_max, half
        Exponent of the largest value; half a step of the element's mantissa in float32 bits.
    least
        Smallest scale of a block with two levels.
    rounding
        EVEN, AWAY or STOCHASTIC.
    """

    limit: np.float32
    e_min_bits: np.int32
    shift: np.int32
    fraction: np.float32
    scale: int
    rule: int
    e_max: int
    half: int
    least: np.float32
    rounding: int


def constants_of(fmt: ScaledFormat, rounding: Rounding) -> Constants:
    """Constants of a format, for one way of rounding."""
    element, scaling = fmt.element, fmt.scaling
    smallest = E4M3_FORMAT.min_normal if scaling.smallest == "normal" else E4M3_FORMAT.min_subnormal
    digits = element.mantissa_bits - (element.exponent_bits == 0)
    return Constants(
        limit=np.float32(element.max),
        e_min_bits=np.int32(127 + element.e_min << 23),
        shift=np.int32(23 - element.mantissa_bits << 23),
        fraction=np.float32(2.0**-element.mantissa_bits),
        scale=SCALES[scaling.scale],
        rule=RULES.index(scaling.rule),
        e_max=element.e_max,
        half=1 << 22 - digits,
        least=np.float32(smallest),
        rounding=ROUNDINGS[rounding],
    )
