"""Which experts a token likes, from the router's logits: DeepSeek's ways beside the plain one.

Experts are chosen by their scores s, and weighted by the same scores:

    s = softmax(l)                  Hunyuan-Large; DeepSeek-V2 (arXiv 2405.04434)
    s = sigmoid(l)                  DeepSeek-V3 (arXiv 2412.19437, section 2.1.2)

A correction b of each expert may be added for the choice alone (b + s chooses, s weights), which
balances the experts without a loss. And the experts may form groups of neighbours: only those in a
token's best groups can be chosen, a group being as good as its best expert (V2) or as the sum of
its two best (V3).
"""

# Shapes: T tokens, E experts, G groups of C = E / G experts

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Literal, Self

import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.lm.attention_config import STRICT

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoringConfig:
    """How logits of a router become choices and weights.

    Parameters
    ----------
    score
        ``softmax`` over all experts, or the ``sigmoid`` of each by itself.
    is_corrected
        Every expert has a correction that is added to its score for the choice; training leaves it
        as it is.
    num_groups
        Groups G of neighbouring experts, at least 1; divides their number.
    top_groups
        Groups that a token's experts may come from, 1 to G.
    experts_per_group
        A group is as good as the sum of so many of its best experts, 1 or more.
    scale
        Factor of the weights, above 0; applied after they have been divided by their sum.
    """

    score: Literal["softmax", "sigmoid"] = "softmax"
    is_corrected: bool = False
    num_groups: int = Field(default=1, ge=1)
    top_groups: int = Field(default=1, ge=1)
    experts_per_group: int = Field(default=1, ge=1)
    scale: float = Field(default=1.0, gt=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        if self.top_groups > self.num_groups:
            raise ValueError(
                f"top_groups: expected 1 to num_groups {self.num_groups}, got {self.top_groups}"
            )
        return self

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest experts of all are chosen, and weighted by their probabilities."""
        is_grouped = self.top_groups < self.num_groups
        return self.score == "softmax" and not (self.is_corrected or is_grouped) and self.scale == 1

    def check(self, num_experts: int, top_k: int) -> None:
        """Refuse groups that a layer cannot have.

        Parameters
        ----------
        num_experts
            Experts E of the layer.
        top_k
            Experts per token.

        Raises
        ------
        ValueError
            If the experts do not split into the groups, or the best groups hold too few.
        """
        if num_experts % self.num_groups:
            raise ValueError(
                f"num_groups: expected a divisor of num_experts {num_experts}, "
                f"got {self.num_groups}"
            )
        size = num_experts // self.num_groups
        if self.experts_per_group > size:
            raise ValueError(
                f"experts_per_group: expected at most the {size} of a group, "
                f"got {self.experts_per_group}"
            )
        if top_k > self.top_groups * size:
            raise ValueError(
                f"top_groups: expected groups of {size} experts that hold top_k {top_k}, "
                f"got {self.top_groups}"
            )

    def scores(self, logits_TE: Tensor) -> Tensor:
        """What experts are weighted by, shape (T, E)."""
        return logits_TE.softmax(dim=-1) if self.score == "softmax" else logits_TE.sigmoid()

    def probabilities(self, score_TE: Tensor) -> Tensor:
        """Shares of the experts that add up to 1, for the balance loss (V3, equation 19)."""
        if self.score == "softmax":
            return score_TE
        total_T1 = score_TE.sum(dim=-1, keepdim=True)
        return score_TE / total_T1.clamp_min(torch.finfo(score_TE.dtype).tiny)

    def choose(self, score_TE: Tensor, correction_E: Tensor | None, top_k: int) -> Tensor:
        """The best experts of every token.

        Parameters
        ----------
        score_TE
            From `scores`.
        correction_E
            Added for the choice; ``None`` for nothing.
        top_k
            Experts per token K.

        Returns
        -------
        Tensor
            Their numbers, best first, shape (T, K), int64.
        """
        rank_TE = score_TE.detach()
        if correction_E is not None:
            rank_TE = rank_TE + correction_E.detach()
        if self.top_groups < self.num_groups:
            rank_TGC = rank_TE.unflatten(-1, (self.num_groups, -1))
            group_TG = rank_TGC.topk(self.experts_per_group, dim=-1).values.sum(dim=-1)
            is_out_TG = torch.ones_like(group_TG, dtype=torch.bool)
            is_out_TG.scatter_(1, group_TG.topk(self.top_groups, dim=-1).indices, False)
            rank_TE = rank_TGC.masked_fill(is_out_TG.unsqueeze(-1), -inf).flatten(1)
        return rank_TE.topk(top_k, dim=-1).indices


PLAIN_SCORING = ScoringConfig()
