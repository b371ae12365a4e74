"""Learning rates of specialised experts (arXiv 2411.02265, section 2.2.4, on arXiv 2405.14578).

The best rate of Adam for a batch of B tokens is

    2 e_max / (sqrt(B_noise / B) + sqrt(B / B_noise))

which is highest, e_max, at the noise batch B_noise. An expert that gets one token in n sees a
batch of B / n, so with u = B / B_noise its rate relative to the rest of the model is

    r(n, u) = (1 + u) / (sqrt(n) + u / sqrt(n))

between 1 / sqrt(n) for small batches and sqrt(n) for large ones. The paper prints the inverse
ratio as about 0.31 and scales experts down; r = 0.31 with n = 16 is u = 0.26. Without a measured
noise batch there is no reason to depart from 1, which is the default of `OptimizerConfig`.
"""

from __future__ import annotations

from math import sqrt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def best_rate(batch: float, noise_batch: float, highest: float) -> float:
    """Best learning rate for a batch.

    Parameters
    ----------
    batch, noise_batch
        B and B_noise in tokens, above 0.
    highest
        Rate e_max at the noise batch.

    Raises
    ------
    ValueError
        If an argument is not above 0.
    """
    _require_positive(batch=batch, noise_batch=noise_batch, highest=highest)
    return 2.0 * highest / (sqrt(noise_batch / batch) + sqrt(batch / noise_batch))


def expert_ratio(tokens_per_choice: float, relative_batch: float) -> float:
    """Rate of an expert relative to that of weights which every token goes through.

    Parameters
    ----------
    tokens_per_choice
        n, experts over experts of a token: one token in n comes. At least 1.
    relative_batch
        u, batch over noise batch; above 0.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    _require_positive(relative_batch=relative_batch)
    if not tokens_per_choice >= 1:
        raise ValueError(f"tokens_per_choice: expected at least 1, got {tokens_per_choice}")
    root = sqrt(tokens_per_choice)
    return (1.0 + relative_batch) / (root + relative_batch / root)


def relative_batch(tokens_per_choice: float, ratio: float) -> float:
    """The u at which `expert_ratio` has a value; the inverse function.

    Raises
    ------
    ValueError
        If the ratio is not between 1 / sqrt(n) and sqrt(n), or n not above 1.
    """
    if not tokens_per_choice > 1:
        raise ValueError(f"tokens_per_choice: expected above 1, got {tokens_per_choice}")
    root = sqrt(tokens_per_choice)
    if not 1 / root < ratio < root:
        raise ValueError(f"ratio: expected between {1 / root:g} and {root:g}, got {ratio}")
    return (ratio * root - 1.0) / (1.0 - ratio / root)


def noise_batch(steps: ArrayLike, batches: ArrayLike) -> tuple[float, float]:
    """Estimate the noise batch from runs to one loss with several batches.

    Steps S and examples X = S B of such runs follow (S / S_min - 1) (X / X_min - 1) = 1
    (arXiv 1812.06162), so 1 / S falls along a line in 1 / X.

    Parameters
    ----------
    steps
        Steps until the loss was reached, shape (R,), at least two different ones.
    batches
        Tokens per step, shape (R,).

    Returns
    -------
    noise_batch, r_squared
        X_min / S_min in tokens, and how well the line fits.

    Raises
    ------
    ValueError
        If there are fewer than two runs, a number is not above 0, or the line does not fall.
    """
    steps_R, batch_R = np.asarray(steps, np.float64), np.asarray(batches, np.float64)
    if steps_R.ndim != 1 or steps_R.shape != batch_R.shape or len(steps_R) < 2:
        raise ValueError(
            f"steps, batches: expected two equally long lists of at least 2 runs, "
            f"got shapes {steps_R.shape} and {batch_R.shape}"
        )
    if not (steps_R > 0).all() or not (batch_R > 0).all():
        raise ValueError("steps, batches: expected numbers above 0")
    x_R, y_R = 1.0 / (steps_R * batch_R), 1.0 / steps_R
    slope, height = np.polyfit(x_R, y_R, 1)
    if np.ptp(y_R) == 0 or not slope < 0 < height:
        raise ValueError(
            "steps, batches: expected fewer steps with larger batches, and more tokens; "
            "these runs show no noise batch"
        )
    rest = y_R - (slope * x_R + height)
    spread = ((y_R - y_R.mean()) ** 2).sum()
    return float(-slope), float(1.0 - (rest**2).sum() / spread)


def highest_rate(rates: ArrayLike, batches: ArrayLike, noise: float) -> float:
    """Estimate e_max from the best rates that were found at several batches.

    Parameters
    ----------
    rates, batches
        Best learning rate at each batch in tokens, shape (R,).
    noise
        Noise batch in tokens.

    Returns
    -------
    float
        Mean over the batches of the e_max that each asks for.
    """
    one = [best_rate(float(batch), noise, 1.0) for batch in np.asarray(batches, np.float64)]
    return float(np.mean(np.asarray(rates, np.float64) / np.asarray(one)))


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name}: expected a finite number above 0, got {value}")
