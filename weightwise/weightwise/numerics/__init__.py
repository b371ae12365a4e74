"""Number formats, rounding to them, and linear layers that train through the rounding."""

from weightwise.numerics.formats import FloatFormat, parse
from weightwise.numerics.linear import (
    PrecisionConfig,
    QuantizedLinear,
    Target,
    quantize_model,
    unquantize_model,
)
from weightwise.numerics.quantize import fake_quantize, round_to_format
from weightwise.numerics.scaled_tensor import ScaledTensor, encode
from weightwise.numerics.scaling import ScaledFormat, Scaling

__all__ = [
    "FloatFormat",
    "PrecisionConfig",
    "QuantizedLinear",
    "ScaledFormat",
    "ScaledTensor",
    "Scaling",
    "Target",
    "encode",
    "fake_quantize",
    "parse",
    "quantize_model",
    "round_to_format",
    "unquantize_model",
]
