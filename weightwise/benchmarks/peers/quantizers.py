"""The same fake-quantization by other libraries: scale to the largest magnitude, cast, scale back.

Where a library has only the cast, torch does the rest into tensors that exist already, with the
fastest operations there are for it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import gfloat
import gfloat.formats
import ml_dtypes
import ninja
import numpy as np
import torch
from torchao.prototype.custom_fp_utils import _f32_to_floatx_unpacked, _floatx_unpacked_to_f32
from torchao.prototype.mx_formats.mx_tensor import MXTensor
from torchao.prototype.mx_formats.nvfp4_tensor import NVFP4Tensor, per_tensor_amax_to_scale
from torchao.quantization.quant_primitives import (
    _choose_scale_float8,
    _dequantize_affine_float8,
    _quantize_affine_float8,
)

from weightwise.numerics import ScaledFormat, reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Work = Callable[[], object]

os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, os.environ["PATH"]])
from qtorch.quant import float_quantize

MX_DTYPES = {"mxfp8": torch.float8_e4m3fn, "mxfp4": torch.float4_e2m1fn_x2}


def libraries(name: str, x: Tensor, out: Tensor) -> dict[str, Work]:
    """Calls that do what a scaled format asks for, by the libraries that can.

    Parameters
    ----------
    name
        ``e4m3fn`` or ``e2m1`` with ``@tensor``, ``@channel`` or a block size, groups along the last
        axis; or one of `MX_DTYPES`, or ``nvfp4``.
    x, out
        Input, and a tensor for the result where a library can write to it.
    """
    if name in MX_DTYPES:
        return {"torchao": lambda: MXTensor.to_mx(x, MX_DTYPES[name], 32).dequantize(x.dtype)}
    if name == "nvfp4":
        return {"torchao": lambda: _nvfp4(x)}
    element, _, sharing = name.partition("@")
    size = {"tensor": x.numel(), "channel": x.shape[-1]}.get(sharing) or int(sharing)
    casts = _casts_e4m3(x, size) if element == "e4m3fn" else _casts_e2m1()
    works: dict[str, Work] = {
        library: _scaled(x, out, size, limit, cast) for library, (limit, cast) in casts.items()
    }
    if element == "e4m3fn":
        block = list(x.shape) if sharing == "tensor" else [1, size]
        works["torchao affine"] = lambda: _affine(x, block)
    return works


def compiled_reference(name: str, x: Tensor, out: Tensor) -> Work:
    """Our own reference, compiled by torch; makes earlier results of this function slow."""
    fmt = ScaledFormat.parse(name)
    torch.compiler.reset()  # only so many formats may be compiled side by side
    compiled = torch.compile(reference.quantize_into, fullgraph=True, dynamic=False)
    return lambda: compiled(x, out, fmt, -1, "even", 0, "propagate")


def _scaled(x: Tensor, out: Tensor, size: int, limit: float, cast: Callable[..., Tensor]) -> Work:
    """Scaling around a cast, which gets the scaled values and a tensor that it may fill."""
    rows, scaled = x.view(-1, size), torch.empty_like(x).view(-1, size)
    results = out.view(-1, size)

    def work() -> None:
        # Two reading passes are several times faster than writing magnitudes out first.
        amax = torch.maximum(rows.amax(1, keepdim=True), -rows.amin(1, keepdim=True))
        scale = limit / amax
        torch.mul(rows, scale, out=scaled)
        torch.div(cast(scaled, results), scale, out=results)

    return work


def _casts_e4m3(x: Tensor, size: int) -> dict[str, tuple[float, Callable[..., Tensor]]]:
    low = torch.empty(x.shape, dtype=torch.float8_e4m3fn).view(-1, size)
    info = gfloat.formats.format_info_ocp_e4m3
    return {
        "torch": (448.0, lambda v, out: out.copy_(low.copy_(v))),
        "qtorch": (480.0, lambda v, _: float_quantize(v, exp=4, man=3, rounding="nearest")),
        "ml_dtypes": (448.0, lambda v, out: _by_numpy(v, out, ml_dtypes.float8_e4m3fn)),
        "gfloat": (448.0, lambda v, _: _by_gfloat(v, info)),
        "torchao floatx": (480.0, lambda v, _: _by_floatx(v, 4, 3)),
    }


def _casts_e2m1() -> dict[str, tuple[float, Callable[..., Tensor]]]:
    info = gfloat.formats.format_info_ocp_e2m1
    return {
        "qtorch": (6.0, lambda v, _: float_quantize(v, exp=2, man=1, rounding="nearest")),
        "ml_dtypes": (6.0, lambda v, out: _by_numpy(v, out, ml_dtypes.float4_e2m1fn)),
        "gfloat": (6.0, lambda v, _: _by_gfloat(v, info)),
        "torchao floatx": (6.0, lambda v, _: _by_floatx(v, 2, 1)),
    }


def _by_numpy(v: Tensor, out: Tensor, dtype: type) -> Tensor:
    np.copyto(out.numpy(), v.numpy().astype(dtype), casting="unsafe")
    return out


def _by_gfloat(v: Tensor, info: gfloat.FormatInfo) -> Tensor:
    rounded = gfloat.round_ndarray(info, v.numpy(), gfloat.RoundMode.TiesToEven, sat=True)
    return torch.from_numpy(rounded.astype(np.float32, copy=False))


def _by_floatx(v: Tensor, exponent_bits: int, mantissa_bits: int) -> Tensor:
    code = _f32_to_floatx_unpacked(v, exponent_bits, mantissa_bits)
    return _floatx_unpacked_to_f32(code, exponent_bits, mantissa_bits)


def _affine(x: Tensor, block: list[int]) -> Tensor:
    scale = _choose_scale_float8(x, block)
    return _dequantize_affine_float8(_quantize_affine_float8(x, scale), scale)


def _nvfp4(x: Tensor) -> Tensor:
    scale = per_tensor_amax_to_scale(torch.maximum(x.max(), -x.min()))
    return NVFP4Tensor.to_nvfp4(x, per_tensor_scale=scale).dequantize(x.dtype)
