"""Settings of the language model family.

One config class per kind of attention and feed-forward, told apart by ``kind``. A new kind is
a new config class, a new module beside ``attention.py`` or ``ffn.py``, and one entry in the dict
literal of ``model.py``; existing classes stay as they are. Attention may differ from layer to
layer; `layer_groups` says which layers belong together.
"""

from __future__ import annotations

from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.dataclasses import dataclass

from weightwise.lm.attention_config import STRICT, GQAConfig, Shape
from weightwise.lm.latent.config import LatentConfig
from weightwise.lm.scoring import PLAIN_SCORING, ScoringConfig

if TYPE_CHECKING:
    from collections.abc import Callable


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
    scoring
        How logits of the router become choices and weights, see `weightwise.lm.scoring`.
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
    balance_over
        Tokens among which the shares of the balance loss are counted: those of a ``micro_batch``
        in one process, or all of the ``batch`` up to now, in all processes.
    """

    kind: Literal["moe"] = "moe"
    hidden: int = Field(ge=1)
    num_experts: int = Field(ge=2)
    num_shared: int = Field(default=1, ge=0)
    top_k: int = Field(default=1, ge=1)
    renormalize: bool | None = None
    scoring: ScoringConfig = PLAIN_SCORING
    overflow: Literal["keep", "drop", "recycle"] = "keep"
    capacity_factor: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    min_capacity: int = Field(default=8, ge=1)
    keep_rule: Literal["position", "probability", "random"] = "position"
    weight_rule: Literal["new", "original"] = "new"
    balance_coef: float = Field(default=0.01, ge=0.0, allow_inf_nan=False)
    z_coef: float = Field(default=0.0, ge=0.0, allow_inf_nan=False)
    balance_over: Literal["micro_batch", "batch"] = "micro_batch"

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if self.top_k > self.num_experts:
            raise ValueError(
                f"top_k: expected 1 to num_experts {self.num_experts}, got {self.top_k}"
            )
        self.scoring.check(self.num_experts, self.top_k)
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
        """Parameters of one layer outside of its experts: the router and its corrections."""
        return self.num_experts * (width + self.scoring.is_corrected)

    def _shapes(self, width: int, num_experts: int) -> tuple[Shape, ...]:
        one = SwiGLUConfig(hidden=self.hidden).matrix_shapes(width)
        shared = self.num_shared * self.hidden
        common = SwiGLUConfig(hidden=shared).matrix_shapes(width) if shared else ()
        return (*common, *one * num_experts)


def _kind_or(default: str) -> Callable[[Any], str | None]:
    """Which kind of layer is meant, where settings may leave out the oldest one."""

    def kind_of(given: Any) -> str | None:
        return (
            given.get("kind", default) if isinstance(given, dict) else getattr(given, "kind", None)
        )

    return kind_of


AttentionConfig: TypeAlias = Annotated[
    Annotated[GQAConfig, Tag("gqa")] | Annotated[LatentConfig, Tag("latent")],
    Discriminator(_kind_or("gqa")),
]
FeedForwardConfig: TypeAlias = Annotated[
    Annotated[SwiGLUConfig, Tag("swiglu")] | Annotated[MoEConfig, Tag("moe")],
    Discriminator(_kind_or("swiglu")),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LayersConfig:
    """Neighbouring layers whose attention is another than that of the model.

    Parameters
    ----------
    first, end
        Layers ``first`` to ``end - 1``, counted from 0.
    attention
        Their settings. What they share they share among each other.
    """

    first: int = Field(ge=0)
    end: int = Field(ge=1)
    attention: AttentionConfig

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.first >= self.end:
            raise ValueError(f"end: expected more than first {self.first}, got {self.end}")
        return self


@plain_dataclass(frozen=True, kw_only=True)
class LayerGroup:
    """Neighbouring layers that use one cache entry; every layer is in exactly one group.

    Parameters
    ----------
    index
        Number of the group in the model, from 0.
    first, end
        Layers ``first`` to ``end - 1``; the first is the leader.
    attention
        Settings of the group, with all that depends on the model filled in.
    """

    index: int
    first: int
    end: int
    attention: GQAConfig | LatentConfig

    @property
    def num_layers(self) -> int:
        """Layers in the group."""
        return self.end - self.first


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
    first_ffn, num_first
        Feed-forward layer of the first ``num_first`` blocks, 1 to ``num_layers - 1``, such as
        the dense ones below DeepSeek's experts; ``None`` and 0 for ``ffn`` in all.
    attention_of
        Layers whose attention is another, from first to last and without overlap. Stretches of
        layers between them form groups of their own.
    norm_eps
        Added to the mean square in RMSNorm, above 0.
    tie_embeddings
        Use the embedding table as the output head as well.
    init_std
        Standard deviation of every initial matrix, above 0.
    scaled_output_init
        Draw the matrices back into the residual stream from a distribution that is narrower by
        ``sqrt(2 num_layers)``.
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
    first_ffn: FeedForwardConfig | None = None
    num_first: int = Field(default=0, ge=0)
    attention_of: tuple[LayersConfig, ...] = ()
    norm_eps: float = Field(default=1e-5, gt=0.0, allow_inf_nan=False)
    tie_embeddings: bool = True
    init_std: float = Field(default=0.02, gt=0.0, allow_inf_nan=False)
    scaled_output_init: bool = False
    residual_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check_layers(self) -> Self:
        before = 0
        for number, layers in enumerate(self.attention_of):
            if layers.first < before or layers.end > self.num_layers:
                raise ValueError(
                    f"attention_of.{number}: expected layers within {before} and num_layers "
                    f"{self.num_layers}, got {layers.first} to {layers.end}"
                )
            before = layers.end
        layer_groups(self)
        return self

    @model_validator(mode="after")
    def _check_first(self) -> Self:
        highest = 0 if self.first_ffn is None else self.num_layers - 1
        if not (self.first_ffn is not None) <= self.num_first <= highest:
            lowest = int(self.first_ffn is not None)
            raise ValueError(
                f"num_first: expected {lowest} to {highest} with this first_ffn, "
                f"got {self.num_first}"
            )
        return self

    @property
    def ffns(self) -> tuple[SwiGLUConfig | MoEConfig, ...]:
        """Settings of the feed-forward layers of all blocks."""
        first = () if self.first_ffn is None else (self.first_ffn,) * self.num_first
        return (*first, *(self.ffn,) * (self.num_layers - len(first)))

    def with_attention(
        self, change: Callable[[GQAConfig | LatentConfig], GQAConfig | LatentConfig]
    ) -> ModelConfig:
        """The same model with the attention of all layers changed.

        Parameters
        ----------
        change
            New settings for old ones.
        """
        others = tuple(replace(one, attention=change(one.attention)) for one in self.attention_of)
        return replace(self, attention=change(self.attention), attention_of=others)


def layer_groups(config: ModelConfig) -> tuple[LayerGroup, ...]:
    """Groups of layers that share what is kept of the tokens, from first to last.

    Parameters
    ----------
    config
        Settings of the model.

    Raises
    ------
    ValueError
        If the layers do not split as the settings say.
    """
    groups: list[LayerGroup] = []
    for first, end, attention in _stretches(config):
        sizes = attention.sizes(end - first)
        at = first
        for index, size in enumerate(sizes):
            own = attention.of_group(index, len(sizes), config.width)
            groups.append(LayerGroup(index=len(groups), first=at, end=at + size, attention=own))
            at += size
    return tuple(groups)


def _stretches(config: ModelConfig) -> list[tuple[int, int, GQAConfig | LatentConfig]]:
    """First layer, end and settings of all neighbouring layers with the same settings."""
    found: list[tuple[int, int, GQAConfig | LatentConfig]] = []
    before = 0
    for layers in config.attention_of:
        if before < layers.first:
            found.append((before, layers.first, config.attention))
        found.append((layers.first, layers.end, layers.attention))
        before = layers.end
    if before < config.num_layers:
        found.append((before, config.num_layers, config.attention))
    return found


def check_cut(config: ModelConfig, layer: int) -> None:
    """Refuse to cut a model into stages where layers share what is kept.

    Parameters
    ----------
    config
        Settings of the model.
    layer
        First layer of the later stage, 1 to ``num_layers - 1``.

    Raises
    ------
    ValueError
        If there is no such cut, or layers on both sides of it use one cache entry.
    """
    if not 0 < layer < config.num_layers:
        raise ValueError(f"layer: expected 1 to {config.num_layers - 1}, got {layer}")
    for group in layer_groups(config):
        if group.first < layer < group.end:
            raise ValueError(
                f"layer: expected {group.first} or {group.end}, because layers {group.first} to "
                f"{group.end - 1} use what layer {group.first} keeps, got {layer}"
            )
