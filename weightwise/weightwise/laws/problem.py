"""Residuals of a law with open constants on some runs, with their derivatives.

Constants are found by variable projection at the starts and trust-region least squares from the
best of them; all coefficients stay positive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from weightwise.laws.families import FAMILIES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weightwise.laws.families import Family
    from weightwise.laws.law import Floats, Hull, Law, Settings

Objective = Literal["huber", "squares"]
HUBER_DELTA = 1e-3
# Starts that are followed to the end: the best of the grid by least squares.
NUM_FOLLOWED = 9
# Least coefficient of a start, in losses: least squares may put one to zero.
_LEAST = 1e-6


class Problem:
    """Residuals of a family on some rows of its runs, with their derivatives.

    A point is the exponents followed by the logarithms of the coefficients.
    """

    @classmethod
    def of(
        cls,
        name: str,
        settings: Settings,
        losses: Floats,
        objective: Objective = "huber",
        delta: float = HUBER_DELTA,
    ) -> Problem:
        """The problem of a law by its name.

        Raises
        ------
        ValueError
            If the name is unknown, losses are not positive numbers, or the runs are too few.
        """
        if name not in FAMILIES:
            raise ValueError(f"law: expected one of {', '.join(FAMILIES)}, got {name!r}")
        problem = cls(FAMILIES[name](settings), checked(settings, losses), objective, delta)
        if len(losses) < problem.num_constants:
            raise ValueError(
                f"{name} has {problem.num_constants} constants: expected at least as many runs, "
                f"got {len(losses)}"
            )
        return problem

    def __init__(
        self,
        family: Family,
        losses: Floats,
        objective: Objective,
        delta: float,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self._family, self._all_losses = family, losses
        self._objective, self._delta = objective, delta
        self._rows = np.arange(len(losses)) if rows is None else rows
        self._losses, self._is_huber = losses[self._rows], objective == "huber"
        self._num_exponents = len(next(iter(family.starts())))

    @property
    def num_constants(self) -> int:
        """Open constants."""
        return self._num_exponents + self._family.num_coefficients

    @property
    def names(self) -> tuple[str, ...]:
        """What each entry of a point stands for."""
        return self._family.names

    def resampled(self, rows: NDArray[np.int64]) -> Problem:
        """The same problem on other rows of its runs."""
        return Problem(self._family, self._all_losses, self._objective, self._delta, rows)

    def best(self) -> tuple[float, Floats]:
        """Objective and point of the best end of all starts."""
        return min(map(self.solve, self.starts()), key=lambda found: found[0])

    def starts(self) -> list[Floats]:
        """The best points of the grid, coefficients by non-negative least squares."""
        from scipy.optimize import nnls  # slow to import

        ranked = []
        for i, theta in enumerate(self._family.starts()):
            features = self._family.features(theta)[0][:, self._rows]
            # Relative errors in the data, as in the logarithm; columns scaled alike.
            weighted = (features / self._losses).T
            scale = np.linalg.norm(weighted, axis=0)
            solved, error = nnls(weighted / scale, np.ones(len(self._losses)))
            coefficients = np.maximum(solved / scale, _LEAST / features.max(axis=1))
            ranked.append((error, i, np.concatenate([theta, np.log(coefficients)])))
        return [point for _, _, point in sorted(ranked)[:NUM_FOLLOWED]]

    def solve(self, start: Floats) -> tuple[float, Floats]:
        """Objective and point where least squares from a start ends.

        The objective is infinite where exponents run away to where a term is no number.
        """
        from scipy.optimize import least_squares  # slow to import

        try:
            with np.errstate(all="ignore"):
                found = least_squares(
                    self.residuals, start, self.jacobian, x_scale="jac", method="trf",
                    loss="huber" if self._is_huber else "linear", f_scale=self._delta,
                    ftol=1e-12, xtol=1e-12, gtol=1e-14, max_nfev=300,
                )  # fmt: skip
        except ValueError:  # NaN in the Jacobian
            return np.inf, start
        return float(found.cost), np.asarray(found.x)

    def law(self, point: Floats, hull: Hull | None) -> Law:
        """The law at a point."""
        theta, logs = np.split(point, [self._num_exponents])
        return self._family.law(theta, np.exp(logs), hull)

    def residuals(self, point: Floats) -> Floats:
        """Log of predicted over observed losses, or their difference; shape (R,)."""
        loss = self._terms(point, self._family, self._rows)[0]
        with np.errstate(divide="ignore"):
            return np.log(loss / self._losses) if self._is_huber else loss - self._losses

    def jacobian(self, point: Floats) -> Floats:
        """Derivatives of the residuals by the point, shape (R, K + J)."""
        loss, slopes = self._terms(point, self._family, self._rows)
        return slopes / loss[:, None] if self._is_huber else slopes

    def terms_at(self, point: Floats, settings: Settings) -> tuple[Floats, Floats]:
        """Losses at any settings, shape (R,), and their derivatives by the point, (R, K + J).

        The open constants stay those of the problem's own runs.
        """
        return self._terms(point, self._family.at(settings))

    def rows_at(self, point: Floats, settings: Settings) -> Floats:
        """What runs at any settings would add to the Jacobian, shape (R, K + J)."""
        loss, slopes = self.terms_at(point, settings)
        return slopes / loss[:, None] if self._is_huber else slopes

    def _terms(
        self, point: Floats, family: Family, rows: NDArray[np.int64] | slice = slice(None)
    ) -> tuple[Floats, Floats]:
        """Losses that a point predicts, shape (R,), and their derivatives, (R, K + J)."""
        theta, logs = np.split(point, [self._num_exponents])
        # Least squares takes back a step to where a term is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            values, slopes = family.features(theta)
            values, slopes = values[:, rows], slopes[:, :, rows]
            parts = np.exp(logs)[:, None] * values
            by_theta = np.einsum("j,jkr->rk", np.exp(logs), slopes)
        return parts.sum(axis=0), np.concatenate([by_theta, parts.T], axis=1)


def checked(settings: Settings, losses: Floats) -> Floats:
    """Losses as an array of shape (R,), all above 0; else a ValueError that names the row."""
    losses = np.asarray(losses, dtype=np.float64)
    if losses.shape != (len(settings),):
        raise ValueError(f"losses: expected {len(settings)} numbers, got shape {losses.shape}")
    wrong = np.flatnonzero(~((losses > 0) & np.isfinite(losses)))
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(f"row {row + 1}: loss: expected a number above 0, got {losses[row]}")
    return losses
