"""Best size and data of mixtures of experts, from runs of equal compute."""

from __future__ import annotations

import sys
from math import log, sqrt
from typing import TYPE_CHECKING

import numpy as np
from study.rows import claim, figure
from study.runs import BYTES, loss_of

from weightwise.laws.moe import critical_batch, fit_budgets, least_compute
from weightwise.lm import GQAConfig, ModelConfig, MoEConfig, num_parameters
from weightwise.lm.flops import training_flop
from weightwise.optim import ScheduleConfig
from weightwise.report.moe_figures import isoflop_figure
from weightwise.train import DataConfig, Recipe, TrainConfig
from weightwise.train.files import write_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from study.rows import Row
    from study.runs import Runs

    from weightwise.laws.moe import BudgetFit

WIDTHS = (8, 16, 24, 32, 40, 48, 64, 96, 128)
FIRST = {  # by FLOP
    6e10: (8, 16, 24, 32, 40, 48),
    1.8e11: (16, 24, 32, 40, 48),
    5.4e11: (24, 32, 40, 48, 64),
}
BUDGETS = tuple(FIRST)
BATCH, LENGTH = 8, 64
RATE, RATE_WIDTH = 4e-3, 64  # the rate falls with the root of the width
PAPER_POWERS = {"size": 0.5305, "data": 0.5}
# The paper trained 52 where 58.1 billion were best; that should cost less than another seed.
CHOSEN_SHARE = 52 / 58.1
FLAT_NATS = 0.005

Point = tuple[int, int, float, float]  # N, D, loss, C_min


def law(runs: Runs, figures: Path) -> Iterator[Row]:
    """Valleys of each budget, the powers through them, and how flat they are."""
    runs.make(at_budget(budget, width) for budget in BUDGETS for width in FIRST[budget])
    budgets = {budget: sized(budget, lambda w, b=budget: measure(runs, b, w)) for budget in BUDGETS}
    points = [point for budget in budgets.values() for point in budget.values()]
    detail = {"runs": points}
    yield figure("law_runs", [len(points)], "", detail=detail)
    good = {budget: list(found.values()) for budget, found in budgets.items()
            if is_valley([(n, loss) for n, _, loss, _ in found.values()])}  # fmt: skip
    yield claim(
        "law_valleys", "the loss of a budget is a convex parabola in log N",
        "nine budgets of nine", [len(good)], "budgets", goal=("==", len(BUDGETS)),
    )  # fmt: skip
    if len(good) < 2:
        print("law: expected valleys in at least two budgets", file=sys.stderr)
        return
    columns = np.array([point for found in good.values() for point in found]).T
    fit = fit_budgets(*columns)
    yield from powers(fit)
    penalties = [float(valley.penalty(valley.best * CHOSEN_SHARE)) for valley in fit.sizes]
    yield claim(
        "law_flat_penalty", "a tenth fewer weights than best cost next to nothing",
        "52 instead of 58.1 billion", [max(penalties)], "nats", goal=("<=", FLAT_NATS),
        detail={"by_budget": penalties},
    )  # fmt: skip
    write_text(figures / "moe-law.svg", isoflop_figure(fit, columns[0], columns[2], columns[3]))


def powers(fit: BudgetFit) -> Iterator[Row]:
    """Powers of the compute with their intervals."""
    for what, words, value, interval in (
        ("size", "the best N", fit.law.size_power, fit.size_power_interval),
        ("data", "the best D", fit.law.data_power, fit.data_power_interval),
    ):
        ends = None if np.isnan(interval[0]) else list(interval)
        valleys = fit.sizes if what == "size" else fit.tokens
        detail = {"interval_95": ends, "best": [[one.compute, one.best] for one in valleys]}
        yield claim(
            f"law_{what}_power", f"{words} grows as a power of the compute",
            f"power {PAPER_POWERS[what]:g}", [value], "", detail=detail,
        )  # fmt: skip


def sized(budget: float, point: Callable[[int], Point]) -> dict[int, Point]:
    """Runs of one budget by width: more sizes until the least loss lies between others."""
    found = {width: point(width) for width in FIRST[budget]}
    while True:
        widths = sorted(found)
        best = min(found, key=lambda width: found[width][2])
        place = WIDTHS.index(best) + (-1 if best == widths[0] else 1)
        if best not in (widths[0], widths[-1]) or not 0 <= place < len(WIDTHS):
            return {width: found[width] for width in widths}
        found[WIDTHS[place]] = point(WIDTHS[place])


def measure(runs: Runs, budget: float, width: int) -> Point:
    """N, D, loss and C_min of one run."""
    wanted = at_budget(budget, width)
    (record,) = runs.make([wanted])
    loss, tokens = loss_of(record), int(record["num_tokens"])
    flop = training_flop(wanted.model, LENGTH) * tokens
    compute = least_compute(flop, BATCH * LENGTH, critical_batch(loss))
    return num_parameters(wanted.model), tokens, loss, float(compute)


def at_budget(budget: float, width: int) -> Recipe:
    """Two layers of a width, on as many bytes as the budget allows."""
    model = ModelConfig(
        vocab_size=BYTES,
        width=width,
        num_layers=2,
        max_length=LENGTH,
        attention=GQAConfig(num_heads=width // 8, qk_norm=True, share_factor=2),
        ffn=MoEConfig(hidden=3 * width // 2, num_experts=8),
    )
    steps = round(budget / (training_flop(model, LENGTH) * BATCH * LENGTH))
    return Recipe(
        name=f"law-c{budget:.1e}-w{width}".replace("+", ""),
        seed=1,
        model=model,
        data=DataConfig(valid_fraction=0.03),
        schedule=ScheduleConfig(
            peak_lr=RATE * sqrt(RATE_WIDTH / width),
            warmup_steps=min(50, steps // 10),
            min_lr_ratio=0.1,
        ),
        train=TrainConfig(
            steps=steps,
            batch_size=BATCH,
            seq_length=LENGTH,
            eval_every=10**6,  # the last step only
            eval_batches=100,
            save_every=1000,
            keep_checkpoints=1,
            log_every=50,
        ),
    )


def is_valley(points: Sequence[tuple[float, float]]) -> bool:
    """Whether the parabola through losses over ln N opens upwards and has its bottom inside."""
    x = [log(size) for size, _ in points]
    a, b, _ = np.polyfit(x, [loss for _, loss in points], 2)
    return bool(a > 0 and min(x) <= -b / (2 * a) <= max(x))
