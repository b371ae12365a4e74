"""Instruction data from seeds: the whole pipeline, and the files that it leaves.

The stages follow section 2.1.1 of arXiv 2411.02265: write instructions, evolve them, answer them,
filter the answers; near-duplicates go before and after evolution. Then labels are balanced, and
records are held out by the hash of their seed, so that relatives stay on one side.

All of it is a function of seeds, settings and the answers of generators, and the answers stand in
``calls.jsonl`` as soon as they come. Run again after a crash, the pipeline asks for what is missing
and writes the same files as without the crash, byte for byte; with other settings it keeps the
answers that still fit. Every other file is written whole or not at all. Records are held in memory,
a few kilobytes each with their candidates: cut the seeds into files for millions of them.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from weightwise.lm.post.calls import CallLog
from weightwise.lm.post.contamination import EvaluationSets
from weightwise.lm.post.instructions import write_lines, write_text
from weightwise.lm.post.pipeline import Pipeline, SynthesisConfig
from weightwise.lm.post.prompts import read_bank
from weightwise.lm.post.responses import choose, respond
from weightwise.lm.post.stages import evolve, write_instructions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from weightwise.lm.post.calls import Generator, Router
    from weightwise.lm.post.instructions import Example, Seed
    from weightwise.lm.post.pipeline import Stage
    from weightwise.lm.post.prompts import PromptBank


@dataclass(frozen=True, kw_only=True)
class StageCount:
    """What a stage did.

    Parameters
    ----------
    stage
        Its name.
    num_in, num_made, num_out
        Records that it got, made and passed on.
    dropped
        Records that it dropped, by reason.
    """

    stage: Stage
    num_in: int
    num_made: int
    num_out: int
    dropped: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class SynthesisResult:
    """What a pipeline has made.

    Parameters
    ----------
    folder
        Where it is.
    stages
        Counts of the stages, in order.
    num_chats, num_preferences
        Lines by split, ``train`` and ``held-out``.
    """

    folder: Path
    stages: tuple[StageCount, ...]
    num_chats: Mapping[str, int]
    num_preferences: Mapping[str, int]


def synthesize(
    seeds: Sequence[Seed],
    folder: Path,
    *,
    router: Router,
    critic: Generator,
    config: SynthesisConfig | None = None,
    bank: PromptBank | None = None,
    evaluation: EvaluationSets | None = None,
    on_answer: Callable[[str, int, int], None] = lambda *_: None,
) -> SynthesisResult:
    """Make instruction data, or go on with what was stopped.

    Parameters
    ----------
    seeds
        What instructions are made from.
    folder
        Where the files go; made if missing. One process at a time may work in it.
    router, critic
        Who writes and answers, and who judges.
    config, bank
        Numbers and prompts; the defaults by default.
    evaluation
        Sets that must not be trained on.
    on_answer
        Told the stage, the answers that there are, and of how many.

    Raises
    ------
    ValueError
        If the log of calls is damaged.
    GeneratorError
        If a generator cannot go on; the same call again goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline(
        config=config or SynthesisConfig(),
        bank=bank or read_bank(),
        router=router,
        critic=critic,
        calls=CallLog(folder / "calls.jsonl"),
        evaluation=evaluation or EvaluationSets(),
        on_answer=on_answer,
    )
    written = write_instructions(seeds, pipeline)
    write_lines(folder / "instructions.jsonl", written)
    evolved = evolve(written, pipeline)
    write_lines(folder / "evolved.jsonl", evolved)
    answered = respond(evolved, pipeline)
    write_lines(folder / "responses.jsonl", answered)
    chosen = choose(answered, pipeline)
    examples = _balanced(chosen, pipeline)
    num_candidates = len(answered) * pipeline.config.candidates
    stages = (
        _count("instructions", len(seeds), len(written), pipeline),
        _count("evolution", len(written), len(evolved), pipeline),
        _count("responses", len(evolved), len(answered), pipeline, num_made=num_candidates),
        _count("filter", len(answered), len(chosen), pipeline),
        _count("balance", len(chosen), len(examples), pipeline),
    )
    return _write(folder, examples, stages, pipeline)


def balance(labels: Sequence[Any], ids: Sequence[str], max_over_median: float) -> list[bool]:
    """Which records to keep so that no label has much more than the middle one.

    Parameters
    ----------
    labels
        Label of each record.
    ids
        Its id; of a label with too many, those with the smallest ids stay.
    max_over_median
        Most records of a label over the median of all labels, at least 1.
    """
    groups: dict[Any, list[int]] = {}
    for index in sorted(range(len(ids)), key=lambda index: ids[index]):
        groups.setdefault(labels[index], []).append(index)
    if not groups:
        return []
    most = int(max_over_median * median(len(group) for group in groups.values()))
    kept = {index for group in groups.values() for index in group[: max(1, most)]}
    return [index in kept for index in range(len(ids))]


def _balanced(examples: Sequence[Example], pipeline: Pipeline) -> list[Example]:
    limit = pipeline.config.max_over_median
    if limit is None:
        return list(examples)
    origins = [example.instruction for example in examples]
    labels = [(origin.domain, origin.difficulty) for origin in origins]
    kept = []
    for example, is_kept in zip(
        examples, balance(labels, [origin.id for origin in origins], limit), strict=True
    ):
        if is_kept:
            kept.append(example)
        else:
            origin = example.instruction
            pipeline.drop("balance", "balance", example, f"{origin.domain}, {origin.difficulty}")
    return kept


def _count(
    stage: Stage, num_in: int, num_out: int, pipeline: Pipeline, num_made: int | None = None
) -> StageCount:
    dropped = Counter(one.reason for one in pipeline.dropped if one.stage == stage)
    if num_made is None:
        # Seeds are used up by the first stage; later ones pass on or drop what they get.
        num_kept = 0 if stage == "instructions" else num_in
        num_made = num_out + dropped.total() - num_kept
    return StageCount(
        stage=stage, num_in=num_in, num_made=num_made, num_out=num_out,
        dropped=dict(sorted(dropped.items())),
    )  # fmt: skip


def _write(
    folder: Path, examples: Sequence[Example], stages: tuple[StageCount, ...], pipeline: Pipeline
) -> SynthesisResult:
    """Write the results; the manifest comes last."""
    write_lines(folder / "records.jsonl", examples)
    write_lines(folder / "rejected.jsonl", pipeline.dropped)
    num_chats, num_preferences = {}, {}
    for split, suffix in (("train", ""), ("held-out", "-held-out")):
        part = [example for example in examples if example.split == split]
        num_chats[split] = write_lines(folder / f"chats{suffix}.jsonl", map(_chat, part))
        num_preferences[split] = write_lines(
            folder / f"preferences{suffix}.jsonl",
            (_preference(example) for example in part if example.rejected is not None),
        )
    result = SynthesisResult(
        folder=folder, stages=stages, num_chats=num_chats, num_preferences=num_preferences
    )
    origins = [example.instruction for example in examples]
    manifest = {
        "config": asdict(pipeline.config),
        "critic": pipeline.critic.name,
        "generators": sorted(
            {one.generator for one in origins} | {one.generator for one in examples}
        ),
        "stages": [asdict(stage) for stage in stages],
        "num_chats": num_chats,
        "num_preferences": num_preferences,
        "domains": _tally(origin.domain for origin in origins),
        "difficulties": _tally(origin.difficulty for origin in origins),
        "operators": _tally(origin.operator or "none" for origin in origins),
    }
    write_text(folder / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    return result


def _tally(labels: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(labels).items()))


def _chat(example: Example) -> dict[str, Any]:
    answer = {"role": "assistant", "content": example.response}
    return {"messages": [*_prompt(example), answer]}


def _preference(example: Example) -> dict[str, Any]:
    return {
        "prompt": _prompt(example), "chosen": example.response, "rejected": example.rejected,
    }  # fmt: skip


def _prompt(example: Example) -> list[dict[str, str]]:
    return [{"role": "user", "content": example.instruction.instruction}]
