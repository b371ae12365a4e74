"""Fine-tuning and preferences on small tasks with known answers, after the recipe `moe`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from weightwise.lm.post.calls import Router
from weightwise.lm.post.pipeline import SynthesisConfig
from weightwise.lm.post.synthesize import synthesize
from weightwise.lm.post.tasks import TaskGenerator, task_seeds
from weightwise.recipes.post import dpo, sft

from .rows import claim, differences, figure
from .runs import SEEDS, moe_recipe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from weightwise.train import Recipe

    from .rows import Row
    from .runs import Runs

NUM_SEEDS, ERROR_RATE, HELD_OUT = 1000, 0.3, 0.15
SFT_EPOCHS, DPO_EPOCHS = 3.0, 1.0
COMMON = ("train.seq_length=96", "train.batch_size=16", "train.keep_checkpoints=1")
# Rates of small models, and no dropout: they forget nothing in so few steps.
FOR_SFT = (
    *COMMON, "schedule.peak_lr=2e-3", "model.residual_dropout=0.0", "model.attention.dropout=0.0",
)  # fmt: skip
FOR_DPO = (*COMMON, "schedule.peak_lr=2e-4", "optimizer.average_decay=0.98")


def post(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Share of held-out pairs whose right answer is the likelier one: before, between, after."""
    base = moe_recipe()
    runs.make([base])
    folder = runs.folder / "instructions"
    config = SynthesisConfig(held_out=HELD_OUT)
    made = synthesize(
        task_seeds(NUM_SEEDS, config.seed), folder, router=router(), critic=TaskGenerator(),
        config=config,
    )  # fmt: skip
    yield figure("post_chats", [made.num_chats["train"]], "chats")
    yield figure("post_held_out", [made.num_preferences["held-out"]], "pairs")
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
    last = [
        preferred(runs.run_dir(recipe), folder, recipe.seed, epochs=DPO_EPOCHS)
        for recipe in fine_tuned
    ]
    runs.make(last)
    (before,), after = rankings(runs, [untouched], 0), rankings(runs, last, -1)
    between = rankings(runs, last, 0)
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


def router() -> Router:
    """Who answers: a generator that is wrong as often as `ERROR_RATE` says."""
    return Router(default=(TaskGenerator(ERROR_RATE),), routes={})


def preferred(
    start: Path, folder: Path, seed: int, *, epochs: float, more: tuple[str, ...] = ()
) -> Recipe:
    """Recipe of preferences on the generated pairs."""
    recipe = dpo(
        start, folder / "preferences.jsonl", valid=folder / "preferences-held-out.jsonl",
        epochs=epochs, overrides=(*FOR_DPO, *more),
    )  # fmt: skip
    return replace(recipe, name=f"post-dpo-s{seed}", seed=seed)


def rankings(runs: Runs, recipes: list[Recipe], place: int) -> list[float]:
    """Share of held-out pairs in the right order, at an evaluation of each run."""
    found = []
    for recipe in recipes:
        rows = [row for row in runs.metrics(recipe) if "valid_ranking" in row]
        found.append(rows[place]["valid_ranking"])
    return found
