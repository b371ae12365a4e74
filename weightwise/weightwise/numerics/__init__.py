"""Number formats, rounding to them, and linear layers that train through the rounding."""

from weightwise.numerics.encoded import EncodedTensor, encode
from weightwise.numerics.formats import FloatFormat, parse
from weightwise.numerics.fp8_linear import Fp8Config, Fp8Linear, fp8_model, update_scales
from weightwise.numerics.linear import (
    PrecisionConfig,
    QuantizedLinear,
    Target,
    quantize_model,
    unquantize_model,
)
from weightwise.numerics.quantize import fake_quantize, round_to_format
from weightwise.numerics.scaled_tensor import ScaledTensor
from weightwise.numerics.scaling import ScaledFormat, Scaling

__all__ = [
    "EncodedTensor",
    "FloatFormat",
    "Fp8Config",
    "Fp8Linear",
    "PrecisionConfig",
    "QuantizedLinear",
    "ScaledFormat",
    "ScaledTensor",
    "Scaling",
    "Target",
    "encode",
    "fake_quantize",
    "fp8_model",
    "parse",
    "quantize_model",
    "round_to_format",
    "unquantize_model",
    "update_scales",
]
