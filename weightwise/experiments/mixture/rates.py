"""One learning rate for all weights against a rate of their own for experts, both tuned."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt
from typing import TYPE_CHECKING

from study.rows import claim, differences, figure

from weightwise.optim import expert_ratio
from weightwise.sweep.noise import estimate_noise
from weightwise.train.files import write_text

from .figures import rates_figure
from .runs import EXPERTS, SEEDS, TUNING_SEED, least, plain_rate, small, tuned

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

    from weightwise.sweep.noise import NoiseEstimate
    from weightwise.train import Recipe

RATIOS = {"x1": 1.0, "x0.31": 0.31, "x2": 2.0}
SINGLE = "x1"
WORDS = {"x0.31": "at 0.31 of the rate", "auto": "at the rate that the noise batch asks for"}
# Steps by sequences of a batch: about the same loss at the end.
NOISE_STEPS = {3: 400, 6: 300, 12: 230, 24: 180}
NOISE_FACTORS = (1.0, 2.0)  # of the rate that follows the root of the batch
TOKENS_PER_CHOICE = EXPERTS.num_experts / EXPERTS.top_k


def rates(runs: Runs, figures: Path) -> Iterator[Row]:
    """Losses at the best rate of each ratio, on seeds that had no part in choosing it."""
    ratios = dict(RATIOS)
    relative_batch = yield from noise(runs)
    if relative_batch is not None:
        ratios["auto"] = round(expert_ratio(TOKENS_PER_CHOICE, relative_batch), 2)
    grids = {name: tuned(runs, "keep", ratio) for name, ratio in ratios.items()}
    best = {name: least(grid) for name, grid in grids.items()}
    loss = {}
    for name, ratio in ratios.items():
        recipes = [small("keep", best[name], seed, expert_lr=ratio) for seed in SEEDS]
        loss[name] = runs.losses(recipes)
        detail = {"rate": best[name], "ratio": ratio, "tuning": list(grids[name].items())}
        yield figure(f"rates_loss_{name}", loss[name], "nats", detail=detail)
    for name in [name for name in WORDS if name in ratios]:
        yield claim(
            f"rates_single_minus_{name}", f"experts learn better {WORDS[name]}",
            "said, 0.31; no ablation", differences(loss[SINGLE], loss[name]), "nats",
        )  # fmt: skip
    chosen = min(ratios.keys() - {SINGLE}, key=lambda name: (grids[name][best[name]], name))
    yield claim(
        "rates_single_minus_best", "the best ratio other than 1 beats a single rate",
        "said, without figures", differences(loss[SINGLE], loss[chosen]), "nats",
        detail={"ratio": ratios[chosen]},
    )  # fmt: skip
    write_text(figures / "moe-rates.svg", rates_figure(grids, ratios))


def noise(runs: Runs) -> Generator[Row, None, float | None]:
    """Rows on the noise batch; returns batch over noise batch, None where runs show none."""
    rate = plain_rate(runs)
    recipes = [at_batch(size, rate * factor) for size in NOISE_STEPS for factor in NOISE_FACTORS]
    runs.make(recipes)
    found = estimate_noise([runs.run_dir(recipe) for recipe in recipes])
    detail = {
        "target": found.target, "refusal": found.refusal, "from_gradients": found.from_gradients,
        "steps": [[run.batch, run.peak_lr, run.steps] for run in found.runs if run.is_chosen],
    }  # fmt: skip
    if found.fit is not None:
        ends = list(found.fit.interval)
        more = {**detail, "interval_95": ends}
        yield figure("rates_noise_batch", [found.fit.noise_batch], "tokens", detail=more)
        yield figure("rates_noise_r_squared", [found.fit.r_squared], "", goal=(">=", 0.95))
    tokens = noise_tokens(found)
    if tokens is None:
        return None
    train = small("keep", rate, TUNING_SEED).train
    return train.batch_size * train.seq_length / tokens


def noise_tokens(found: NoiseEstimate) -> float | None:
    """The noise batch to use: of the fit, or where that is refused of the gradients."""
    if found.fit is not None and found.refusal is None:
        return found.fit.noise_batch
    return found.from_gradients


def at_batch(size: int, rate: float) -> Recipe:
    """Run with another batch and a constant rate, which follows the root of the batch.

    Parameters
    ----------
    size
        Sequences of a step.
    rate
        Learning rate for the batch of the other runs.
    """
    base = small("keep", rate, TUNING_SEED)
    peak = rate * sqrt(size / base.train.batch_size)
    schedule = replace(base.schedule, kind="constant", peak_lr=peak)
    train = replace(base.train, steps=NOISE_STEPS[size], batch_size=size, log_every=1)
    return replace(base, name=f"noise-b{size}-lr{rate:g}", schedule=schedule, train=train)
