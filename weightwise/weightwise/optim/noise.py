"""The noise batch, measured: from runs at several batches, or from the norms of gradients.

Runs that reach one loss with batches B need S steps and E = S B tokens, and

    1 / S = 1 / S_min - B_noise / E,      B_noise = E_min / S_min

(arXiv 1812.06162, equation 2.11; arXiv 2405.14578, section 3.2), so a straight line through
(1 / E, 1 / S) gives it. That holds where every run has the best learning rate of its batch.
`steps_to_loss` reads S off a logged curve: the curve is smoothed by a local straight line in the
logarithm of the step, which treats short and long runs alike and does not bend a falling curve as
a plain average does.

The cheap estimate needs no target: the squared norm of the gradient of a batch is on average

    |G_B|^2 = |G|^2 + tr(Sigma) / B

and B_simple = tr(Sigma) / |G|^2 (arXiv 1812.06162, appendix A.1). It is right at one point of
training only, and says the order of magnitude.
"""

# Shapes: R runs, K logged steps, P places where the smooth curve is computed

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from weightwise.optim.expert_rate import noise_batch

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

LEAST_R_SQUARED = 0.95
BANDWIDTH = 0.1
NUM_PLACES = 400


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseFit:
    """A straight line through runs to one loss, and what stands behind it.

    Parameters
    ----------
    noise_batch
        B_noise in tokens, as `weightwise.optim.OptimizerConfig` takes it.
    interval
        95 % of the lines through resampled runs; NaN with fewer than three different batches.
    least_steps, least_tokens
        S_min with very large batches, E_min with very small ones.
    r_squared
        How well the line fits the means of the batches, at most 1: seeds may scatter around them.
    steps, batches
        S and B of the runs, shape (R,).
    """

    noise_batch: float
    interval: tuple[float, float]
    least_steps: float
    least_tokens: float
    r_squared: float
    steps: Floats
    batches: Floats

    def doubt(self) -> str | None:
        """Why the estimate should not be used; None if nothing speaks against it."""
        if self.r_squared < LEAST_R_SQUARED:
            return (
                f"1/S against 1/E is no straight line (R^2 {self.r_squared:.3f}, expected at "
                f"least {LEAST_R_SQUARED}): tune the learning rate at every batch, or choose a "
                "target that every run passes well before its end"
            )
        if self.interval[0] <= 0:
            return (
                f"the interval reaches 0 ({self.interval[0]:.3g} to {self.interval[1]:.3g} "
                "tokens): add runs with larger and smaller batches, or more seeds"
            )
        return None

    def warning(self) -> str | None:
        """A remark on batches that lie to one side of the noise batch."""
        low, high = float(self.batches.min()), float(self.batches.max())
        if low / 4 <= self.noise_batch <= high * 4:
            return None
        return (
            f"noise batch {self.noise_batch:.3g} lies far from the batches of the runs, {low:.3g} "
            f"to {high:.3g} tokens"
        )


def fit_noise(
    steps: ArrayLike, batches: ArrayLike, *, num_resamplings: int = 1000, seed: int = 0
) -> NoiseFit:
    """Estimate the noise batch from runs to one loss, with an interval.

    Parameters
    ----------
    steps
        Steps until the loss was reached, shape (R,).
    batches
        Tokens per step, shape (R,).
    num_resamplings, seed
        Lines through resampled runs behind the interval, and their random numbers.

    Raises
    ------
    ValueError
        As `weightwise.optim.noise_batch` does.
    """
    noise, _ = noise_batch(steps, batches)
    steps_R, batch_R = np.asarray(steps, np.float64), np.asarray(batches, np.float64)
    x_R, y_R = 1.0 / (steps_R * batch_R), 1.0 / steps_R
    # A line of least squares goes through the means.
    height = float(y_R.mean() + noise * x_R.mean())
    least_steps = 1.0 / height
    return NoiseFit(
        noise_batch=noise,
        interval=_interval(x_R, y_R, batch_R, num_resamplings, seed),
        least_steps=least_steps,
        least_tokens=noise * least_steps,
        r_squared=_straightness(x_R, y_R, batch_R, -noise, height),
        steps=steps_R,
        batches=batch_R,
    )


def _straightness(x_R: Floats, y_R: Floats, batch_R: Floats, slope: float, height: float) -> float:
    """Share of the spread between batches that a line explains."""
    groups = [batch_R == batch for batch in np.unique(batch_R)]
    means = np.array([(x_R[group].mean(), y_R[group].mean()) for group in groups])
    rest = means[:, 1] - (slope * means[:, 0] + height)
    spread = means[:, 1] - means[:, 1].mean()
    return float(1.0 - (rest @ rest) / (spread @ spread))


def _interval(
    x_R: Floats, y_R: Floats, batch_R: Floats, num_resamplings: int, seed: int
) -> tuple[float, float]:
    nothing = (float("nan"), float("nan"))
    if len(np.unique(batch_R)) < 3:
        return nothing
    drawn = np.random.default_rng(seed).integers(len(x_R), size=(num_resamplings, len(x_R)))
    drawn = drawn[np.ptp(batch_R[drawn], axis=1) > 0]  # one batch alone has no line
    if len(drawn) == 0:
        return nothing
    x, y = x_R[drawn], y_R[drawn]
    x = x - x.mean(axis=1, keepdims=True)
    low, high = np.quantile(-(x * y).sum(axis=1) / (x * x).sum(axis=1), (0.025, 0.975))
    return float(low), float(high)


def gradient_noise_batch(squared_norms: ArrayLike, batches: ArrayLike) -> float:
    """Estimate the noise batch from squared norms of gradients at one point of training.

    Parameters
    ----------
    squared_norms
        Mean of |G_B|^2 before clipping, shape (R,).
    batches
        Tokens behind each, shape (R,), at least two different ones.

    Returns
    -------
    float
        B_simple in tokens. With two batches it is that of arXiv 1812.06162, appendix A.1, with
        more a line of least squares.

    Raises
    ------
    ValueError
        If there are fewer than two batches, or the norms do not fall with the batch to a limit
        above 0.
    """
    norm_R, batch_R = np.asarray(squared_norms, np.float64), np.asarray(batches, np.float64)
    if norm_R.shape != batch_R.shape or norm_R.ndim != 1 or len(np.unique(batch_R)) < 2:
        raise ValueError(
            "squared_norms, batches: expected two equally long lists with at least 2 different "
            f"batches, got shapes {norm_R.shape} and {batch_R.shape}"
        )
    if not ((norm_R > 0) & (batch_R > 0)).all():
        raise ValueError("squared_norms, batches: expected numbers above 0")
    spread, limit = np.polyfit(1.0 / batch_R, norm_R, 1)
    if not (spread > 0 and limit > 0):
        raise ValueError(
            "squared_norms: expected smaller norms with larger batches and a limit above 0; "
            "these norms show no noise batch"
        )
    return float(spread / limit)


def smooth_curve(
    steps: ArrayLike, values: ArrayLike, *, bandwidth: float = BANDWIDTH
) -> tuple[Floats, Floats]:
    """Smooth a logged curve by local straight lines in the logarithm of the step.

    Parameters
    ----------
    steps, values
        Rising steps from 1 and what was logged there, shape (K,), at least two.
    bandwidth
        Standard deviation of the Gaussian weights, a share of the step; above 0. Where fewer than
        three values lie that near, the two nearest neighbours set it.

    Returns
    -------
    steps, values
        Up to 400 of the logged steps, about equally spaced in their logarithm, shape (P,), and
        the smooth curve there.

    Raises
    ------
    ValueError
        If there are fewer than two values, steps do not rise, or the bandwidth is not above 0.
    """
    step_K, value_K = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if step_K.ndim != 1 or step_K.shape != value_K.shape or len(step_K) < 2:
        raise ValueError(f"steps, values: expected at least 2 of each, got {len(step_K)}")
    if step_K[0] <= 0 or not (np.diff(step_K) > 0).all():
        raise ValueError("steps: expected rising numbers above 0")
    if not bandwidth > 0:
        raise ValueError(f"bandwidth: expected above 0, got {bandwidth}")
    wanted = np.geomspace(step_K[0], step_K[-1], NUM_PLACES)
    place_P = np.unique(np.searchsorted(step_K, wanted).clip(max=len(step_K) - 1))
    offset_PK = np.log(step_K) - np.log(step_K[place_P])[:, None]
    near_P = np.sort(np.abs(offset_PK), axis=1)[:, min(2, len(step_K) - 1)]
    width_P = np.maximum(bandwidth, near_P)[:, None]
    weight_PK = np.exp(-0.5 * (offset_PK / width_P) ** 2)
    total = weight_PK.sum(axis=1)
    first, second = (weight_PK * offset_PK).sum(1), (weight_PK * offset_PK**2).sum(1)
    height, slope = weight_PK @ value_K, (weight_PK * offset_PK) @ value_K
    smooth_P = (second * height - first * slope) / (total * second - first**2)
    return step_K[place_P], smooth_P


def steps_to_loss(steps: ArrayLike, losses: ArrayLike, target: float) -> float | None:
    """Step at which a curve first comes down to a loss, between its points where need be.

    Parameters
    ----------
    steps, losses
        A smooth curve, see `smooth_curve`, shape (P,).
    target
        Loss to reach, nats a token.

    Returns
    -------
    float or None
        The step, interpolated in its logarithm; None if the curve stays above.

    Raises
    ------
    ValueError
        If the curve begins below the target, so that the step cannot be told.
    """
    step_P, loss_P = np.asarray(steps, np.float64), np.asarray(losses, np.float64)
    below = np.flatnonzero(loss_P <= target)
    if len(below) == 0:
        return None
    after = int(below[0])
    if after == 0:
        raise ValueError(
            f"target: expected below {loss_P[0]:.4f}, the loss at the first logged step, "
            f"got {target:g}"
        )
    before = after - 1
    share = (loss_P[before] - target) / (loss_P[before] - loss_P[after])
    log_step = np.log(step_P[before]) + share * np.log(step_P[after] / step_P[before])
    return float(np.exp(log_step))
