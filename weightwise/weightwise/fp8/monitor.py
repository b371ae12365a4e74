"""What happens to gradients in 8 bits, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from weightwise.numerics.scaled_tensor import ScaledTensor
from weightwise.numerics.stored import LARGEST, dequantize

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor


def gradient_statistics(parameters: Iterable[Tensor]) -> dict[str, float]:
    """How well the gradients of parameters fit into their 8 bits.

    Parameters
    ----------
    parameters
        Those with gradients that are no `ScaledTensor` are left out.

    Returns
    -------
    dict
        Shares of entries that are ``fp8_zero`` and ``fp8_full``, at the largest value of the
        format, and the smallest and largest scale as powers of two; empty without such gradients.
    """
    gradients = [one.grad for one in parameters if isinstance(one.grad, ScaledTensor)]
    if not gradients:
        return {}
    zero = full = count = 0
    for gradient in gradients:
        codes = dequantize(gradient.payload, torch.ones((), device=gradient.device))
        zero += int((codes == 0).sum())
        full += int((codes.abs() == LARGEST[gradient.payload.dtype]).sum())
        count += codes.numel()
    exponents = torch.stack([gradient.scale for gradient in gradients]).log2()
    low, high = exponents.aminmax()
    return {
        "fp8_zero": zero / count,
        "fp8_full": full / count,
        "fp8_least_scale": float(low),
        "fp8_largest_scale": float(high),
    }
