"""Attention of any kind in one form, for conversions: heads as they are before the rotation.

Some features of a key rotate with the position and others do not:

    grouped-query  all features rotate, one key for each key-value head
    latent         a rope key of all heads rotates, the keys of the heads do not

Queries and keys that are normed are taken as they come out of the norm, which does not see the
rotation. Gains behind norm and rotation go to the query, both features of a pair with the mean of
theirs: only such a gain commutes with the rotation. An amplitude of the rotation and a factor of
all scores are taken into queries and rotating keys.
"""

# Shapes: B rows, T tokens, D model width, H query heads, G key-value heads, F features of a query,
# R rotating and K resting features of a key, V features of a value, C latent width, I features
# that the last matrix of the query takes in

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from weightwise.lm.attention import GroupedQueryAttention, rotary_table, rotate
from weightwise.lm.attention_config import GQAConfig
from weightwise.lm.config import layer_groups
from weightwise.lm.latent.attention import LatentAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from weightwise.lm.latent.config import LatentConfig
    from weightwise.lm.model import LanguageModel
    from weightwise.lm.rope_scaling import AnyRopeScaling


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Queries, keys and values of one layer before the rotation.

    Parameters
    ----------
    query
        Queries, shape (B, T, H, F); their first R features meet the rotating keys, the others the
        resting ones.
    rotating, resting, value
        Keys and values, shapes (B, T, G, …). Each number of heads divides that of the queries.
    """

    query: Tensor
    rotating: Tensor
    resting: Tensor
    value: Tensor

    @property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rotating keys, resting keys, values."""
        return self.rotating, self.resting, self.value


def attentions(model: LanguageModel) -> list[nn.Module]:
    """The attention of every layer."""
    return [cast("nn.Module", block.attention) for block in model.blocks]


@torch.no_grad()
def run(model: LanguageModel, token_BT: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """What goes into the attention of every layer and what comes out, shapes (B, T, D)."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, object], output: Tensor) -> None:
        inputs.append(arguments[0])
        outputs.append(output)

    handles = [attention.register_forward_hook(keep) for attention in attentions(model)]
    try:
        model(token_BT)
    finally:
        for handle in handles:
            handle.remove()
    return inputs, outputs


@torch.no_grad()
def heads_of(model: LanguageModel, inputs: Sequence[Tensor]) -> list[Heads]:
    """Heads of every layer; those that share keys and values have them from their leader.

    Parameters
    ----------
    model
        Where they come from.
    inputs
        What goes into the attention of every layer, shapes (B, T, D).
    """
    modules, found = attentions(model), []
    for group in layer_groups(model.config):
        leader = modules[group.first]
        for layer in range(group.first, group.end):
            own, x_BTD, leader_BTD = modules[layer], inputs[layer], inputs[group.first]
            if isinstance(own, LatentAttention):
                assert isinstance(leader, LatentAttention)
                found.append(_latent_heads(own, x_BTD, leader, leader_BTD))
            else:
                assert isinstance(own, GroupedQueryAttention)
                assert isinstance(leader, GroupedQueryAttention)
                found.append(_grouped_heads(own, x_BTD, leader, leader_BTD))
    return found


def query_weight(attention: nn.Module) -> Tensor:
    """Last matrix of the queries by head, shape (H, F, I); see `Heads` for the order of rows."""
    if isinstance(attention, LatentAttention):
        is_direct = attention.config.query_latent_width is None
        last = attention.query if is_direct else attention.query_up
        weight_HFI: Tensor = last.weight.unflatten(0, (attention.config.num_heads, -1))
        return _rotating_first(weight_HFI.mT, attention).mT
    assert isinstance(attention, GroupedQueryAttention)
    weight_HFI = attention.query.weight.unflatten(0, (-1, attention.head_width))
    return weight_HFI * _amplitude(attention)


def is_linear(attention: nn.Module) -> bool:
    """Whether queries are a product of `query_weight` with the input or a query latent."""
    if isinstance(attention, LatentAttention):
        return not attention.config.query_norm
    assert isinstance(attention, GroupedQueryAttention)
    return not attention.config.qk_norm and not attention.config.qkv_bias


def output_weight(attention: nn.Module, num_heads: int) -> Tensor:
    """Matrix behind the values by head, shape (H, D, V)."""
    assert isinstance(attention, GroupedQueryAttention | LatentAttention)
    weight_DHV: Tensor = attention.output.weight.unflatten(1, (num_heads, -1))
    return weight_DHV.transpose(0, 1)


def scaling_of(attention: nn.Module) -> AnyRopeScaling | None:
    """By which rule the wavelengths of a layer are scaled, if by any."""
    assert isinstance(attention, GroupedQueryAttention | LatentAttention)
    return attention.config.rope_scaling


def attention_weights(attention: nn.Module, heads: Heads) -> Tensor:
    """Softmax of the scores of a layer under the causal mask, shape (B, H, T, T)."""
    assert isinstance(attention, GroupedQueryAttention | LatentAttention)
    num_tokens = heads.query.shape[1]
    width = heads.rotating.shape[-1]
    position = torch.arange(num_tokens, device=heads.query.device)
    table = rotary_table(
        position, width=width, theta=attention.rope_base, scaling=scaling_of(attention)
    )
    query_BHTF = heads.query.transpose(1, 2)
    rotating, resting = query_BHTF.split([width, query_BHTF.shape[-1] - width], dim=-1)
    scores = _scores(rotate(rotating, *table), rotate(heads.rotating.transpose(1, 2), *table))
    if resting.shape[-1]:
        scores = scores + _scores(resting, heads.resting.transpose(1, 2))
    future = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=scores.device).triu(1)
    scores = scores / query_BHTF.shape[-1] ** 0.5
    weights: Tensor = scores.masked_fill(future, -torch.inf).softmax(-1)
    return weights


def _scores(query_BHTE: Tensor, key_BGTE: Tensor) -> Tensor:
    repeats = query_BHTE.shape[1] // key_BGTE.shape[1]
    return query_BHTE @ key_BGTE.repeat_interleave(repeats, dim=1).mT


def _grouped_heads(
    own: GroupedQueryAttention,
    x_BTD: Tensor,
    leader: GroupedQueryAttention,
    leader_BTD: Tensor,
) -> Heads:
    config, width = own.config, own.head_width
    query_BTHE = own.query(x_BTD).unflatten(-1, (-1, width))
    key_BTGE = leader.key(leader_BTD).unflatten(-1, (-1, width))
    if config.qk_norm:
        query_BTHE, key_BTGE = (
            F.rms_norm(one, (width,), eps=config.qk_norm_eps) for one in (query_BTHE, key_BTGE)
        )
        if config.qk_gain == "before":
            query_BTHE, key_BTGE = query_BTHE * own.query_gain, key_BTGE * own.key_gain
        else:
            gain_E = own.query_gain * own.key_gain
            query_BTHE = query_BTHE * (gain_E + gain_E.roll(width // 2)) / 2
    amplitude = _amplitude(own)
    return Heads(
        query=query_BTHE * amplitude,
        rotating=key_BTGE * amplitude,
        resting=key_BTGE[..., :0],
        value=leader.value(leader_BTD).unflatten(-1, (-1, width)),
    )


def _latent_heads(
    own: LatentAttention, x_BTD: Tensor, leader: LatentAttention, leader_BTD: Tensor
) -> Heads:
    latent_BTC, rope_BTR = leader.latent_and_rope(leader_BTD)
    up_key_HKC, up_value_HVC = own.up_projections(leader)
    return Heads(
        query=_rotating_first(own.queries(x_BTD), own),
        rotating=rope_BTR.unsqueeze(2) * _amplitude(own),
        resting=torch.einsum("btc,hkc->bthk", latent_BTC, up_key_HKC),
        value=torch.einsum("btc,hvc->bthv", latent_BTC, up_value_HVC),
    )


def _rotating_first(query: Tensor, attention: LatentAttention) -> Tensor:
    """Queries of latent attention have their resting features first, and those last."""
    resting, rotating = query.split((attention.key_width, attention.rope_width), dim=-1)
    both = torch.cat((rotating * _amplitude(attention), resting), dim=-1)
    return both * attention.config.score_factor


def _amplitude(attention: nn.Module) -> float:
    """Of rotated queries and keys, where no norm behind the rotation takes it away."""
    config = cast("GQAConfig | LatentConfig", attention.config)
    is_normed = isinstance(config, GQAConfig) and config.qk_norm and config.qk_gain == "after"
    scaling = config.rope_scaling
    return 1.0 if scaling is None or is_normed else scaling.amplitude
