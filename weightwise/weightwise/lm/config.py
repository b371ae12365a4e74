"""Settings of the language model family.

One config class per kind of attention and feed-forward, told apart by ``kind``. A new kind is
a new config class here, a new module beside ``attention.py`` or ``ffn.py``, and one entry in
the dict literal of ``model.py``; existing classes stay as they are.

The parameter count that scaling laws use is the closed form

    N = layers * (4 d^2 + 3 d d_ff)

for full-width attention and SwiGLU: the matrices inside the blocks, without embeddings, head
and norm gains. It reproduces the sizes of Table 3 of arXiv 2501.02423 exactly.
"""

from __future__ import annotations

from typing import Literal, Self, TypeAlias

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

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
    """

    kind: Literal["gqa"] = "gqa"
    num_heads: int = Field(ge=1)
    num_kv_heads: int | None = Field(default=None, ge=1)
    head_width: int | None = Field(default=None, ge=2, multiple_of=2)
    rope_theta: float = Field(default=10_000.0, gt=1.0, allow_inf_nan=False)

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

    def matrix_shapes(self, width: int) -> tuple[Shape, ...]:
        """Rows and columns of query, key, value and output in one layer."""
        head_width = self.width_per_head(width)
        inner, kv_inner = self.num_heads * head_width, self.kv_heads * head_width
        return (inner, width), (kv_inner, width), (kv_inner, width), (width, inner)


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


# These become unions discriminated by ``kind`` when a second member comes.
AttentionConfig: TypeAlias = GQAConfig
FeedForwardConfig: TypeAlias = SwiGLUConfig


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

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        self.attention.width_per_head(self.width)
        return self


def matrix_shapes(config: ModelConfig) -> list[Shape]:
    """Rows and columns of every matrix inside the blocks: what `quantize_model` replaces.

    Parameters
    ----------
    config
        Settings of the model.
    """
    width = config.width
    layer = (*config.attention.matrix_shapes(width), *config.ffn.matrix_shapes(width))
    return list(layer) * config.num_layers


def num_parameters(config: ModelConfig) -> int:
    """Count N, the non-embedding parameters that scaling laws speak of.

    Parameters
    ----------
    config
        Settings of the model.

    Returns
    -------
    int
        Weights of the matrices inside the blocks.

    References
    ----------
    arXiv 2501.02423, Table 3.
    """
    return sum(rows * columns for rows, columns in matrix_shapes(config))


def num_stored_parameters(config: ModelConfig) -> int:
    """Count every parameter of the model: N, norm gains, embedding and an untied head.

    Parameters
    ----------
    config
        Settings of the model.
    """
    gains = (2 * config.num_layers + 1) * config.width
    tables = 1 if config.tie_embeddings else 2
    return num_parameters(config) + gains + tables * config.vocab_size * config.width
