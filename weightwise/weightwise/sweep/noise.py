"""What finished runs say about the noise batch and the highest learning rate.

The runs differ in batch, learning rate and seed only. At every batch the rate with the fewest
steps to the target counts, with all its seeds; the others show that it is the best one. So one
grid gives the noise batch of `weightwise.optim.fit_noise`, and with it the highest rate of
`weightwise.optim.highest_rate` (arXiv 2405.14578, section 3.2).

The loss may be that of training, logged often and smoothed here, or that of validation, which is
smooth by itself where it is evaluated often.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from weightwise.optim import fit_noise, gradient_noise_batch, highest_rate
from weightwise.optim.noise import BANDWIDTH, smooth_curve, steps_to_loss
from weightwise.train import read_metrics, read_recipe, to_dict
from weightwise.train.recipe_conflicts import difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from weightwise.optim import NoiseFit
    from weightwise.train import Recipe

    Floats = NDArray[np.float64]

Curve = Literal["train", "valid"]
# What the runs may differ in: batch and rate, and what does not touch the loss at a step.
FREE = frozenset(
    {
        "name", "seed", "schedule.peak_lr", "schedule.warmup_steps", "schedule.decay_steps",
        "train.batch_size", "train.micro_batch_size", "train.steps", "train.eval_every",
        "train.eval_batches", "train.save_every", "train.keep_checkpoints", "train.log_every",
        "train.tensorboard", "train.strategy",
    }
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NoiseRun:
    """One run on its way to the target.

    Parameters
    ----------
    folder
        Folder of the run.
    batch
        Tokens per step.
    peak_lr
        Its learning rate.
    steps
        Steps until the target, infinite if it was not reached.
    squared_norm
        Squared norm of the gradient there, smoothed; NaN if it is not known.
    is_chosen
        Whether its rate is the best one of its batch.
    """

    folder: Path
    batch: int
    peak_lr: float
    steps: float
    squared_norm: float
    is_chosen: bool


@dataclass(frozen=True, kw_only=True)
class NoiseEstimate:
    """The noise batch of some runs.

    Parameters
    ----------
    target
        Loss that all were measured to, nats a token.
    runs
        By batch and rate.
    fit
        The line through the chosen runs; None if they show no noise batch.
    refusal
        Why the fit should not be used; None if nothing speaks against it.
    highest_rate
        Rate at the noise batch, from the best rate of each batch; None without a fit.
    from_gradients
        Noise batch by the norms of gradients, an order of magnitude; None if they show none.
    warnings
        What else to know.
    """

    target: float
    runs: tuple[NoiseRun, ...]
    fit: NoiseFit | None
    refusal: str | None
    highest_rate: float | None
    from_gradients: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Logged:
    """What a run wrote."""

    folder: Path
    recipe: Recipe
    curve: tuple[Floats, Floats]
    squared_norms: tuple[Floats, Floats] | None

    @property
    def batch(self) -> int:
        return self.recipe.train.batch_size * self.recipe.train.seq_length

    @property
    def key(self) -> tuple[int, float]:
        return self.batch, self.recipe.schedule.peak_lr


def estimate_noise(
    folders: Sequence[Path],
    *,
    target: float | None = None,
    curve: Curve = "train",
    bandwidth: float = BANDWIDTH,
) -> NoiseEstimate:
    """Estimate the noise batch and the highest learning rate from finished runs.

    Parameters
    ----------
    folders
        Folders of runs at two batches or more.
    target
        Loss to measure to, nats a token; by default the least one that some run of every batch
        reaches.
    curve
        Loss of training, or of validation.
    bandwidth
        Of the smoothing, see `weightwise.optim.noise.smooth_curve`.

    Raises
    ------
    ValueError
        If a folder is no run, the runs differ in more than batch, rate and seed, or the target is
        not within the curves of every batch.
    """
    logged = [_read(Path(folder), curve, bandwidth) for folder in folders]
    _require_alike(logged)
    reach = _reach(logged)
    if len(reach) < 2:
        raise ValueError(f"runs: expected at least 2 different batches, got {len(reach)}")
    least = max(reach.values())
    if target is None:
        target = least
    elif target < least:
        batch = max(reach, key=reach.__getitem__)
        raise ValueError(
            f"target: expected at least {least:.4f}, which the runs with {batch} tokens a step "
            f"reach, got {target:g}"
        )
    runs = _chosen([_measure(one, target) for one in logged])
    fit, refusal = _fit(runs)
    rates = _best_rates(runs)
    highest = None
    if fit is not None:
        highest = highest_rate(list(rates.values()), list(rates), fit.noise_batch)
    return NoiseEstimate(
        target=target,
        runs=tuple(runs),
        fit=fit,
        refusal=refusal,
        highest_rate=highest,
        from_gradients=_from_gradients(runs),
        warnings=tuple(_warnings(logged, runs, fit)),
    )


def _read(folder: Path, curve: Curve, bandwidth: float) -> _Logged:
    path = folder / "metrics.jsonl"
    recipe = read_recipe(folder / "recipe.toml")
    rows = [row for row in read_metrics(path) if f"{curve}_loss" in row]
    if len(rows) < 3:
        raise ValueError(f"{path}: expected at least 3 rows with {curve}_loss, got {len(rows)}")
    steps = [row["step"] for row in rows]
    norms = [row for row in read_metrics(path) if row.get("grad_norm", 0.0) > 0]
    squares = None
    if len(norms) >= 3:
        squared = [row["grad_norm"] ** 2 for row in norms]
        squares = smooth_curve([row["step"] for row in norms], squared, bandwidth=bandwidth)
    losses = [row[f"{curve}_loss"] for row in rows]
    smooth = smooth_curve(steps, losses, bandwidth=bandwidth)
    return _Logged(folder=folder, recipe=recipe, curve=smooth, squared_norms=squares)


def _require_alike(logged: list[_Logged]) -> None:
    for other in logged[1:]:
        first, settings = logged[0], to_dict(other.recipe)
        conflict = difference(to_dict(first.recipe), settings, FREE, where=str(first.folder))
        if conflict:
            raise ValueError(f"{other.folder}: {conflict}")


def _reach(logged: list[_Logged]) -> dict[int, float]:
    """The loss that all seeds of some rate reach, for each batch."""
    of_rate: dict[tuple[int, float], float] = {}
    for one in logged:
        # Lower than that the curve is at one place only, where it may have turned already.
        of_rate[one.key] = max(of_rate.get(one.key, -math.inf), float(one.curve[1].min()))
    reach: dict[int, float] = {}
    for (batch, _), loss in of_rate.items():
        reach[batch] = min(reach.get(batch, math.inf), loss)
    return reach


def _measure(one: _Logged, target: float) -> NoiseRun:
    try:
        steps = steps_to_loss(*one.curve, target)
    except ValueError as error:
        raise ValueError(f"{one.folder}: {error}") from None
    norm = math.nan
    if steps is not None and one.squared_norms is not None:
        norm = float(np.interp(math.log(steps), np.log(one.squared_norms[0]), one.squared_norms[1]))
    return NoiseRun(
        folder=one.folder,
        batch=one.batch,
        peak_lr=one.recipe.schedule.peak_lr,
        steps=math.inf if steps is None else steps,
        squared_norm=norm,
        is_chosen=False,
    )


def _by_rate(runs: list[NoiseRun]) -> dict[int, dict[float, float]]:
    """Mean steps of the seeds, for each batch and rate, both rising."""
    seeds: dict[int, dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(runs, key=lambda run: (run.batch, run.peak_lr)):
        seeds[run.batch][run.peak_lr].append(run.steps)
    return {
        batch: {rate: float(np.mean(steps)) for rate, steps in rates.items()}
        for batch, rates in seeds.items()
    }


def _chosen(runs: list[NoiseRun]) -> list[NoiseRun]:
    """The runs by batch and rate; those of the best rate of a batch are marked."""
    best = {batch: min(rates, key=rates.__getitem__) for batch, rates in _by_rate(runs).items()}
    ordered = sorted(runs, key=lambda run: (run.batch, run.peak_lr, str(run.folder)))
    return [replace(run, is_chosen=run.peak_lr == best[run.batch]) for run in ordered]


def _fit(runs: list[NoiseRun]) -> tuple[NoiseFit | None, str | None]:
    chosen = [run for run in runs if run.is_chosen]
    try:
        fit = fit_noise([run.steps for run in chosen], [run.batch for run in chosen])
    except ValueError as error:
        return None, str(error)
    return fit, fit.doubt()


def _best_rates(runs: list[NoiseRun]) -> dict[int, float]:
    """Best rate of each batch: the bottom of a parabola through three neighbours, if it has one."""
    found = {}
    for batch, means in _by_rate(runs).items():
        rates, steps = np.array(list(means)), np.array(list(means.values()))
        k = int(steps.argmin())
        found[batch] = float(rates[k])
        near = slice(k - 1, k + 2)
        if 0 < k < len(rates) - 1 and np.isfinite(steps[near]).all():
            a, b, _ = np.polyfit(np.log(rates[near]), np.log(steps[near]), 2)
            if a > 0:
                found[batch] = float(np.exp(-b / (2 * a)))
    return found


def _from_gradients(runs: list[NoiseRun]) -> float | None:
    known = [run for run in runs if run.is_chosen and math.isfinite(run.squared_norm)]
    try:
        return gradient_noise_batch(
            [run.squared_norm for run in known], [run.batch for run in known]
        )
    except ValueError:
        return None


def _warnings(logged: list[_Logged], runs: list[NoiseRun], fit: NoiseFit | None) -> list[str]:
    found = []
    if any(one.recipe.schedule.kind != "constant" for one in logged):
        found.append(
            "the learning rate of these runs decays, so steps until a loss depend on where it "
            "stands; schedule.kind=constant does not have that"
        )
    if fit is not None and (text := fit.warning()):
        found.append(text)
    for batch, rates in _by_rate(runs).items():
        best = min(rates, key=rates.__getitem__)
        if len(rates) == 1:
            found.append(f"batch {batch}: one learning rate only, taken as the best")
        elif best in (min(rates), max(rates)):
            found.append(f"batch {batch}: the best learning rate {best:g} is the end of its grid")
    return found
