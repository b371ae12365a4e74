"""Overflow, density and balance: what the parts of the layer are worth, three or six seeds each."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

import torch
from study.rows import claim, differences, figure

from weightwise.lm import generate, num_parameters, num_stored_parameters
from weightwise.report.experts import load_figure
from weightwise.train import load_model
from weightwise.train.files import write_text

from .figures import overflow_figure
from .runs import MORE_SEEDS, SEEDS, least, moe_recipe, plain_rate, small, tuned

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from study.rows import Row
    from study.runs import Metrics, Runs

LAST_SHARE = 0.25  # loads are means over this last share of the logged steps
PROMPT, SAMPLE_TOKENS = "def read(self, ", 80


def overflow(runs: Runs, figures: Path) -> Iterator[Row]:
    """Tokens beyond a capacity: recycled, dropped, or no capacity at all."""
    rate = plain_rate(runs)
    arms = {
        arm: [small(arm, rate, seed) for seed in MORE_SEEDS] for arm in ("keep", "recycle", "drop")
    }
    made = runs.losses([recipe for recipes in arms.values() for recipe in recipes])
    count = len(MORE_SEEDS)
    loss = {arm: made[i * count : (i + 1) * count] for i, arm in enumerate(arms)}
    for arm, values in loss.items():
        yield figure(f"overflow_loss_{arm}", values, "nats", detail={"rate": rate})
    shares = {
        arm: [late_mean(runs.metrics(recipe), "overflow") for recipe in arms[arm]]
        for arm in ("recycle", "drop")
    }
    for arm, values in shares.items():
        yield figure(f"overflow_share_{arm}", values, "of the tokens")
    yield claim(
        "overflow_drop_minus_recycle", "recycling tokens is better than dropping them",
        "said, without figures", differences(loss["drop"], loss["recycle"]), "nats",
    )  # fmt: skip
    yield figure("overflow_recycle_minus_keep", differences(loss["recycle"], loss["keep"]), "nats")
    yield figure("overflow_drop_minus_keep", differences(loss["drop"], loss["keep"]), "nats")
    curves = {
        arm: [(row["step"], row["overflow"]) for row in runs.metrics(arms[arm][0])
              if "overflow" in row]
        for arm in ("recycle", "drop")
    }  # fmt: skip
    write_text(figures / "moe-overflow.svg", overflow_figure(loss, curves))


def dense(runs: Runs, _figures: Path) -> Iterator[Row]:
    """Experts against one feed-forward layer with as many weights for a token."""
    best = {arm: least(tuned(runs, arm)) for arm in ("keep", "dense")}
    arms = {arm: [small(arm, rate, seed) for seed in SEEDS] for arm, rate in best.items()}
    models = {arm: recipes[0].model for arm, recipes in arms.items()}
    assert num_parameters(models["keep"]) == num_parameters(models["dense"])
    loss = {arm: runs.losses(recipes) for arm, recipes in arms.items()}
    for arm, values in loss.items():
        name = "moe" if arm == "keep" else arm
        detail = {
            "rate": best[arm],
            "active": num_parameters(models[arm]),
            "stored": num_stored_parameters(models[arm]),
        }
        yield figure(f"dense_loss_{name}", values, "nats", detail=detail)
    yield claim(
        "dense_dense_minus_moe",
        "experts are better than a dense model of equal activated weights and tokens",
        "52 of 389 billion activated reach a dense 405 billion; no ablation",
        differences(loss["dense"], loss["keep"]), "nats",
    )  # fmt: skip


def load(runs: Runs, figures: Path) -> Iterator[Row]:
    """How evenly experts are chosen, with and without the balance loss."""
    rate = plain_rate(runs)
    arms = {"with": "keep", "without": "unbalanced"}
    recipes = {name: [small(arm, rate, seed) for seed in SEEDS] for name, arm in arms.items()}
    loss = {name: runs.losses(of_arm) for name, of_arm in recipes.items()}
    busiest = {
        name: [late_mean(runs.metrics(recipe), "busiest_expert") for recipe in of_arm]
        for name, of_arm in recipes.items()
    }
    for name, values in busiest.items():
        yield figure(f"load_busiest_{name}", values, "x the mean")
    yield claim(
        "load_busiest_without_minus_with", "a balance loss makes the loads of experts alike",
        "said, without figures", differences(busiest["without"], busiest["with"]), "x the mean",
    )  # fmt: skip
    yield figure("load_loss_without_minus_with", differences(loss["without"], loss["with"]), "nats")
    first = {f"{name} the balance loss": runs.metrics(of[0]) for name, of in recipes.items()}
    write_text(figures / "moe-load.svg", load_figure(first))


def recipe(runs: Runs, figures: Path) -> Iterator[Row]:
    """The recipe `moe` as it comes with the library: loss, balance, a sample."""
    wanted = moe_recipe()
    (loss,) = runs.losses([wanted])
    rows = runs.metrics(wanted)
    first = next(row["train_loss"] for row in rows if "train_loss" in row)
    detail = {"first": first, "sample": sample(runs.run_dir(wanted))}
    yield figure("recipe_loss", [loss], "nats", detail=detail)
    yield figure("recipe_loss_fall", [first - loss], "nats", goal=(">=", 1.0))
    busiest = late_mean(rows, "busiest_expert")
    yield figure("recipe_busiest_expert", [busiest], "x the mean", goal=("<=", 2.0))
    write_text(figures / "moe-recipe-load.svg", load_figure({"recipe moe": rows}))


def sample(run_dir: Path) -> str:
    """What a trained model makes of the beginning of a function."""
    model, tokenizer, _ = load_model(run_dir)
    token_BT = generate(
        model,
        torch.tensor([tokenizer.encode(PROMPT)]),
        max_new_tokens=SAMPLE_TOKENS,
        temperature=0.7,
        top_p=0.9,
        generator=torch.Generator().manual_seed(1),
        stop_token=tokenizer.eos_id,
    )
    return tokenizer.decode(token_BT[0].tolist())


def late_mean(rows: Metrics, name: str) -> float:
    """Mean of a metric over the last logged steps."""
    values: Sequence[float] = [row[name] for row in rows if name in row]
    return mean(values[-max(1, round(LAST_SHARE * len(values))) :])
