"""How large a mixture of experts should be for its compute (arXiv 2411.02265, section 2.3.1).

Training N activated parameters on D tokens costs about

    C = 9.59 N D + 2.3e8 D                                          equation 2

and a batch of B tokens, larger than none at all, wastes a part of it; what counts is

    C_min = C / (1 + B / B_crit(L)),   B_crit(L) = B* / L^(1 / alpha_B)     equation 3

with Kaplan's constants (arXiv 2001.08361), since the paper gives none. Among runs of equal C_min
the loss is a parabola in log N, and one in log D. The bottoms of nine such parabolas gave

    N_opt = 5.9e-3 C_min^0.5305      D_opt = 3.2 C_min^0.5

`fit_budgets` does the same with other runs. The parabola also says what it costs to choose
another N than the best one, a (ln N - ln N_opt)^2 nats: flat enough that the paper trained 52
instead of 58 billion parameters.
"""

# Shapes: R runs, K budgets

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

MOST_RESAMPLINGS_FAILED = 0.5


@dataclass(frozen=True, kw_only=True)
class ComputeCost:
    """Training compute ``per_weight * N * D + per_token * D`` in FLOP."""

    per_weight: float
    per_token: float

    def flop(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Floats:
        """C of N activated parameters and D tokens."""
        size, data = np.asarray(num_params, np.float64), np.asarray(num_tokens, np.float64)
        return self.per_weight * size * data + self.per_token * data

    @classmethod
    def fitted(cls, num_params: ArrayLike, num_tokens: ArrayLike, flop: ArrayLike) -> ComputeCost:
        """The cost closest to runs whose C was counted, in relative terms.

        Raises
        ------
        ValueError
            If there are not two different sizes, or C per token does not grow with the size.
        """
        size = np.asarray(num_params, np.float64)
        each = np.asarray(flop, np.float64) / np.asarray(num_tokens, np.float64)
        if len(np.unique(size)) < 2:
            raise ValueError("num_params: expected at least 2 different sizes to fit their cost")
        slope, height = np.polyfit(size, each, 1, w=1 / each)
        if not slope > 0:
            raise ValueError("flop: expected a cost per token that grows with the size")
        return cls(per_weight=float(slope), per_token=float(height))


HUNYUAN_COST = ComputeCost(per_weight=9.59, per_token=2.3e8)
"""Equation 2 of arXiv 2411.02265; where its constants come from is not said there."""

DENSE_COST = ComputeCost(per_weight=6.0, per_token=0.0)
"""The usual ``6 N D``."""


def critical_batch(loss: ArrayLike, *, scale: float = 2e8, power: float = 0.21) -> Floats:
    """B_crit in tokens at a loss in nats (arXiv 2001.08361, equation 1.4)."""
    return scale / np.asarray(loss, np.float64) ** (1.0 / power)


def least_compute(flop: ArrayLike, batch: ArrayLike, critical: ArrayLike) -> Floats:
    """C_min: what the same loss would have cost with small batches."""
    relative = np.asarray(batch, np.float64) / np.asarray(critical, np.float64)
    return np.asarray(flop, np.float64) / (1.0 + relative)


@dataclass(frozen=True, kw_only=True)
class BudgetLaw:
    """Best size and data as powers of the compute.

    Parameters
    ----------
    size_scale, size_power
        ``N_opt = size_scale * C_min^size_power``.
    data_scale, data_power
        ``D_opt = data_scale * C_min^data_power``.
    """

    size_scale: float
    size_power: float
    data_scale: float
    data_power: float

    def best_size(self, compute: ArrayLike) -> Floats:
        """Activated parameters for C_min in FLOP."""
        return self.size_scale * np.asarray(compute, np.float64) ** self.size_power

    def best_data(self, compute: ArrayLike) -> Floats:
        """Tokens for C_min in FLOP."""
        return self.data_scale * np.asarray(compute, np.float64) ** self.data_power

    def compute_of_size(self, num_params: ArrayLike) -> Floats:
        """The C_min for which a size is the best one."""
        size = np.asarray(num_params, np.float64)
        return (size / self.size_scale) ** (1.0 / self.size_power)


HUNYUAN_BUDGET = BudgetLaw(size_scale=5.9e-3, size_power=0.5305, data_scale=3.2, data_power=0.5)
"""Section 2.3.1 of arXiv 2411.02265; its figures show budgets from 5.0e18 to 9.5e19 FLOP."""


@dataclass(frozen=True, kw_only=True)
class Valley:
    """Losses of one budget, ``a (ln x - ln best)^2 + least``.

    Parameters
    ----------
    compute
        C_min of the budget in FLOP, geometric mean of its runs.
    best, least
        Where the loss is least, and that loss.
    curvature
        a, above 0.
    """

    compute: float
    best: float
    least: float
    curvature: float

    def penalty(self, value: ArrayLike) -> Floats:
        """Nats that another value than the best costs."""
        return self.curvature * np.log(np.asarray(value, np.float64) / self.best) ** 2

    def flat_region(self, tolerance: float) -> tuple[float, float]:
        """Values between which the penalty stays within a tolerance in nats.

        Raises
        ------
        ValueError
            If the tolerance is negative.
        """
        if not tolerance >= 0:
            raise ValueError(f"tolerance: expected at least 0 nats, got {tolerance}")
        factor = float(np.exp(np.sqrt(tolerance / self.curvature)))
        return self.best / factor, self.best * factor


@dataclass(frozen=True, kw_only=True)
class BudgetFit:
    """A fitted `BudgetLaw` and what stands behind it.

    Parameters
    ----------
    law
        Powers through all valleys.
    sizes, tokens
        Valleys in N and in D, one a budget, by rising compute.
    samples
        Laws by resampling the runs of each budget, behind the intervals; none if most resampled
        budgets had no bottom.
    """

    law: BudgetLaw
    sizes: tuple[Valley, ...]
    tokens: tuple[Valley, ...]
    samples: tuple[BudgetLaw, ...]

    @property
    def size_power_interval(self) -> tuple[float, float]:
        """95 % interval of the exponent of N; NaN without samples."""
        return _interval([law.size_power for law in self.samples])

    @property
    def data_power_interval(self) -> tuple[float, float]:
        """95 % interval of the exponent of D; NaN without samples."""
        return _interval([law.data_power for law in self.samples])

    def size_interval(self, compute: float) -> tuple[float, float]:
        """95 % interval of the best N for C_min in FLOP; NaN without samples."""
        return _interval([float(law.best_size(compute)) for law in self.samples])

    def data_interval(self, compute: float) -> tuple[float, float]:
        """95 % interval of the best D for C_min in FLOP; NaN without samples."""
        return _interval([float(law.best_data(compute)) for law in self.samples])

    def curvature(self, compute: float) -> float:
        """Curvature a of the valley in N at another C_min, by a power through those of the fit."""
        known = np.log([(valley.compute, valley.curvature) for valley in self.sizes])
        power, height = np.polyfit(known[:, 0], known[:, 1], 1)
        return float(np.exp(height + power * np.log(compute)))


def fit_budgets(
    num_params: ArrayLike,
    num_tokens: ArrayLike,
    losses: ArrayLike,
    compute: ArrayLike,
    *,
    tolerance: float = 0.05,
    num_resamplings: int = 200,
    seed: int = 0,
) -> BudgetFit:
    """Fit best size and data from runs at several budgets.

    Parameters
    ----------
    num_params, num_tokens, losses, compute
        N, D, L in nats and C_min in FLOP of each run, shape (R,).
    tolerance
        Runs whose C_min lies within this share of each other belong to one budget.
    num_resamplings, seed
        Resampled fits behind the intervals, and their random numbers.

    Raises
    ------
    ValueError
        If there are fewer than two budgets with three sizes each, or the losses of a budget have
        no bottom within its sizes: the budget is named.
    """
    columns = [np.asarray(x, np.float64) for x in (num_params, num_tokens, losses, compute)]
    names = ("num_params", "num_tokens", "losses", "compute")
    for name, column in zip(names, columns, strict=True):
        if column.ndim != 1 or len(column) != len(columns[0]):
            raise ValueError(f"{name}: expected as many runs as num_params, one axis")
        if not (np.isfinite(column) & (column > 0)).all():
            raise ValueError(f"{name}: expected finite numbers above 0")
    budgets = _budgets(columns[3], tolerance)
    if len(budgets) < 2:
        raise ValueError(f"compute: expected runs of at least 2 budgets, got {len(budgets)}")
    law, sizes, tokens = _fit(columns, budgets)
    rng = np.random.default_rng(seed)
    samples = []
    for _ in range(num_resamplings):
        drawn = [rng.choice(rows, len(rows)) for rows in budgets]
        try:
            samples.append(_fit(columns, drawn)[0])
        except ValueError:  # too few different sizes were drawn, or no bottom among them
            continue
    if len(samples) < MOST_RESAMPLINGS_FAILED * num_resamplings:
        samples = []
    return BudgetFit(law=law, sizes=sizes, tokens=tokens, samples=tuple(samples))


def _interval(values: list[float]) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _budgets(compute_R: Floats, tolerance: float) -> list[NDArray[np.int64]]:
    """Rows of each budget, by rising compute."""
    order_R = np.argsort(compute_R, kind="stable")
    gaps = np.flatnonzero(np.diff(np.log(compute_R[order_R])) > np.log1p(tolerance))
    return list(np.split(order_R, gaps + 1))


def _fit(
    columns: list[Floats], budgets: list[NDArray[np.int64]]
) -> tuple[BudgetLaw, tuple[Valley, ...], tuple[Valley, ...]]:
    size_R, data_R, loss_R, compute_R = columns
    sizes = tuple(_valley(size_R[k], loss_R[k], compute_R[k]) for k in budgets)
    tokens = tuple(_valley(data_R[k], loss_R[k], compute_R[k]) for k in budgets)
    (size_power, log_size), (data_power, log_data) = _power(sizes), _power(tokens)
    law = BudgetLaw(
        size_scale=float(np.exp(log_size)), size_power=size_power,
        data_scale=float(np.exp(log_data)), data_power=data_power,
    )  # fmt: skip
    return law, sizes, tokens


def _valley(value_R: Floats, loss_R: Floats, compute_R: Floats) -> Valley:
    compute = float(np.exp(np.log(compute_R).mean()))
    if len(np.unique(value_R)) < 3:
        raise ValueError(f"budget {compute:.3g} FLOP: expected at least 3 different sizes")
    x_R = np.log(value_R)
    a, b, c = np.polyfit(x_R, loss_R, 2)
    vertex = -b / (2 * a) if a > 0 else np.inf
    if not x_R.min() <= vertex <= x_R.max():
        raise ValueError(
            f"budget {compute:.3g} FLOP: expected the least loss within the sizes that were "
            "trained; add smaller or larger ones"
        )
    least = float(c - b * b / (4 * a))
    return Valley(compute=compute, best=float(np.exp(vertex)), least=least, curvature=float(a))


def _power(valleys: tuple[Valley, ...]) -> tuple[float, float]:
    log_compute = np.log([valley.compute for valley in valleys])
    power, height = np.polyfit(log_compute, np.log([valley.best for valley in valleys]), 1)
    return float(power), float(height)
