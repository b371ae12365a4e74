"""Models of one shape and other sizes: from a number of weights to settings, and what they cost.

A family keeps the proportions of a base model: layers, width and inner width grow by one factor
s, weights by s^3; the width of a head, the number of key and value heads, experts and everything
else stay. Layers come in groups that share keys and values, heads in multiples of the key and
value heads; the inner width then takes up what these steps leave open, so that the size is met.

Training a token costs 6 N for the matrices; the parts of `weightwise.lm.flops` that are no part of
N grow more slowly, attention and routers by s^2, the head by s.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, floor, log
from typing import TYPE_CHECKING

import numpy as np

from weightwise.lm.flops import training_flop
from weightwise.lm.parameters import num_parameters

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from weightwise.lm.config import ModelConfig

    Floats = NDArray[np.float64]

# Proportions may leave those of the base by this factor, where whole numbers ask for it.
SLACK = 1.25
LARGEST_STEP = 64  # of the inner width; powers of two suit the hardware
MOST_OFF = 0.05


@dataclass(frozen=True, kw_only=True)
class ShapeCost:
    """Training compute of all models of one shape, exact at the base.

    Parameters
    ----------
    base
        Model whose proportions count.
    seq_length
        Tokens of a sequence.
    is_recomputed
        Activations are computed again in the backward pass.
    """

    base: ModelConfig
    seq_length: int
    is_recomputed: bool = False

    def flop(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Floats:
        """C in FLOP of N activated parameters and D tokens."""
        size = np.asarray(num_params, np.float64)
        own, head = num_parameters(self.base), self.base.width * self.base.vocab_size
        factor = 8.0 if self.is_recomputed else 6.0
        whole = training_flop(self.base, self.seq_length, is_recomputed=self.is_recomputed)
        scale = np.cbrt(size / own)
        planes = (whole - factor * (own + head)) * scale**2
        each: Floats = factor * (size + head * scale) + planes
        return each * np.asarray(num_tokens, np.float64)


def scale_model(base: ModelConfig, num_params: float) -> ModelConfig:
    """Settings of a model in the shape of another, with about so many weights.

    Parameters
    ----------
    base
        Model whose proportions are kept.
    num_params
        Activated parameters N without embeddings, see `weightwise.lm.num_parameters`.

    Returns
    -------
    ModelConfig
        Within 5 % of that size, most often far closer.

    Raises
    ------
    ValueError
        If no model of this shape is that small: its heads and layers come in steps. If its layers
        are not all alike.
    """
    scale = float(np.cbrt(num_params / num_parameters(base)))
    attention = base.attention
    if base.attention_of or base.first_ffn is not None or not attention.is_uniform:
        raise ValueError(
            "num_params: expected a model whose groups of layers are all alike, without "
            "attention_of, first_ffn, group_sizes and keep_ends"
        )
    found = [
        candidate
        for layers in _around(base.num_layers * scale, attention.share_factor)
        for heads in _around(attention.num_heads * scale, attention.heads_step)
        if (candidate := _with_hidden(base, layers, heads, num_params)) is not None
    ]
    if not found:
        raise ValueError(
            f"num_params: expected a size that whole layers and heads of this shape can make, "
            f"got {num_params:.3g}"
        )
    return min(found, key=lambda one: _distance(one, base, scale, num_params))


def _around(ideal: float, step: int) -> range:
    """Multiples of a step near a number, at least one of them."""
    low = max(1, floor(ideal / SLACK / step))
    high = max(low, ceil(ideal * SLACK / step))
    return range(low * step, high * step + 1, step)


def _with_hidden(
    base: ModelConfig, layers: int, heads: int, num_params: float
) -> ModelConfig | None:
    """The model of these layers and heads whose inner width meets the size; None without one."""
    attention = base.attention
    model = replace(
        base,
        num_layers=layers,
        width=round(heads * base.width / attention.num_heads),
        attention=replace(attention, num_heads=heads),
    )
    one, two = (_size(replace(model, ffn=replace(base.ffn, hidden=hidden))) for hidden in (1, 2))
    step = min(LARGEST_STEP, base.ffn.hidden & -base.ffn.hidden)
    hidden = step * max(1, round((num_params - 2 * one + two) / (two - one) / step))
    model = replace(model, ffn=replace(base.ffn, hidden=hidden))
    return model if abs(log(_size(model) / num_params)) <= log(1 + MOST_OFF) else None


def _size(model: ModelConfig) -> int:
    """N, counted in one group of layers: all groups are alike."""
    group = model.attention.share_factor
    return num_parameters(replace(model, num_layers=group)) * model.num_layers // group


def _distance(model: ModelConfig, base: ModelConfig, scale: float, num_params: float) -> float:
    """How far proportions and size are from what was asked."""
    pairs = (
        (model.num_layers, base.num_layers * scale),
        (model.width, base.width * scale),
        (model.ffn.hidden, base.ffn.hidden * scale),
    )
    off = abs(log(_size(model) / num_params))
    return 10 * off + sum(abs(log(got / wanted)) for got, wanted in pairs)
