"""What every law has: a loss for training settings, the range it was fitted in, and warnings.

N counts parameters without embeddings, D counts training tokens, both raw; losses are nats a
token. A law is a frozen object with its constants as fields.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from weightwise.numerics import FloatFormat, ScaledFormat, parse
from weightwise.numerics.scaling import names_scales

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

Granularity = Literal["none", "block", "channel", "tensor"]
GRANULARITIES: tuple[Granularity, ...] = ("none", "block", "channel", "tensor")


def split_bits(fmt: FloatFormat) -> tuple[float, float]:
    """E and M by which laws know a format: an integer of P bits is a uniform grid, as E1M(P-2)."""
    if fmt.is_integer:
        return 1.0, fmt.bits - 2.0
    return float(fmt.exponent_bits), float(fmt.mantissa_bits)


def sharing_of(fmt: ScaledFormat) -> int | Literal["channel", "tensor"]:
    """Who shares a scale: elements of a block, ``"channel"`` or ``"tensor"``."""
    if fmt.scaling.block_size is not None:
        return fmt.scaling.block_size
    return "tensor" if fmt.scaling.granularity == "tensor" else "channel"


@dataclass(frozen=True, kw_only=True, eq=False)
class Settings:
    """One or more training settings; all arrays have the shape (R,).

    Parameters
    ----------
    num_params, num_tokens
        N and D.
    exponent_bits, mantissa_bits
        E and M; NaN without quantization.
    granularity
        Which elements share a scale: ``"block"``, ``"channel"``, ``"tensor"``, or ``"none"``
        without quantization.
    block_size
        B of blocks; NaN for all others.

    Raises
    ------
    ValueError
        If a number is out of range, with its name and its row.
    """

    num_params: Floats
    num_tokens: Floats
    exponent_bits: Floats
    mantissa_bits: Floats
    granularity: NDArray[np.str_]
    block_size: Floats

    def __post_init__(self) -> None:
        arrays = {one.name: np.atleast_1d(getattr(self, one.name)) for one in fields(self)}
        arrays = dict(zip(arrays, np.broadcast_arrays(*arrays.values()), strict=True))
        for name, array in arrays.items():
            is_text = name == "granularity"
            object.__setattr__(self, name, array if is_text else array.astype(np.float64))
        is_block, is_none = self.granularity == "block", self.granularity == "none"
        bits = np.stack([self.exponent_bits, self.mantissa_bits])
        self._refuse(~np.isin(self.granularity, GRANULARITIES), "granularity", GRANULARITIES)
        for name in ("num_params", "num_tokens"):
            value = getattr(self, name)
            self._refuse(~((value > 0) & np.isfinite(value)), name, "a finite number above 0")
        for name, row in zip(("exponent_bits", "mantissa_bits"), bits, strict=True):
            self._refuse(~is_none & ~((row >= 0) & np.isfinite(row)), name, "at least 0")
            self._refuse(is_none & ~np.isnan(row), name, "none without quantization")
        self._refuse(is_block & ~(self.block_size >= 1), "block_size", "at least 1")
        self._refuse(~is_block & ~np.isnan(self.block_size), "block_size", "none without blocks")

    @classmethod
    def of(
        cls,
        num_params: ArrayLike,
        num_tokens: ArrayLike,
        fmt: FloatFormat | ScaledFormat | str | None = None,
        block: int | Literal["channel", "tensor"] | None = None,
    ) -> Settings:
        """Settings of one number format, or without quantization.

        Parameters
        ----------
        num_params, num_tokens
            N and D, numbers or arrays.
        fmt
            Number format or its name, with scales (``"mxfp4"``) or without (``"e2m1"``); None for
            16-bit training.
        block
            Elements that share a scale, ``"channel"`` or ``"tensor"``; 128 by default. None for a
            format that says so itself.

        Raises
        ------
        ValueError
            If both the format and `block` say who shares a scale.
        """
        if isinstance(fmt, str):
            fmt = ScaledFormat.parse(fmt) if names_scales(fmt) else parse(fmt)
        if isinstance(fmt, ScaledFormat):
            if block is not None:
                raise ValueError(f"block: expected none with format {fmt.name}, got {block}")
            block = sharing_of(fmt)
            fmt = fmt.element
        block = 128 if block is None else block
        is_sized = not isinstance(block, str)
        sharing = "none" if fmt is None else "block" if is_sized else str(block)
        exponent, mantissa = (math.nan, math.nan) if fmt is None else split_bits(fmt)
        return cls(
            num_params=np.asarray(num_params, dtype=np.float64),
            num_tokens=np.asarray(num_tokens, dtype=np.float64),
            exponent_bits=np.array(exponent),
            mantissa_bits=np.array(mantissa),
            granularity=np.array(sharing),
            block_size=np.array(block if sharing == "block" else np.nan, dtype=np.float64),
        )

    @classmethod
    def join(cls, parts: Sequence[Settings]) -> Settings:
        """All rows of some settings, one after another."""
        names = [one.name for one in fields(cls)]
        return cls(
            **{name: np.concatenate([getattr(one, name) for one in parts]) for name in names}
        )

    def __len__(self) -> int:
        return len(self.num_params)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64] | slice) -> Settings:
        """The settings of some rows."""
        return Settings(**{one.name: getattr(self, one.name)[rows] for one in fields(self)})

    @property
    def is_quantized(self) -> NDArray[np.bool_]:
        """Which rows are quantized."""
        return np.asarray(self.granularity != "none")

    @property
    def bits(self) -> Floats:
        """P = 1 + E + M; NaN without quantization."""
        return 1.0 + self.exponent_bits + self.mantissa_bits

    @property
    def format_names(self) -> NDArray[np.str_]:
        """``"E4M3"`` and the like, ``"16 bits"`` without quantization; shape (R,)."""
        bits = zip(self.exponent_bits, self.mantissa_bits, self.is_quantized, strict=True)
        return np.array([f"E{e:.0f}M{m:.0f}" if used else "16 bits" for e, m, used in bits])

    def log2_block(self, channel: float, tensor: Floats) -> Floats:
        """Return log2 B of each row, given its equivalent for channels and for tensors."""
        sharing = self.granularity
        rest = np.log2(np.where(sharing == "block", self.block_size, 1.0))
        return np.where(sharing == "channel", channel, np.where(sharing == "tensor", tensor, rest))

    def _refuse(self, is_wrong: NDArray[np.bool_], name: str, expected: object) -> None:
        if is_wrong.any():
            row = int(np.flatnonzero(is_wrong)[0])
            got = getattr(self, name)[row]
            raise ValueError(f"row {row + 1}: {name}: expected {expected}, got {got}")


@dataclass(frozen=True, kw_only=True)
class Hull:
    """The range in which a law was fitted.

    Parameters
    ----------
    num_params, num_tokens
        Least and most N and D.
    formats
        Pairs (E, M) that took part; empty for laws that know no format.
    setup
        What else was the same in all runs, in words.
    """

    num_params: tuple[float, float]
    num_tokens: tuple[float, float]
    formats: frozenset[tuple[int, int]] = frozenset()
    setup: str = ""

    def warnings(self, settings: Settings) -> tuple[Extrapolation, ...]:
        """What lies outside, one warning for each field."""
        found = []
        for field in ("num_params", "num_tokens"):
            low, high = getattr(self, field)
            values = getattr(settings, field)
            outside = values[(values < low) | (values > high)]
            if len(outside):
                extremes = (float(outside.min()), float(outside.max()))
                found.append(Extrapolation(field=field, fitted=(low, high), asked=extremes))
        if self.formats:
            used = settings.is_quantized
            pairs = np.stack([settings.exponent_bits[used], settings.mantissa_bits[used]], axis=1)
            foreign = [
                (float(e), float(m))
                for e, m in np.unique(pairs, axis=0)
                if (e, m) not in self.formats
            ]
            found += [
                Extrapolation(field="format", fitted=tuple(sorted(self.formats)), asked=pair)
                for pair in foreign
            ]
        return tuple(found)


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """A warning: something was asked that no run behind the law had."""

    field: str
    fitted: tuple[Any, ...]
    asked: tuple[float, float]

    def __str__(self) -> str:
        if self.field == "format":
            return "E{:g}M{:g} was in no run of the fit".format(*self.asked)
        low, high = self.asked
        asked = f"{low:.4g}" if low == high else f"{low:.4g} to {high:.4g}"
        return "{}: {} lies outside of the fitted {:.4g} to {:.4g}".format(
            self.field, asked, *self.fitted
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Losses of a law in nats a token, with intervals where the law knows its spread.

    Parameters
    ----------
    loss, low, high
        Arrays of shape (R,); `low` and `high` are None for laws without `samples`.
    warnings
        What was asked outside of the fitted range.
    """

    loss: Floats
    low: Floats | None
    high: Floats | None
    warnings: tuple[Extrapolation, ...]


class Law(Protocol):
    """A law: constants, where they hold, and a loss for settings."""

    title: ClassVar[str]

    @property
    def hull(self) -> Hull | None:
        """Where it was fitted, if that is known."""
        ...

    def loss(self, settings: Settings) -> Floats:
        """Losses in nats a token, shape (R,)."""
        ...


def predict(
    law: Law, settings: Settings, samples: tuple[Law, ...] = (), level: float = 0.9
) -> Prediction:
    """Predict losses with intervals and warnings.

    Parameters
    ----------
    law
        The law to ask.
    settings
        What to ask.
    samples
        The same law refitted on resampled runs; the interval holds the middle `level` of them.
    level
        Share of the samples inside of the interval, above 0 and below 1.

    Raises
    ------
    ValueError
        If `level` is out of range.
    """
    if not 0 < level < 1:
        raise ValueError(f"level: expected a number between 0 and 1, got {level}")
    low = high = None
    if samples:
        losses = np.stack([sample.loss(settings) for sample in samples])
        low, high = np.quantile(losses, [(1 - level) / 2, (1 + level) / 2], axis=0)
    warnings = law.hull.warnings(settings) if law.hull else ()
    return Prediction(loss=law.loss(settings), low=low, high=high, warnings=warnings)


def constants(law: Law) -> dict[str, float]:
    """The constants of a law by name."""
    values = {one.name: getattr(law, one.name) for one in fields(law)}  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if isinstance(value, float)}
