"""Settings of the language model family.

One config class per kind of attention and feed-forward, told apart by ``kind``. A new kind is
a new config class here, a new module beside ``attention.py`` or ``ffn.py``, and one entry in
the dict literal of ``model.py``; existing classes stay as they are.

The parameter count that scaling laws use is the closed form

    N = layers * (4 d^2 + 3 d d_ff)

for full-width attention and SwiGLU: the matrices inside the blocks, without embeddings, head
and norm gains. It reproduces the sizes of Table 3 of arXiv 2501.02423 exactly. With experts, N
counts what one token goes through: the shared and the chosen ones (arXiv 2411.02265).
"""

from __future__ import annotations

from math import ceil
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

from weightwise.lm.rope import ntk_base

STRICT = ConfigDict(extra="forbid")
Shape = tuple[int, int]  # outputs (rows) and inputs (columns) of a linear layer


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GQAConfig:
    """Grouped-query attention with rotary positions.

    Parameters
    ----------
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
    qk_norm
        RMSNorm over the features of every query and key head, after the rotation.
    qk_norm_eps
        Added to the mean square in that norm, above 0.
    share_factor
        Neighbouring layers that use the keys and values of the first of them (cross-layer
        attention, arXiv 2405.12981); 1 for a pair of its own in each layer.
    dropout
        Share of attention weights that training sets to 0, at least 0 and below 1.
    """

    kind: Literal["gqa"] = "gqa"
    num_heads: int = Field(ge=1)
    num_kv_heads: int | None = Field(default=None, ge=1)
    head_width: int | None = Field(default=None, ge=2, multiple_of=2)
    rope_theta: float = Field(default=10_000.0, gt=1.0, allow_inf_nan=False)
    rope_alpha: float = Field(default=1.0, ge=1.0, allow_inf_nan=False)
    qk_norm: bool = False
    qk_norm_eps: float = Field(default=1e-5, gt=0.0, allow_inf_nan=False)
    share_factor: int = Field(default=1, ge=1)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads: expected a divisor of num_heads {self.num_heads}, "
                f"got {self.num_kv_heads}"
            )
        return self

    @property
    def kv_heads(self) -> int:
        """Key and value heads, with the default filled in."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

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

    def is_leader(self, layer: int) -> bool:
        """Whether a layer has keys and values of its own."""
        return layer % self.share_factor == 0

    def rope_base(self, width: int) -> float:
        """Base of the rotary wavelengths, with the NTK factor in a model of this width."""
        return ntk_base(self.rope_alpha, self.width_per_head(width), self.rope_theta)

    def matrix_shapes(self, width: int, layer: int) -> tuple[Shape, ...]:
        """Rows and columns of query, key, value and output in one layer."""
        head_width = self.width_per_head(width)
        inner, kv_inner = self.num_heads * head_width, self.kv_heads * head_width
        key_value = ((kv_inner, width), (kv_inner, width)) if self.is_leader(layer) else ()
        return ((inner, width), *key_value, (width, inner))

    def num_other(self, width: int) -> int:
        """Parameters of one layer outside of its matrices: the gains of the norms."""
        return 2 * self.width_per_head(width) if self.qk_norm else 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SwiGLUConfig:
    """Gated feed-forward layer (Shazeer 2020, arXiv 2002.05202).

    Parameters
    ----------
    kind
        Tells this class from other kinds of feed-forward layer.
    hidden
        Inner width d_ff, at least 1.
    """

    kind: Literal["swiglu"] = "swiglu"
    hidden: int = Field(ge=1)

    def matrix_shapes(self, width: int) -> tuple[Shape, ...]:
        """Rows and columns of gate, up and down in one layer."""
        return (self.hidden, width), (self.hidden, width), (width, self.hidden)

    def active_shapes(self, width: int) -> tuple[Shape, ...]:
        """The same: every token goes through all of it."""
        return self.matrix_shapes(width)

    def num_other(self, width: int) -> int:  # noqa: ARG002, the kinds have one signature
        """Parameters of one layer outside of its matrices."""
        return 0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MoEConfig:
    """Shared and specialised experts with mixed routing (Hunyuan-Large, arXiv 2411.02265).

    Every token goes through the shared experts and through the ``top_k`` specialised ones that
    the router likes best. What happens in training to tokens beyond the capacity of an expert
    is said by ``overflow``; in evaluation every token gets the experts of its choice.

    Parameters
    ----------
    kind
        Tells this class from other kinds of feed-forward layer.
    hidden
        Inner width of an expert, at least 1; the shared experts are one of
        ``num_shared * hidden``.
    num_experts
        Specialised experts E, at least 2.
    num_shared
        Shared experts, at least 0.
    top_k
        Specialised experts per token, 1 to E.
    renormalize
        Divide the weights of a token's experts by their sum. ``None`` means for ``top_k`` above
        1 only: with one expert the weight would be 1 and the router would not learn.
    overflow
        ``keep`` knows no capacity, ``drop`` leaves a token beyond it to the shared experts,
        ``recycle`` gives it to a random expert with room.
    capacity_factor, min_capacity
        An expert takes ``max(ceil(tokens * top_k / E * capacity_factor), min_capacity)`` tokens.
    keep_rule
        Which tokens stay when an expert is full: the first ones (``position``), those with the
        highest ``probability``, or ``random`` ones.
    weight_rule
        A recycled token is weighted by the router's probability of its ``new`` or of its
        ``original`` expert.
    balance_coef, z_coef
        Coefficients of the balance loss and of the router's z-loss; at least 0.
    """

    kind: Literal["moe"] = "moe"
    hidden: int = Field(ge=1)
    num_experts: int = Field(ge=2)
    num_shared: int = Field(default=1, ge=0)
    top_k: int = Field(default=1, ge=1)
    renormalize: bool | None = None
    overflow: Literal["keep", "drop", "recycle"] = "keep"
    capacity_factor: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    min_capacity: int = Field(default=8, ge=1)
    keep_rule: Literal["position", "probability", "random"] = "position"
    weight_rule: Literal["new", "original"] = "new"
    balance_coef: float = Field(default=0.01, ge=0.0, allow_inf_nan=False)
    z_coef: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k: expected 1 to num_experts {self.num_experts}, got {self.top_k}"
            )
        return self

    @property
    def is_renormalized(self) -> bool:
        """Whether the weights of a token's experts add up to 1."""
        return self.top_k > 1 if self.renormalize is None else self.renormalize

    def capacity(self, num_tokens: int) -> int:
        """Tokens that an expert takes of ``num_tokens`` that are routed together."""
        fair = ceil(num_tokens * self.top_k / self.num_experts * self.capacity_factor)
        return min(max(fair, self.min_capacity), num_tokens)

    def matrix_shapes(self, width: int) -> tuple[Shape, ...]:
        """Rows and columns of all experts' matrices in one layer; without the router."""
        return self._shapes(width, self.num_experts)

    def active_shapes(self, width: int) -> tuple[Shape, ...]:
        """Those that one token goes through."""
        return self._shapes(width, self.top_k)

    def num_other(self, width: int) -> int:
        """Parameters of one layer outside of its experts: the router."""
        return self.num_experts * width

    def _shapes(self, width: int, num_experts: int) -> tuple[Shape, ...]:
        one = SwiGLUConfig(hidden=self.hidden).matrix_shapes(width)
        shared = self.num_shared * self.hidden
        common = SwiGLUConfig(hidden=shared).matrix_shapes(width) if shared else ()
        return (*common, *one * num_experts)


def _kind_of(ffn: Any) -> str | None:
    """Which feed-forward layer is meant; the dense one where settings do not say."""
    return ffn.get("kind", "swiglu") if isinstance(ffn, dict) else getattr(ffn, "kind", None)


# Attention becomes such a union when a second member comes.
AttentionConfig: TypeAlias = GQAConfig
FeedForwardConfig: TypeAlias = Annotated[
    Annotated[SwiGLUConfig, Tag("swiglu")] | Annotated[MoEConfig, Tag("moe")],
    Discriminator(_kind_of),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """A decoder-only language model with LLaMA's layout.

    Parameters
    ----------
    vocab_size
        Number of token ids, at least 1.
    width
        Model width d, at least 1.
    num_layers
        Number of blocks, at least 1.
    max_length
        Longest sequence in tokens, at least 1.
    attention, ffn
        Settings of the two halves of a block.
    norm_eps
        Added to the mean square in RMSNorm, above 0.
    tie_embeddings
        Use the embedding table as the output head as well.
    init_std
        Standard deviation of every initial matrix, above 0.
    residual_dropout
        Share of each branch's output that training sets to 0 before it is added to the residual
        stream, at least 0 and below 1.
    """

    vocab_size: int = Field(ge=1)
    width: int = Field(ge=1)
    num_layers: int = Field(ge=1)
    max_length: int = Field(ge=1)
    attention: AttentionConfig
    ffn: FeedForwardConfig
    norm_eps: float = Field(default=1e-5, gt=0.0, allow_inf_nan=False)
    tie_embeddings: bool = True
    init_std: float = Field(default=0.02, gt=0.0, allow_inf_nan=False)
    residual_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        self.attention.width_per_head(self.width)
        return self


def matrix_shapes(config: ModelConfig) -> list[Shape]:
    """Rows and columns of every matrix inside the blocks, all experts included.

    Parameters
    ----------
    config
        Settings of the model.
    """
    width, attention = config.width, config.attention
    in_ffn = config.ffn.matrix_shapes(width)
    layers = range(config.num_layers)
    return [shape for i in layers for shape in (*attention.matrix_shapes(width, i), *in_ffn)]


def num_parameters(config: ModelConfig) -> int:
    """Count N, the non-embedding parameters that scaling laws speak of.

    Parameters
    ----------
    config
        Settings of the model.

    Returns
    -------
    int
        Weights of the matrices inside the blocks that one token goes through.

    References
    ----------
    arXiv 2501.02423, Table 3; arXiv 2411.02265, section 2.3.1.
    """
    in_blocks = sum(rows * columns for rows, columns in matrix_shapes(config))
    return in_blocks - config.num_layers * _num_idle(config)


def num_stored_parameters(config: ModelConfig) -> int:
    """Count every parameter of the model: embedding, blocks, norm gains and an untied head.

    Parameters
    ----------
    config
        Settings of the model.
    """
    in_blocks = sum(rows * columns for rows, columns in matrix_shapes(config))
    others = config.attention.num_other(config.width) + config.ffn.num_other(config.width)
    gains = (2 * config.num_layers + 1) * config.width
    tables = 1 if config.tie_embeddings else 2
    table = tables * config.vocab_size * config.width
    return in_blocks + config.num_layers * others + gains + table


def num_active_parameters(config: ModelConfig) -> int:
    """Count the parameters that one token uses, embedding, router, gains and head included.

    Parameters
    ----------
    config
        Settings of the model.
    """
    return num_stored_parameters(config) - config.num_layers * _num_idle(config)


def _num_idle(config: ModelConfig) -> int:
    """Weights of one layer's experts that a token does not go through."""
    ffn, width = config.ffn, config.width
    stored = sum(rows * columns for rows, columns in ffn.matrix_shapes(width))
    return stored - sum(rows * columns for rows, columns in ffn.active_shapes(width))
