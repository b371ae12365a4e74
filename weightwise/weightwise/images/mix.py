"""Mixup and CutMix in fixed pairs, so that stored targets of mixed images stay valid.

Samples 2i and 2i + 1 of a batch are mixed with each other, both ways with the same share, and the
parameters come from the exclusive or of their two seeds: whoever sees the same pair draws the
same mix, on any worker. A sample whose partner is missing (the last of an odd number, or the
partner could not be decoded) stays as it is. References: Zhang et al., arXiv 1710.09412; Yun et
al., arXiv 1905.04899; the pairing is that of TinyViT's stores, arXiv 2207.10666.
"""

# Shapes: B samples, C classes or channels, S side of a view, K stored entries

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from weightwise.images.randomness import chance, generator_of, uniform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How pairs are mixed; the defaults are those of training from scratch.

    Parameters
    ----------
    mixup, cutmix
        Both parameters of the beta distribution of the share; 0 for never.
    switch_prob
        Probability of CutMix where both may happen.
    prob
        Probability that a pair is mixed at all.
    """

    mixup: float = 0.8
    cutmix: float = 1.0
    switch_prob: float = 0.5
    prob: float = 1.0

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            if not 0 <= getattr(self, name) <= 1000:
                raise ValueError(f"{name}: expected 0 to 1000, got {getattr(self, name)}")
        for name in ("switch_prob", "prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.mixup == self.cutmix == 0:
            raise ValueError("mixup: expected mixup or cutmix above 0, got none")


@dataclass(frozen=True, kw_only=True)
class PairMix:
    """What was drawn for a pair.

    Parameters
    ----------
    lam
        Share of a sample itself, as drawn.
    centre
        Row and column of CutMix's rectangle, as shares of the sides; `None` for mixup.
    """

    lam: float
    centre: tuple[float, float] | None = None

    def box(self, size: int) -> tuple[int, int, int, int]:
        """Rectangle of CutMix in a square view of side S; its ends are cut at the border.

        Parameters
        ----------
        size
            Side S in pixels.

        Returns
        -------
        tuple
            First row and column, and those behind the last ones.
        """
        assert self.centre is not None
        side = int(size * math.sqrt(1 - self.lam))
        row, column = (min(int(share * size), size - 1) - side // 2 for share in self.centre)
        return max(row, 0), max(column, 0), min(row + side, size), min(column + side, size)


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How the samples of a batch were mixed.

    Parameters
    ----------
    lam
        Share of a sample itself, float32, (B,); of its partner it is 1 - lam. For CutMix it is the
        share of the first view's pixels.
    partner
        Number of the partner in the batch, int64, (B,); a sample's own number where it has none.
    """

    lam: Tensor
    partner: Tensor

    def dense(self, target_BC: Tensor) -> Tensor:
        """Mix targets of all classes.

        Parameters
        ----------
        target_BC
            Probabilities of the unmixed samples, (B, C).

        Returns
        -------
        Tensor
            Of the same shape.
        """
        lam_B1 = self.lam.to(target_BC).unsqueeze(1)
        return lam_B1 * target_BC + (1 - lam_B1) * target_BC[self.partner]

    def sparse(self, index_BK: Tensor, value_BK: Tensor) -> tuple[Tensor, Tensor]:
        """Mix targets of K stored classes.

        A class that both samples have appears twice; its values add up. What is left of the
        probability is mixed by the caller, who has `lam` and `partner`.

        Parameters
        ----------
        index_BK, value_BK
            Classes and probabilities of the unmixed samples, (B, K).

        Returns
        -------
        tuple
            Classes and probabilities, each (B, 2K).
        """
        lam_B1 = self.lam.to(value_BK).unsqueeze(1)
        other_BK = (1 - lam_B1) * value_BK[self.partner]
        return (
            torch.cat([index_BK, index_BK[self.partner]], dim=1),
            torch.cat([lam_B1 * value_BK, other_BK], dim=1),
        )


def draw_mix(config: Mix, seed: int, other_seed: int) -> PairMix | None:
    """Draw the parameters of a pair; the order of the two does not matter.

    Parameters
    ----------
    config
        What may happen.
    seed, other_seed
        Seeds of the two samples.

    Returns
    -------
    PairMix
        Or `None` where the pair stays as it is.
    """
    rng = generator_of(seed ^ other_seed)
    if not chance(rng, config.prob):
        return None
    # `random` lies below 1, so that a probability of 1 is certain.
    switch_prob = config.switch_prob if config.mixup and config.cutmix else float(not config.mixup)
    if chance(rng, switch_prob):
        lam = float(rng.beta(config.cutmix, config.cutmix))
        return PairMix(lam=lam, centre=(uniform(rng, 0, 1), uniform(rng, 0, 1)))
    return PairMix(lam=float(rng.beta(config.mixup, config.mixup)))


def mix_pairs(
    views: Sequence[Tensor], seeds: Sequence[int], positions: Sequence[int], config: Mix
) -> Mixing:
    """Mix the pairs of a batch, in place.

    Parameters
    ----------
    views
        Images x_BCSS, one tensor a view.
    seeds
        Seed of each sample.
    positions
        Place of each sample in the planned batch, increasing; 2i and 2i + 1 are a pair. Gaps are
        samples that were left out.
    config
        How pairs are mixed.

    Returns
    -------
    Mixing
        Shares and partners.
    """
    lam_B, partner_B = torch.ones(len(seeds)), torch.arange(len(seeds))
    for a in range(len(seeds) - 1):
        b = a + 1
        if positions[a] % 2 or positions[b] != positions[a] + 1:
            continue
        drawn = draw_mix(config, seeds[a], seeds[b])
        if drawn is None:
            continue
        shares = [_mix_pair(x_BCSS, a, b, drawn) for x_BCSS in views]
        lam_B[a] = lam_B[b] = shares[0]
        partner_B[a], partner_B[b] = b, a
    return Mixing(lam=lam_B, partner=partner_B)


def _mix_pair(x_BCSS: Tensor, a: int, b: int, drawn: PairMix) -> float:
    """Mix two images; returns the share that each keeps of itself."""
    first_CSS, second_CSS = x_BCSS[a].clone(), x_BCSS[b].clone()
    if drawn.centre is None:
        x_BCSS[a] = drawn.lam * first_CSS + (1 - drawn.lam) * second_CSS
        x_BCSS[b] = drawn.lam * second_CSS + (1 - drawn.lam) * first_CSS
        return drawn.lam
    size = x_BCSS.shape[-1]
    top, left, bottom, right = drawn.box(size)
    area = (slice(None), slice(top, bottom), slice(left, right))
    x_BCSS[a][area], x_BCSS[b][area] = second_CSS[area], first_CSS[area]
    return 1 - (bottom - top) * (right - left) / size**2
