"""The fast paths behind `weightwise.numerics.quantize`, each bit-identical to the reference."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.numerics.reference import NonFinite, Rounding
    from weightwise.numerics.scaling import ScaledFormat


class Path(Protocol):
    """Fake-quantizes a tensor into another one."""

    def __call__(
        self,
        x: Tensor,
        out: Tensor,
        fmt: ScaledFormat,
        axis: int,
        rounding: Rounding,
        seed: int,
        non_finite: NonFinite,
    ) -> None:
        """See `weightwise.numerics.fake_quantize`."""
        ...


def choose(x: Tensor, out: Tensor, fmt: ScaledFormat) -> Path | None:
    """Return the fast path for these tensors, or None where only the reference can do it.

    Formats with E = 8 or more than 21 mantissa bits need float64, which the fast paths do not
    have.
    """
    if fmt.element.exponent_bits == 8 or fmt.element.mantissa_bits > 21 or x.numel() == 0:
        return None
    if x.device.type == "cpu" and out.device.type == "cpu":
        from weightwise.numerics.kernels import cpu  # the compiler takes a second to import

        return cpu.quantize_into
    if x.device.type == "cuda" and out.device == x.device and has_triton():
        from weightwise.numerics.kernels import gpu

        return gpu.quantize_into
    return None


@cache
def has_triton() -> bool:
    """Whether there is a compiler for GPUs; torch's CUDA builds bring it along."""
    return find_spec("triton") is not None
