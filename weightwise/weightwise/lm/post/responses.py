"""Responses to instructions, and which of them are kept: stages 3 and 4.

Several candidates are generated for each instruction. Rules come first, then agreement where there
is one right answer, then the critic, who is the dearest. The best candidate is kept; a worse one
beside it makes a preference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from weightwise.lm.chat import Message
from weightwise.lm.post.consistency import final_answer, majority, normalise
from weightwise.lm.post.instructions import (
    Candidate,
    Example,
    Instruction,
    derive_seed,
    is_held_out,
)
from weightwise.lm.post.quality import broken_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm.post.calls import Generator, Request
    from weightwise.lm.post.consistency import Agreement
    from weightwise.lm.post.pipeline import Pipeline

_SCORE = re.compile(r"\bscore\W{0,5}([1-4])\b(?![.,]\d)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Answered:
    """An instruction with all responses to it.

    Parameters
    ----------
    instruction
        What is asked.
    candidates
        Responses in the order of their draws.
    """

    instruction: Instruction
    candidates: tuple[Candidate, ...]


def respond(instructions: Sequence[Instruction], pipeline: Pipeline) -> list[Answered]:
    """Stage 3: several responses to each instruction, from the generators of its domain in turn."""
    config, bank = pipeline.config, pipeline.bank
    calls: list[tuple[Generator, Request]] = []
    form = Message(role="system", content=bank.templates.answer_form.strip())
    for one in instructions:
        for number in range(config.candidates):
            seed = derive_seed("respond", config.seed, one.id, number)
            request = pipeline.request("respond", one.instruction, one, seed)
            if bank.domains[one.domain].is_objective:
                request = replace(request, messages=(form, *request.messages))
            calls.append((pipeline.router.pick(one.domain, number), request))
    candidates = [
        Candidate(
            response=completion.text.strip(),
            finish_reason=completion.finish_reason,
            generator=generator.name,
            seed=request.seed,
        )
        for (generator, request), completion in zip(
            calls, pipeline.ask("responses", calls), strict=True
        )
    ]
    return [
        Answered(
            instruction=one,
            candidates=tuple(candidates[k * config.candidates : (k + 1) * config.candidates]),
        )
        for k, one in enumerate(instructions)
    ]


def choose(answered: Sequence[Answered], pipeline: Pipeline) -> list[Example]:
    """Stage 4: the best response to each instruction that has a good one.

    Dropped are instructions whose responses all break a rule or overlap with an evaluation set;
    for tasks with one right answer those on which too few responses agree, or agree against the
    reference; and those whose best response the critic puts below the lowest tier to keep.
    """
    found = [trial for one in answered if (trial := _try(one, pipeline)) is not None]
    calls = [call for trial in found for call in _critiques(trial, pipeline)]
    replies = iter(pipeline.ask("filter", calls))
    examples = []
    for trial in found:
        scores = [read_score(next(replies).text) for _ in trial.sound]
        if (example := _best(trial, scores, pipeline)) is not None:
            examples.append(example)
    return examples


def read_score(critique: str) -> int:
    """Tier that a critique ends with, 1 to 4; 0 if it names none."""
    scores = _SCORE.findall(critique)
    return int(scores[-1]) if scores else 0


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """Responses that break no rule, and what they agree on if there is one right answer."""

    answered: Answered
    sound: tuple[Candidate, ...]
    answers: tuple[str | None, ...]
    agreement: Agreement | None


def _try(one: Answered, pipeline: Pipeline) -> _Trial | None:
    """What rules and agreement leave of an instruction; ``None`` if it is dropped."""
    instruction, config = one.instruction, pipeline.config
    problems = [_problem(candidate, instruction, pipeline) for candidate in one.candidates]
    sound = tuple(c for c, why in zip(one.candidates, problems, strict=True) if why is None)
    if not sound:
        pipeline.drop("filter", str(problems[0]), one, "every response")
        return None
    if not pipeline.bank.domains[instruction.domain].is_objective:
        return _Trial(answered=one, sound=sound, answers=(None,) * len(sound), agreement=None)
    answers = tuple(final_answer(candidate.response) for candidate in sound)
    agreement = majority(answers)
    # Rounding of the product must not ask for one vote more.
    if agreement.votes < config.min_agreement * config.candidates - 1e-9:
        detail = f"{agreement.votes} of {config.candidates}"
        pipeline.drop("filter", "no agreement", one, detail)
        return None
    if instruction.answer is not None and agreement.answer != normalise(instruction.answer):
        pipeline.drop("filter", "differs from reference", one, str(agreement.answer))
        return None
    return _Trial(answered=one, sound=sound, answers=answers, agreement=agreement)


def _problem(candidate: Candidate, instruction: Instruction, pipeline: Pipeline) -> str | None:
    """Why a response cannot be used; ``None`` if it can."""
    if candidate.finish_reason == "refused":
        return "refused"
    if candidate.finish_reason == "length":
        return "truncated"
    if candidate.response == instruction.instruction:
        return "format"
    if reason := broken_rule(candidate.response):
        return reason
    return "contaminated" if pipeline.evaluation.overlap(candidate.response) else None


def _critiques(trial: _Trial, pipeline: Pipeline) -> list[tuple[Generator, Request]]:
    instruction = trial.answered.instruction
    calls = []
    for candidate in trial.sound:
        text = pipeline.bank.templates.critique.format(
            instruction=instruction.instruction, response=candidate.response
        )
        # Not by candidate: responses that are the same text need one judgement.
        seed = derive_seed("critique", pipeline.config.seed, instruction.id)
        request = pipeline.request("critique", text, instruction, seed)
        calls.append(
            (pipeline.critic, replace(request, response=candidate.response, temperature=0.0))
        )
    return calls


def _best(trial: _Trial, scores: Sequence[int], pipeline: Pipeline) -> Example | None:
    """The best response, with the worst of those that are worse."""
    config, instruction, agreement = pipeline.config, trial.answered.instruction, trial.agreement
    answer = None if agreement is None else agreement.answer
    rows = list(zip(scores, trial.sound, trial.answers, strict=True))
    # The first of equals: max and min keep the order.
    score, best, _ = max((row for row in rows if row[2] == answer), key=lambda row: row[0])
    if score < config.min_score:
        pipeline.drop("filter", "low score", trial.answered, str(score))
        return None
    worse = [
        row for row in rows
        if 0 < row[0] < score and (agreement is None or row[2] not in (None, answer))
    ]  # fmt: skip
    return Example(
        instruction=instruction,
        response=best.response,
        rejected=min(worse, key=lambda row: row[0])[1].response if worse else None,
        score=score,
        answer=answer,
        agreement=None if agreement is None else agreement.votes / config.candidates,
        generator=best.generator,
        seed=best.seed,
        split="held-out" if is_held_out(instruction.seed_id, config.held_out) else "train",
    )
