"""What Capybara advises: the best split of bits, and the best precision, size and data.

The optimum over precision treats P as continuous and split best between E and M; the answer says
which whole formats lie on both sides. Costs are in FLOP of 16-bit arithmetic: ``C = k (P + b) N D``
with ``k = 6 / 16``, where b bits stand for the work of scaling (arXiv 2501.02423, appendix E), or a
table of what each whole P costs on real hardware.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from weightwise.laws.precision import CAPYBARA

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from weightwise.laws.precision import Capybara

FLOPS_PER_BIT = 6 / 16
# Bits between which a best precision is looked for.
_FEWEST, _MOST = 1e-6, 1e6
# From where a format has at least a sign and something else to 16 bits.
SHOWN_BITS = tuple(2 + i / 8 for i in range(113))
CAVEAT = (
    "Capybara's runs kept one operand of every product in 16 bits; a cost that falls with P needs "
    "all six operands in P bits, so refit the law on such runs before relying on this optimum."
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Split of P bits into one sign, E and M.

    Parameters
    ----------
    exponent_bits, mantissa_bits
        The continuous optimum; E and M sum to P - 1.
    best, second
        Whole pairs (E, M) of largest resolution; `second` is None where there is only one.
    second_share
        Resolution of `second` over that of `best`.
    """

    exponent_bits: float
    mantissa_bits: float
    best: tuple[int, int]
    second: tuple[int, int] | None
    second_share: float | None


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """Compute-optimal training.

    Parameters
    ----------
    bits
        P, sign included; continuous unless it was given or costs are a table.
    num_params, num_tokens
        N and D.
    loss
        Nats a token at that P, split best.
    layouts
        Best whole pairs (E, M) for the whole bits on both sides of P.
    """

    bits: float
    num_params: float
    num_tokens: float
    loss: float
    layouts: tuple[tuple[int, int], ...]
    caveat: str = CAVEAT


def best_layout(bits: int, law: Capybara = CAPYBARA) -> Layout:
    """Split `bits` between exponent and mantissa (arXiv 2501.02423, appendix C).

    Raises
    ------
    ValueError
        If `bits` is below 1.
    """
    if bits < 1:
        raise ValueError(f"bits: expected at least 1, got {bits}")
    share = law.delta / (law.delta + law.nu)
    pairs = [(e, bits - 1 - e) for e in range(bits)]
    ranked = sorted(pairs, key=lambda pair: -float(law.resolution(*pair)))
    second = ranked[1] if len(ranked) > 1 else None
    gains = [float(law.resolution(*pair)) for pair in ranked[:2]]
    return Layout(
        exponent_bits=share * bits - 0.5,
        mantissa_bits=(1 - share) * bits - 0.5,
        best=ranked[0],
        second=second,
        second_share=gains[1] / gains[0] if second else None,
    )


def optimal_training(
    *,
    compute: float,
    num_params: float | None = None,
    num_tokens: float | None = None,
    bits: float | None = None,
    block_size: float = 128,
    overhead_bits: float = 0.0,
    costs: Mapping[int, float] | None = None,
    law: Capybara = CAPYBARA,
) -> Optimum:
    """Find the best of precision, parameters and tokens that are not given.

    Parameters
    ----------
    compute
        C in FLOP of 16-bit arithmetic.
    num_params, num_tokens, bits
        At most one of them, to be kept fixed.
    block_size
        B, above 1.
    overhead_bits
        b in ``C = k (P + b) N D``.
    costs
        What P bits cost, over 16 bits; the whole P named here are compared, and nothing else.
    law
        Law to follow.

    Raises
    ------
    ValueError
        If more than one of the three is given, or a number is out of range.
    """
    problem = _problem(
        {"num_params": num_params, "num_tokens": num_tokens, "bits": bits},
        compute, block_size, overhead_bits, law,
    )  # fmt: skip
    if costs is not None:
        return min(_at_costs(problem, costs, bits), key=lambda optimum: optimum.loss)
    return problem.at(bits) if bits is not None else problem.at(problem.best_bits())


def training_by_bits(
    *,
    compute: float,
    num_params: float | None = None,
    num_tokens: float | None = None,
    bits: Sequence[float] = SHOWN_BITS,
    block_size: float = 128,
    overhead_bits: float = 0.0,
    costs: Mapping[int, float] | None = None,
    law: Capybara = CAPYBARA,
) -> tuple[Optimum, ...]:
    """The best training at each of many numbers of bits: what `optimal_training` chooses from.

    Parameters
    ----------
    compute, num_params, num_tokens, block_size, overhead_bits, law
        As for `optimal_training`.
    bits
        Bits to try, above 0.
    costs
        As for `optimal_training`; its whole bits are then tried instead.

    Raises
    ------
    ValueError
        As for `optimal_training`.
    """
    given = {"num_params": num_params, "num_tokens": num_tokens}
    problem = _problem(given, compute, block_size, overhead_bits, law)
    if costs is not None:
        return _at_costs(problem, costs, None)
    for one in bits:
        _require_positive("bits", one)
    return tuple(problem.at(one) for one in bits)


def _problem(
    given: Mapping[str, float | None],
    compute: float,
    block_size: float,
    overhead_bits: float,
    law: Capybara,
) -> _Problem:
    """A question, if it makes sense."""
    fixed = {name: value for name, value in given.items() if value is not None}
    if len(fixed) > 1:
        raise ValueError(f"expected at most one of {', '.join(given)}, got {', '.join(fixed)}")
    for name, value in {"compute": compute, **fixed}.items():
        _require_positive(name, value)
    if not block_size > 1:
        raise ValueError(f"block_size: expected above 1, got {block_size}")
    if not overhead_bits >= 0:
        raise ValueError(f"overhead_bits: expected at least 0, got {overhead_bits}")
    return _Problem(
        law=law, log2_block=math.log2(block_size), compute=compute, overhead_bits=overhead_bits,
        num_params=fixed.get("num_params"), num_tokens=fixed.get("num_tokens"),
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Problem:
    """One question: what is fixed, and what a bit costs."""

    law: Capybara
    log2_block: float
    compute: float
    overhead_bits: float
    num_params: float | None
    num_tokens: float | None

    def at(self, bits: float, cost: float | None = None) -> Optimum:
        """The best N and D at given bits; `cost` is that of a parameter and a token."""
        if cost is None:
            cost = FLOPS_PER_BIT * (bits + self.overhead_bits)
        work = self.compute / cost  # N D
        data = self.num_tokens or (
            work / self.num_params if self.num_params else self._best_tokens(bits, work)
        )
        size, law = work / data, self.law
        loss = law.n / size**law.alpha + law.d / data**law.beta + law.epsilon
        loss += data**law.beta / size**law.alpha * self._coarseness(bits)
        whole = sorted({max(1, math.floor(bits)), max(1, math.ceil(bits))})
        return Optimum(
            bits=bits, num_params=size, num_tokens=data, loss=loss,
            layouts=tuple(best_layout(one, law).best for one in whole),
        )  # fmt: skip

    def best_bits(self) -> float:
        """P where the loss no longer falls: the zero of its slope in log P."""
        slope = self._slope_at_params if self.num_params else self._slope_at_tokens
        return _zero(slope, _FEWEST, _MOST)

    def _coarseness(self, bits: float) -> float:
        """The penalty over ``D^beta / N^alpha``, with `bits` split best."""
        resolution: float = bits ** (self.law.delta + self.law.nu)
        return self.log2_block / (self.law.gamma_rho * resolution)

    def _weight(self, bits: float) -> float:
        """By what share the cost grows when `bits` grow by a share."""
        return bits / (bits + self.overhead_bits)

    def _slope_at_tokens(self, bits: float) -> float:
        """Slope at fixed D; with D free, at the best one (by the envelope theorem)."""
        law = self.law
        work = self.compute / (FLOPS_PER_BIT * (bits + self.overhead_bits))
        data = self.num_tokens or self._best_tokens(bits, work)
        penalty: float = data**law.beta * self._coarseness(bits)
        more_cost = law.alpha * self._weight(bits) * (law.n + penalty)
        return more_cost - (law.delta + law.nu) * penalty

    def _slope_at_params(self, bits: float) -> float:
        """Slope at fixed N."""
        law, size = self.law, self.num_params
        assert size is not None
        data = self.compute / (FLOPS_PER_BIT * (bits + self.overhead_bits) * size)
        penalty: float = data**law.beta / size**law.alpha * self._coarseness(bits)
        fewer_tokens: float = law.beta * self._weight(bits) * (law.d / data**law.beta - penalty)
        return fewer_tokens - (law.delta + law.nu) * penalty

    def _best_tokens(self, bits: float, work: float) -> float:
        """D of least loss at fixed bits and N D; the slope grows with D, so one zero."""
        law, coarse = self.law, self._coarseness(bits)
        total = law.alpha + law.beta

        def excess(data: float) -> float:
            brake = law.n * law.alpha + total * coarse * data**law.beta
            drive = math.log(law.d * law.beta) + law.alpha * math.log(work)
            return total * math.log(data) + math.log(brake) - drive

        return _zero(excess, 1e-30, 1e60)


def _require_positive(name: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected a finite number above 0, got {value}")


def _at_costs(
    problem: _Problem, costs: Mapping[int, float], bits: float | None
) -> tuple[Optimum, ...]:
    """The best training at all whole bits in a table of costs, or at given ones."""
    for one, cost in costs.items():
        if not (one >= 1 and cost > 0 and math.isfinite(cost)):
            raise ValueError(f"costs: expected bits >= 1 and costs > 0, got {one}: {cost}")
    wanted = costs if bits is None else {bits: costs[int(bits)]} if bits in costs else None
    if not wanted:
        raise ValueError(f"bits: {bits} is not in costs, which has {', '.join(map(str, costs))}")
    return tuple(problem.at(float(one), 6 * cost) for one, cost in sorted(wanted.items()))


def _zero(function: Callable[[float], float], low: float, high: float) -> float:
    """Where an increasing function of a positive number is 0, searched in its logarithm."""
    from scipy.optimize import brentq  # slow to import

    return math.exp(
        brentq(lambda x: function(math.exp(x)), math.log(low), math.log(high), xtol=1e-13)
    )
