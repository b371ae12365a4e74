"""What is kept in how many bits: the levels of FP8-LM and every other combination."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, model_validator
from pydantic.dataclasses import dataclass

from weightwise.numerics.fp8_linear import Fp8Config

Level = Literal["O1", "O2", "O3"]
Moment = Literal["e4m3", "e5m2", "float16", "float16-unscaled", "bfloat16", "float32"]
LEVELS: tuple[Level, ...] = ("O1", "O2", "O3")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Fp8Training:
    """A level, and what differs from it.

    Parameters
    ----------
    level
        See `weightwise.fp8.prepare`.
    weight
        What the optimizer moves, for each linear weight: ``"float16"`` by default; ``"e4m3"`` and
        ``"float16"`` have a scale. With O3 it must be that.
    gradient
        ``"e4m3"`` by default; ``"float32"`` leaves gradients and their communication alone.
    exp_avg, exp_avg_sq
        First and second moment of every parameter; float32 by default with O1, E4M3 and float16
        with O2 and O3. ``"float16-unscaled"`` is float16 without a scale, in which squares of
        gradients vanish.
    products
        Whether linear layers multiply in 8 bits.
    linear
        How they do.

    Raises
    ------
    pydantic.ValidationError
        A ``ValueError`` that names the field and what it accepts.
    """

    level: Level = "O2"
    weight: Literal["e4m3", "float16", "bfloat16", "float32"] = "float16"
    gradient: Literal["e4m3", "e5m2", "float32"] = "e4m3"
    exp_avg: Moment | None = None
    exp_avg_sq: Moment | None = None
    products: bool = True
    linear: Fp8Config = Fp8Config()

    @model_validator(mode="after")
    def _check_level(self) -> Self:
        if self.level == "O3":
            fixed = {"weight": "float16", "gradient": "e4m3", "products": True}
            for name, value in fixed.items():
                if getattr(self, name) != value:
                    raise ValueError(
                        f"{name}: expected {value} with level O3, got {getattr(self, name)}"
                    )
        return self

    def moments(self) -> tuple[Moment, Moment]:
        """What both moments are stored in."""
        first, second = ("float32", "float32") if self.level == "O1" else ("e4m3", "float16")
        return self.exp_avg or first, self.exp_avg_sq or second  # type: ignore[return-value]
