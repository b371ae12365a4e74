"""Robust fits of laws to runs, with many starts, bootstrap intervals and cross-validation.

The default is the objective of Hoffmann et al. (arXiv 2203.15556): the sum of Huber losses of
log-loss residuals. Constants are found by variable projection at the starts and trust-region
least squares from the best of them; all coefficients stay positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.optimize import least_squares, nnls

from weightwise.laws.families import FAMILIES
from weightwise.laws.law import Hull

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from weightwise.laws.families import Family
    from weightwise.laws.law import Floats, Law, Settings

Objective = Literal["huber", "squares"]
HUBER_DELTA = 1e-3
# Starts that are followed to the end: the best of the grid by least squares.
NUM_FOLLOWED = 9
# Least coefficient of a start, in losses: least squares may put one to zero.
_LEAST = 1e-6


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
    def bic(self) -> float:
        """Bayesian information criterion for normal residuals; smaller is better."""
        num_runs = len(self.residuals)
        spread = max(float(np.mean(self.residuals**2)), 1e-30)
        return float(num_runs * np.log(spread) + self.num_constants * np.log(num_runs))


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
        ``"capybara"``, ``"kumar"`` (bits only), ``"chinchilla"`` or ``"openai"``.
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
    family, losses = _family(name, settings), _checked(settings, losses)
    problem = _Problem(family, losses, objective, delta)
    if len(losses) < problem.num_constants:
        raise ValueError(
            f"{name} has {problem.num_constants} constants: expected at least as many runs, "
            f"got {len(losses)}"
        )
    best, point = min(map(problem.solve, problem.starts()), key=lambda found: found[0])
    hull = hull_of(settings)
    law = problem.law(point, hull)
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(num_samples):
        rows = rng.integers(len(losses), size=len(losses))
        resampled = _Problem(family, losses, objective, delta, rows)
        samples.append(problem.law(resampled.solve(point)[1], hull))
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
    losses = _checked(settings, losses)
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
    names = np.array(
        [
            f"E{e:.0f}M{m:.0f}" if used else "16 bits"
            for e, m, used in zip(
                settings.exponent_bits, settings.mantissa_bits, settings.is_quantized, strict=True
            )
        ]
    )
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


class _Problem:
    """Residuals of a family on some rows of its runs, with their derivatives.

    A point is the exponents followed by the logarithms of the coefficients.
    """

    def __init__(
        self,
        family: Family,
        losses: Floats,
        objective: Objective,
        delta: float,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._family, self._delta = family, delta
        self._rows = np.arange(len(losses)) if rows is None else rows
        self._losses, self._is_huber = losses[self._rows], objective == "huber"
        self._num_exponents = len(next(iter(family.starts())))

    @property
    def num_constants(self) -> int:
        """Open constants."""
        return self._num_exponents + self._family.num_coefficients

    def starts(self) -> list[Floats]:
        """The best points of the grid, coefficients by non-negative least squares."""
        ranked = []
        for i, theta in enumerate(self._family.starts()):
            features = self._features(theta)[0]
            # Relative errors in the data, as in the logarithm; columns scaled alike.
            weighted = (features / self._losses).T
            scale = np.linalg.norm(weighted, axis=0)
            solved, error = nnls(weighted / scale, np.ones(len(self._losses)))
            coefficients = np.maximum(solved / scale, _LEAST / features.max(axis=1))
            ranked.append((error, i, np.concatenate([theta, np.log(coefficients)])))
        return [point for _, _, point in sorted(ranked)[:NUM_FOLLOWED]]

    def solve(self, start: Floats) -> tuple[float, Floats]:
        """Objective and point where least squares from a start ends."""
        found = least_squares(
            self._residuals, start, self._jacobian, x_scale="jac", method="trf",
            loss="huber" if self._is_huber else "linear", f_scale=self._delta,
            ftol=1e-12, xtol=1e-12, gtol=1e-14, max_nfev=300,
        )  # fmt: skip
        return float(found.cost), np.asarray(found.x)

    def law(self, point: Floats, hull: Hull | None) -> Law:
        """The law at a point."""
        theta, logs = np.split(point, [self._num_exponents])
        return self._family.law(theta, np.exp(logs), hull)

    def _features(self, theta: Floats) -> tuple[Floats, Floats]:
        values, slopes = self._family.features(theta)
        return values[:, self._rows], slopes[:, :, self._rows]

    def _terms(self, point: Floats) -> tuple[Floats, Floats]:
        """Losses that a point predicts, shape (R,), and their derivatives, (R, K + J)."""
        theta, logs = np.split(point, [self._num_exponents])
        # Least squares takes back a step to where a term is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            values, slopes = self._features(theta)
            parts = np.exp(logs)[:, None] * values
            by_theta = np.einsum("j,jkr->rk", np.exp(logs), slopes)
        return parts.sum(axis=0), np.concatenate([by_theta, parts.T], axis=1)

    def _residuals(self, point: Floats) -> Floats:
        loss = self._terms(point)[0]
        with np.errstate(divide="ignore"):
            return np.log(loss / self._losses) if self._is_huber else loss - self._losses

    def _jacobian(self, point: Floats) -> Floats:
        loss, slopes = self._terms(point)
        return slopes / loss[:, None] if self._is_huber else slopes


def _family(name: str, settings: Settings) -> Family:
    if name not in FAMILIES:
        raise ValueError(f"law: expected one of {', '.join(FAMILIES)}, got {name!r}")
    return FAMILIES[name](settings)


def _checked(settings: Settings, losses: Floats) -> Floats:
    losses = np.asarray(losses, dtype=np.float64)
    if losses.shape != (len(settings),):
        raise ValueError(f"losses: expected {len(settings)} numbers, got shape {losses.shape}")
    wrong = np.flatnonzero(~((losses > 0) & np.isfinite(losses)))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"row {row + 1}: loss: expected a number above 0, got {losses[row]}")
    return losses
