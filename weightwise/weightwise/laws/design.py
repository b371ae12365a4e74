"""Which runs to train next: those that make a number known best.

By the delta method. At the end of a fit the residuals have a Jacobian J, R runs by P constants,
and a variance s^2, told by the residuals with R - P degrees of freedom. Then the constants have the
covariance ``s^2 (J^T J)^-1``, and a number with gradient g the variance
``v = s^2 g^T (J^T J)^-1 g``. A further run adds a row x to J, whatever its loss will be, and takes
``s^2 (g^T A x)^2 / (1 + x^T A x)`` off v, where ``A = (J^T J)^-1``.

Runs are chosen one after another, each the best after those before it, and then exchanged one by
one while that helps, as two may be of use only together: c-optimal for one number, D-optimal for
all constants at once (Atkinson, Donev and Tobias, *Optimum Experimental Designs*, 2007). By the
cost of runs there is no exchange. All of this is local: it holds near the constants of the present
fit, so fit again when the runs are there. A fit of Huber losses has the spread of least squares
here; where the noise is far above its delta it can be up to a quarter wider, which changes no
choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from weightwise.laws.law import constants
from weightwise.laws.plan import optimal_training
from weightwise.laws.precision import Capybara
from weightwise.laws.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import ArrayLike

    from weightwise.laws.law import Floats, Law, Settings
    from weightwise.laws.problem import Objective

FLOPS_PER_TOKEN = 6  # for each parameter
# Singular values below this share of the largest say nothing: rounding makes such ones.
_LEAST_SINGULAR = 1e-9
# Constants with at least this share of a direction that the runs do not tell are named.
_NAMED_SHARE = 0.1
_STEP = 1e-5  # of differences, in exponents and logarithms


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A number that a law tells, and that the next runs shall make known.

    Parameters
    ----------
    label
        Its name in messages.
    value
        The number, given a law.
    settings
        Where its loss is asked; None for all other numbers.
    """

    label: str
    value: Callable[[Law], float]
    settings: Settings | None = None

    @classmethod
    def loss(cls, settings: Settings) -> Quantity:
        """The loss of one setting, nats a token."""
        _require_one(settings)
        return cls(label="loss", value=lambda law: float(law.loss(settings)[0]), settings=settings)

    @classmethod
    def critical_tokens(cls, settings: Settings) -> Quantity:
        """D beyond which more tokens raise the loss of one setting."""
        _require_one(settings)

        def value(law: Law) -> float:
            tokens = getattr(law, "critical_tokens", None)
            if tokens is None:
                raise ValueError(f"critical tokens: {law.title} has none, as it knows no blocks")
            return float(tokens(settings)[0])

        return cls(label="critical tokens", value=value)

    @classmethod
    def constant(cls, name: str) -> Quantity:
        """A constant of the law."""

        def value(law: Law) -> float:
            found = constants(law)
            if name not in found:
                raise ValueError(f"constant: expected one of {', '.join(found)}, got {name!r}")
            return found[name]

        return cls(label=name, value=value)

    @classmethod
    def optimal_bits(cls, compute: float, block_size: float = 128) -> Quantity:
        """P of least loss for `compute` FLOP, as `optimal_training` finds it with Capybara."""

        def value(law: Law) -> float:
            if not isinstance(law, Capybara):
                message = f"optimal bits: expected a Capybara law, got {law.title}"
                raise ValueError(message)  # noqa: TRY004 (the fit's name is the user's input)
            return optimal_training(compute=compute, block_size=block_size, law=law).bits

        return cls(label="optimal bits", value=value)


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """A run to train.

    Parameters
    ----------
    row
        Which of the candidates, from 0.
    settings
        Its setting, one row.
    cost
        As given, or ``6 N D`` FLOP.
    before, after
        Standard error of the quantity without and with this run, after those proposed before it.
        Without a quantity: the geometric mean of the standard errors of all constants, along the
        axes of their ellipsoid, over its present value.
    """

    row: int
    settings: Settings
    cost: float
    before: float
    after: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """What to train next, and why.

    Parameters
    ----------
    law
        The law fitted to the present runs.
    noise
        Standard deviation of a loss: relative for Huber losses of logarithms, else nats a token;
        None without a quantity.
    value
        The quantity by that law; None without a quantity.
    proposals
        Each the best of them after those before it.
    """

    law: Law
    noise: float | None
    value: float | None
    proposals: tuple[Proposal, ...]


def next_runs(
    name: str,
    settings: Settings,
    losses: Floats,
    candidates: Settings,
    quantity: Quantity | None = None,
    *,
    count: int = 1,
    criterion: Literal["c", "d"] = "c",
    per: Literal["run", "flop"] = "run",
    costs: ArrayLike | None = None,
    objective: Objective = "huber",
) -> Design:
    """Choose the runs that shrink a standard error most.

    Parameters
    ----------
    name
        Law to fit, as for `fit`.
    settings, losses
        The present runs, R of them.
    candidates
        Settings to choose from, C of them, each at most once; one that stands there twice can be
        chosen twice. Constants that the fit keeps at published values count as known.
    quantity
        What to make known; may be None for ``criterion="d"``.
    count
        Runs to choose, 1 to C.
    criterion
        ``"c"``: variance of the quantity; ``"d"``: determinant of the covariance of all constants.
    per
        Choose by what a run brings (``"run"``), or by that over its cost (``"flop"``).
    costs
        Of the candidates, shape (C,), above 0; ``6 N D`` by default.
    objective
        Of the fit, as for `fit`.

    Raises
    ------
    ValueError
        If an argument is out of range, the runs do not determine every constant (their names are
        told) or the noise, or nothing open in the fit changes the quantity.
    """
    _require("criterion", criterion, ("c", "d"))
    _require("per", per, ("run", "flop"))
    if not 1 <= count <= len(candidates):
        raise ValueError(f"count: expected 1 to {len(candidates)}, got {count}")
    if quantity is None and criterion == "c":
        raise ValueError("quantity: expected one to choose by its variance, got none")
    prices = _costs(candidates, costs)
    problem = Problem.of(name, settings, losses, objective)
    point = problem.best()[1]
    law = problem.law(point, None)
    value = None if quantity is None else _value(quantity, law)
    whitening = _whitening(problem, point)
    noise = target = None
    if quantity is not None:
        noise = _noise(problem, point)
        target = whitening(_gradient(quantity, problem, point)[None])[0]
        if not np.any(np.abs(target) > 0):
            raise ValueError(f"{quantity.label}: no constant that the fit left open changes it")
    choice = _Choice(
        rows=whitening(problem.rows_at(point, candidates)), target=target,
        by_volume=criterion == "d",
    )  # fmt: skip
    chosen = choice.choose(count, prices if per == "flop" else None)
    unit = 1.0 if noise is None else noise
    errors = [unit * choice.error(chosen[:i]) for i in range(count + 1)]
    proposals = [
        Proposal(
            row=row, settings=candidates[row : row + 1], cost=float(prices[row]),
            before=errors[i], after=errors[i + 1],
        )
        for i, row in enumerate(chosen)
    ]  # fmt: skip
    return Design(law=law, noise=noise, value=value, proposals=tuple(proposals))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Choice:
    """Candidates in coordinates in which the present ``J^T J`` is the identity.

    Parameters
    ----------
    rows
        What each would add to the Jacobian, shape (C, P).
    target
        Gradient of the quantity, shape (P,), if there is one.
    by_volume
        Whether the determinant decides.
    """

    rows: Floats
    target: Floats | None
    by_volume: bool

    def choose(self, count: int, weights: Floats | None) -> list[int]:
        """Greedy choice, by gains over `weights`; without weights bettered by exchanges."""
        chosen: list[int] = []
        for _ in range(count):
            gains = self._gains(chosen)
            chosen.append(int(np.argmax(gains if weights is None else gains / weights)))
        return chosen if weights is not None else self._ordered(self._exchanged(chosen))

    def error(self, chosen: list[int]) -> float:
        """Standard error after some runs, for a noise of 1."""
        information = self._information(chosen)
        if self.target is None:
            return float(np.exp(-np.linalg.slogdet(information)[1] / (2 * len(information))))
        return float(np.sqrt(self.target @ np.linalg.solve(information, self.target)))

    def _information(self, chosen: list[int]) -> Floats:
        rows = self.rows[chosen]
        return np.asarray(np.eye(self.rows.shape[1]) + rows.T @ rows)

    def _gains(self, chosen: list[int]) -> Floats:
        """What each candidate adds to those chosen, which add nothing again; shape (C,)."""
        projected = self.rows @ np.linalg.inv(self._information(chosen))
        leverage = np.einsum("cp,cp->c", projected, self.rows)
        if self.by_volume or self.target is None:
            gains = np.log1p(leverage)
        else:
            gains = (projected @ self.target) ** 2 / (1 + leverage)
        gains[chosen] = -np.inf
        return np.asarray(gains)

    def _exchanged(self, chosen: list[int]) -> list[int]:
        """No exchange of one run for another is better: two may help only together."""
        i = num_kept = 0
        while num_kept < len(chosen):
            kept = chosen[:i] + chosen[i + 1 :]
            gains = self._gains(kept)
            best = int(np.argmax(gains))
            is_better = gains[best] > gains[chosen[i]] * (1 + 1e-9)
            num_kept = 1 if is_better else num_kept + 1
            chosen[i] = best if is_better else chosen[i]
            i = (i + 1) % len(chosen)
        return chosen

    def _ordered(self, chosen: list[int]) -> list[int]:
        """Each the best after those before it."""
        order: list[int] = []
        while len(order) < len(chosen):
            gains = self._gains(order)
            order.append(max(chosen, key=lambda row: gains[row]))
        return order


def _whitening(problem: Problem, point: Floats) -> Callable[[Floats], Floats]:
    """A map of rows of shape (C, P) to coordinates in which ``J^T J`` is the identity."""
    jacobian = problem.jacobian(point)
    scale = np.linalg.norm(jacobian, axis=0)
    scale[scale == 0] = 1.0
    _, values, directions = np.linalg.svd(jacobian / scale, full_matrices=False)
    untold = np.abs(directions[values < _LEAST_SINGULAR * values[0]])
    if len(untold):
        shares = untold.max(axis=0)
        names = [one for one, share in zip(problem.names, shares, strict=True)
                 if share > _NAMED_SHARE]  # fmt: skip
        raise ValueError(
            f"runs: they do not determine {', '.join(names)}: more sizes, tokens, formats or "
            f"blocks are needed before the next runs can be chosen"
        )
    from scipy.linalg import solve_triangular  # slow to import

    triangle = np.linalg.qr(jacobian / scale, mode="r")

    def whiten(rows: Floats) -> Floats:
        return np.asarray(solve_triangular(triangle, (rows / scale).T, trans="T").T)

    return whiten


def _noise(problem: Problem, point: Floats) -> float:
    """Standard deviation of the residuals, freed of the open constants."""
    residuals = problem.residuals(point)
    freedom = len(residuals) - problem.num_constants
    if freedom < 1:
        raise ValueError(
            f"runs: expected more than {problem.num_constants}, the number of constants, to tell "
            f"the noise, got {len(residuals)}"
        )
    return float(np.sqrt(residuals @ residuals / freedom))


def _value(quantity: Quantity, law: Law) -> float:
    value = quantity.value(law)
    if not np.isfinite(value):
        raise ValueError(f"{quantity.label}: expected a finite number by the fit, got {value}")
    return value


def _gradient(quantity: Quantity, problem: Problem, point: Floats) -> Floats:
    """Derivatives of a quantity by the point: of losses from the family, else by differences."""
    if quantity.settings is not None:
        return np.asarray(problem.terms_at(point, quantity.settings)[1][0])
    slopes = np.zeros(len(point))
    for i, step in enumerate(_STEP * np.eye(len(point))):
        above, below = (_value(quantity, problem.law(point + s * step, None)) for s in (1, -1))
        slopes[i] = (above - below) / (2 * _STEP)
    return slopes


def _costs(candidates: Settings, costs: ArrayLike | None) -> Floats:
    if costs is None:
        return np.asarray(FLOPS_PER_TOKEN * candidates.num_params * candidates.num_tokens)
    found = np.asarray(costs, dtype=np.float64)
    if found.shape != (len(candidates),):
        raise ValueError(f"costs: expected {len(candidates)} numbers, got shape {found.shape}")
    if not np.all((found > 0) & np.isfinite(found)):
        raise ValueError("costs: expected finite numbers above 0")
    return found


def _require(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}, got {value!r}")


def _require_one(settings: Settings) -> None:
    if len(settings) != 1:
        raise ValueError(f"settings: expected one row, got {len(settings)}")
