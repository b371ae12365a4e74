"""Rounding to a format, and scaled fake-quantization.

`round_to_format` rounds to the nearest value of a format. `fake_quantize` scales each group of
elements to the largest value of the format, rounds, and scales back (arXiv 2501.02423,
equation 7)::

    S_g = FP_max / max|X_g|,    result = round(X_g * S_g) / S_g

`weightwise.numerics.reference` is the slow and obvious way; `weightwise.numerics.kernels` holds
the fast ones, which give the same bits.

Decisions where the paper is silent:

* S is a float32 number, or of another type where the format says so (see
  `weightwise.numerics.scaling`); products and division run in float32 whatever the input type.
* A group of zeros has S = 1. S never exceeds 2^127, so groups of magnitude below
  ``FP_max * 2^-127`` (1e-36 and less) stay finite but are rounded more coarsely.
* At the other end, the last ulp below the largest float32 can come back as infinity when E <= 1.
* The last block of a row may be shorter and has a scale of its own; nothing is padded.
* Formats with E = 8 have the range of float32: they are rounded unscaled, S = 1, as a cast to
  bfloat16 does, and saturate at the largest value that float32 can hold.
* The sign of zero is kept, as in hardware: -0.0 and small negative numbers give -0.0.
* M = 0 (powers of two): a tie between 2^k and 2^(k+1) goes up, a tie between 0 and 2^e_min goes
  to 0. A rule by parity of the code would send every second tie down.
* Stochastic rounding goes up with the probability ``(v - below) / (above - below)``, cut to 24
  bits. Its random bits depend on the seed and on the position of the element alone (see
  `weightwise.numerics.philox`): neither strides nor threads nor the device change the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from weightwise.numerics import kernels, reference
from weightwise.numerics.formats import FloatFormat
from weightwise.numerics.philox import random_words
from weightwise.numerics.scaling import ScaledFormat, Scaling

if TYPE_CHECKING:
    from weightwise.numerics.reference import NonFinite, Rounding

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
ROUNDINGS: tuple[Rounding, ...] = ("even", "away", "stochastic")


def round_to_format(
    x: Tensor, fmt: FloatFormat, *, rounding: Rounding = "even", seed: int = 0
) -> Tensor:
    """Round each element to a value of a format, without scaling.

    Magnitudes above the largest value saturate, infinities included; NaN stays NaN. The result
    carries no gradient.

    Parameters
    ----------
    x
        Tensor of any shape; float32, bfloat16 or float16.
    fmt
        The format to round to.
    rounding
        ``"even"``: to the nearest value, ties to the even code; ``"away"``: ties away from zero;
        ``"stochastic"``: up or down by chance, right in the mean.
    seed
        Of stochastic rounding, 0 to 2^64 - 1; each seed and position has bits of its own.

    Returns
    -------
    Tensor of the shape and dtype of ``x``. A format finer than a 16-bit ``x`` loses what that
    dtype cannot hold, and saturates at the largest value of the format that it can.

    Raises
    ------
    ValueError
        If the dtype, ``rounding`` or ``seed`` is not one of those named above.

    References
    ----------
    Format and rounding: arXiv 2501.02423, section 3.1.
    """
    check(x, rounding, seed)
    with torch.no_grad():
        limit = reference.largest_value(fmt, x.dtype)
        v = x.float().clamp(-limit, limit)
        words = None
        if rounding == "stochastic":
            words = random_words(seed, reference.positions(x))
        return reference.round_values(v, fmt, rounding, words).copysign_(x).to(x.dtype)


def fake_quantize(
    x: Tensor,
    fmt: ScaledFormat | str,
    *,
    axis: int = -1,
    rounding: Rounding = "even",
    seed: int = 0,
    non_finite: NonFinite = "raise",
    out: Tensor | None = None,
) -> Tensor:
    """Round each group of elements to a format scaled to the group's largest magnitude.

    Parameters
    ----------
    x
        Tensor of any shape and strides; float32, bfloat16 or float16.
    fmt
        Element format with its scales, or its name, such as ``"e4m3@32"`` or ``"mxfp4"``.
    axis
        The axis along which channels and blocks run; without meaning for one scale per tensor.
    rounding, seed
        As in `round_to_format`.
    non_finite
        ``"raise"``: infinities and NaN are refused (on a GPU the check waits for the device);
        ``out`` then holds nothing of use, unless it is ``x``, which stays as it was.
        ``"propagate"``: every element of a group that holds one becomes NaN.
    out
        Tensor of the shape and dtype of ``x`` that receives the result; ``x`` itself is allowed.

    Returns
    -------
    Tensor of the shape and dtype of ``x``, or ``out``. It carries no gradient: the layers that
    train through it define their own (see `weightwise.numerics.linear`).

    Raises
    ------
    ValueError
        If an argument is outside what is named above, or ``x`` is not finite and must be.

    References
    ----------
    arXiv 2501.02423, equation 7.
    """
    check(x, rounding, seed)
    fmt = ScaledFormat.parse(fmt) if isinstance(fmt, str) else fmt
    check_axis(x, fmt, axis)
    if non_finite not in ("raise", "propagate"):
        raise ValueError(f"Expected non_finite 'raise' or 'propagate', got {non_finite!r}.")
    if out is not None and (out.shape != x.shape or out.dtype != x.dtype):
        raise ValueError(
            f"Expected out of shape {tuple(x.shape)} and {x.dtype}, "
            f"got {tuple(out.shape)} and {out.dtype}."
        )
    with torch.no_grad():
        x = x.detach()
        result = torch.empty_like(x) if out is None else out.detach()
        if torch.compiler.is_compiling():
            _call_opaque(x, result, fmt, axis, rounding, seed, non_finite)
        else:
            path = kernels.choose(x, result, fmt) or reference.quantize_into
            path(x, result, fmt, axis, rounding, seed, non_finite)
    return result if out is None else out


def _call_opaque(
    x: Tensor,
    out: Tensor,
    fmt: ScaledFormat,
    axis: int,
    rounding: Rounding,
    seed: int,
    non_finite: NonFinite,
) -> None:
    """Call the fast path as one operator that torch.compile does not look into."""
    element, scaling = fmt.element, fmt.scaling
    torch.ops.weightwise.quantize_into(
        x, out, [element.exponent_bits, element.mantissa_bits, int(element.is_integer)],
        element.specials, scaling.granularity, scaling.block_size, scaling.scale, scaling.rule,
        scaling.smallest, axis, rounding, seed, non_finite,
    )  # fmt: skip


@torch.library.custom_op("weightwise::quantize_into", mutates_args={"out"})
def _quantize_into(
    x: Tensor,
    out: Tensor,
    element: list[int],
    specials: str,
    granularity: str,
    block_size: int | None,
    scale: str,
    rule: str,
    smallest: str,
    axis: int,
    rounding: str,
    seed: int,
    non_finite: str,
) -> None:
    """Fake-quantize with a format spelled out in the types that operators take."""
    exponent_bits, mantissa_bits, is_integer = element
    fmt = ScaledFormat(
        element=FloatFormat(
            exponent_bits=exponent_bits, mantissa_bits=mantissa_bits,
            specials=specials, is_integer=bool(is_integer),  # type: ignore[arg-type]
        ),
        scaling=Scaling(
            granularity=granularity, block_size=block_size, scale=scale,  # type: ignore[arg-type]
            rule=rule, smallest=smallest,  # type: ignore[arg-type]
        ),
    )  # fmt: skip
    path = kernels.choose(x, out, fmt) or reference.quantize_into
    path(x, out, fmt, axis, rounding, seed, non_finite)  # type: ignore[arg-type]


def check_axis(x: Tensor, fmt: ScaledFormat, axis: int) -> None:
    """Refuse an axis that the tensor does not have."""
    if fmt.scaling.granularity != "tensor" and not -x.dim() <= axis < x.dim():
        raise ValueError(f"Expected axis in {-x.dim()} to {x.dim() - 1}, got {axis}.")


def check(x: Tensor, rounding: Rounding, seed: int) -> None:
    """Refuse a dtype, a rounding or a seed that is not accepted."""
    if x.dtype not in DTYPES:
        raise ValueError(f"Expected dtype float32, bfloat16 or float16, got {x.dtype}.")
    if rounding not in ROUNDINGS:
        raise ValueError(f"Expected rounding in {list(ROUNDINGS)}, got {rounding!r}.")
    if not 0 <= seed < 2**64:
        raise ValueError(f"Expected seed in 0 to 2^64 - 1, got {seed}.")
