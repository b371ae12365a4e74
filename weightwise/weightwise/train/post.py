"""Fine-tuning and preferences as examples that the trainer can learn from.

An example of fine-tuning is a sequence of packed chats; it weighs as much as it has targets. One
of preference training is a pair. With online pairs there are twice as many examples: number i
below P is pair i of the file, and P + i a pair of the policy's own answers to the same prompt,
sampled when the example is needed. An epoch visits each once, so both kinds come up equally
often, and what is sampled is a matter of weights, seed and step. Where all answers are equally
good the pair of the file takes the place.
"""

# Shapes: M examples of a micro-batch, P pairs, T tokens

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from weightwise.lm.decoder import Request
from weightwise.lm.generate import complete
from weightwise.lm.post.dpo import answer_logps, answer_sample, dpo_loss
from weightwise.lm.post.online import best_and_worst
from weightwise.lm.post.sft import Sample, collate, pack, sft_loss
from weightwise.lm.sampling import SamplingConfig
from weightwise.train.post_config import PreferenceConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.lm import LanguageModel, Tokenizer
    from weightwise.lm.chat import ChatTemplate
    from weightwise.lm.decoder import Continuation
    from weightwise.lm.post.dpo import Preference
    from weightwise.lm.post.online import Reward
    from weightwise.train.examples import Score
    from weightwise.train.post_config import OnlineConfig
    from weightwise.train.recipe import Recipe
    from weightwise.train.samples import PreparedSamples, SampleStore


class SFTExamples:
    """Sequences of packed chats.

    Parameters
    ----------
    store
        Chats.
    length
        Tokens of a sequence.
    """

    def __init__(self, store: SampleStore, length: int) -> None:
        self._store = store
        self._packs = pack(store.length_N - 1, length)
        self._weights = np.array([store.num_targets_N[members].sum() for members in self._packs])
        self.count = len(self._packs)

    def weight(self, index_M: NDArray[np.int64]) -> float:
        """Number of learnt tokens."""
        return float(self._weights[index_M].sum())

    def measure(self, score: Score, index_M: NDArray[np.int64]) -> dict[str, Tensor]:
        """``loss``: mean cross-entropy of the learnt tokens, nats per token."""
        batch = collate([[self._store.read(n) for n in self._packs[i]] for i in index_M])
        return {"loss": sft_loss(score(batch.tokens, batch.segments), batch.targets)}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers, and what the reference thinks of them.

    Parameters
    ----------
    chosen, rejected
        Samples whose answer is learnt.
    reference_2
        Log-probabilities of both, if known beforehand.
    """

    chosen: Sample
    rejected: Sample
    reference_2: Tensor | None


class OnlinePairs:
    """Makes pairs of the policy's own answers.

    Parameters
    ----------
    preferences
        Prompts to answer.
    policy
        The model that is trained.
    tokenizer, template
        Its tokenizer and chat format.
    reward
        What is better.
    config
        How to sample.
    length
        Longest sequence.
    """

    def __init__(
        self,
        preferences: Sequence[Preference],
        policy: LanguageModel,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        reward: Reward,
        config: OnlineConfig,
        length: int,
    ) -> None:
        self._prompts = [preference.prompt for preference in preferences]
        self._policy = policy
        self._tokenizer = tokenizer
        self._template = template
        self._reward = reward
        self._config = config
        self._length = length

    def sample(self, numbers: Sequence[int]) -> list[Pair | None]:
        """Answer prompts and pair the best with the worst answer to each.

        Seeds come from torch's default generator. ``None`` stands where all answers are equally
        good or the prompt leaves no room for any.
        """
        requests = {number: self._requests(number) for number in numbers}
        asked = [request for group in requests.values() for request in group]
        found = iter(complete(self._policy, asked, tokenizer=self._tokenizer))
        answers = {number: list(islice(found, len(group))) for number, group in requests.items()}
        return [self._pair(number, answers[number]) for number in numbers]

    def _requests(self, number: int) -> list[Request]:
        config, prompt = self._config, self._template.encode(self._prompts[number])
        seeds = torch.randint(2**62, (config.num_answers,)).tolist()
        room = min(config.max_new_tokens, self._length - len(prompt))
        if room < 1:
            return []
        return [
            Request(
                prompt=prompt,
                max_new_tokens=room,
                sampling=SamplingConfig(temperature=config.temperature, top_p=config.top_p),
                seed=seed,
                stop_ids=frozenset(self._template.stop_ids),
            )
            for seed in seeds
        ]

    def _pair(self, number: int, answers: Sequence[Continuation]) -> Pair | None:
        prompt = self._prompts[number]
        found = best_and_worst([float(self._reward(prompt, one.text)) for one in answers])
        if found is None:
            return None
        chosen, rejected = (
            answer_sample(list(answers[place].request.prompt), answers[place].tokens)
            for place in found
        )
        return Pair(chosen=chosen, rejected=rejected, reference_2=None)


class DPOExamples:
    """Pairs of answers.

    Parameters
    ----------
    store
        Two samples a pair, the chosen answer first.
    config
        Constants of the loss.
    reference_P2
        Log-probabilities of the answers by the reference; ``None`` asks ``reference`` each time.
    reference
        Scores by the reference, needed without ``reference_P2`` and for online pairs.
    online
        Makes pairs of the policy's own answers.
    """

    def __init__(
        self,
        store: SampleStore,
        config: PreferenceConfig,
        reference_P2: Tensor | None,
        reference: Score | None = None,
        online: OnlinePairs | None = None,
    ) -> None:
        self._store = store
        self._config = config
        self._reference_P2 = reference_P2
        self._reference = reference
        self._online = online
        self._num_pairs = len(store) // 2
        self.count = self._num_pairs * (1 if online is None else 2)

    def weight(self, index_M: NDArray[np.int64]) -> float:
        """Number of pairs."""
        return len(index_M)

    def measure(self, score: Score, index_M: NDArray[np.int64]) -> dict[str, Tensor]:
        """See `weightwise.lm.post.dpo.dpo_loss`; and ``online``, the share of the policy's own."""
        own = self._own_pairs(index_M)
        pairs = [
            own.get(index) or self._of_file(index % self._num_pairs) for index in index_M.tolist()
        ]
        # Before the policy: passes of other weights leave no gradient, nor what routers decided.
        reference_M2 = self._reference_logps(pairs)
        policy_M2 = pair_logps(score, pairs)
        length_M = torch.tensor([float(pair.chosen.num_targets) for pair in pairs])
        means = dpo_loss(
            policy_M2,
            reference_M2.to(policy_M2),
            length_M.to(policy_M2),
            beta=self._config.beta,
            nll_coef=self._config.nll_coef,
        )
        if self._online is not None:
            share = np.mean([index in own for index in index_M.tolist()])
            means["online"] = policy_M2.new_tensor(share)
        return means

    def _own_pairs(self, index_M: NDArray[np.int64]) -> dict[int, Pair]:
        """Pairs of the policy's own answers, where an index asks for one and it came about."""
        asked = [index for index in index_M.tolist() if index >= self._num_pairs]
        if self._online is None or not asked:
            return {}
        found = self._online.sample([index - self._num_pairs for index in asked])
        return {index: pair for index, pair in zip(asked, found, strict=True) if pair is not None}

    def _of_file(self, number: int) -> Pair:
        known = None if self._reference_P2 is None else self._reference_P2[number]
        return Pair(
            chosen=self._store.read(2 * number),
            rejected=self._store.read(2 * number + 1),
            reference_2=known,
        )

    @torch.no_grad()
    def _reference_logps(self, pairs: Sequence[Pair]) -> Tensor:
        new = [pair for pair in pairs if pair.reference_2 is None]
        computed: list[Tensor] = []
        if new:
            assert self._reference is not None
            computed = list(pair_logps(self._reference, new).cpu())
        rows = iter(computed)
        return torch.stack(
            [next(rows) if pair.reference_2 is None else pair.reference_2 for pair in pairs]
        )


def pair_logps(score: Score, pairs: Sequence[Pair]) -> Tensor:
    """Log-probabilities of the chosen and rejected answers, shape (M, 2)."""
    samples = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    batch = collate([[sample] for sample in samples])
    # Causal attention keeps what fills a row from the tokens before it; no segments needed.
    return answer_logps(score(batch.tokens), batch.targets).view(2, -1).T


def count_examples(recipe: Recipe, data: PreparedSamples) -> int:
    """Examples of an epoch of fine-tuning or preference training."""
    if isinstance(recipe.data, PreferenceConfig):
        return len(data.train) // 2 * (1 if recipe.data.online is None else 2)
    return len(pack(data.train.length_N - 1, recipe.train.seq_length))
