"""Robust fits of laws to runs, with many starts, bootstrap intervals and cross-validation.

The default is the objective of Hoffmann et al. (arXiv 2203.15556): the sum of Huber losses of
log-loss residuals; `weightwise.laws.problem` holds the residuals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weightwise.laws.law import Hull
from weightwise.laws.problem import HUBER_DELTA, Problem, checked

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from weightwise.laws.law import Floats, Law, Settings
    from weightwise.laws.problem import Objective


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A fitted law and how well it fits.

    Parameters
    ----------
    law
        The law with its constants and the range of its runs.
    objective
        Sum of Huber losses of log residuals, or half the sum of squared loss residuals.
    residuals
        Predicted minus observed losses, shape (R,).
    num_constants
        Constants that were open.
    samples
        The law refitted on resampled runs, for intervals.
    """

    law: Law
    objective: float
    residuals: Floats
    num_constants: int
    samples: tuple[Law, ...] = ()

    @property
    def rmse(self) -> float:
        """Root of the mean squared residual, nats a token."""
        return float(np.sqrt(np.mean(self.residuals**2)))

    @property
    def aic(self) -> float:
        """Akaike's information criterion for normal residuals; smaller is better."""
        return self._criterion(2.0)

    @property
    def bic(self) -> float:
        """Bayesian information criterion for normal residuals; smaller is better."""
        return self._criterion(float(np.log(len(self.residuals))))

    def _criterion(self, price: float) -> float:
        """Twice the negative log likelihood, up to a constant, with a price for each constant."""
        spread = max(float(np.mean(self.residuals**2)), 1e-30)
        return float(len(self.residuals) * np.log(spread) + self.num_constants * price)


def fit(
    name: str,
    settings: Settings,
    losses: Floats,
    *,
    objective: Objective = "huber",
    delta: float = HUBER_DELTA,
    num_samples: int = 0,
    seed: int = 0,
    on_sample: Callable[[int], None] | None = None,
) -> Fit:
    """Fit a law.

    Parameters
    ----------
    name
        ``"capybara"``, ``"qat"``, ``"kumar"`` (bits only), ``"chinchilla"`` or ``"openai"``.
    settings, losses
        The runs, R of them; losses in nats a token, above 0.
    objective
        ``"huber"`` on log losses, or ``"squares"`` of losses.
    delta
        Where Huber's loss turns from squares to absolute values.
    num_samples
        Bootstrap samples, each refitted from the optimum.
    seed
        Of the bootstrap.
    on_sample
        Called with the number of samples that are done.

    Raises
    ------
    ValueError
        If the name is unknown, losses are not positive numbers, or the runs are too few.
    """
    losses = checked(settings, losses)
    problem = Problem.of(name, settings, losses, objective, delta)
    best, point = problem.best()
    hull = hull_of(settings)
    law = problem.law(point, hull)
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(num_samples):
        rows = rng.integers(len(losses), size=len(losses))
        samples.append(problem.law(problem.resampled(rows).solve(point)[1], hull))
        if on_sample:
            on_sample(i + 1)
    return Fit(
        law=law, objective=best, residuals=law.loss(settings) - losses,
        num_constants=problem.num_constants, samples=tuple(samples),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Errors of a law on runs that its fit did not see, in nats a token.

    Parameters
    ----------
    rmse
        Root of the mean squared error over all runs left out.
    bias
        Mean of predicted minus observed.
    """

    rmse: float
    bias: float


def cross_validate(
    name: str,
    settings: Settings,
    losses: Floats,
    *,
    num_folds: int = 5,
    objective: Objective = "huber",
    seed: int = 0,
) -> Validation:
    """Fit on all folds but one and predict that one, for every fold of random runs.

    Raises
    ------
    ValueError
        If there are fewer runs than folds, or too few to fit.
    """
    if not 2 <= num_folds <= len(settings):
        raise ValueError(f"num_folds: expected 2 to {len(settings)}, got {num_folds}")
    fold = np.random.default_rng(seed).permutation(len(settings)) % num_folds
    return _left_out(name, settings, losses, fold, objective)


def extrapolate(
    name: str, settings: Settings, losses: Floats, *, objective: Objective = "huber"
) -> Validation:
    """Fit without the largest models, and predict them.

    Raises
    ------
    ValueError
        If there is only one size, or too few runs are left.
    """
    is_largest = settings.num_params == settings.num_params.max()
    if is_largest.all():
        raise ValueError("num_params: expected at least two sizes")
    return _left_out(name, settings, losses, np.where(is_largest, 0, -1), objective)


def _left_out(
    name: str, settings: Settings, losses: Floats, fold: NDArray[np.int64], objective: Objective
) -> Validation:
    """Errors on each fold from 0 of a law fitted on all other runs."""
    losses = checked(settings, losses)
    errors = []
    for i in range(int(fold.max()) + 1):
        out = fold == i
        law = fit(name, settings[~out], losses[~out], objective=objective).law
        errors.append(law.loss(settings[out]) - losses[out])
    all_errors = np.concatenate(errors)
    rmse = float(np.sqrt(np.mean(all_errors**2)))
    return Validation(rmse=rmse, bias=float(all_errors.mean()))


def biases(law: Law, settings: Settings, losses: Floats) -> dict[str, float]:
    """Mean of predicted minus observed loss for each number format, nats a token."""
    error = law.loss(settings) - losses
    names = settings.format_names
    return {str(name): float(error[names == name].mean()) for name in np.unique(names)}


def hull_of(settings: Settings) -> Hull:
    """The range of given runs."""
    used = settings.is_quantized
    bits = zip(settings.exponent_bits[used], settings.mantissa_bits[used], strict=True)
    return Hull(
        num_params=(float(settings.num_params.min()), float(settings.num_params.max())),
        num_tokens=(float(settings.num_tokens.min()), float(settings.num_tokens.max())),
        formats=frozenset((int(e), int(m)) for e, m in bits),
        setup=f"{len(settings)} runs",
    )
