"""Floating-point formats with any number of exponent and mantissa bits.

A format ``ExMy`` has one sign bit, x exponent bits and y mantissa bits, laid out as in IEEE 754
with subnormals. With ``bias = 2^(E-1) - 1`` and ``e_min = 2 - 2^(E-1)`` a code holds

* exponent code 0: ``(m / 2^M) * 2^e_min``;
* exponent code e >= 1: ``(1 + m / 2^M) * 2^(e - bias)``.

What the top codes hold is the one thing on which the world disagrees, and ``specials`` says it:

* ``"none"``: numbers. The formats of "Scaling Laws for Floating-Point Quantization Training"
  (arXiv 2501.02423, section 3.1) and the OCP FP4 and FP6 formats. Here E4M3 reaches 480.
* ``"nan"``: the all-ones code is NaN, as in the OCP's E4M3, which therefore stops at 448.
* ``"ieee"``: the top exponent is reserved for infinity and NaN, as in float16 and in the OCP's
  E5M2 (57344; without reserved codes 114688).

E = 1 is a uniform grid: E1Mk is a symmetric integer quantizer with ``2^(k+1) - 1`` positive
levels. E = 0 is used by the paper but not defined there; here E0Mk is the fixed-point grid
``(m / 2^k) * 2``, which after scaling to the maximum is the same quantizer as E1M(k-1). The
paper's law nevertheless gives the two a penalty that differs by a factor of more than 20, so no
accuracy should be promised for E = 0.

A code is the sign bit followed by exponent and mantissa. Integer formats (``int8`` and the like)
have the fixed-point grid of E = 0 and codes in two's complement, as the OCP's MXINT8 wants; the
most negative code, which no positive one mirrors, is read but never written.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Specials = Literal["none", "nan", "ieee"]

_SUFFIXES: dict[Specials, str] = {"none": "", "nan": "FN", "ieee": "IEEE"}
_SPECIALS: dict[str | None, Specials] = {None: "none", "fn": "nan", "ieee": "ieee"}
_INTEGER = re.compile(r"int(?P<bits>\d{1,2})")
_PATTERN = re.compile(r"(?:fp(?P<bits>\d+)_)?e(?P<e>\d)m(?P<m>\d{1,2})(?P<suffix>fn|ieee)?")
_MAX_LEVEL_BITS = 20  # 2^20 levels in float64 are 8 MiB; nobody can look at more


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """One floating-point element format.

    Parameters
    ----------
    exponent_bits
        E, 0 to 8.
    mantissa_bits
        M, 0 to 23; at least one bit besides the sign is needed.
    specials
        What the top codes hold: ``"none"``, ``"nan"`` or ``"ieee"`` (see the module's text).
    is_integer
        Codes in two's complement; only with E = 0 and no reserved codes.

    Raises
    ------
    ValueError
        If a width is out of range, codes are reserved with fewer than two exponent bits, or an
        integer has exponent bits.

    Examples
    --------
    >>> FloatFormat(exponent_bits=2, mantissa_bits=1).levels().tolist()
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """

    exponent_bits: int
    mantissa_bits: int
    specials: Specials = "none"
    is_integer: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.exponent_bits <= 8:
            raise ValueError(f"Expected exponent_bits in 0 to 8, got {self.exponent_bits}.")
        if not 0 <= self.mantissa_bits <= 23:
            raise ValueError(f"Expected mantissa_bits in 0 to 23, got {self.mantissa_bits}.")
        if self.exponent_bits + self.mantissa_bits == 0:
            raise ValueError("Expected exponent_bits + mantissa_bits >= 1, got 0.")
        if self.specials not in _SUFFIXES:
            raise ValueError(f"Expected specials in {sorted(_SUFFIXES)}, got {self.specials!r}.")
        if self.specials != "none" and self.exponent_bits < 2:
            raise ValueError(
                f"Expected exponent_bits >= 2 with specials={self.specials!r}, "
                f"got {self.exponent_bits}."
            )
        if self.is_integer and self.exponent_bits > 0:
            raise ValueError(f"Expected exponent_bits 0 for integers, got {self.exponent_bits}.")

    @property
    def name(self) -> str:
        """Short name: ``E4M3``, ``E4M3FN`` (NaN code), ``E5M2IEEE`` (infinities, NaN), ``INT8``."""
        if self.is_integer:
            return f"INT{self.bits}"
        return f"E{self.exponent_bits}M{self.mantissa_bits}{_SUFFIXES[self.specials]}"

    @property
    def bits(self) -> int:
        """Width of a code, sign included."""
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def bias(self) -> int:
        """Exponent bias, ``2^(E-1) - 1``; 0 for the fixed-point formats E = 0."""
        return (1 << self.exponent_bits - 1) - 1 if self.exponent_bits else 0

    @property
    def e_min(self) -> int:
        """Exponent of the smallest normal value, ``2 - 2^(E-1)``; subnormals share it."""
        return 1 - self.bias

    @property
    def e_max(self) -> int:
        """Exponent of the largest value: ``floor(log2(max))``."""
        return math.frexp(self.max)[1] - 1

    @property
    def num_positive(self) -> int:
        """Number of positive finite values."""
        top = (1 << self.exponent_bits + self.mantissa_bits) - 1
        reserved = {"none": 0, "nan": 1, "ieee": 1 << self.mantissa_bits}[self.specials]
        return top - reserved

    @property
    def max(self) -> float:
        """Largest finite value; for E = 8 without reserved codes it lies beyond float32."""
        code = self.num_positive
        exponent, mantissa = code >> self.mantissa_bits, code & (1 << self.mantissa_bits) - 1
        if exponent == 0:
            return math.ldexp(mantissa, self.e_min - self.mantissa_bits)
        significand = (1 << self.mantissa_bits) + mantissa
        return math.ldexp(significand, exponent - self.bias - self.mantissa_bits)

    @property
    def min_normal(self) -> float | None:
        """Smallest normal value, ``2^e_min``; None for E = 0, which has no normal values."""
        return math.ldexp(1, self.e_min) if self.exponent_bits else None

    @property
    def min_subnormal(self) -> float | None:
        """Smallest subnormal value, ``2^(e_min - M)``; None for M = 0, which has none."""
        return math.ldexp(1, self.e_min - self.mantissa_bits) if self.mantissa_bits else None

    @property
    def is_uniform(self) -> bool:
        """Whether all levels are equally far apart (E = 0 and E = 1): an integer in disguise."""
        return self.exponent_bits <= 1

    def levels(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """List zero and all positive finite values in the order of their codes.

        Parameters
        ----------
        dtype
            ``torch.float64`` or ``torch.float32``; float64 holds every format exactly, float32
            every format with E <= 7.

        Returns
        -------
        Tensor of shape (1 + num_positive,), increasing.

        Raises
        ------
        ValueError
            If the format has more than 2^20 levels.
        """
        if self.exponent_bits + self.mantissa_bits > _MAX_LEVEL_BITS:
            raise ValueError(
                f"Expected exponent_bits + mantissa_bits <= {_MAX_LEVEL_BITS} to list the levels, "
                f"got {self.name}."
            )
        return self.decode(torch.arange(1 + self.num_positive)).to(dtype)

    def encode(self, values: Tensor) -> Tensor:
        """Return the codes of values that the format holds.

        Parameters
        ----------
        values
            Tensor of any shape and floating-point dtype, each element a value of the format as
            `round_to_format` gives it.

        Returns
        -------
        Tensor of the same shape, int64, from 0 to ``2^bits - 1``. Integers have one zero: the
        sign of -0.0 is lost.
        """
        magnitude = values.double().abs()
        exponent = torch.frexp(magnitude).exponent - 1
        exponent = torch.where(magnitude == 0, self.e_min, exponent).clamp(min=self.e_min)
        # An integer below 2^(M+1); the implicit leading bit of a normal value carries into the
        # exponent field of its own accord.
        significand = torch.ldexp(magnitude, self.mantissa_bits - exponent).long()
        code = significand + (exponent - self.e_min << self.mantissa_bits)
        if self.is_integer:
            return torch.where(values < 0, -code, code) & (1 << self.bits) - 1
        return code + (torch.signbit(values).long() << self.bits - 1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the values of codes: the inverse of `encode`.

        Parameters
        ----------
        codes
            Integers from 0 to ``2^bits - 1``, any shape.

        Returns
        -------
        Tensor of the same shape, float64; reserved codes give infinities and NaN.
        """
        codes = codes.long()
        half = 1 << self.bits - 1
        if self.is_integer:
            signed = codes - 2 * half * (codes >= half)
            return torch.ldexp(signed.double(), torch.tensor(1.0 - self.mantissa_bits))
        code = codes % half
        exponent, mantissa = code >> self.mantissa_bits, code % (1 << self.mantissa_bits)
        significand = mantissa + (exponent > 0) * (1 << self.mantissa_bits)
        power = exponent.clamp(min=1) - self.bias - self.mantissa_bits
        value = torch.ldexp(significand.double(), power.double())
        is_infinite = (mantissa == 0) & (self.specials == "ieee")
        reserved = torch.where(is_infinite, torch.inf, torch.nan).double()
        value = torch.where(code > self.num_positive, reserved, value)
        return torch.where(codes >= half, -value, value)


# Names that users bring along and that the pattern ExMy does not cover. The float<bits>_ names
# are those of torch and ml_dtypes and mean exactly the formats of those libraries: there "fn"
# says "finite", and the 4- and 6-bit ones reserve no code at all.
_ALIASES: dict[str, FloatFormat] = {
    "fp4": FloatFormat(exponent_bits=2, mantissa_bits=1),
    "fp6": FloatFormat(exponent_bits=3, mantissa_bits=2),
    "fp8": FloatFormat(exponent_bits=4, mantissa_bits=3),
    "fp16": FloatFormat(exponent_bits=5, mantissa_bits=10, specials="ieee"),
    "bf16": FloatFormat(exponent_bits=8, mantissa_bits=7, specials="ieee"),
    "float4_e2m1fn": FloatFormat(exponent_bits=2, mantissa_bits=1),
    "float6_e2m3fn": FloatFormat(exponent_bits=2, mantissa_bits=3),
    "float6_e3m2fn": FloatFormat(exponent_bits=3, mantissa_bits=2),
    "float8_e3m4": FloatFormat(exponent_bits=3, mantissa_bits=4, specials="ieee"),
    "float8_e4m3": FloatFormat(exponent_bits=4, mantissa_bits=3, specials="ieee"),
    "float8_e4m3fn": FloatFormat(exponent_bits=4, mantissa_bits=3, specials="nan"),
    "float8_e5m2": FloatFormat(exponent_bits=5, mantissa_bits=2, specials="ieee"),
    "float16": FloatFormat(exponent_bits=5, mantissa_bits=10, specials="ieee"),
    "bfloat16": FloatFormat(exponent_bits=8, mantissa_bits=7, specials="ieee"),
}


class UnknownFormatError(ValueError):
    """A name that is none of a number format."""


def parse(name: str) -> FloatFormat:
    """Return the format that a name stands for; case does not matter.

    Accepted are ``eXmY``, ``eXmYfn`` (all-ones code is NaN) and ``eXmYieee`` (top exponent
    reserved), each also with its width in front (``fp8_e4m3fn``), the short names ``fp4`` (E2M1),
    ``fp6`` (E3M2), ``fp8`` (E4M3, 480), ``fp16``, ``bf16``, the dtype names of torch and
    ml_dtypes such as ``float8_e4m3fn`` and ``float4_e2m1fn``, and ``int2`` to ``int24``.

    Parameters
    ----------
    name
        The name to look up.

    Raises
    ------
    ValueError
        If the name is not among the accepted ones or its width contradicts its bits.

    Examples
    --------
    >>> parse("e4m3").max, parse("float8_e4m3fn").max
    (480.0, 448.0)
    """
    key = name.lower()
    if key in _ALIASES:
        return _ALIASES[key]
    integer = _INTEGER.fullmatch(key)
    if integer is not None and 2 <= int(integer["bits"]) <= 24:
        bits = int(integer["bits"])
        return FloatFormat(exponent_bits=0, mantissa_bits=bits - 1, is_integer=True)
    match = _PATTERN.fullmatch(key)
    if match is None:
        raise UnknownFormatError(
            f"Unknown number format {name!r}: expected eXmY with X in 0 to 8 and Y in 0 to 23, "
            "with fn or ieee behind it where top codes are reserved, as in e4m3 or fp8_e4m3fn, "
            f"int2 to int24, or one of {', '.join(_ALIASES)}."
        )
    fmt = FloatFormat(
        exponent_bits=int(match["e"]),
        mantissa_bits=int(match["m"]),
        specials=_SPECIALS[match["suffix"]],
    )
    if match["bits"] is not None and int(match["bits"]) != fmt.bits:
        raise ValueError(
            f"Number format {name!r} says {match['bits']} bits, but {fmt.name} has {fmt.bits}."
        )
    return fmt
