"""Pairs that the policy makes itself: answers of its own, the best and the worst by a reward.

Preferences collected beforehand come from other models, so they correct mistakes that this one
does not make and pass over those that it does. Pairs of its own answers do not (arXiv 2411.02265,
section 3.2, mixes both kinds).
"""

# Shapes: B answers, T tokens, V vocabulary

from __future__ import annotations

import importlib
import math
from typing import TYPE_CHECKING, Protocol

import torch

from weightwise.lm.post.dpo import answer_logps, answer_sample
from weightwise.lm.post.sft import collate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from weightwise.lm.chat import ChatTemplate, Message
    from weightwise.lm.model import LanguageModel
    from weightwise.lm.post.dpo import Preference


class Reward(Protocol):
    """How good an answer is; only comparisons between answers to one prompt matter."""

    def __call__(self, prompt: Sequence[Message], answer: str) -> float:
        """Score of an answer, a finite number; higher is better."""


class ExactAnswer:
    """1 for the right answer and 0 for any other; blanks around it do not count.

    Parameters
    ----------
    preferences
        Prompts with their right answers: ``reference`` or, without one, the chosen answer.
    """

    def __init__(self, preferences: Iterable[Preference]) -> None:
        self._right = {
            one.prompt: one.chosen if one.reference is None else one.reference
            for one in preferences
        }

    def __call__(self, prompt: Sequence[Message], answer: str) -> float:
        """Compare with the right answer to this prompt."""
        return float(answer.strip() == self._right[tuple(prompt)].strip())


class Judge:
    """A model as a reward: how much likelier it finds an answer than the reference does.

    A policy that was trained on preferences holds a reward, up to a factor and to what depends
    on the prompt alone (Rafailov et al., arXiv 2305.18290, equation 5).

    Parameters
    ----------
    judge, reference
        Models that share the tokenizer of ``template``.
    template
        Writes conversations.
    """

    def __init__(
        self, judge: LanguageModel, reference: LanguageModel, template: ChatTemplate
    ) -> None:
        self._models = judge, reference
        self._template = template

    @torch.no_grad()
    def __call__(self, prompt: Sequence[Message], answer: str) -> float:
        """Difference of the log-probabilities."""
        ids = self._template.encode_answer(answer)
        batch = collate([[answer_sample(self._template.encode(prompt), ids)]])
        judge, reference = (
            answer_logps(model(batch.tokens.to(model.embed.weight.device)), batch.targets)
            for model in self._models
        )
        return float(judge - reference)


def import_reward(name: str) -> Reward:
    """Find a reward of the user's by ``module:function``.

    Raises
    ------
    ValueError
        If there is no such function.
    """
    module, _, function = name.partition(":")
    try:
        reward: Reward = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"data.online.reward: expected module:function, got {error}") from error
    if not callable(reward):
        raise ValueError(  # noqa: TRY004, what a user can cause is a ValueError
            f"data.online.reward: expected a function, got {name}"
        )
    return reward


def best_and_worst(rewards: Sequence[float]) -> tuple[int, int] | None:
    """Numbers of the first answer with the highest reward and the first with the lowest.

    Returns
    -------
    tuple or None
        ``None`` if all are equal, or there is none.

    Raises
    ------
    ValueError
        If a reward is not finite.
    """
    if not all(map(math.isfinite, rewards)):
        raise ValueError(f"data.online.reward: expected finite numbers, got {list(rewards)}")
    if len(set(rewards)) < 2:
        return None
    return rewards.index(max(rewards)), rewards.index(min(rewards))
