"""Scales: which elements share one, what type it has, and formats that are made of both.

A `ScaledFormat` is an element format with its scales. The same object drives the quantizer, the
linear layers, the laws and the count of stored bits. Its names:

* ``e4m3@32``, ``e2m1@channel``, ``int8@tensor``: an element format and who shares a scale, a
  float32 number; ``e4m3@32/bfloat16``, ``e2m1@16/e8m0``, ``e2m1@32/e4m3``: with other scales;
* ``mxfp8_e4m3``, ``mxfp8_e5m2``, ``mxfp6_e3m2``, ``mxfp6_e2m3``, ``mxfp4``, ``mxint8``: the OCP
  Microscaling formats v1.0, blocks of 32 with a power of two (E8M0). ``mxfp8`` is the first;
* ``nvfp4``: E2M1 in blocks of 16 with an E4M3 scale each and one float32 scale for the tensor.

Behind a dash stands what tools disagree on. MX: how the power of two is chosen, ``-floor`` (the
specification's, default), ``-ceil``, ``-even`` or ``-rceil``. NVFP4: the smallest block scale,
``-normal`` (2^-6, what tools do, default) or ``-subnormal`` (2^-9, the smallest that E4M3 holds).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import TYPE_CHECKING, Literal

from weightwise.numerics.formats import FloatFormat, UnknownFormatError, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

Granularity = Literal["tensor", "channel", "block"]
ScaleType = Literal["float32", "bfloat16", "e8m0", "e4m3"]
ScaleRule = Literal["floor", "ceil", "even", "rceil"]
SmallestScale = Literal["normal", "subnormal"]

SCALE_BITS: dict[ScaleType, int] = {"float32": 32, "bfloat16": 16, "e8m0": 8, "e4m3": 8}
RULES: tuple[ScaleRule, ...] = ("floor", "ceil", "even", "rceil")
SMALLEST: tuple[SmallestScale, ...] = ("normal", "subnormal")


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Which elements share one scale, and what a scale is.

    Parameters
    ----------
    granularity
        ``"tensor"``: all of them. ``"channel"``: those along one axis. ``"block"``: runs of
        ``block_size`` consecutive elements along one axis.
    block_size
        Elements per block, at least 1; only with ``"block"``.
    scale
        ``"float32"`` or ``"bfloat16"``: the largest magnitude goes to the largest value of the
        format. ``"e8m0"``: a power of two, as in the OCP's MX formats. ``"e4m3"``: two levels as
        in NVFP4, an E4M3 number for each block and a float32 number for the tensor.
    rule
        How a power of two is chosen, only with ``"e8m0"``. With a the largest magnitude:
        ``"floor"``: ``2^(floor(log2 a) - e_max)``, elements above the format's largest value
        saturate; ``"ceil"``: a is first rounded up to a power of two; ``"even"``: a is first
        rounded to the element's mantissa; ``"rceil"``: the least power of two that saturates
        nothing.
    smallest
        Least block scale with ``"e4m3"``: the smallest ``"normal"`` number, 2^-6, or the
        smallest ``"subnormal"`` one, 2^-9.

    Raises
    ------
    ValueError
        If ``block_size`` is out of range, missing, or given without blocks; if an option is
        unknown or has no meaning for this scale.
    """

    granularity: Granularity = "channel"
    block_size: int | None = None
    scale: ScaleType = "float32"
    rule: ScaleRule = "floor"
    smallest: SmallestScale = "normal"

    def __post_init__(self) -> None:
        if self.granularity not in ("tensor", "channel", "block"):
            raise ValueError(
                f"Expected granularity 'tensor', 'channel' or 'block', got {self.granularity!r}."
            )
        if self.granularity != "block" and self.block_size is not None:
            raise ValueError(f"Expected block_size only with blocks, got {self.block_size}.")
        if self.granularity == "block" and (self.block_size is None or self.block_size < 1):
            raise ValueError(f"Expected block_size >= 1 with blocks, got {self.block_size}.")
        if self.scale not in SCALE_BITS:
            raise ValueError(f"Expected scale in {sorted(SCALE_BITS)}, got {self.scale!r}.")
        if self.rule not in RULES or (self.rule != "floor" and self.scale != "e8m0"):
            raise ValueError(
                f"Expected rule in {list(RULES)} and others than 'floor' only with scale 'e8m0', "
                f"got {self.rule!r} with {self.scale!r}."
            )
        if self.smallest not in SMALLEST or (self.smallest != "normal" and self.scale != "e4m3"):
            raise ValueError(
                f"Expected smallest in {list(SMALLEST)} and others than 'normal' only with scale "
                f"'e4m3', got {self.smallest!r} with {self.scale!r}."
            )


@dataclass(frozen=True, kw_only=True)
class ScaledFormat:
    """An element format with its scales.

    Parameters
    ----------
    element
        Format of an element.
    scaling
        Which elements share a scale, and what it is.

    Raises
    ------
    ValueError
        If the element has the range of float32 (E = 8) and the scales are not float32: such
        formats are rounded unscaled.

    Examples
    --------
    >>> ScaledFormat.parse("mxfp4").bits_per_element
    4.25
    """

    element: FloatFormat
    scaling: Scaling = Scaling()

    def __post_init__(self) -> None:
        if self.element.exponent_bits == 8 and self.scaling.scale != "float32":
            raise ValueError(
                f"Expected scale 'float32' for {self.element.name}, which is rounded unscaled, "
                f"got {self.scaling.scale!r}."
            )

    @classmethod
    def parse(cls, name: str) -> ScaledFormat:
        """Return the format that a name stands for; case does not matter.

        Parameters
        ----------
        name
            See the module's text. An element format alone has one scale a channel.

        Raises
        ------
        ValueError
            If the name is not among the accepted ones.
        """
        key, _, variant = name.lower().partition("-")
        match = _PATTERN.fullmatch(key)
        if key in NAMED:
            fmt = NAMED[key]
        elif match is not None:
            fmt = _from_parts(match)
        else:
            raise ValueError(
                f"Unknown scaled format {name!r}: expected {', '.join(NAMED)}, or an element "
                "format with @tensor, @channel or a block size, as in e4m3@32."
            )
        return _variant(fmt, variant, name) if variant else fmt

    @property
    def name(self) -> str:
        """The shortest name that `parse` understands."""
        scaling = self.scaling
        rule = "" if scaling.rule == "floor" else f"-{scaling.rule}"
        smallest = "" if scaling.smallest == "normal" else f"-{scaling.smallest}"
        plain = replace(self, scaling=replace(scaling, rule="floor", smallest="normal"))
        for known, fmt in NAMED.items():
            if fmt == plain:
                return known + rule + smallest
        scale = "" if scaling.scale == "float32" else f"/{scaling.scale}"
        sharing = scaling.block_size or scaling.granularity
        return f"{self.element.name.lower()}@{sharing}{scale}{rule}{smallest}"

    @property
    def bits_per_element(self) -> float:
        """Bits of an element with its share of a block's scale.

        Scales of channels and tensors cost nothing by this count: their share depends on the
        shape, see `storage_bits`.
        """
        block_size = self.scaling.block_size
        share = SCALE_BITS[self.scaling.scale] / block_size if block_size else 0.0
        return self.element.bits + share

    def num_scales(self, shape: Sequence[int], axis: int = -1) -> int:
        """Count the scales of a tensor; one float32 scale for the whole tensor not included.

        Parameters
        ----------
        shape
            Shape of the tensor.
        axis
            The axis along which channels and blocks run.
        """
        if prod(shape) == 0 or self.scaling.granularity == "tensor":
            return min(1, prod(shape))
        length = shape[axis]
        return prod(shape) // length * ceil(length / (self.scaling.block_size or length))

    def storage_bits(self, shape: Sequence[int], axis: int = -1) -> int:
        """Count the bits that a tensor takes when it is stored, scales included.

        Parameters
        ----------
        shape, axis
            As in `num_scales`.
        """
        scales = self.num_scales(shape, axis) * SCALE_BITS[self.scaling.scale]
        per_tensor = 32 if self.scaling.scale == "e4m3" else 0
        return prod(shape) * self.element.bits + scales + per_tensor


_PATTERN = re.compile(
    r"(?P<element>[a-z0-9_]+)(@(?P<sharing>tensor|channel|[1-9]\d{0,8}))?"
    rf"(/(?P<scale>{'|'.join(SCALE_BITS)}))?"
)


def _from_parts(match: re.Match[str]) -> ScaledFormat:
    sharing, scale = match["sharing"] or "channel", match["scale"] or "float32"
    is_sized = sharing.isdigit()
    scaling = Scaling(
        granularity="block" if is_sized else sharing,  # type: ignore[arg-type]
        block_size=int(sharing) if is_sized else None,
        scale=scale,  # type: ignore[arg-type]
    )
    try:
        element = parse(match["element"])
    except UnknownFormatError as error:
        names = ", ".join(NAMED)
        raise UnknownFormatError(f"{error} With scales: {names}, or as in e4m3@32.") from None
    return ScaledFormat(element=element, scaling=scaling)


def names_scales(name: str) -> bool:
    """Whether the name of a format also says who shares a scale."""
    return "@" in name or name.lower().partition("-")[0] in NAMED


def _mx(element: str) -> ScaledFormat:
    scaling = Scaling(granularity="block", block_size=32, scale="e8m0")
    return ScaledFormat(element=parse(element), scaling=scaling)


NAMED: dict[str, ScaledFormat] = {
    "mxfp8_e4m3": _mx("float8_e4m3fn"),
    "mxfp8_e5m2": _mx("float8_e5m2"),
    "mxfp6_e3m2": _mx("float6_e3m2fn"),
    "mxfp6_e2m3": _mx("float6_e2m3fn"),
    "mxfp4": _mx("float4_e2m1fn"),
    "mxint8": _mx("int8"),
    "mxfp8": _mx("float8_e4m3fn"),
    "nvfp4": ScaledFormat(
        element=parse("float4_e2m1fn"),
        scaling=Scaling(granularity="block", block_size=16, scale="e4m3"),
    ),
}


def _variant(fmt: ScaledFormat, variant: str, name: str) -> ScaledFormat:
    """Return the format with another rule or another smallest scale."""
    accepted = {"e8m0": RULES, "e4m3": SMALLEST}.get(fmt.scaling.scale, ())
    if variant not in accepted:
        raise ValueError(
            f"Unknown scaled format {name!r}: expected {', '.join(accepted) or 'nothing'} behind "
            f"the dash, got {variant!r}."
        )
    changed = "rule" if fmt.scaling.scale == "e8m0" else "smallest"
    return replace(fmt, scaling=replace(fmt.scaling, **{changed: variant}))  # type: ignore[arg-type]
