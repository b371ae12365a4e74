"""How large a model to train with some compute, and what another size would cost.

From the compute C of a run with batches of B tokens, C_min = C / (1 + B / B_crit) counts, and the
law gives the best N and D for it (arXiv 2411.02265, section 2.3.1). A law speaks in FLOP as its
own runs were counted: 9.59 N D + 2.3e8 D for the published one, about one and a half times what
the matrices of such a model multiply. Where C is counted in another way, say exactly for a shape
(`weightwise.lm.family`), the plan takes the point of the law's best (N, D) that costs C_min in
that count.

Around the best N the loss rises as a parabola in ln N. Its curvature is known for one's own fits;
the paper prints none, so a plan by the published law has no penalties unless one is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf, log
from typing import TYPE_CHECKING, Protocol

from weightwise.laws.moe import HUNYUAN_BUDGET, HUNYUAN_COST, Valley

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from weightwise.laws.moe import BudgetLaw, Floats

# The law's compute is looked for within this many e-folds of the one that was given.
_REACH = 30.0


class Cost(Protocol):
    """Training compute of models by their size, proportional to the tokens."""

    def flop(self, num_params: ArrayLike, num_tokens: ArrayLike) -> Floats:
        """C in FLOP of N activated parameters and D tokens."""


@dataclass(frozen=True, kw_only=True)
class SizePlan:
    """The best size for some compute, and the sizes around it.

    Parameters
    ----------
    compute
        C of the run in FLOP, as ``cost`` counts it.
    least_compute
        C_min: what is left of it after the waste of large batches.
    num_params, num_tokens
        Best N and D of the law. With large batches the run makes more tokens, see `tokens`.
    valley
        Penalties around N in nats a token, None where no curvature is known. Its ``least`` is
        NaN: the law of size says nothing about losses.
    cost
        How compute is counted.
    """

    compute: float
    least_compute: float
    num_params: float
    num_tokens: float
    valley: Valley | None
    cost: Cost

    def tokens(self, num_params: ArrayLike) -> Floats:
        """Tokens that the whole compute pays for at a size."""
        return self.compute / self.cost.flop(num_params, 1.0)


def plan_size(
    compute: float,
    *,
    law: BudgetLaw = HUNYUAN_BUDGET,
    law_cost: Cost = HUNYUAN_COST,
    cost: Cost | None = None,
    batch: float | None = None,
    critical: float | None = None,
    curvature: float | None = None,
) -> SizePlan:
    """Find the best size for some compute.

    Parameters
    ----------
    compute
        C in FLOP, above 0.
    law, law_cost
        Best sizes and data, and how the runs behind them were counted.
    cost
        How C is counted; None means as ``law_cost``.
    batch, critical
        Tokens per step and the critical batch, see `weightwise.laws.moe.critical_batch`; both or
        neither.
    curvature
        Of the loss in ln N, nats; above 0. See `weightwise.laws.moe.BudgetFit.curvature`.

    Raises
    ------
    ValueError
        If a number is out of range, or only one of ``batch`` and ``critical`` is given.
    """
    given = {"compute": compute, "batch": batch, "critical": critical, "curvature": curvature}
    for name, value in given.items():
        if value is not None and not 0 < value < inf:
            raise ValueError(f"{name}: expected a finite number above 0, got {value}")
    if (batch is None) != (critical is None):
        raise ValueError("batch, critical: expected both or neither")
    waste = 0.0 if batch is None or critical is None else batch / critical
    least = compute / (1.0 + waste)
    own = least if cost is None else _in_units_of_the_law(least, law, cost)
    size = float(law.best_size(own))
    valley = None
    if curvature is not None:
        valley = Valley(compute=own, best=size, least=float("nan"), curvature=curvature)
    return SizePlan(
        compute=compute,
        least_compute=least,
        num_params=size,
        num_tokens=float(law.best_data(own)),
        valley=valley,
        cost=law_cost if cost is None else cost,
    )


def _in_units_of_the_law(least: float, law: BudgetLaw, cost: Cost) -> float:
    """The law's compute at which its best N and D cost C_min in another count."""

    def excess(log_own: float) -> float:
        own = exp(log_own)
        return log(float(cost.flop(law.best_size(own), law.best_data(own))) / least)

    low, high = log(least) - _REACH, log(least) + _REACH
    if not excess(low) < 0 < excess(high):
        raise ValueError(
            f"compute: expected within {_REACH:g} e-folds of the law's own count, got {least:.3g}"
        )
    from scipy.optimize import brentq  # slow to import

    return exp(brentq(excess, low, high))
