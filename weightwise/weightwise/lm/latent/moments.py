"""What calibration text tells about a model that is to be converted: sums of second moments.

A conversion replaces projections by others that do almost the same on real activations. For that
it needs their second moments and not the activations: they are summed up batch by batch, and
their size depends on the model alone.
"""

# Shapes: B rows, T tokens, D model width, H query heads, G key-value heads, F features of a query,
# E features of a part of keys or values, Y those of all keys and values, Q of all queries

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from weightwise.lm.latent.heads import (
    Heads,
    attention_weights,
    attentions,
    heads_of,
    is_linear,
    run,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from weightwise.lm.config import LayerGroup
    from weightwise.lm.model import LanguageModel

ROWS_LOOKED_AT = 4  # of the first batch, for how far attention looks


@dataclass(kw_only=True)
class LayerMoments:
    """Sums over the calibration text of one layer.

    Parameters
    ----------
    attention
        The layer's attention.
    parts
        Second moments of rotating keys, resting keys and values by head, shapes (G, E, E).
    query
        Second moments of the queries by head, shape (H, F, F).
    cross
        Products of all keys and values with the leader's input, shape (Y, D).
    query_input, input
        Products of all queries with this layer's own input, shape (Q, D), and second moments of
        that, shape (D, D); empty where queries are not normed.
    distance
        How much each head looks 0, 1, 2, … tokens back, adding up to 1; shape (H, T).
    """

    attention: nn.Module
    parts: list[Tensor]
    query: Tensor
    cross: Tensor
    query_input: Tensor
    input: Tensor
    distance: Tensor

    @classmethod
    def empty(cls, attention: nn.Module, heads: Heads, width: int) -> LayerMoments:
        """Nothing counted yet of a layer with such heads."""
        zeros = heads.query.new_zeros
        num_heads, features = heads.query.shape[2:]
        shapes = [part.shape[2:] for part in heads.parts]
        has_norm = not is_linear(attention)
        return cls(
            attention=attention,
            parts=[zeros(groups, size, size) for groups, size in shapes],
            query=zeros(num_heads, features, features),
            cross=zeros(sum(groups * size for groups, size in shapes), width),
            query_input=zeros(num_heads * features if has_norm else 0, width),
            input=zeros((width, width) if has_norm else (0, 0)),
            distance=_distances(attention, heads),
        )

    def add(self, heads: Heads, own_BTD: Tensor, leader_BTD: Tensor) -> None:
        """Count tokens, with the inputs of this layer and of the leader."""
        leader_ND = leader_BTD.flatten(0, 1)
        self.query += torch.einsum("bthf,bthe->hfe", heads.query, heads.query)
        for total, part in zip(self.parts, heads.parts, strict=True):
            total += torch.einsum("btgf,btge->gfe", part, part)
        every_NY = torch.cat([part.flatten(2) for part in heads.parts], dim=-1).flatten(0, 1)
        self.cross += every_NY.T @ leader_ND
        if len(self.input):
            own_ND = own_BTD.flatten(0, 1)
            self.input += own_ND.T @ own_ND
            self.query_input += heads.query.flatten(2).flatten(0, 1).T @ own_ND


@dataclass(kw_only=True)
class GroupMoments:
    """Sums over the calibration text of layers that will share a latent.

    Parameters
    ----------
    group
        Which layers.
    layers
        One by one, the leader first.
    input
        Second moments of the leader's input, shape (D, D).
    num_tokens
        How many tokens were counted.
    """

    group: LayerGroup
    layers: list[LayerMoments]
    input: Tensor
    num_tokens: int = 0

    def add(self, heads: Sequence[Heads], inputs: Sequence[Tensor]) -> None:
        """Count the tokens of a batch, given heads and inputs of all layers of the model."""
        leader_BTD = inputs[self.group.first]
        leader_ND = leader_BTD.flatten(0, 1)
        self.input += leader_ND.T @ leader_ND
        self.num_tokens += len(leader_ND)
        for layer, moments in enumerate(self.layers, self.group.first):
            moments.add(heads[layer], inputs[layer], leader_BTD)


@torch.no_grad()
def gather(
    model: LanguageModel, groups: Sequence[LayerGroup], batches: Iterable[Tensor]
) -> list[GroupMoments]:
    """Sum up what the layers of each group do on calibration text.

    Parameters
    ----------
    model
        The model to convert, in evaluation mode and float32.
    groups
        Layers that will share a latent.
    batches
        Token ids, each of shape (B, T).

    Raises
    ------
    ValueError
        If there is no text.
    """
    found: list[GroupMoments] = []
    modules = attentions(model)
    for token_BT in batches:
        inputs, _ = run(model, token_BT)
        heads = heads_of(model, inputs)
        width = inputs[0].shape[-1]
        if not found:
            found = [
                GroupMoments(
                    group=group,
                    layers=[
                        LayerMoments.empty(modules[layer], heads[layer], width)
                        for layer in range(group.first, group.end)
                    ],
                    input=inputs[0].new_zeros(width, width),
                )
                for group in groups
            ]
        for moments in found:
            moments.add(heads, inputs)
    if not found:
        raise ValueError("calibration text: expected at least one sequence, got none")
    return found


def _distances(attention: nn.Module, heads: Heads) -> Tensor:
    """How far back each head looks in a few rows, shape (H, T)."""
    few = Heads(
        query=heads.query[:ROWS_LOOKED_AT],
        rotating=heads.rotating[:ROWS_LOOKED_AT],
        resting=heads.resting[:ROWS_LOOKED_AT],
        value=heads.value[:ROWS_LOOKED_AT],
    )
    weight_HTT = attention_weights(attention, few).mean(0)
    place_T = torch.arange(weight_HTT.shape[-1], device=weight_HTT.device)
    distance = (place_T[:, None] - place_T).clamp(min=0)
    total_HT = weight_HTT.new_zeros(len(weight_HTT), len(place_T))
    total_HT.index_add_(1, distance.flatten(), weight_HTT.flatten(1))
    return total_HT / len(place_T)
