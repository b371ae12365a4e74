"""Values in 8 or 16 bits with a scale: which scale, and the casts there and back."""

from __future__ import annotations

import torch
from torch import Tensor

from weightwise.numerics.kernels.numbers import STORED

LARGEST = {
    torch.float8_e4m3fn: 448.0,
    torch.float8_e5m2: 57344.0,
    torch.float16: 65504.0,
}
# Stored without a scale: their range is that of the values.
UNSCALED = (torch.bfloat16, torch.float32)
MOST_EXPONENT = 126
LEAST_CAST = 1 << 10  # elements below which torch's own operations are as fast


def power_of_two_scale(
    amax: Tensor, limit: float | Tensor, previous: Tensor | float = 1.0, margin: int = 0
) -> Tensor:
    """Scales that bring largest magnitudes into the upper binade of a format.

    Parameters
    ----------
    amax
        Largest magnitudes, float32 of any shape.
    limit
        Largest value of the format, or of each tensor's.
    previous
        Scales to keep where ``amax`` is zero, infinite or NaN.
    margin
        Binades to leave free at the top.

    Returns
    -------
    Tensor
        ``2^(floor(log2(limit / amax)) - margin)`` within 2^-126 and 2^126, float32.
    """
    amax = amax.float()
    is_usable = (amax > 0) & amax.isfinite()
    safe = torch.where(is_usable, amax, torch.ones_like(amax))
    # A quotient beyond float32 would be infinite; its exponent is limited below anyway.
    _, exponent = torch.frexp((limit / safe).clamp(max=2.0**127))
    exponent = (exponent - 1 - margin).clamp(-MOST_EXPONENT, MOST_EXPONENT)
    power = torch.ldexp(torch.ones_like(amax), exponent)
    return torch.where(is_usable, power, torch.as_tensor(previous, device=amax.device).float())


def exact_scale(amax: Tensor, limit: float, previous: Tensor | float = 1.0) -> Tensor:
    """Scales that bring largest magnitudes to the largest value: ``limit / amax``, at most 2^126.

    As other libraries have it; every change of such a scale rounds all values anew. Parameters as
    in `power_of_two_scale`.
    """
    amax = amax.float()
    is_usable = (amax > 0) & amax.isfinite()
    scale = (limit / torch.where(is_usable, amax, torch.ones_like(amax))).clamp(
        2.0**-MOST_EXPONENT, 2.0**MOST_EXPONENT
    )
    return torch.where(is_usable, scale, torch.as_tensor(previous, device=amax.device).float())


def _is_cast_by_us(x: Tensor) -> bool:
    """Whether the compiled loops take a tensor; all others are left to torch's operations."""
    return (
        x.device.type == "cpu"
        and x.dtype in STORED
        and x.numel() >= LEAST_CAST
        and x.is_contiguous()
        and type(x) in (Tensor, torch.nn.Parameter)
        and not torch.compiler.is_compiling()
    )


def largest_magnitude(x: Tensor) -> Tensor:
    """Largest magnitude of a plain tensor, float32 of shape (); 0 of an empty one.

    NaN is answered by infinity, so that a maximum over processes cannot lose it.
    """
    x = x.detach()
    if x.numel() == 0:
        return torch.zeros((), device=x.device)
    if _is_cast_by_us(x):
        from weightwise.numerics.kernels import casts

        amax = torch.tensor(casts.top_of(x), dtype=torch.int32).view(torch.float32)
    else:
        low, high = torch.aminmax(x.float())
        amax = torch.maximum(-low, high)
    return torch.where(amax.isnan(), torch.inf, amax)


def quantize(x: Tensor, dtype: torch.dtype, scale: Tensor) -> Tensor:
    """``x * scale`` in a stored type, to the nearest value, ties to even; beyond it the largest.

    Parameters
    ----------
    x
        float32, float16 or bfloat16.
    dtype
        A key of ``LARGEST``, or one of ``UNSCALED``.
    scale
        float32 of shape ().
    """
    x = x.detach()
    if _is_cast_by_us(x):
        from weightwise.numerics.kernels import casts

        out = torch.empty_like(x, dtype=dtype)
        casts.cast_into(x, out, float(scale))
        return out
    values = x.float() * scale
    limit = LARGEST.get(dtype)
    if limit is not None:
        # NaN is in no payload; amax tells of it.
        values = values.nan_to_num(nan=limit).clamp(-limit, limit)
    return values.to(dtype)


def dequantize(payload: Tensor, scale: Tensor) -> Tensor:
    """Values of a payload, ``payload * (1 / scale)`` in float32."""
    if payload.dim() == 2 and not payload.is_contiguous() and payload.t().is_contiguous():
        return dequantize(payload.t(), scale).t()
    inverse = scale.reciprocal()
    if _is_cast_by_us(payload):
        from weightwise.numerics.kernels import casts

        out = torch.empty_like(payload, dtype=torch.float32)
        casts.cast_into(payload, out, float(inverse))
        return out
    return payload.float() * inverse
