"""Keys and values of several layers from one latent: the algebra of a conversion.

A group of layers is to keep one latent c and one rope key (`weightwise.lm.latent.rope_key`), both
linear in the input x of its leader. With S = E[x x^T] over calibration text, the keys and values
of the group are predicted by y ~ B x, B = E[y x^T] S^-1, and B is replaced by a matrix of rank C.
For an error metric M the best one has the first C eigenvectors V of S^(1/2) B^T M B S^(1/2):

    c = V^T S^(-1/2) x        y ~ (B S^(1/2) V) c

This makes all features of c equally large and uncorrelated, which suits quantization. M tells what
an error costs at the output of attention, to first order: for values the output matrix of the
heads that read them, for keys the moments of their queries times the size of the values that a
wrong score lets in.

Followers see another input than their leader; what of their keys and values it does not tell is
lost for good (``sharing_error``), and so is what the rank cuts off (``rank_error``).
"""

# Shapes: D model width, H query heads, G key-value heads, R rotating and K resting features of a
# key, V features of a value, C latent width, F features of a query, I what its matrix takes in

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import torch

from weightwise.lm.latent.heads import is_linear, output_weight, query_weight, scaling_of
from weightwise.lm.latent.rope_key import (
    TINY,
    RotatingKeys,
    SharedRopeKey,
    angles,
    by_key_head,
    by_query_head,
    sparser_bases,
)

if TYPE_CHECKING:
    from torch import Tensor

    from weightwise.lm.latent.moments import GroupMoments, LayerMoments

RIDGE = 1e-5  # of the mean moment, added where a matrix is inverted


@dataclass(frozen=True, kw_only=True)
class LayerMaps:
    """New projections of one layer.

    Parameters
    ----------
    query
        Queries by head, shape (H, F, I), resting features first, then those of the rope key. The
        scale of the new scores is in them. In a layer with a query latent they take that in.
    up_key, up_value
        Keys and values by head from the latent, shapes (H, K, C) and (H, V, C).
    """

    query: Tensor
    up_key: Tensor
    up_value: Tensor


@dataclass(frozen=True, kw_only=True)
class GroupMaps:
    """New projections of a group, and what they lose.

    Parameters
    ----------
    latent, rope
        Latent and rope key from the leader's input, shapes (C, D) and (R', D).
    layers
        One by one.
    sharing_error
        Share of the weighted keys and values that no linear map of the leader's input tells.
    rope_error
        Share of the weighted scores of rotating keys that a wrong rotation loses.
    rank_error
        Share of what is predicted that the rank cuts off.
    """

    latent: Tensor
    rope: Tensor
    layers: tuple[LayerMaps, ...]
    sharing_error: float
    rope_error: float
    rank_error: float


class JointSVD:
    """The fit of one group.

    Parameters
    ----------
    moments
        What calibration text tells about its layers.
    """

    def __init__(self, moments: GroupMoments) -> None:
        self._input_DD = moments.input.double().cpu() / moments.num_tokens
        self._root_DD, self._inverse_root_DD = _roots(self._input_DD)
        inverse_DD = self._inverse_root_DD @ self._inverse_root_DD
        self._layers = [_Layer(one, inverse_DD, moments.num_tokens) for one in moments.layers]

    @property
    def key_width(self) -> int:
        """Resting features of a new key: as many as rest already, else as many as rotate.

        Where some rest already, what the rope key does not hold of the rotating ones is dropped.
        """
        first = self._layers[0]
        return first.resting_GKD.shape[1] or first.num_rotating

    def sharing_errors(self) -> list[float]:
        """The ``sharing_error`` of each layer by itself, see `GroupMaps`."""
        return [_sharing_error([layer], self._input_DD) for layer in self._layers]

    def rope_key(self, width: int, rope_base: float) -> SharedRopeKey:
        """The best rope key of so many features with such wavelengths."""
        rotating = [layer.rotating() for layer in self._layers]
        return SharedRopeKey(rotating, self._input_DD, width, rope_base)

    def rope_bases(self, width: int) -> list[float]:
        """Bases whose wavelengths are some of the keys' own, see `sparser_bases`."""
        first = self._layers[0]
        return sparser_bases(first.rope_base, first.num_rotating, width)

    def maps(self, rope: SharedRopeKey, latent_width: int) -> GroupMaps:
        """Find the projections that lose the least.

        Parameters
        ----------
        rope
            From `rope_key`.
        latent_width
            Features C of the latent, at most the model width.
        """
        layers = self._layers
        blocks = [_blocks(layer, rope, number) for number, layer in enumerate(layers)]
        weighted_DD = torch.stack(
            [_weighted(rows, metric) for pair in blocks for rows, metric in pair]
        ).sum(0)
        value_D, vector_DD = torch.linalg.eigh(self._root_DD @ weighted_DD @ self._root_DD)
        vector_DC = vector_DD.flip(1)[:, :latent_width]
        kept, total = (
            float(values.clamp(min=0).sum()) for values in (value_D.flip(0)[:latent_width], value_D)
        )
        up_DC = self._root_DD @ vector_DC
        return GroupMaps(
            latent=vector_DC.T @ self._inverse_root_DD,
            rope=rope.weight_RD,
            layers=tuple(
                _maps(layer, rope, number, blocks[number], up_DC)
                for number, layer in enumerate(layers)
            ),
            sharing_error=_sharing_error(layers, self._input_DD),
            rope_error=rope.error,
            rank_error=max(0.0, 1.0 - kept / max(total, TINY)),
        )


class _Layer:
    """One layer in double precision, with the prediction of its keys and values."""

    def __init__(self, moments: LayerMoments, inverse_DD: Tensor, num_tokens: int) -> None:
        self.part_GEE = [part.double().cpu() / num_tokens for part in moments.parts]
        shapes = [(part.shape[0], part.shape[-1]) for part in self.part_GEE]
        predicted_YD = moments.cross.double().cpu() / num_tokens @ inverse_DD
        rows = predicted_YD.split([prod(shape) for shape in shapes])
        self.rotating_GRD, self.resting_GKD, self.value_GVD = (
            part.unflatten(0, shape) for part, shape in zip(rows, shapes, strict=True)
        )
        self.query_HFF = moments.query.double().cpu() / num_tokens
        self._moments, self._num_tokens = moments, num_tokens
        self.distance_HT = moments.distance.double().cpu()
        self.rope_base = float(moments.attention.rope_base)  # type: ignore[arg-type]
        self.pair_angles = angles(self.num_rotating, self.rope_base)
        scaling = scaling_of(moments.attention)
        if scaling is not None:
            self.pair_angles = scaling.scaled(self.pair_angles, self.rope_base)
        out_HDV = output_weight(moments.attention, self.num_heads).detach().double().cpu()
        self.output_HVV = out_HDV.mT @ out_HDV
        size_H = (self.output_HVV * by_query_head(self.part_GEE[2], self.num_heads)).sum((1, 2))
        # A score is a product over the root of its features.
        self.score_H = size_H / self.query_HFF.shape[1]

    @cached_property
    def query_weight(self) -> Tensor:
        """Matrix of the queries by head, shape (H, F, I); made late, as normed ones take time."""
        return _query(self._moments, self._num_tokens)

    @property
    def num_heads(self) -> int:
        return len(self.query_HFF)

    @property
    def num_rotating(self) -> int:
        return int(self.rotating_GRD.shape[1])

    def rotating(self) -> RotatingKeys:
        """What the rope key has to know."""
        pairs = self.num_rotating // 2
        energy_HF = self.query_HFF.diagonal(dim1=1, dim2=2)
        energy_HP = energy_HF[:, :pairs] + energy_HF[:, pairs : 2 * pairs]
        return RotatingKeys(
            weight=self.rotating_GRD,
            energy=energy_HP * self.score_H[:, None],
            distance=self.distance_HT,
            pair_angles=self.pair_angles,
        )

    def parts(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Prediction, second moments and error metric of rotating keys, resting keys, values."""
        metric_HFF = self.query_HFF * self.score_H[:, None, None]
        size = self.num_rotating
        metrics = (metric_HFF[:, :size, :size], metric_HFF[:, size:, size:], self.output_HVV)
        rows = (self.rotating_GRD, self.resting_GKD, self.value_GVD)
        return [
            (row, moment, by_key_head(metric, len(row)))
            for row, moment, metric in zip(rows, self.part_GEE, metrics, strict=True)
            if row.shape[1]
        ]


def _blocks(layer: _Layer, rope: SharedRopeKey, number: int) -> list[tuple[Tensor, Tensor]]:
    """Rows (G, E, D) and metrics (G, E, E) of the new keys and values of a layer."""
    _, _, metric_GVV = layer.parts()[-1]
    value = (layer.value_GVD, metric_GVV)
    if layer.resting_GKD.shape[1]:
        rows, _, metric_GKK = layer.parts()[1]
        return [(rows, metric_GKK), value]
    turn_HRR = rope.resting_query(number)
    metric_HRR = turn_HRR @ layer.query_HFF @ turn_HRR.mT * layer.score_H[:, None, None]
    rows = rope.left_over(number)
    return [(rows, by_key_head(metric_HRR, len(rows))), value]


def _maps(
    layer: _Layer,
    rope: SharedRopeKey,
    number: int,
    blocks: list[tuple[Tensor, Tensor]],
    up_DC: Tensor,
) -> LayerMaps:
    (key_GKD, _), (value_GVD, _) = blocks
    rotating_HRI = layer.query_weight[:, : layer.num_rotating]
    resting_HKI = layer.query_weight[:, layer.num_rotating :]
    if not resting_HKI.shape[1]:
        resting_HKI = rope.resting_query(number) @ rotating_HRI
    query_HFI = torch.cat((resting_HKI, rope.rope_query(number) @ rotating_HRI), dim=1)
    scale = (query_HFI.shape[1] / layer.query_weight.shape[1]) ** 0.5
    return LayerMaps(
        query=query_HFI * scale,
        up_key=by_query_head(key_GKD @ up_DC, layer.num_heads),
        up_value=by_query_head(value_GVD @ up_DC, layer.num_heads),
    )


def _sharing_error(layers: list[_Layer], input_DD: Tensor) -> float:
    told = total = 0.0
    for layer in layers:
        for rows, moment, metric in layer.parts():
            told += float((_weighted(rows, metric) * input_DD).sum())
            total += float((metric * moment).sum())
    return max(0.0, 1.0 - told / max(total, TINY))


def _weighted(rows_GED: Tensor, metric_GEE: Tensor) -> Tensor:
    """Sum over heads of rows^T metric rows, shape (D, D)."""
    return (rows_GED.mT @ metric_GEE @ rows_GED).sum(0)


def _query(moments: LayerMoments, num_tokens: int) -> Tensor:
    """Matrix of the queries by head; where they are normed, the linear one that is closest."""
    weight_HFI = query_weight(moments.attention).detach().double().cpu()
    if is_linear(moments.attention):
        return weight_HFI
    input_DD = moments.input.double().cpu() / num_tokens
    _, inverse_root_DD = _roots(input_DD)
    query_QD = moments.query_input.double().cpu() / num_tokens
    best_HFI: Tensor = query_QD @ inverse_root_DD @ inverse_root_DD
    return best_HFI.view(weight_HFI.shape)


def _roots(moment_DD: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric square root of second moments and its inverse, both with a ridge."""
    value_D, vector_DD = torch.linalg.eigh(moment_DD)
    root_D = (value_D.clamp(min=0) + RIDGE * value_D.mean()).sqrt()
    return (vector_DD * root_D) @ vector_DD.T, (vector_DD / root_D) @ vector_DD.T
