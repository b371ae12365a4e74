"""Instructions from seeds, and their evolution: stages 1 and 2 (arXiv 2411.02265, 2.1.1).

A stage takes records and gives records. All that it asks of generators goes through a log
(`weightwise.lm.post.calls`), so that a stage which is begun again repeats no call. What it drops
goes to the pipeline's list with stage and reason. Rewriting and harder questions follow
Evol-Instruct (arXiv 2304.12244), self-instruct arXiv 2212.10560.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from weightwise.lm.post.instructions import GIVEN, Instruction, derive_seed, hash_id
from weightwise.lm.post.near_duplicates import find_near_duplicates
from weightwise.lm.post.quality import broken_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from weightwise.lm.post.calls import Completion, Generator, Request
    from weightwise.lm.post.instructions import Operator, Seed
    from weightwise.lm.post.pipeline import Pipeline, Stage

NUM_SHOTS = 3


def write_instructions(seeds: Sequence[Seed], pipeline: Pipeline) -> list[Instruction]:
    """Stage 1: instructions about each seed, in styles and difficulties of the bank.

    Each seed gets as many different combinations as there are, then starts over. Seeds that are
    instructions are passed on. Near-duplicates are dropped, and what overlaps with an evaluation
    set.
    """
    bank, config = pipeline.bank, pipeline.config
    labels = [(style, difficulty) for style in bank.styles for difficulty in bank.difficulties]
    first = next(iter(bank.difficulties))
    given = [_given(seed, first) for seed in seeds if seed.instruction is not None]
    given = _sound("instructions", given, pipeline)
    drafts, calls = [], []
    for seed in (seed for seed in seeds if seed.text is not None):
        order = np.random.default_rng(derive_seed(config.seed, seed.id)).permutation(len(labels))
        for number in range(config.instructions_per_seed):
            style, difficulty = labels[order[number % len(labels)]]
            generator = pipeline.router.pick(seed.domain, number)
            draft = _draft(seed, style, difficulty, generator.name, number, config.seed)
            text = bank.templates.instruct.format(
                text=seed.text,
                domain=bank.domains[seed.domain].description,
                style=bank.styles[style],
                difficulty=bank.difficulties[difficulty],
            )
            about = replace(draft, instruction=str(seed.text))
            drafts.append(draft)
            calls.append((generator, pipeline.request("instruct", text, about, draft.seed)))
    completions = pipeline.ask("instructions", calls)
    written = given + _filled("instructions", drafts, completions, pipeline)
    return _new("instructions", written, pipeline)


def evolve(instructions: Sequence[Instruction], pipeline: Pipeline) -> list[Instruction]:
    """Stage 2: parents, and what rewriting, self-instruct and harder questions make of them.

    In every round each instruction of the round before gets one operator, drawn by its id;
    self-instruct only in low-resource domains. Then near-duplicates go, and what overlaps with an
    evaluation set.
    """
    everything, newest = list(instructions), list(instructions)
    for number in range(1, pipeline.config.rounds + 1):
        pools: dict[str, list[Instruction]] = {}
        for one in everything:
            pools.setdefault(one.domain, []).append(one)
        drafts, calls = [], []
        for parent in newest:
            draft, call = _evolution(parent, number, pools[parent.domain], pipeline)
            drafts.append(draft)
            calls.append(call)
        completions = pipeline.ask(f"evolution, round {number}", calls)
        newest = _filled("evolution", drafts, completions, pipeline)
        newest = _unlike_pool(newest, pools, pipeline)
        everything += newest
    return _new("evolution", everything, pipeline)


def _given(seed: Seed, difficulty: str) -> Instruction:
    return Instruction(
        id=hash_id("given", seed.id),
        seed_id=seed.id,
        source=seed.source,
        domain=seed.domain,
        style=GIVEN,
        difficulty=difficulty,
        instruction=str(seed.instruction),
        prompt_id=GIVEN,
        generator=GIVEN,
        seed=0,
        answer=seed.answer,
    )


def _draft(
    seed: Seed, style: str, difficulty: str, generator: str, number: int, base: int
) -> Instruction:
    """An instruction that has no text yet."""
    prompt_id = f"{seed.domain}/{style}/{difficulty}"
    origin = (base, seed.id, prompt_id, number)
    return Instruction(
        id=hash_id("instruct", *origin),
        seed_id=seed.id,
        source=seed.source,
        domain=seed.domain,
        style=style,
        difficulty=difficulty,
        instruction="",
        prompt_id=prompt_id,
        generator=generator,
        seed=derive_seed("instruct", *origin),
    )


def _evolution(
    parent: Instruction, number: int, pool: Sequence[Instruction], pipeline: Pipeline
) -> tuple[Instruction, tuple[Generator, Request]]:
    """The child of an instruction, still without text, and the call that gets it."""
    bank, base = pipeline.bank, pipeline.config.seed
    draw = np.random.default_rng(derive_seed(base, parent.id, number))
    low = bank.domains[parent.domain].is_low_resource
    operators: tuple[Operator, ...] = ("rewrite", "harder", "self-instruct")
    operator = operators[draw.integers(3 if low else 2)]
    generator = pipeline.router.pick(parent.domain, int(draw.integers(2**31)))
    child = replace(
        parent,
        id=hash_id(operator, base, parent.id, number),
        prompt_id=operator,
        generator=generator.name,
        seed=derive_seed(operator, base, parent.id, number),
        parent_id=parent.id,
        operator=operator,
        round=number,
        answer=parent.answer if operator == "rewrite" else None,
    )
    if operator == "rewrite":
        text = bank.templates.rewrite.format(instruction=parent.instruction)
    elif operator == "harder":
        way = bank.ways_harder[draw.integers(len(bank.ways_harder))]
        text = bank.templates.harder.format(instruction=parent.instruction, way=way)
        child = replace(child, difficulty=bank.next_difficulty(parent.difficulty))
    else:
        picks = draw.choice(len(pool), size=min(NUM_SHOTS, len(pool)), replace=False)
        shots = [pool[k].instruction for k in picks if pool[k].id != parent.id][: NUM_SHOTS - 1]
        text = bank.templates.self_instruct.format(
            domain=bank.domains[parent.domain].description,
            examples="\n\n".join([parent.instruction, *shots]),
        )
    return child, (generator, pipeline.request(operator, text, parent, child.seed))


def _filled(
    stage: Stage,
    drafts: Sequence[Instruction],
    completions: Sequence[Completion],
    pipeline: Pipeline,
) -> list[Instruction]:
    """Drafts with their texts, without those that have none of use."""
    filled = []
    for draft, completion in zip(drafts, completions, strict=True):
        one = replace(draft, instruction=completion.text.strip())
        if completion.finish_reason == "refused":
            pipeline.drop(stage, "refused", draft, completion.text)
        elif completion.finish_reason == "length":
            pipeline.drop(stage, "truncated", one)
        else:
            filled.append(one)
    return _sound(stage, filled, pipeline)


def _sound(
    stage: Stage, instructions: Sequence[Instruction], pipeline: Pipeline
) -> list[Instruction]:
    """Instructions that break no rule."""
    kept = []
    for one in instructions:
        if reason := broken_rule(one.instruction):
            pipeline.drop(stage, reason, one)
        else:
            kept.append(one)
    return kept


def _new(
    stage: Stage, instructions: Sequence[Instruction], pipeline: Pipeline
) -> list[Instruction]:
    """Instructions that neither repeat one before them nor stand in an evaluation set."""
    texts = [one.instruction for one in instructions]
    kept = []
    repeated = find_near_duplicates(texts, pipeline.config.similarity)
    for one, index in zip(instructions, repeated, strict=True):
        if index is not None:
            pipeline.drop(stage, "near-duplicate", one, instructions[index].id)
        elif file := pipeline.evaluation.overlap(one.instruction):
            pipeline.drop(stage, "contaminated", one, file)
        else:
            kept.append(one)
    return kept


def _unlike_pool(
    children: Sequence[Instruction], pools: dict[str, list[Instruction]], pipeline: Pipeline
) -> list[Instruction]:
    """Without those of self-instruct that are too much like what their domain has."""
    like: dict[str, str] = {}
    for domain, pool in pools.items():
        new = [c for c in children if c.operator == "self-instruct" and c.domain == domain]
        if not new:
            continue
        everything = [*pool, *new]
        found = find_near_duplicates(
            [one.instruction for one in everything],
            pipeline.config.pool_similarity,
            num_fixed=len(pool),
        )
        like |= {
            one.id: everything[index].id
            for one, index in zip(everything, found, strict=True)
            if index is not None
        }
    for one in children:
        if one.id in like:
            pipeline.drop("evolution", "like the pool", one, like[one.id])
    return [one for one in children if one.id not in like]
