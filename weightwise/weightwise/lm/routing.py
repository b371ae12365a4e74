"""Which expert gets which token: mixed routing with recycling (arXiv 2411.02265, section 2.2).

The router's probabilities p = softmax(W x) are float32. A token goes to its ``top_k`` best
experts, weighted by p; several weights are divided by their sum. `weightwise.lm.scoring` has other
scores and choices. Two losses keep the router in shape: the balance loss, with m the share of
tokens that chose an expert,

    E * sum_e mean(m_e) * mean(p_e)          1 at balance for one expert, k for k

and the z-loss, the mean square of log sum exp of the logits. The shares may be those of a larger
batch (arXiv 2501.11873): then a micro-batch of one subject need not use all experts alike.

In training an expert may have a capacity. Choices beyond it are dropped or recycled: given to
experts with room, uniformly over the free places. First choices go before second ones. Random
numbers come from torch's default generator on the CPU, which activation checkpointing restores,
so that a recomputed pass routes as the first one did.
"""

# Shapes: T tokens, E experts, K experts per token, A = T K choices, first choices first

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from weightwise.lm.config import MoEConfig

# Recycling with several experts a token may offer one that the token has already; so often
# it is offered another one before its choice is dropped after all.
MOST_OFFERS = 8
LEAST_TOTAL = 1e-20  # that weights are divided by: scores of a sigmoid may all be tiny


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Where the tokens of one layer go; what there is to count is counted when asked for.

    Parameters
    ----------
    experts
        Of each token, int64, shape (T, K); E stands for a choice that was dropped.
    weights
        What an expert's answer is multiplied by, float32, shape (T, K); 0 where it was dropped.
    choices
        The router's experts, before any capacity, shape (T, K).
    logits, probabilities
        Of the router, float32, shape (T, E); probabilities add up to 1.
    """

    experts: Tensor
    weights: Tensor
    choices: Tensor
    logits: Tensor
    probabilities: Tensor

    @property
    def balance_loss(self) -> Tensor:
        """The balance loss, before its coefficient; a scalar with a gradient."""
        return self.balance_loss_of(self.chosen)

    def balance_loss_of(self, chosen_E: Tensor) -> Tensor:
        """The balance loss with shares of other tokens, and the probabilities of these.

        Parameters
        ----------
        chosen_E
            How many tokens chose each expert.
        """
        top_k = self.choices.shape[1]
        share_E = top_k * chosen_E.float() / chosen_E.sum().clamp_min(1)
        return len(share_E) * (share_E * self.probabilities.mean(dim=0)).sum()

    @property
    def z_loss(self) -> Tensor:
        """The z-loss, before its coefficient; a scalar with a gradient."""
        return self.logits.logsumexp(dim=-1).square().mean()

    @cached_property
    def chosen(self) -> Tensor:
        """Tokens that chose each expert, shape (E,)."""
        return torch.bincount(self.choices.flatten(), minlength=self._num_experts)

    @cached_property
    def load(self) -> Tensor:
        """Tokens that each expert got, shape (E,)."""
        num_experts = self._num_experts
        return torch.bincount(self.experts.flatten(), minlength=num_experts + 1)[:num_experts]

    @property
    def num_overflow(self) -> int:
        """Choices beyond a capacity."""
        return int((self.experts != self.choices).sum())

    @property
    def num_dropped(self) -> int:
        """Choices beyond a capacity that no expert answered."""
        return int((self.experts == self._num_experts).sum())

    @property
    def _num_experts(self) -> int:
        return self.logits.shape[-1]


def route(
    logits_TE: Tensor,
    config: MoEConfig,
    *,
    has_capacity: bool,
    correction_E: Tensor | None = None,
) -> Routing:
    """Give every token its experts.

    Parameters
    ----------
    logits_TE
        Scores of the router.
    config
        Rules.
    has_capacity
        Apply ``config.overflow``; False in evaluation.
    correction_E
        Added to the scores of ``config.scoring`` for the choice.

    Returns
    -------
    Routing
        Experts and weights, with what the losses need.
    """
    num_experts, scoring = config.num_experts, config.scoring
    logits_TE = logits_TE.float()
    score_TE = scoring.scores(logits_TE)
    choice_TK = scoring.choose(score_TE, correction_E, config.top_k)
    weight_TK = score_TE.gather(1, choice_TK)
    expert_TK, total_T1 = choice_TK, None
    if config.is_renormalized:
        total_T1 = weight_TK.sum(dim=-1, keepdim=True).clamp_min(LEAST_TOTAL)
    if has_capacity and config.overflow != "keep":
        expert_TK = _with_capacity(choice_TK, weight_TK.detach(), config)
        if config.weight_rule == "new":
            weight_TK = score_TE.gather(1, expert_TK.clamp_max(num_experts - 1))
        weight_TK = weight_TK * (expert_TK < num_experts)
    if total_T1 is not None:
        weight_TK = weight_TK / total_T1
    return Routing(
        experts=expert_TK,
        weights=weight_TK if scoring.scale == 1 else weight_TK * scoring.scale,
        choices=choice_TK,
        logits=logits_TE,
        probabilities=scoring.probabilities(score_TE),
    )


@torch.no_grad()
def _with_capacity(expert_TK: Tensor, prob_TK: Tensor, config: MoEConfig) -> Tensor:
    """Experts after the rule of overflow; E where nobody answers."""
    num_tokens, num_experts = len(expert_TK), config.num_experts
    capacity = config.capacity(num_tokens)
    expert_A = expert_TK.T.flatten().clone()
    is_kept_A = keep(expert_A, prob_TK.T.flatten(), capacity, config)
    over_A = (~is_kept_A).nonzero().flatten()
    load_E = torch.bincount(expert_A[is_kept_A], minlength=num_experts)
    expert_A[over_A] = num_experts
    if config.overflow == "recycle" and len(over_A):
        recycle(expert_A, over_A, capacity - load_E, num_tokens)
    return expert_A.view(config.top_k, num_tokens).T


def keep(expert_A: Tensor, prob_A: Tensor, capacity: int, config: MoEConfig) -> Tensor:
    """Tell which choices an expert has room for.

    Parameters
    ----------
    expert_A, prob_A
        Chosen expert and its probability.
    capacity
        Choices that an expert takes.
    config
        Says by which rule.

    Returns
    -------
    Tensor
        True for at most ``capacity`` choices of each expert, shape (A,).
    """
    count = len(expert_A)
    if config.keep_rule == "probability":
        rank_A = prob_A.argsort(descending=True, stable=True)
    elif config.keep_rule == "random":
        rank_A = torch.randperm(count).to(expert_A.device)
    else:
        rank_A = torch.arange(count, device=expert_A.device)
    by_expert_A = rank_A[expert_A[rank_A].argsort(stable=True)]
    num_E = torch.bincount(expert_A, minlength=config.num_experts)
    start_E = num_E.cumsum(0) - num_E
    place_A = torch.arange(count, device=expert_A.device) - start_E[expert_A[by_expert_A]]
    is_kept_A = torch.empty(count, dtype=torch.bool, device=expert_A.device)
    is_kept_A[by_expert_A] = place_A < capacity
    return is_kept_A


def recycle(expert_A: Tensor, over_A: Tensor, free_E: Tensor, num_tokens: int) -> None:
    """Give choices that found no room to free places, drawn uniformly; in place.

    Parameters
    ----------
    expert_A
        Experts, E for those that wait.
    over_A
        Indices of those that wait, in the order in which they are served.
    free_E
        Free places of each expert.
    num_tokens
        Tokens T; choice ``a`` is one of token ``a mod T``. No token gets an expert twice.
    """
    num_experts = len(free_E)
    place_P = torch.arange(num_experts, device=free_E.device).repeat_interleave(free_E)
    is_taken = torch.zeros(num_tokens, num_experts + 1, dtype=torch.bool, device=free_E.device)
    is_taken[torch.arange(len(expert_A), device=free_E.device) % num_tokens, expert_A] = True
    for _ in range(MOST_OFFERS):
        count = min(len(over_A), len(place_P))
        if count == 0:
            return
        place_P = place_P[torch.randperm(len(place_P)).to(place_P.device)]
        offer, choice = place_P[:count], over_A[:count]
        token = choice % num_tokens
        is_good = ~is_taken[token, offer] & _is_first(token * num_experts + offer)
        expert_A[choice[is_good]] = offer[is_good]
        is_taken[token[is_good], offer[is_good]] = True
        place_P = torch.cat((offer[~is_good], place_P[count:]))
        over_A = torch.cat((choice[~is_good], over_A[count:]))


def _is_first(key_N: Tensor) -> Tensor:
    """Whether a key did not come before."""
    sorted_N, order_N = key_N.sort(stable=True)
    is_new_N = torch.ones_like(sorted_N, dtype=torch.bool)
    is_new_N[1:] = sorted_N[1:] != sorted_N[:-1]
    is_first_N = torch.empty_like(is_new_N)
    is_first_N[order_N] = is_new_N
    return is_first_N
