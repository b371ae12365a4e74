"""Settings of attention that shares keys and values between heads and between layers.

Neighbouring layers may form a group that keeps one cache entry (cross-layer attention, Brandon et
al., arXiv 2405.12981): the first layer of a group, its leader, computes what is kept, and all
layers of the group read it. A pipeline must not be cut inside of a group, see
`weightwise.lm.config.check_cut`.
"""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.lm.rope import ntk_base
from weightwise.lm.rope_scaling import AnyRopeScaling  # noqa: TC001 (pydantic reads it)

STRICT = ConfigDict(extra="forbid")
Shape: TypeAlias = tuple[int, int]  # outputs (rows) and inputs (columns) of a linear layer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SharingConfig:
    """Which neighbouring layers share what is kept of the tokens.

    Parameters
    ----------
    share_factor
        Neighbouring layers in a group, at least 1; the last group may be smaller. 1 shares
        nothing.
    group_sizes
        Layers of each group in turn, each at least 1, in the place of ``share_factor`` and
        ``keep_ends``; their sum is the number of layers.
    keep_ends
        So many first and so many last layers stay alone, at least 0.
    """

    share_factor: int = Field(default=1, ge=1)
    group_sizes: tuple[int, ...] | None = None
    keep_ends: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.group_sizes is None:
            return self
        if not self.group_sizes or min(self.group_sizes) < 1:
            raise ValueError(
                f"group_sizes: expected at least one group, each of at least 1 layer, "
                f"got {list(self.group_sizes)}"
            )
        if self.share_factor != 1 or self.keep_ends:
            raise ValueError(
                "group_sizes: expected share_factor 1 and keep_ends 0 beside explicit sizes, "
                f"got {self.share_factor} and {self.keep_ends}"
            )
        return self

    @property
    def is_uniform(self) -> bool:
        """Whether all layers come in groups of ``share_factor``."""
        return self.group_sizes is None and self.keep_ends == 0

    def sizes(self, num_layers: int) -> tuple[int, ...]:
        """Layers of each group.

        Parameters
        ----------
        num_layers
            Neighbouring layers with these settings.

        Raises
        ------
        ValueError
            If explicit sizes add up to another number, or more ends are kept than there are
            layers.
        """
        if self.group_sizes is not None:
            if sum(self.group_sizes) != num_layers:
                raise ValueError(
                    f"group_sizes: expected a sum of {num_layers}, the neighbouring layers with "
                    f"these settings, got {sum(self.group_sizes)}"
                )
            return self.group_sizes
        inner = num_layers - 2 * self.keep_ends
        if inner < 0:
            raise ValueError(
                f"keep_ends: expected at most half of {num_layers} layers, got {self.keep_ends}"
            )
        whole, rest = divmod(inner, self.share_factor)
        alone = (1,) * self.keep_ends
        return (*alone, *(self.share_factor,) * whole, *((rest,) if rest else ()), *alone)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GQAConfig(SharingConfig):
    """Grouped-query attention with rotary positions.

    Parameters
    ----------
    share_factor, group_sizes, keep_ends
        Layers that share keys and values, see `SharingConfig`.
    kind
        Tells this class from other kinds of attention.
    num_heads
        Query heads, at least 1.
    num_kv_heads
        Key and value heads; divides ``num_heads``. Equal to it for multi-head attention, 1 for
        multi-query attention. ``None`` means ``num_heads``.
    head_width
        Features per head, even. ``None`` means ``width / num_heads``.
    rope_theta
        Base of the rotary wavelengths (10 000 in LLaMA), above 1.
    rope_alpha
        Factor of the dynamic NTK rule, at least 1: the base becomes
        ``rope_theta * rope_alpha^(e / (e - 2))`` for e features per head.
    rope_scaling
        Pairs turn more slowly by a rule of `weightwise.lm.rope_scaling`; ``None`` for none.
    qkv_bias
        Constants are added to queries, keys and values, as in Qwen2.
    qk_norm
        RMSNorm over the features of every query and key head.
    qk_gain
        The gains of that norm act ``after`` the rotation (Hunyuan) or ``before`` it (Qwen3), which
        a group of layers cannot do with keys in common.
    qk_norm_eps
        Added to the mean square in that norm, above 0.
    dropout
        Share of attention weights that training sets to 0, at least 0 and below 1.
    """

    kind: Literal["gqa"] = "gqa"
    num_heads: int = Field(ge=1)
    num_kv_heads: int | None = Field(default=None, ge=1)
    head_width: int | None = Field(default=None, ge=2, multiple_of=2)
    rope_theta: float = Field(default=10_000.0, gt=1.0, allow_inf_nan=False)
    rope_alpha: float = Field(default=1.0, ge=1.0, allow_inf_nan=False)
    rope_scaling: AnyRopeScaling | None = None
    qkv_bias: bool = False
    qk_norm: bool = False
    qk_gain: Literal["after", "before"] = "after"
    qk_norm_eps: float = Field(default=1e-5, gt=0.0, allow_inf_nan=False)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads: expected a divisor of num_heads {self.num_heads}, "
                f"got {self.num_kv_heads}"
            )
        is_alone = self.share_factor == 1 and set(self.group_sizes or (1,)) == {1}
        if self.qk_norm and self.qk_gain == "before" and not is_alone:
            raise ValueError("qk_gain: expected 'after' where layers share keys, got 'before'")
        return self

    @property
    def kv_heads(self) -> int:
        """Key and value heads, with the default filled in."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def summary(self) -> str:
        """Heads in words."""
        return f"{self.num_heads} heads ({self.kv_heads} for keys and values)"

    @property
    def heads_step(self) -> int:
        """Number that the query heads of a larger or smaller model are a multiple of."""
        return self.num_kv_heads or 1

    def width_per_head(self, width: int) -> int:
        """Features per head in a model of this width.

        Parameters
        ----------
        width
            Model width d.

        Raises
        ------
        ValueError
            If ``head_width`` is left open and the width does not split into even heads.
        """
        if self.head_width is not None:
            return self.head_width
        if width % (2 * self.num_heads):
            raise ValueError(
                f"width: expected a multiple of 2 * num_heads = {2 * self.num_heads} "
                f"(or set head_width), got {width}"
            )
        return width // self.num_heads

    def rope_features(self, width: int) -> int:
        """Features per head that are rotated: all."""
        return self.width_per_head(width)

    def rope_base(self, width: int) -> float:
        """Base of the rotary wavelengths, with the NTK factor in a model of this width."""
        return ntk_base(self.rope_alpha, self.rope_features(width), self.rope_theta)

    def of_group(self, index: int, num_groups: int, width: int) -> Self:  # noqa: ARG002, one signature
        """Settings of one group of layers: the same for all."""
        self.width_per_head(width)
        return self

    def matrix_shapes(self, width: int, is_leader: bool) -> tuple[Shape, ...]:
        """Rows and columns of query, key, value and output in one layer."""
        head_width = self.width_per_head(width)
        inner, kv_inner = self.num_heads * head_width, self.kv_heads * head_width
        key_value = ((kv_inner, width), (kv_inner, width)) if is_leader else ()
        return ((inner, width), *key_value, (width, inner))

    def num_other(self, width: int, is_leader: bool) -> int:
        """Parameters of one layer outside of its matrices: gains of norms, constants."""
        head_width = self.width_per_head(width)
        gains = 2 * head_width if self.qk_norm else 0
        biased = self.num_heads + 2 * self.kv_heads * is_leader
        return gains + biased * head_width * self.qkv_bias

    def features_per_pair(self, width: int) -> int:
        """Products that one query takes with one key and one value, over all heads."""
        return 2 * self.num_heads * self.width_per_head(width)
