"""Number formats, rounding to them, and linear layers that train through the rounding."""

from weightwise.numerics.formats import FloatFormat, parse
from weightwise.numerics.linear import (
    PrecisionConfig,
    QuantizedLinear,
    Target,
    quantize_model,
    unquantize_model,
)
from weightwise.numerics.quantize import Scaling, fake_quantize, round_to_format

__all__ = [
    "FloatFormat",
    "PrecisionConfig",
    "QuantizedLinear",
    "Scaling",
    "Target",
    "fake_quantize",
    "parse",
    "quantize_model",
    "round_to_format",
    "unquantize_model",
]
