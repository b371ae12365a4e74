"""One rope key for the rotating keys of several heads and layers.

Pair (i, i + R/2) of a rotating key is a complex number z that turns by exp(i theta t).
Complex-linear maps commute with the turn, so keys of about the same wavelength can share one
complex number

    k = w^H z        z ~ f k        query of k: sum of conj(f) q

with w the first principal component of these keys, each weighted by the energy of its queries
(the idea of RoRoPE and FreqFold, arXiv 2502.07864, with complex weights). A key that has to turn
at a wavelength which is a little off loses all but the mean rho of exp(-i delta distance) over the
distances that its heads look at; rho is folded into the query.

What is left of the keys no longer turns (partial rope, arXiv 2502.14837): exp(-i theta distance)
becomes a constant, its mean over the same distances, which is folded into the query as well. So
slow pairs keep all of their keys, and fast ones fade.
"""

# Shapes: D model width, H query heads, G key-value heads, P = R/2 pairs of rotating features,
# J pairs of the new rope key, M keys that share one of them, T distances

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TINY = 1e-12  # the least that counts as energy


@dataclass(frozen=True, kw_only=True)
class RotatingKeys:
    """Keys of one layer that turn with the position, double precision.

    Parameters
    ----------
    weight
        Their prediction from the input that is shared, shape (G, R, D).
    energy
        Mean square of the query of every pair, weighted by what its scores are worth, shape (H, P).
    distance
        How much each head looks 0, 1, 2, … tokens back, adding up to 1; shape (H, T).
    pair_angles
        Turn of each pair from one token to the next, shape (P,).
    """

    weight: Tensor
    energy: Tensor
    distance: Tensor
    pair_angles: Tensor

    def mean_turn(self, angle_P: Tensor) -> Tensor:
        """Mean of exp(-i angle distance) over what each head looks at, shape (H, P)."""
        distance_T = torch.arange(self.distance.shape[1], dtype=torch.float64)
        turn_TP = torch.exp(-1j * distance_T[:, None] * angle_P)
        return self.distance.to(turn_TP.dtype) @ turn_TP

    def complex_rows(self) -> Tensor:
        """The prediction as complex numbers, shape (G, P, D)."""
        real_GPD, imaginary_GPD = self.weight.chunk(2, dim=1)
        return torch.complex(real_GPD, imaginary_GPD)


class SharedRopeKey:
    """A rope key, how to ask it, and what it leaves.

    Parameters
    ----------
    layers
        Keys that share it.
    input_DD
        Second moments of the input.
    width
        Features R' of the rope key, even.
    rope_base
        Base of its wavelengths.

    Attributes
    ----------
    weight_RD
        The rope key from the input; every feature has mean square 1.
    error
        Share of the weighted scores of these keys that is lost because some turn at another
        wavelength or not at all.
    """

    def __init__(
        self, layers: list[RotatingKeys], input_DD: Tensor, width: int, rope_base: float
    ) -> None:
        self._layers = layers
        self._keys_GPD = [layer.complex_rows() for layer in layers]
        angle_J = angles(width, rope_base)
        self._pair_P = [
            (layer.pair_angles.log()[:, None] - angle_J.log()).abs().argmin(1) for layer in layers
        ]
        self._rho_HP = [
            layer.mean_turn(layer.pair_angles - angle_J[pair_P])
            for layer, pair_P in zip(layers, self._pair_P, strict=True)
        ]
        self._key_JD, self._factor_GP = self._components(len(angle_J), input_DD)
        self.weight_RD = torch.cat((self._key_JD.real, self._key_JD.imag))
        self.error = self._lost(input_DD)

    def left_over(self, number: int) -> Tensor:
        """What it does not hold of the keys of a layer, shape (G, R, D)."""
        held_GPD = self._factor_GP[number][..., None] * self._key_JD[self._pair_P[number]]
        left_GPD = self._keys_GPD[number] - held_GPD
        return torch.cat((left_GPD.real, left_GPD.imag), dim=1)

    def rope_query(self, number: int) -> Tensor:
        """Queries of the rope key from those of a layer's rotating keys, shape (H, R', R)."""
        rho_HP, pair_P = self._rho_HP[number], self._pair_P[number]
        factor_HP = by_query_head(self._factor_GP[number], len(rho_HP))
        map_HJP = rho_HP.new_zeros(len(rho_HP), len(self._key_JD), len(pair_P))
        map_HJP[:, pair_P, torch.arange(len(pair_P))] = (rho_HP * factor_HP).conj()
        return _real_map(map_HJP)

    def resting_query(self, number: int) -> Tensor:
        """Queries of what is left over from the same, shape (H, R, R)."""
        layer = self._layers[number]
        return _real_map(torch.diag_embed(layer.mean_turn(layer.pair_angles).conj()))

    def _components(self, num_pairs: int, input_DD: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Rope key as complex rows (J, D), and the factors f of every layer's keys (G, P)."""
        energy_GP = [
            by_key_head(layer.energy * rho_HP.abs().square(), len(keys_GPD))
            for layer, rho_HP, keys_GPD in zip(
                self._layers, self._rho_HP, self._keys_GPD, strict=True
            )
        ]
        factor_GP = [torch.zeros_like(keys_GPD[..., 0]) for keys_GPD in self._keys_GPD]
        row_JD = self._keys_GPD[0].new_zeros(num_pairs, len(input_DD))
        for pair in range(num_pairs):
            places = [(pair_P == pair).nonzero().flatten() for pair_P in self._pair_P]
            key_MD = torch.cat(
                [k[:, p].flatten(0, 1) for k, p in zip(self._keys_GPD, places, strict=True)]
            )
            energy_M = torch.cat(
                [e[:, p].flatten() for e, p in zip(energy_GP, places, strict=True)]
            )
            if not len(key_MD):
                continue
            row_JD[pair], factor_M = _first_component(key_MD, energy_M, input_DD)
            sizes = [f[:, p].numel() for f, p in zip(factor_GP, places, strict=True)]
            for factor, place, part_M in zip(factor_GP, places, factor_M.split(sizes), strict=True):
                factor[:, place] = part_M.view(len(factor), len(place))
        return row_JD, factor_GP

    def _lost(self, input_DD: Tensor) -> float:
        """Weighted energy of the scores that a wrong turn loses, over that of all."""
        lost = total = 0.0
        for number, layer in enumerate(self._layers):
            num_heads = len(layer.energy)
            left_GRD = self.left_over(number)
            left_GR = ((left_GRD @ input_DD) * left_GRD).sum(-1)
            left_HP = by_query_head(left_GR.unflatten(1, (2, -1)).sum(1), num_heads)
            held_HP = 2.0 * by_query_head(self._factor_GP[number].abs().square(), num_heads)
            rest_HP = layer.mean_turn(layer.pair_angles).abs().square()
            rho_HP = self._rho_HP[number].abs().square()
            away_HP = held_HP * (1.0 - rho_HP) + left_HP * (1.0 - rest_HP)
            lost += float((layer.energy * away_HP).sum())
            total += float((layer.energy * (held_HP + left_HP)).sum())
        return lost / max(total, TINY)


def sparser_bases(rope_base: float, old_width: int, width: int) -> list[float]:
    """Bases of rope keys all of whose wavelengths are some of those of wider keys.

    Every m-th wavelength, from the shortest on, is a geometric series again: m = 1 keeps the short
    ones, a larger m reaches further.

    Parameters
    ----------
    rope_base, old_width
        Of the keys there are.
    width
        Features of the rope key.
    """
    strides = range(1, max(1, old_width // width) + 1)
    return [float(rope_base ** (stride * width / old_width)) for stride in strides]


def angles(width: int, rope_base: float) -> Tensor:
    """Turn of each pair of features from one token to the next, shape (width / 2,)."""
    exponent = torch.arange(0, width, 2, dtype=torch.float64) / width
    angle: Tensor = rope_base**-exponent
    return angle


def by_query_head(per_key_head: Tensor, num_heads: int) -> Tensor:
    """Repeat what belongs to a key-value head for the query heads of its group."""
    return per_key_head.repeat_interleave(num_heads // len(per_key_head), dim=0)


def by_key_head(per_query_head: Tensor, groups: int) -> Tensor:
    """Sum what belongs to query heads over the group of each key-value head."""
    by_group: Tensor = per_query_head.unflatten(0, (groups, -1))
    return by_group.sum(1)


def _first_component(key_MD: Tensor, energy_M: Tensor, input_DD: Tensor) -> tuple[Tensor, Tensor]:
    """Row that holds most of some keys, and the factors that restore them from it."""
    root_M = energy_M.clamp(min=TINY * float(energy_M.max().clamp(min=1.0))).sqrt()
    weighted_MD = root_M[:, None] * key_MD
    moment_MM = weighted_MD @ input_DD.to(key_MD.dtype) @ weighted_MD.mH
    value_M, vector_MM = torch.linalg.eigh(moment_MM)
    # Half of the mean square of the complex number is that of each of its two features.
    size = (value_M[-1].clamp(min=TINY) / 2).sqrt()
    row_D = vector_MM[:, -1].conj() @ weighted_MD / size
    return row_D, vector_MM[:, -1] * size / root_M


def _real_map(map_HJP: Tensor) -> Tensor:
    """The same map on real numbers, first the real parts and then the imaginary ones."""
    real, imaginary = map_HJP.real, map_HJP.imag
    upper = torch.cat((real, -imaginary), dim=-1)
    return torch.cat((upper, torch.cat((imaginary, real), dim=-1)), dim=-2)
