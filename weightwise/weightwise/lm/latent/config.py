"""Settings of latent attention: MLA, CLLA and CLLA with a quantised cache.

One class describes them all (sheet CLLA, 3.2 and 3.3). With ``share_factor`` 1 and no codes it is
multi-head latent attention (arXiv 2405.04434), with 2 the proposed form of cross-layer latent
attention (arXiv 2410.15252), and with ``codes`` what the cache keeps is quantised. The proposed
defaults follow DeepSeek-V2: latents of 4 heads' width, rotary keys of half a head's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.lm.attention_config import STRICT, Shape, SharingConfig
from weightwise.lm.rope import ntk_base
from weightwise.lm.rope_scaling import AnyRopeScaling  # noqa: TC001 (pydantic reads it)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CodeConfig:
    """How a tensor is stored in few bits.

    Parameters
    ----------
    bits
        Of one code.
    group_width
        Neighbouring features of one token that share a scale.
    is_symmetric
        Codes around 0 with a scale; otherwise from the smallest value on, which is stored too.
    scale_rule
        The scale that just spans the ``range`` of a group, or of several close to it the one with
        the least squared ``error``.
    """

    bits: Literal[2, 3, 4, 8] = 4
    group_width: Literal[16, 32, 64, 128] = 32
    is_symmetric: bool = True
    scale_rule: Literal["range", "error"] = "error"


def _known_codes(given: Any) -> Any:
    """Refuse what is neither a word that has a meaning nor a table."""
    if not isinstance(given, dict | CodeConfig) and given not in ("same", "plain"):
        raise ValueError(f"expected 'same', 'plain' or a table of codes, got {given!r}")
    return given


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LatentConfig(SharingConfig):
    """Attention over latents that groups of layers share.

    Parameters
    ----------
    share_factor, group_sizes, keep_ends
        Layers that share latents, see `weightwise.lm.attention_config.SharingConfig`.
    kind
        Tells this class from other kinds of attention.
    num_heads
        Heads, at least 1.
    head_width
        Features d_k of a query and key head without the rotary ones. ``None`` means
        ``width / num_heads``.
    value_width
        Features d_v of a value head. ``None`` means d_k.
    latent_width
        Features d_c of a latent. ``None`` means 4 d_k.
    rope_width
        Features d_R of the rotary key, even; all heads share it. 0 knows no positions. ``None``
        means d_k / 2.
    query_latent_width
        Width d_q of a latent that queries come from; ``None`` for one matrix.
    rope_theta, rope_alpha, rope_scaling
        As in `weightwise.lm.GQAConfig`, for d_R features.
    score_factor
        Factor of all scores beside 1 / sqrt(d_k + d_R), above 0, as DeepSeek has for long texts.
    share_up
        Up-projections of the leader for all layers of the group.
    latent_norm
        RMSNorm of latents: by the ``leader`` before they are kept, in every ``layer`` with gains
        of its own after they are read, or ``none``.
    rope_key
        The ``leader`` gives the rotary key, or each ``layer`` has and keeps its own.
    query_norm
        RMSNorm over the features of every query head, before the rotation.
    norm_eps
        Added to the mean square in these norms, above 0.
    latent_grad
        The layers' gradients of a latent and rotary key are added up (``sum``), or divided by
        the layers of the group as well (``mean``).
    dropout
        Share of attention weights that training sets to 0, at least 0 and below 1.
    codes
        How latents are kept; ``None`` keeps them as they are.
    rope_codes
        How rotary keys are kept: the ``same`` way, ``plain``, or in codes of their own.
    group_bits
        Bits of the codes of each group of layers in turn, 16 for a group that is kept plain.
        ``None`` means ``codes.bits`` for all.
    quantize_from
        Share of the training steps, 0 to 1, after which training sees quantised latents; 1 means
        that only the trained model does. Evaluation and the cache always do.
    rotate_latent
        A fixed Hadamard rotation of latents before they are quantised. The up-projections see
        rotated latents, so it costs nothing elsewhere.
    outer_scale
        What is kept is divided by scales of its features first, which are found from data.
    """

    kind: Literal["latent"] = "latent"
    num_heads: int = Field(ge=1)
    head_width: int | None = Field(default=None, ge=1)
    value_width: int | None = Field(default=None, ge=1)
    latent_width: int | None = Field(default=None, ge=1)
    rope_width: int | None = Field(default=None, ge=0, multiple_of=2)
    query_latent_width: int | None = Field(default=None, ge=1)
    rope_theta: float = Field(default=10_000.0, gt=1.0, allow_inf_nan=False)
    rope_alpha: float = Field(default=1.0, ge=1.0, allow_inf_nan=False)
    rope_scaling: AnyRopeScaling | None = None
    score_factor: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)
    share_up: bool = False
    latent_norm: Literal["leader", "layer", "none"] = "leader"
    rope_key: Literal["leader", "layer"] = "leader"
    query_norm: bool = False
    norm_eps: float = Field(default=1e-6, gt=0.0, allow_inf_nan=False)
    latent_grad: Literal["sum", "mean"] = "sum"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    codes: CodeConfig | None = None
    rope_codes: Annotated[CodeConfig | Literal["same", "plain"], BeforeValidator(_known_codes)] = (
        "same"
    )
    group_bits: tuple[Literal[2, 3, 4, 8, 16], ...] | None = None
    quantize_from: float = Field(default=0.0, ge=0.0, le=1.0)
    rotate_latent: bool = False
    outer_scale: bool = False

    @model_validator(mode="after")
    def _check_codes(self) -> Self:
        if self.codes is None and self.group_bits is not None:
            raise ValueError("group_bits: expected none without codes")
        if self.outer_scale and self.latent_norm == "layer":
            raise ValueError(
                "outer_scale: expected latent_norm 'leader' or 'none', because scales before a "
                "norm of each layer are not the same as behind it"
            )
        return self

    @property
    def stored_rope_codes(self) -> CodeConfig | None:
        """How rotary keys are kept; ``None`` for plain ones."""
        if isinstance(self.rope_codes, CodeConfig):
            return self.rope_codes
        return self.codes if self.rope_codes == "same" else None

    @property
    def is_quantized(self) -> bool:
        """Whether any of what is kept is in codes."""
        return self.codes is not None or self.stored_rope_codes is not None

    @property
    def summary(self) -> str:
        """Heads in words."""
        return f"{self.num_heads} heads over latents"

    @property
    def heads_step(self) -> int:
        """Number that the heads of a larger or smaller model are a multiple of."""
        return 1

    def width_per_head(self, width: int) -> int:
        """Features d_k in a model of this width.

        Raises
        ------
        ValueError
            If ``head_width`` is left open and the width does not split into heads.
        """
        if self.head_width is not None:
            return self.head_width
        if width % self.num_heads:
            raise ValueError(
                f"width: expected a multiple of num_heads {self.num_heads} (or set head_width), "
                f"got {width}"
            )
        return width // self.num_heads

    def resolved(self, width: int) -> Self:
        """The same settings with all widths filled in.

        Parameters
        ----------
        width
            Model width d.

        Raises
        ------
        ValueError
            If a width that is left open does not follow from it.
        """
        head = self.width_per_head(width)
        if self.rope_width is None and head % 4:
            raise ValueError(
                f"rope_width: expected an even number for heads of {head} features, got none"
            )
        if self.rope_width == 0 and self.rope_key == "layer":
            raise ValueError("rope_key: expected 'leader' with rope_width 0, got 'layer'")
        return replace(
            self,
            head_width=head,
            value_width=head if self.value_width is None else self.value_width,
            latent_width=4 * head if self.latent_width is None else self.latent_width,
            rope_width=head // 2 if self.rope_width is None else self.rope_width,
        )

    def of_group(self, index: int, num_groups: int, width: int) -> Self:
        """Settings of one group of layers, with its own bits and all widths filled in.

        Parameters
        ----------
        index, num_groups
            Which of how many neighbouring groups with these settings.
        width
            Model width d.

        Raises
        ------
        ValueError
            If ``group_bits`` are for another number of groups, or see `resolved`.
        """
        one = self.resolved(width)
        if self.group_bits is None:
            return one
        if len(self.group_bits) != num_groups:
            raise ValueError(
                f"group_bits: expected a number for each of {num_groups} groups of layers, "
                f"got {len(self.group_bits)}"
            )
        assert self.codes is not None
        bits = self.group_bits[index]
        if bits == 16:
            return replace(one, group_bits=None, codes=None)
        return replace(one, group_bits=None, codes=replace(self.codes, bits=bits))

    def rope_features(self, width: int) -> int:
        """Features per head that are rotated."""
        return self.widths(width)[3]

    def rope_base(self, width: int) -> float:
        """Base of the rotary wavelengths, with the NTK factor in a model of this width."""
        return ntk_base(self.rope_alpha, self.rope_features(width), self.rope_theta)

    def widths(self, width: int) -> tuple[int, int, int, int]:
        """Features d_k, d_v, d_c and d_R in a model of this width."""
        one = self.resolved(width)
        found = one.head_width, one.value_width, one.latent_width, one.rope_width
        assert None not in found
        return found  # type: ignore[return-value]

    def matrix_shapes(self, width: int, is_leader: bool) -> tuple[Shape, ...]:
        """Rows and columns of the matrices of one layer, in the order of their use."""
        key, value, latent, rope = self.widths(width)
        heads, query_latent = self.num_heads, self.query_latent_width
        queries: tuple[Shape, ...] = ((heads * (key + rope), width),)
        if query_latent is not None:
            queries = (query_latent, width), (heads * (key + rope), query_latent)
        kept = latent * is_leader + rope * (is_leader or self.rope_key == "layer")
        down = ((kept, width),) if kept else ()
        up = ((heads * (key + value), latent),) if is_leader or not self.share_up else ()
        return (*queries, *down, *up, (width, heads * value))

    def num_other(self, width: int, is_leader: bool) -> int:
        """Parameters of one layer outside of its matrices: gains of norms, and scales."""
        key, _, latent, rope = self.widths(width)
        scales = (latent + rope) * (self.outer_scale and is_leader)
        has_gain = self.latent_norm == "layer" or (self.latent_norm == "leader" and is_leader)
        of_queries = (key + rope) * self.query_norm + (self.query_latent_width or 0)
        return of_queries + latent * has_gain + scales

    def features_per_pair(self, width: int) -> int:
        """Products that one query takes with one key and one value, over all heads."""
        key, value, _, rope = self.widths(width)
        return self.num_heads * (key + rope + value)
