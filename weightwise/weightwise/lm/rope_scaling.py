"""Rules by which rotary pairs turn more slowly, so that a model reads longer texts than before.

A pair i of e features turns by t_i = theta^(-2i/e) from one token to the next. Each rule maps
these turns to others:

    linear   t_i / factor for all pairs (Chen et al., arXiv 2306.15595)
    llama3   pairs that turn slowly over the original length, with a blend between the two kinds
             (Llama 3 herd of models, arXiv 2407.21783, and its code)
    yarn     the same idea with a blend that is linear in i instead of in the turn, and scores that
             are sharper for longer texts (Peng et al., arXiv 2309.00071, sections 3.2 and 3.4)

YaRN's sharper scores come from an ``amplitude`` of rotated queries and keys, 0.1 ln(factor) + 1
where nothing else is said.
"""

from __future__ import annotations

from math import ceil, floor, log, pi
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

if TYPE_CHECKING:
    from torch import Tensor

STRICT = ConfigDict(extra="forbid")
NARROWEST = 1e-3  # pairs of YaRN's blend


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LinearScaling:
    """All pairs turn more slowly.

    Parameters
    ----------
    kind
        Tells this class from other rules.
    factor
        How much more slowly, at least 1.
    """

    kind: Literal["linear"] = "linear"
    factor: float = Field(ge=1.0, allow_inf_nan=False)

    @property
    def amplitude(self) -> float:
        """Factor of rotated features."""
        return 1.0

    def scaled(self, turn: Tensor, theta: float) -> Tensor:  # noqa: ARG002, one signature
        """Turns of pairs for one token, given those without scaling; any shape."""
        return turn / self.factor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RopeScaling:
    """Rotary pairs that turn slowly turn more slowly still, as in Llama 3.1.

    A pair that turns less than ``low_freq_factor`` times over ``original_length`` tokens turns
    ``factor`` times as slowly, one that turns more than ``high_freq_factor`` times as before, and
    between them the turn is interpolated.

    Parameters
    ----------
    kind
        Tells this class from other rules.
    factor
        How much more slowly, at least 1.
    low_freq_factor, high_freq_factor
        Turns over the original length, above 0, the second above the first.
    original_length
        Tokens of the sequences before, at least 1.
    """

    kind: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1.0, allow_inf_nan=False)
    low_freq_factor: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    high_freq_factor: float = Field(default=4.0, gt=0.0, allow_inf_nan=False)
    original_length: int = Field(default=8192, ge=1)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor: expected more than low_freq_factor {self.low_freq_factor:g}, "
                f"got {self.high_freq_factor:g}"
            )
        return self

    @property
    def amplitude(self) -> float:
        """Factor of rotated features."""
        return 1.0

    def scaled(self, turn: Tensor, theta: float) -> Tensor:  # noqa: ARG002, one signature
        """Turns of pairs for one token, given those without scaling; any shape."""
        low, high = self.low_freq_factor, self.high_freq_factor
        kept = ((self.original_length / (2 * pi) * turn - low) / (high - low)).clamp(0.0, 1.0)
        return turn * (kept + (1.0 - kept) / self.factor)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class YarnScaling:
    """YaRN: fast pairs stay, slow ones are interpolated, and scores become sharper.

    Parameters
    ----------
    kind
        Tells this class from other rules.
    factor
        How much more slowly slow pairs turn, at least 1.
    original_length
        Tokens of the sequences before, at least 1.
    beta_fast, beta_slow
        Turns over the original length from which on pairs stay as they are and below which they
        are interpolated, above 0, the first above the second.
    is_truncated
        The pairs between which is blended are whole numbers.
    attention_factor
        Amplitude of rotated queries and keys, above 0; ``None`` means 0.1 ln(factor) + 1.
    """

    kind: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1.0, allow_inf_nan=False)
    original_length: int = Field(ge=1)
    beta_fast: float = Field(default=32.0, gt=0.0, allow_inf_nan=False)
    beta_slow: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    is_truncated: bool = True
    attention_factor: float | None = Field(default=None, gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"beta_fast: expected more than beta_slow {self.beta_slow:g}, "
                f"got {self.beta_fast:g}"
            )
        return self

    @property
    def amplitude(self) -> float:
        """Factor of rotated features."""
        given = self.attention_factor
        return yarn_amplitude(self.factor) if given is None else given

    def scaled(self, turn: Tensor, theta: float) -> Tensor:
        """Turns of pairs for one token, given those without scaling.

        Parameters
        ----------
        turn
            Of all pairs of a head, shape (e / 2,).
        theta
            Base that they come from.
        """
        last = 2 * len(turn) - 1
        low = self._pair(self.beta_fast, len(turn), theta)
        high = self._pair(self.beta_slow, len(turn), theta)
        if self.is_truncated:
            low, high = floor(low), ceil(high)
        low, high = max(low, 0.0), min(high, float(last))
        index = turn.new_tensor(range(len(turn)))
        slow = ((index - low) / (high - low if high != low else NARROWEST)).clamp(0.0, 1.0)
        return turn / self.factor * slow + turn * (1.0 - slow)

    def _pair(self, turns: float, num_pairs: int, theta: float) -> float:
        """Index of the pair that turns so often over the original length (eq. 17)."""
        return num_pairs * log(self.original_length / (turns * 2 * pi)) / log(theta)


def yarn_amplitude(factor: float, weight: float = 1.0) -> float:
    """Amplitude of YaRN, 0.1 weight ln(factor) + 1 (eq. 22; the weight is DeepSeek-V2's).

    Parameters
    ----------
    factor
        How much longer texts become; 1 where they become shorter.
    weight
        How much that counts.
    """
    return 0.1 * weight * log(max(factor, 1.0)) + 1.0


def _kind(given: Any) -> str | None:
    """Which rule is meant; settings without a kind are of the oldest one."""
    if isinstance(given, dict):
        return str(given.get("kind", "llama3"))
    return getattr(given, "kind", None)


AnyRopeScaling: TypeAlias = Annotated[
    Annotated[RopeScaling, Tag("llama3")]
    | Annotated[LinearScaling, Tag("linear")]
    | Annotated[YarnScaling, Tag("yarn")],
    Discriminator(_kind),
]
