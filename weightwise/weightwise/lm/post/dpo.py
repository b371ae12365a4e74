"""Direct preference optimization: answers that were preferred become likelier than others.

For a prompt x with a chosen answer w and a rejected one l, policy p and reference q
(Rafailov et al., arXiv 2305.18290; with the second term arXiv 2411.02265, section 3.2),

    margin = beta * (log p(w|x) / q(w|x) - log p(l|x) / q(l|x))
    loss   = -log sigmoid(margin) - nll_coef * log p(w|x) / |w|

The first term knows only differences, and often lets both answers become less likely; the second
one keeps the chosen one likely. It is per token of the answer, so that long ones do not rule
(arXiv 2407.21783, section 4.1.4). Log-probabilities are sums over the answer and its end mark.

The gradient of the first term is ``beta * sigmoid(-margin)`` times that of the difference of
log-probabilities: pairs that are in the right order by far teach little.
"""

# Shapes: P pairs, M sequences, T tokens, V vocabulary

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from weightwise.lm.chat import Message, parse_messages
from weightwise.lm.post.records import blame, read_records
from weightwise.lm.post.sft import IGNORED, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

    from weightwise.lm.chat import ChatTemplate


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to a prompt, one better than the other.

    Parameters
    ----------
    prompt
        Conversation up to a user's message.
    chosen, rejected
        The better and the worse answer, two different texts.
    reference
        The right answer, for rewards that compare with it.

    Raises
    ------
    ValueError
        If prompt or answers are something else.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    reference: str | None = None

    def __post_init__(self) -> None:
        if not self.prompt or self.prompt[-1].role != "user":
            raise ValueError("prompt: expected messages that end with a user's")
        for name in ("chosen", "rejected", "reference"):
            value: object = getattr(self, name)
            if not (isinstance(value, str) or (value is None and name == "reference")):
                raise ValueError(f"{name}: expected text, got {type(value).__name__}")
        if self.chosen == self.rejected:
            raise ValueError("rejected: expected another text than chosen")


def parse_preference(record: dict[str, Any]) -> Preference:
    """Preference from parsed JSON, ``{"prompt": ..., "chosen": "...", "rejected": "..."}``.

    Parameters
    ----------
    record
        The prompt is a text, which a user says, or a list of messages. ``reference`` may be
        there; other keys are left alone.

    Raises
    ------
    ValueError
        If a key is missing or wrong; the message names it.
    """
    prompt = record.get("prompt")
    if isinstance(prompt, str):
        messages = [Message(role="user", content=prompt)]
    else:
        try:
            messages = parse_messages(prompt)
        except ValueError as error:
            raise ValueError(f"prompt: {error}") from error
    return Preference(
        prompt=tuple(messages),
        chosen=record.get("chosen"),  # type: ignore[arg-type]  # checked by the class
        rejected=record.get("rejected"),  # type: ignore[arg-type]
        reference=record.get("reference"),
    )


def read_preferences(path: Path) -> Iterator[tuple[str, Preference]]:
    """Read preferences, one a line, see `parse_preference`.

    Parameters
    ----------
    path
        JSON lines.

    Yields
    ------
    tuple
        Place of the preference, and the preference.

    Raises
    ------
    ValueError
        If a line is no preference; the message names file, line and field.
    """
    for place, record in read_records(path):
        with blame(place):
            yield place, parse_preference(record)


def encode_pair(template: ChatTemplate, pair: Preference) -> tuple[Sample, Sample]:
    """Write both answers behind their prompt; what is learnt is the last answer with its end.

    Parameters
    ----------
    template
        Writes conversations.
    pair
        Prompt and answers.

    Returns
    -------
    tuple
        Samples with the chosen and with the rejected answer.

    Raises
    ------
    ValueError
        If the roles of the prompt are in an impossible order.
    """
    prompt = template.encode(pair.prompt)
    chosen, rejected = (
        answer_sample(prompt, template.encode_answer(text)) for text in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def answer_sample(prompt: list[int], answer: list[int]) -> Sample:
    """Prompt and answer as a sample of which the answer is learnt."""
    is_learnt = [False] * len(prompt) + [True] * len(answer)
    return Sample(ids=[*prompt, *answer], is_learnt=is_learnt)


def answer_logps(logits_MTV: Tensor, target_MT: Tensor) -> Tensor:
    """Log-probability of the targets of every sequence together.

    Parameters
    ----------
    logits_MTV
        Scores.
    target_MT
        Token ids, -100 for none.

    Returns
    -------
    Tensor
        Sums in nats, shape (M,).
    """
    target_MT = target_MT.to(logits_MTV.device)
    loss_T = F.cross_entropy(
        logits_MTV.flatten(0, 1), target_MT.flatten(), ignore_index=IGNORED, reduction="none"
    )
    total_M: Tensor = -loss_T.view(target_MT.shape).sum(dim=1)
    return total_M


def dpo_loss(
    policy_P2: Tensor,
    reference_P2: Tensor,
    length_P: Tensor,
    *,
    beta: float,
    nll_coef: float,
) -> dict[str, Tensor]:
    """Loss of some pairs, and what else there is to tell of them.

    Parameters
    ----------
    policy_P2, reference_P2
        Log-probabilities of the chosen and the rejected answer.
    length_P
        Tokens of the chosen answers.
    beta
        Strength of the pull towards the reference, above 0.
    nll_coef
        Weight of the second term, at least 0.

    Returns
    -------
    dict
        Means over the pairs: ``loss``, with a gradient; ``margin``; ``accuracy``, the share of
        positive margins; ``ranking``, the share of pairs whose chosen answer is the likelier one
        to the policy itself; ``nll`` of the chosen answers, nats per token.
    """
    gain_P2 = policy_P2 - reference_P2
    margin_P = beta * (gain_P2[:, 0] - gain_P2[:, 1])
    nll_P = -policy_P2[:, 0] / length_P
    with_gradient = (-F.logsigmoid(margin_P) + nll_coef * nll_P).mean()
    return {
        "loss": with_gradient,
        "margin": margin_P.detach().mean(),
        "accuracy": (margin_P > 0).float().mean(),
        "ranking": (policy_P2[:, 0] > policy_P2[:, 1]).float().mean(),
        "nll": nll_P.detach().mean(),
    }
