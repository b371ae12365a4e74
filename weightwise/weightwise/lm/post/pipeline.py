"""What the stages of the instruction-data pipeline share: numbers, prompts, generators, losses.

Prompts, thresholds and counts are ours; the paper (arXiv 2411.02265, 2.1.1) states none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from weightwise.lm.chat import Message
from weightwise.lm.post.calls import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from weightwise.lm.post.calls import CallLog, Completion, Generator, Purpose, Router
    from weightwise.lm.post.contamination import EvaluationSets
    from weightwise.lm.post.instructions import Instruction
    from weightwise.lm.post.prompts import PromptBank

Stage = Literal["instructions", "evolution", "responses", "filter", "balance"]


@dataclass(frozen=True, kw_only=True)
class SynthesisConfig:
    """Numbers of the pipeline.

    Parameters
    ----------
    seed
        Of all draws.
    instructions_per_seed
        Instructions written about each seed, at least 1.
    rounds
        Rounds of evolution, at least 0.
    candidates
        Responses to each instruction, at least 1.
    min_agreement
        Share of the responses that must agree where there is one right answer, 0 to 1.
    min_score
        Lowest tier of the critic that is kept, 1 to 4.
    similarity
        Jaccard similarity of near-duplicates, above 0 and at most 1.
    pool_similarity
        The same for self-instruct: new instructions must be less similar to those there are.
    max_over_median
        Most records of a domain and difficulty, in medians over all of them, at least 1; by
        default any number.
    held_out
        Share of the seeds whose records are held out, 0 to 1.
    temperature
        Of instructions and responses, at least 0. Critics judge at 0.
    max_new_tokens
        Longest text that is generated, at least 1.
    """

    seed: int = 1
    instructions_per_seed: int = 4
    rounds: int = 1
    candidates: int = 5
    min_agreement: float = 0.6
    min_score: int = 3
    similarity: float = 0.8
    pool_similarity: float = 0.5
    max_over_median: float | None = None
    held_out: float = 0.05
    temperature: float = 0.7
    max_new_tokens: int = 1024

    def __post_init__(self) -> None:
        limit = self.max_over_median
        checks = (
            ("instructions_per_seed", self.instructions_per_seed >= 1, "at least 1"),
            ("rounds", self.rounds >= 0, "at least 0"),
            ("candidates", self.candidates >= 1, "at least 1"),
            ("min_agreement", 0 <= self.min_agreement <= 1, "0 to 1"),
            ("min_score", 1 <= self.min_score <= 4, "1 to 4"),
            ("similarity", 0 < self.similarity <= 1, "above 0 and at most 1"),
            ("pool_similarity", 0 < self.pool_similarity <= 1, "above 0 and at most 1"),
            ("max_over_median", limit is None or limit >= 1, "at least 1"),
            ("held_out", 0 <= self.held_out <= 1, "0 to 1"),
            ("temperature", 0 <= self.temperature < float("inf"), "at least 0"),
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
        )
        for name, is_right, wanted in checks:
            if not is_right:
                raise ValueError(f"{name}: expected {wanted}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A record that a stage did not pass on.

    Parameters
    ----------
    stage, reason
        Where, and why in a word or two.
    detail
        What the reason refers to: a record, a file, the words of a server.
    record
        The record.
    """

    stage: Stage
    reason: str
    detail: str
    record: Any


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """What the stages work with.

    Parameters
    ----------
    config, bank
        Numbers and prompts.
    router
        Who writes and answers.
    critic
        Who judges.
    calls
        Log of all that was asked.
    evaluation
        Sets that must not be trained on.
    on_answer
        Told stage, answers there are, and of how many.
    dropped
        What the stages have dropped.
    """

    config: SynthesisConfig
    bank: PromptBank
    router: Router
    critic: Generator
    calls: CallLog
    evaluation: EvaluationSets
    on_answer: Callable[[str, int, int], None] = lambda *_: None
    dropped: list[Dropped] = field(default_factory=list)

    def drop(self, stage: Stage, reason: str, record: Any, detail: str = "") -> None:
        """Take note of a record that goes no further."""
        self.dropped.append(Dropped(stage=stage, reason=reason, detail=detail, record=record))

    def ask(self, stage: str, calls: Sequence[tuple[Generator, Request]]) -> list[Completion]:
        """Answers to all calls, from the log or from the generators."""
        return self.calls.ask(calls, lambda done, count: self.on_answer(stage, done, count))

    def request(self, purpose: Purpose, text: str, about: Instruction, seed: int) -> Request:
        """Ask about an instruction."""
        return Request(
            purpose=purpose,
            messages=(Message(role="user", content=text.strip()),),
            domain=about.domain,
            level=self.bank.level(about.difficulty),
            subject=about.instruction,
            seed=seed,
            temperature=self.config.temperature,
            max_new_tokens=self.config.max_new_tokens,
        )
