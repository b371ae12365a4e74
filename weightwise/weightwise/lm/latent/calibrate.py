"""Outer scales of what a cache keeps in codes, found from text.

Features that share a scale are rounded in the same steps, whatever they are worth. Divided by an
outer scale o of its own before and multiplied by it after, a feature may have finer or coarser
steps; the products go into the up-projections and the queries, so nothing is computed or kept in
addition (sheet CLLA, section 8).

Let s be the size of a feature, and h the sum of the squared weights of all that reads it. Its error
then counts h o^2 a^2, where the step a of a group grows with the largest s / o in it. Taking the
sum of squares for the largest square, the least sum of both is at

    o = (s^2 / h)^(1/4)

by Cauchy and Schwarz: features that are large and little read get coarse steps. As groups have a
largest element and not a sum, this and weaker and stronger exponents are tried on the text itself,
no scales at all included, and those that err least are taken.

Scales are powers of two. Dividing and multiplying by them is exact in every type, so a model that
keeps plain numbers does not change by a bit.
"""

# Shapes: B batch, T tokens, N tokens of all batches, W features: C of latents or R of rotary keys

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from weightwise.lm.attention import rotate
from weightwise.lm.config import layer_groups
from weightwise.lm.latent.codes import fake_quantize

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from weightwise.lm.attention import Pass
    from weightwise.lm.latent.attention import LatentAttention
    from weightwise.lm.latent.config import CodeConfig
    from weightwise.lm.model import LanguageModel

EXPONENTS = (1 / 8, 1 / 4, 3 / 8, 1 / 2)  # of s^2 / h
SMALLEST_SHARE = 1e-6  # of the mean size or weight: nothing is divided by zero


@dataclass(frozen=True, kw_only=True)
class ScaleReport:
    """What outer scales do for one group of layers.

    Parameters
    ----------
    group
        Its number.
    latent_error, rope_error
        Squared error of latents and of rotary keys, weighted by their readers and divided by
        their size, without and with the scales. 0 where they are kept plain.
    """

    group: int
    latent_error: tuple[float, float]
    rope_error: tuple[float, float]


@torch.no_grad()
def calibrate(model: LanguageModel, batches: Iterable[Tensor]) -> tuple[ScaleReport, ...]:
    """Find the outer scales of all groups of layers that have them, and set them.

    Parameters
    ----------
    model
        The model. What it kept in codes for earlier scales is of no use afterwards.
    batches
        Token ids, each of shape (B, T). All their latents are held in memory at once.

    Returns
    -------
    tuple
        A report for each group whose settings say ``outer_scale``.

    Raises
    ------
    ValueError
        If there is no text, or no group has outer scales.

    References
    ----------
    Sheet CLLA, sections 3.3 and 8.
    """
    groups = [
        [
            cast("LatentAttention", block.attention)
            for block in model.blocks[group.first : group.end]
        ]
        for group in layer_groups(model.config)
        if getattr(group.attention, "outer_scale", False)
    ]
    if not groups:
        raise ValueError("outer_scale: expected a group of layers with it, got none")
    kept = [_Kept(layers) for layers in groups]
    handles = [hook for one in kept for hook in one.hooks()]
    was_training = model.training
    model.eval()
    try:
        for token_BT in batches:
            model(token_BT)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return tuple(one.scale() for one in kept)


def find_scales(
    x_NW: Tensor, weight_W: Tensor, config: CodeConfig | None
) -> tuple[Tensor, tuple[float, float]]:
    """Outer scales of the features of some vectors.

    Parameters
    ----------
    x_NW
        The vectors.
    weight_W
        What the squared error of a feature counts, at least 0.
    config
        How they are kept; ``None`` for plain ones, whose scales are 1.

    Returns
    -------
    tuple
        Powers of two, shape (W,), and the error without and with them: weighted squares, divided
        by those of the vectors.
    """
    x_NW = x_NW.float()
    ones_W = torch.ones_like(weight_W, dtype=torch.float32)
    if config is None or not x_NW.numel():
        return ones_W, (0.0, 0.0)
    weight_W = _above_zero(weight_W.float())
    square_W = _above_zero(x_NW.square().mean(0))
    total = float((square_W * weight_W).sum())

    def error(scale_W: Tensor) -> float:
        seen_NW = fake_quantize(x_NW / scale_W, config) * scale_W
        return float(((seen_NW - x_NW).square().mean(0) * weight_W).sum()) / total

    plain = best = error(ones_W)
    best_W = ones_W
    for exponent in EXPONENTS:
        scale_W = (square_W / weight_W) ** exponent
        size = (square_W / scale_W.square()).mean().sqrt()  # makes the mean square about 1
        scale_W = torch.exp2(torch.log2(scale_W * size).round())
        found = error(scale_W)
        if found < best:
            best, best_W = found, scale_W
    return best_W, (plain, best)


class _Kept:
    """What goes into the codes of one group of layers, and how it is read."""

    def __init__(self, layers: Sequence[LatentAttention]) -> None:
        self.layers = layers
        self.latents: list[Tensor] = []
        self.ropes: list[Tensor] = []
        self.rope_weight_R = torch.zeros(layers[0].rope_width)

    def hooks(self) -> list[torch.utils.hooks.RemovableHandle]:
        """Look at what the layers are given."""
        return [layer.register_forward_pre_hook(self._look) for layer in self.layers]

    def scale(self) -> ScaleReport:
        """Find and set the scales."""
        leader = self.layers[0]
        if not self.latents:
            raise ValueError("batches: expected at least one with tokens, got none")
        weight_C = torch.zeros(leader.latent_width)
        for layer in self.layers[: 1 if leader.config.share_up else None]:
            for up_HXC in layer.up_projections(leader):
                weight_C += up_HXC.flatten(0, 1).float().square().sum(0).cpu()
        codes = leader.config.codes, leader.config.stored_rope_codes
        latent_NC = torch.cat(self.latents)
        rope_NR = torch.cat(self.ropes) if self.ropes else latent_NC[:, :0]
        latent_C, latent_error = find_scales(latent_NC, weight_C, codes[0])
        rope_R, rope_error = find_scales(rope_NR, self.rope_weight_R, codes[1])
        leader.outer_scale.copy_(torch.cat((latent_C, rope_R)))
        return ScaleReport(
            group=leader.group.index, latent_error=latent_error, rope_error=rope_error
        )

    def _look(self, layer: LatentAttention, given: tuple[Tensor, Pass]) -> None:
        x_BTD, current = given
        if layer.is_leader:
            latent_BTC, rope_BTR = layer.latent_and_rope(x_BTD)
            self.latents.append(latent_BTC.flatten(0, 1).float().cpu())
        elif layer.config.rope_key == "layer":
            rope_BTR = layer.rope(x_BTD)
        else:
            rope_BTR = None
        if not layer.rope_width:
            return
        table = current.rotary(layer.rope_width, layer.rope_base, layer.config.rope_scaling)
        query_BHTF = layer.queries(x_BTD).transpose(1, 2)
        query_rope_BHTR = rotate(query_BHTF[..., layer.key_width :], *table)
        self.rope_weight_R += query_rope_BHTR.float().square().mean((0, 2)).sum(0).cpu()
        if rope_BTR is not None:
            rope_BTR = rotate(rope_BTR.unsqueeze(1), *table)
            self.ropes.append(rope_BTR.flatten(0, 2).float().cpu())


def _above_zero(x_W: Tensor) -> Tensor:
    mean = float(x_W.mean())
    return x_W.clamp(min=mean * SMALLEST_SHARE) if mean > 0 else torch.ones_like(x_W)
