"""Closed forms of the loss system against sums, linear algebra, simulation and enumeration."""

import heapq
import math
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.loss import (
    Demand,
    emsr_b,
    erlang_b,
    littlewood,
    protected_denial,
    spares_needed,
)


@pytest.mark.parametrize(
    ("num_spares", "load", "expected"),
    [(2, 1, 0.2), (5, 5, 0.2849), (8, 5, 0.0700), (10, 8, 0.1217), (12, 10, 0.1197)],
)
def test_erlang_b_has_the_known_values(num_spares, load, expected):
    """Section 6, item 6 of the method; B(2, 1) = (1/2) / (1 + 1 + 1/2) by hand."""
    assert erlang_b(num_spares, load) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("max_denial", "expected"),
    [(0.01, [5, 7, 11, 15, 18, 30]), (0.05, [4, 5, 9, 13, 15, 26])],
)
def test_smallest_number_of_spares(max_denial, expected):
    """Section 6, item 6: loads of 1, 2, 5, 8, 10 and 20 erlangs."""
    assert [spares_needed(load, max_denial) for load in (1, 2, 5, 8, 10, 20)] == expected


@pytest.mark.parametrize("load", [Fraction(1, 7), Fraction(5), Fraction(40), Fraction(301, 2)])
@pytest.mark.parametrize("num_spares", [0, 1, 17, 160])
def test_erlang_b_equals_the_sum_in_fractions(num_spares, load):
    """B = (a^s / s!) / sum of a^n / n!, in exact arithmetic, to the last digits of a double."""
    terms = [load**n / math.factorial(n) for n in range(num_spares + 1)]
    assert erlang_b(num_spares, float(load)) == pytest.approx(float(terms[-1] / sum(terms)))


def test_erlang_b_at_the_edges():
    """No spare denies all, no load nothing, and a thousand erlangs overflow nothing."""
    assert erlang_b(0, 3.0) == 1.0
    assert erlang_b(4, 0.0) == 0.0
    assert spares_needed(3.0, 1.0) == 0
    assert spares_needed(0.0, 1e-9) == 1
    # In heavy traffic B(a, a) tends to sqrt(2 / (pi a)).
    assert erlang_b(10_000, 10_000.0) == pytest.approx(math.sqrt(2 / (math.pi * 1e4)), rel=0.01)
    assert protected_denial(10_000, [10_000.0], [0])[0] == pytest.approx(erlang_b(10_000, 1e4))


@pytest.mark.parametrize(
    ("level", "stat", "other"),
    [(0, 0.0700, 0.0700), (1, 0.0148, 0.1336), (2, 0.0033, 0.2160), (3, 0.0008, 0.3222)],
)
def test_protection_shifts_denial_to_the_lower_class(level, stat, other):
    """Section 6, item 7: 8 spares, 1 erlang of stat and 4 of other requests."""
    assert protected_denial(8, [1.0, 4.0], [0, level]) == pytest.approx((stat, other), abs=5e-5)


def stationary(num_spares, loads, levels):
    """Solve pi Q = 0, sum pi = 1 for the whole generator; independent of products."""
    generator = np.zeros((num_spares + 1, num_spares + 1))
    for busy in range(num_spares + 1):
        if busy < num_spares:
            generator[busy, busy + 1] = sum(
                load for load, level in zip(loads, levels, strict=True) if num_spares - busy > level
            )
        if busy > 0:
            generator[busy, busy - 1] = busy
        generator[busy, busy] = -generator[busy].sum()
    equations = np.vstack([generator.T, np.ones(num_spares + 1)])
    right = np.append(np.zeros(num_spares + 1), 1.0)
    return np.linalg.lstsq(equations, right, rcond=None)[0]


@given(
    num_spares=st.integers(0, 12),
    classes=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 14)), min_size=1, max_size=4),
)
def test_protected_denial_solves_the_balance_equations(num_spares, classes):
    """Class p is denied in the states with at most R_p free, which may be all of them."""
    loads = [load for load, _ in classes]
    levels = [0, *sorted(level for _, level in classes)][: len(classes)]
    chance = stationary(num_spares, loads, levels)
    expected = [
        sum(p for busy, p in enumerate(chance) if num_spares - busy <= level) for level in levels
    ]
    assert protected_denial(num_spares, loads, levels) == pytest.approx(expected, abs=1e-9)


def simulate(rng, num_spares, loads, levels, num_arrivals, draw_times):
    """Denied share of each class, event by event: who comes, who is back, who is turned away."""
    num_classes = len(loads)
    arrivals = np.cumsum(rng.exponential(1 / sum(loads), num_arrivals)).tolist()
    kinds = rng.choice(num_classes, num_arrivals, p=np.array(loads) / sum(loads)).tolist()
    times = draw_times(num_arrivals).tolist()
    away: list[float] = []
    came, denied = [0] * num_classes, [0] * num_classes
    for now, kind, time in zip(arrivals, kinds, times, strict=True):
        while away and away[0] <= now:
            heapq.heappop(away)
        came[kind] += 1
        if num_spares - len(away) > levels[kind]:
            heapq.heappush(away, now + time)
        else:
            denied[kind] += 1
    return [d / c for d, c in zip(denied, came, strict=True)]


def log_normal(rng, cv):
    """Times of mean 1 and the given coefficient of variation."""
    sigma = math.sqrt(math.log1p(cv**2))
    return lambda size: rng.lognormal(-(sigma**2) / 2, sigma, size)


@pytest.mark.parametrize(
    ("num_arrivals", "tolerance"),
    [(100_000, 0.005), pytest.param(2_000_000, 0.0015, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_erlang_b_does_not_depend_on_the_spread_of_times(cv, num_arrivals, tolerance):
    """Log-normal times: B(8, 5) = 0.0700; tolerances are about four standard errors."""
    rng = np.random.default_rng(7)
    (denied,) = simulate(rng, 8, [5.0], [0], num_arrivals, log_normal(rng, cv))
    assert denied == pytest.approx(erlang_b(8, 5.0), abs=tolerance)


def test_protected_denial_agrees_with_simulation():
    """Exponential times, three classes with levels 0, 1 and 3 on 8 spares."""
    rng = np.random.default_rng(11)
    loads, levels = [1.0, 1.5, 2.5], [0, 1, 3]
    found = simulate(rng, 8, loads, levels, 300_000, lambda size: rng.exponential(1.0, size))
    assert found == pytest.approx(protected_denial(8, loads, levels), abs=0.005)


def poisson(mean, size):
    """Chances of 0, 1, ... requests, the last holding the tail."""
    chance = [math.exp(-mean) * mean**n / math.factorial(n) for n in range(size)]
    return [*chance, 1 - sum(chance)]


def income(levels, means, prices, capacity):
    """Expected income, by enumeration, when classes come one after the other, worst first."""

    @cache
    def expected(worst, left):
        if worst < 0:
            return 0.0
        room = max(left - levels[worst], 0)
        return sum(
            chance * (prices[worst] * min(n, room) + expected(worst - 1, left - min(n, room)))
            for n, chance in enumerate(poisson(means[worst], capacity + 1))
        )

    return expected(len(means) - 1, capacity)


def best_income(means, prices, capacity):
    """The same with the best decision at every class and every demand (dynamic programme)."""

    @cache
    def expected(worst, left):
        if worst < 0:
            return 0.0
        value = [prices[worst] * n + expected(worst - 1, left - n) for n in range(left + 1)]
        return sum(
            chance * max(value[: min(n, left) + 1])
            for n, chance in enumerate(poisson(means[worst], capacity + 1))
        )

    return expected(len(means) - 1, capacity)


@given(
    means=st.tuples(st.floats(0, 5), st.floats(0, 5)),
    ratio=st.floats(0.02, 1),
    capacity=st.integers(0, 8),
)
def test_littlewood_is_optimal_for_two_classes(means, ratio, capacity):
    """No decision rule earns more than Littlewood's level, which EMSR-b reproduces."""
    level = littlewood(Demand(mean=means[0]), ratio)
    demands, prices = [Demand(mean=mean) for mean in means], [1.0, ratio]
    assert emsr_b(demands, prices) == (0, level)
    found = income((0, level), means, prices, capacity)
    assert found == pytest.approx(best_income(means, prices, capacity))


@given(
    means=st.tuples(st.floats(0.5, 4), st.floats(0.5, 4), st.floats(0.5, 4)),
    cuts=st.tuples(st.floats(0.2, 0.9), st.floats(0.2, 0.9)),
)
def test_emsr_b_is_near_the_optimum_for_three_classes(means, cuts):
    """A heuristic, known to lose little: at most 3 % of the best income on these."""
    prices = [1.0, cuts[0], cuts[0] * cuts[1]]
    levels = emsr_b([Demand(mean=mean) for mean in means], prices)
    assert income(levels, means, prices, 8) >= 0.97 * best_income(means, prices, 8)


def test_levels_of_a_normal_demand_worked_out_by_hand():
    """Level = mean + sd * z of 1 - ratio, rounded up; a sum adds means and variances."""
    # z(0.5) = 0: 10 + 0; z(0.8) = 0.8416: 10 + 2 * 0.8416 = 11.68; z(0.05) = -1.645: 6.71
    stat = Demand(mean=10, sd=2)
    assert [littlewood(stat, ratio) for ratio in (0.5, 0.2, 0.95)] == [10, 12, 7]
    # Two classes of 10 and 5: 15 requests at (10 * 4 + 5 * 1) / 15 = 3, sd sqrt(4 + 5) = 3;
    # a third at 0.6 has ratio 0.2: 15 + 3 * 0.8416 = 17.52. Second against first: ratio 0.25,
    # z(0.75) = 0.6745: 11.35.
    assert emsr_b([stat, Demand(mean=5), Demand(mean=1)], [4.0, 1.0, 0.6]) == (0, 12, 18)
    assert littlewood(Demand(mean=3, sd=0), 0.5) == 3


def test_levels_never_fall():
    """A wildly uncertain second class would ask for less protection than the first alone."""
    # First alone: ratio 0.9, about 5. Both: mean 10, sd 30, ratio 0.94: z(0.06) is far below 0.
    demands = [Demand(mean=5, sd=0.1), Demand(mean=5, sd=30), Demand(mean=1)]
    assert emsr_b(demands, [10.0, 9.0, 8.99]) == (0, 5, 5)


def test_equal_prices_and_absent_demand_need_no_protection():
    """Whoever pays as much may use every spare; a class that never comes needs none."""
    assert emsr_b([Demand(mean=0), Demand(mean=0), Demand(mean=4)], [9.0, 3.0, 1.0]) == (0, 0, 0)
    assert emsr_b([Demand(mean=4), Demand(mean=4)], [2.0, 2.0]) == (0, 0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: erlang_b(-1, 1.0), "num_spares: expected at least 0, got -1"),
        (lambda: erlang_b(1, math.nan), "load: expected a finite number of at least 0, got nan"),
        (lambda: spares_needed(1.0, 0.0), "max_denial: expected above 0, at most 1, got 0"),
        (lambda: spares_needed(-1.0, 0.5), "load: expected a finite number of at least 0, got -1"),
        (lambda: protected_denial(3, [], []), "loads: expected at least one class, got none"),
        (lambda: protected_denial(3, [1.0], [0, 1]), "levels: expected one for each of 1 loads"),
        (lambda: protected_denial(3, [1.0, 1.0], [1, 1]), "levels: expected 0 first"),
        (lambda: protected_denial(3, [1.0] * 3, [0, 2, 1]), "levels: expected 0 first and none"),
        (lambda: Demand(mean=-1.0), "demand: mean: expected a finite number of at least 0, got -1"),
        (lambda: Demand(mean=1.0, sd=math.inf), "demand: sd: expected a finite number"),
        (lambda: littlewood(Demand(mean=1.0), 0.0), "price_ratio: expected above 0, at most 1"),
        (lambda: emsr_b([], []), "prices: expected one for each of 1 or more demands, got 0 for 0"),
        (lambda: emsr_b([Demand(mean=1.0)], [1.0, 2.0]), "prices: expected one for each"),
        (lambda: emsr_b([Demand(mean=1.0)] * 2, [1.0, 2.0]), "prices: expected above 0 and none"),
        (lambda: emsr_b([Demand(mean=1.0)], [0.0]), "prices: expected above 0"),
    ],
)
def test_parameters_out_of_range_are_named(call, message):
    """The message names the parameter and its range."""
    with pytest.raises(ValueError, match=message):
        call()
