"""Fine-tuning and preferences on small tasks with known answers, after the recipe `moe`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from study.rows import claim, differences, figure

from weightwise.lm.post.calls import Router
from weightwise.lm.post.dpo import read_preferences
from weightwise.lm.post.pipeline import SynthesisConfig
from weightwise.lm.post.synthesize import synthesize
from weightwise.lm.post.tasks import TaskGenerator, task_seeds
from weightwise.recipes.post import dpo, sft

from .runs import SEEDS, moe_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

    from weightwise.train import Recipe

NUM_SEEDS, ERROR_RATE, HELD_OUT = 1000, 0.3, 0.15
SFT_EPOCHS, DPO_EPOCHS, STYLE_EPOCHS = 6.0, 3.0, 1.0
COMMON = ("train.seq_length=96", "train.batch_size=16", "train.keep_checkpoints=1")
# Chosen with seed 0. No dropout: small models forget nothing in so few steps.
FOR_SFT = (
    *COMMON, "schedule.peak_lr=2e-3", "model.residual_dropout=0.0", "model.attention.dropout=0.0",
)  # fmt: skip
FOR_DPO = (*COMMON, "schedule.peak_lr=1e-3", "optimizer.average_decay=0.98")


def post(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Share of held-out pairs whose right answer is the likelier one: before, between, after."""
    folder = runs.folder / "instructions"
    made = synthesize(
        task_seeds(NUM_SEEDS, 1), folder, router=router(), critic=TaskGenerator(),
        config=SynthesisConfig(held_out=HELD_OUT),
    )  # fmt: skip
    yield figure("post_chats", [made.num_chats["train"]], "chats")
    yield figure("post_held_out", [made.num_preferences["held-out"]], "pairs")
    untouched, fine_tuned, last, plain = train_all(runs, folder)
    (before,), after = (
        measured(runs, [untouched], "ranking", 0),
        measured(runs, last, "ranking", -1),
    )
    between = measured(runs, last, "ranking", 0)
    yield figure("post_ranking_before", [before], "of the pairs")
    yield figure("post_ranking_fine_tuned", between, "of the pairs")
    yield figure("post_ranking_preferences", after, "of the pairs")
    yield claim(
        "post_gain_fine_tuning", "fine-tuning makes right answers likelier than wrong ones",
        "said of people's judgements", [value - before for value in between], "of the pairs",
    )  # fmt: skip
    yield claim(
        "post_gain_preferences", "preferences after it raise that further",
        "said of people's judgements", differences(after, between), "of the pairs",
    )  # fmt: skip
    yield claim(
        "post_gain_both", "both together make right answers likelier than wrong ones",
        "said of people's judgements", [value - before for value in after], "of the pairs",
    )  # fmt: skip
    # Of pairs moved at random half move the right way.
    margins = measured(runs, last, "accuracy", -1)
    yield figure("post_margin_accuracy", margins, "of the pairs", goal=(">=", 0.5))
    kept, lost = measured(runs, last, "nll", -1), measured(runs, plain, "nll", -1)
    yield figure("post_nll_fine_tuned", measured(runs, last, "nll", 0), "nats a token")
    yield figure("post_nll_preferences", kept, "nats a token")
    yield claim(
        "post_nll_without_minus_with",
        "their own likelihood in the loss keeps preferred answers likely",
        "said, without figures", differences(lost, kept), "nats a token",
    )  # fmt: skip
    yield from reach(runs, folder, fine_tuned)


def reach(runs: Runs, folder: Path, fine_tuned: list[Recipe]) -> Iterator[Row]:
    """What preferences do to the pairs they are about, and to a style that any answer can have.

    The pairs of the style have two right answers to the same instructions, and the one with a full
    stop is preferred: nothing has to be known to follow it on instructions that are held out.
    """
    style = folder / "style"
    style.mkdir(exist_ok=True)
    for name in ("preferences.jsonl", "preferences-held-out.jsonl"):
        rows = (
            {
                "prompt": [vars(message) for message in pair.prompt],
                "chosen": f"{pair.chosen}.",
                "rejected": pair.chosen,
            }
            for _, pair in read_preferences(folder / name)
        )
        (style / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    taught, styled = [], []
    for one in fine_tuned:
        start = runs.run_dir(one)
        recipe = preferred(start, folder, one.seed, epochs=DPO_EPOCHS, judged="preferences.jsonl")
        taught.append(replace(recipe, name=f"post-taught-s{one.seed}"))
        recipe = preferred(start, style, one.seed, epochs=STYLE_EPOCHS)
        styled.append(replace(recipe, name=f"post-style-s{one.seed}"))
    runs.make([*taught, *styled])
    for name, recipes in (("taught", taught), ("style", styled)):
        for when, place in (("before", 0), ("after", -1)):
            found = measured(runs, recipes, "ranking", place)
            yield figure(f"post_{name}_{when}", found, "of the pairs")


def train_all(runs: Runs, folder: Path) -> tuple[Recipe, list[Recipe], list[Recipe], list[Recipe]]:
    """Runs of preferences after pre-training alone, of fine-tuning, and what comes after it.

    These are runs of preferences with and without the answers' own likelihood.
    """
    base = moe_recipe()
    runs.make([base])
    start = runs.run_dir(base)
    untouched = preferred(start, folder, 0, epochs=1.0, more=("train.steps=1",))
    fine_tuned = [
        replace(
            sft(
                start, folder / "chats.jsonl", valid=folder / "chats-held-out.jsonl",
                epochs=SFT_EPOCHS, overrides=FOR_SFT,
            ),
            name=f"post-sft-s{seed}", seed=seed,
        )
        for seed in SEEDS
    ]  # fmt: skip
    runs.make([untouched, *fine_tuned])
    last, plain = (
        [
            preferred(runs.run_dir(one), folder, one.seed, epochs=DPO_EPOCHS, more=more)
            for one in fine_tuned
        ]
        for more in ((), ("data.nll_coef=0",))
    )
    runs.make([*last, *plain])
    return untouched, fine_tuned, last, plain


def router() -> Router:
    """Who answers: a generator that is wrong as often as `ERROR_RATE` says."""
    return Router(default=(TaskGenerator(ERROR_RATE),), routes={})


def preferred(
    start: Path, folder: Path, seed: int, *, epochs: float, more: tuple[str, ...] = (),
    judged: str = "preferences-held-out.jsonl",
) -> Recipe:  # fmt: skip
    """Recipe of preferences on the generated pairs."""
    recipe = dpo(
        start, folder / "preferences.jsonl", valid=folder / judged, epochs=epochs,
        overrides=(*FOR_DPO, *more),
    )  # fmt: skip
    suffix = "".join("-" + word.partition(".")[2].replace("=", "") for word in more)
    return replace(recipe, name=f"post-dpo{suffix}-s{seed}", seed=seed)


def measured(runs: Runs, recipes: list[Recipe], name: str, place: int) -> list[float]:
    """A mean over held-out pairs, at an evaluation of each run; 0 is the first, -1 the last."""
    found = []
    for recipe in recipes:
        rows = [row for row in runs.metrics(recipe) if f"valid_{name}" in row]
        found.append(rows[place][f"valid_{name}"])
    return found
