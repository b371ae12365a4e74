"""Which runs to train next: against brute force, differences and refits of noisy replicas."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.laws import (
    CAPYBARA,
    HOFFMANN,
    QAT_W4A4,
    Quantity,
    Settings,
    constants,
    fit,
    next_runs,
    optimal_training,
)
from weightwise.laws.families import FAMILIES
from weightwise.laws.problem import Problem

FORMATS = ((None, 32), ("e1m1", 32), ("e2m1", 128), ("e3m2", 64))
ASKED = Settings.of(1e9, 5e11, "e4m3", 128)
QUANTITIES = {
    "loss": Quantity.loss(ASKED),
    "tokens": Quantity.critical_tokens(ASKED),
    "delta": Quantity.constant("delta"),
    "bits": Quantity.optimal_bits(1e22),
}


def grid(sizes: tuple[float, ...], tokens: tuple[float, ...], formats=FORMATS) -> Settings:
    """Every size with every length and every format with its blocks."""
    return Settings.join(
        [
            Settings.of(size, data, fmt, block)
            for size in sizes
            for data in tokens
            for fmt, block in formats
        ]
    )


RUNS = grid((4e7, 1e8), (1e10, 3e10))
CANDIDATES = grid((4e7, 3e8), (1e10, 1e11), (*FORMATS[1:], ("e5m2", 32)))


def noisy(law, runs: Settings, seed: int = 0, noise: float = 0.002) -> np.ndarray:
    """Losses of a law with noise."""
    return law.loss(runs) + noise * np.random.default_rng(seed).standard_normal(len(runs))


def by_constants(law, function) -> np.ndarray:
    """Derivatives of a function of a law by its constants, by differences of the law itself."""
    open_names = ("n", "alpha", "d", "beta", "epsilon", "gamma", "delta", "nu")
    columns = []
    for name in open_names:
        step = 1e-6 * constants(law)[name]
        above, below = (
            function(replace(law, **{name: constants(law)[name] + s * step})) for s in (1, -1)
        )
        columns.append((np.asarray(above) - below) / (2 * step))
    return np.stack(columns, axis=-1)


def standard_error(law, quantity: Quantity, runs: Settings, noise: float) -> float:
    """The delta method in the law's own constants, written out."""
    rows = by_constants(law, lambda one: np.log(one.loss(runs)))
    scale = np.linalg.norm(rows, axis=0)
    gradient = by_constants(law, quantity.value) / scale
    covariance = np.linalg.inv((rows / scale).T @ (rows / scale))
    return noise * float(np.sqrt(gradient @ covariance @ gradient))


@pytest.mark.slow
@pytest.mark.parametrize("name", QUANTITIES)
def test_choice_of_one_and_of_two_agrees_with_trying_all(name: str) -> None:
    """The first run is the best of all; two are close to the best pair, and errors are right."""
    quantity = QUANTITIES[name]
    losses = noisy(CAPYBARA, RUNS)
    (one,), pair = (
        next_runs("capybara", RUNS, losses, CANDIDATES, quantity, count=k).proposals for k in (1, 2)
    )
    design = next_runs("capybara", RUNS, losses, CANDIDATES, quantity)
    assert design.value == quantity.value(design.law)

    def error(*rows: int) -> float:
        runs = Settings.join([RUNS, CANDIDATES[np.array(rows, dtype=int)]])
        return standard_error(design.law, quantity, runs, design.noise)

    assert one.before == pytest.approx(error(), rel=1e-3)
    singles = [error(row) for row in range(len(CANDIDATES))]
    assert one.row == int(np.argmin(singles))
    assert one.after == pytest.approx(min(singles), rel=1e-3)
    assert pair[0].after == pytest.approx(error(pair[0].row), rel=1e-3)
    assert pair[1].before == pair[0].after < pair[0].before
    assert pair[1].after == pytest.approx(error(pair[0].row, pair[1].row), rel=1e-3)
    best_pair = min(error(*rows) for rows in combinations(range(len(CANDIDATES)), 2))
    assert pair[1].after <= 1.02 * best_pair


def test_choice_by_determinant_agrees_with_trying_all() -> None:
    """The volume of the constants' ellipsoid shrinks most, and by as much as is said."""
    design = next_runs("capybara", RUNS, noisy(CAPYBARA, RUNS), CANDIDATES, criterion="d")

    def log_det(*rows: int) -> float:
        runs = Settings.join([RUNS, CANDIDATES[np.array(rows, dtype=int)]])
        jacobian = by_constants(design.law, lambda one: np.log(one.loss(runs)))
        jacobian = jacobian * np.array(list(constants(design.law).values())[:8])
        return float(np.linalg.slogdet(jacobian.T @ jacobian)[1])

    (found,) = design.proposals
    gains = [log_det(row) - log_det() for row in range(len(CANDIDATES))]
    assert found.row == int(np.argmax(gains))
    # Eight constants, and the determinant is that of the squares.
    assert found.after == pytest.approx(np.exp(-max(gains) / 16), rel=1e-4)
    assert found.before == 1.0


def test_determinant_with_a_quantity_tells_its_error() -> None:
    """Chosen by the determinant, shown for the quantity; the right choice for it is no worse."""
    losses, quantity = noisy(CAPYBARA, RUNS), QUANTITIES["tokens"]
    by_volume, own = (
        next_runs("capybara", RUNS, losses, CANDIDATES, quantity, criterion=one).proposals[0]
        for one in ("d", "c")
    )
    assert by_volume.before == own.before
    assert own.after <= by_volume.after < by_volume.before


def test_dear_runs_are_left_where_computing_counts() -> None:
    """Per FLOP the best choice brings most variance over its cost."""
    losses, quantity = noisy(CAPYBARA, RUNS), QUANTITIES["loss"]
    dear, cheap = (
        next_runs("capybara", RUNS, losses, CANDIDATES, quantity, per=one).proposals[0]
        for one in ("run", "flop")
    )
    assert dear.cost == 6 * dear.settings.num_params[0] * dear.settings.num_tokens[0]
    gains = [(one.before**2 - one.after**2) / one.cost for one in (cheap, dear)]
    assert gains[0] > gains[1]
    assert cheap.cost < dear.cost
    assert dear.after < cheap.after
    prices = np.ones(len(CANDIDATES))
    same = next_runs(
        "capybara", RUNS, losses, CANDIDATES, quantity, per="flop", costs=prices
    ).proposals[0]
    assert (same.row, same.cost) == (dear.row, 1.0)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("objective", ["huber", "squares"])
def test_rows_of_the_jacobian_agree_with_differences(name: str, objective: str) -> None:
    """On the runs themselves, and where runs might be."""
    formats = ((None, 32), ("e1m2", 32), ("e1m2", 128)) if name == "qat" else FORMATS
    law = QAT_W4A4 if name == "qat" else CAPYBARA
    runs, others = grid((4e7, 1e8), (1e10, 3e10), formats), grid((3e8,), (1e11,), formats[1:])
    problem = Problem.of(name, runs, noisy(law, runs), objective)
    point = problem.best()[1]

    def losses(at: np.ndarray) -> np.ndarray:
        loss = problem.terms_at(at, others)[0]
        return np.log(loss) if objective == "huber" else loss

    for function, rows in (
        (problem.residuals, problem.jacobian(point)),
        (losses, problem.rows_at(point, others)),
    ):
        for k, step in enumerate(1e-5 * np.eye(len(point))):
            expected = (function(point + step) - function(point - step)) / 2e-5
            np.testing.assert_allclose(rows[:, k], expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(
        problem.terms_at(point, others)[0], problem.law(point, None).loss(others), rtol=1e-9
    )
    assert len(problem.names) == len(point)


@pytest.mark.slow
def test_standard_errors_are_the_spread_of_refits() -> None:
    """A hundred noisy replicas scatter as the delta method says."""
    runs = grid((4e7, 1e8, 1e9), (1e10, 3e10, 2e11), ((None, 32),))
    quantity = Quantity.loss(Settings.of(1e10, 1e12))
    found = [
        quantity.value(
            fit("chinchilla", runs, noisy(HOFFMANN, runs, seed), objective="squares").law
        )
        for seed in range(100)
    ]
    told = [
        next_runs(
            "chinchilla", runs, noisy(HOFFMANN, runs, seed), runs, quantity, objective="squares"
        ).proposals[0].before
        for seed in range(40)
    ]  # fmt: skip
    # The spread of 100 has an error of 7 %, the mean square of 40 variances of 4 freedoms 8 %.
    assert np.std(found) == pytest.approx(np.sqrt(np.mean(np.square(told))), rel=0.2)


@pytest.mark.slow
def test_proposed_runs_sharpen_refits_more_than_random_ones() -> None:
    """Two more runs, forty noisy replicas of each choice."""
    runs = grid((4e7, 1e8, 2e8), (1e10, 2e10, 4e10), ((None, 32),))
    pool = grid((2e7, 4e7, 1e8, 3e8), (5e9, 1e10, 3e10, 1e11), ((None, 32),))
    quantity = Quantity.loss(Settings.of(3e9, 1e12))
    design = next_runs(
        "chinchilla", runs, noisy(HOFFMANN, runs), pool, quantity, count=2, objective="squares"
    )
    rng = np.random.default_rng(1)
    proposed, random = [], []
    for seed in range(40):
        for rows, found in (
            (np.array([one.row for one in design.proposals]), proposed),
            (rng.choice(len(pool), 2, replace=False), random),
        ):
            all_runs = Settings.join([runs, pool[rows]])
            losses = noisy(HOFFMANN, all_runs, seed)
            found.append(
                quantity.value(fit("chinchilla", all_runs, losses, objective="squares").law)
            )
    assert np.std(proposed) < 0.7 * np.std(random)


@pytest.mark.slow
@given(
    others=st.lists(st.tuples(st.floats(1e6, 1e12), st.floats(1e8, 1e14)), min_size=3, max_size=6),
    quantity=st.sampled_from(
        [None, Quantity.constant("beta"), Quantity.loss(Settings.of(1e11, 1e13))]
    ),
    per=st.sampled_from(["run", "flop"]),
)
@settings(max_examples=20, deadline=None)
def test_a_further_run_never_makes_anything_less_known(others, quantity, per) -> None:
    """Whatever candidates and quantity, also where runs are chosen for something else."""
    runs = grid((4e7, 1e8, 3e8), (1e10, 3e10, 1e11), ((None, 32),))
    pool = Settings.of([n for n, _ in others], [d for _, d in others])
    losses = noisy(HOFFMANN, runs)
    design = next_runs("chinchilla", runs, losses, pool, quantity, criterion="d", count=3, per=per)
    errors = [design.proposals[0].before, *(one.after for one in design.proposals)]
    assert all(after <= before * (1 + 1e-9) for before, after in pairwise(errors))
    assert len({one.row for one in design.proposals}) == 3


def test_optimal_bits_are_those_of_the_plan() -> None:
    """The quantity asks the planner with the law at hand."""
    assert QUANTITIES["bits"].value(CAPYBARA) == optimal_training(compute=1e22).bits


@pytest.mark.parametrize(
    ("name", "formats", "untold"),
    [
        ("capybara", ((None, 32), ("e2m1", 32)), "delta, nu, gamma"),
        ("capybara", (("e1m1", 32), ("e1m2", 32), ("e1m4", 32)), "delta, gamma"),
        ("kumar", (("e2m1", 32),), "gamma, n"),
    ],
)
def test_constants_that_the_runs_leave_open_are_named(
    name: str, formats: tuple[tuple[str | None, int], ...], untold: str
) -> None:
    """One format tells nothing of how formats differ."""
    runs = grid((4e7, 1e8, 3e8), (1e10, 3e10, 1e11), formats)
    with pytest.raises(ValueError, match=f"do not determine {untold}:"):
        next_runs(name, runs, noisy(CAPYBARA, runs), CANDIDATES, QUANTITIES["loss"])


def test_one_size_leaves_the_power_of_sizes_open() -> None:
    """N to the minus alpha is then a constant like epsilon."""
    runs = grid((1e8,), (1e9, 3e9, 1e10, 3e10, 1e11, 3e11), ((None, 32),))
    with pytest.raises(ValueError, match=r"do not determine alpha, n, epsilon"):
        next_runs("chinchilla", runs, noisy(HOFFMANN, runs), RUNS, Quantity.constant("beta"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count: expected 1 to 16, got 0"),
        ({"count": 17}, "count: expected 1 to 16, got 17"),
        ({"quantity": None}, "quantity: expected one"),
        ({"criterion": "a"}, "criterion: expected one of c, d, got 'a'"),
        ({"per": "hour"}, "per: expected one of run, flop"),
        ({"costs": [1.0]}, "costs: expected 16 numbers"),
        ({"costs": [0.0] * 16}, "costs: expected finite numbers above 0"),
        ({"quantity": Quantity.constant("rho")}, "constant: expected one of n, alpha"),
        ({"quantity": Quantity.constant("log2_channel")}, "no constant that the fit left open"),
        ({"quantity": Quantity.critical_tokens(Settings.of(1e8, 1e10))}, "expected a finite"),
        ({"quantity": Quantity.critical_tokens(ASKED), "name": "chinchilla"}, "has none"),
        ({"quantity": QUANTITIES["bits"], "name": "kumar"}, "expected a Capybara law"),
        ({"name": "moe"}, "law: expected one of capybara"),
    ],
)
def test_impossible_questions_are_refused(options: dict, message: str) -> None:
    """The message names the argument."""
    asked = {"name": "capybara", "quantity": QUANTITIES["loss"]} | options
    name, quantity = asked.pop("name"), asked.pop("quantity")
    with pytest.raises(ValueError, match=message):
        next_runs(name, RUNS, noisy(CAPYBARA, RUNS), CANDIDATES, quantity, **asked)


def test_as_many_runs_as_constants_tell_no_noise() -> None:
    """All constants are determined, but nothing is left over; the determinant needs no noise."""
    runs = Settings.of([1e7, 1e8, 1e9, 1e8, 1e8], [1e9, 1e9, 1e9, 1e10, 1e11])
    losses = HOFFMANN.loss(runs)
    with pytest.raises(ValueError, match="expected more than 5, the number of constants"):
        next_runs("chinchilla", runs, losses, RUNS, Quantity.constant("beta"))
    assert next_runs("chinchilla", runs, losses, RUNS, criterion="d").proposals[0].after < 1


def test_candidates_in_another_format_are_refused_by_the_law_of_one_format() -> None:
    """And so are losses of several settings."""
    runs = grid((4e7, 1e8, 3e8), (1e10, 3e10, 1e11), ((None, 32), ("e1m2", 32), ("e1m2", 128)))
    with pytest.raises(ValueError, match="the runs are in E1M2, expected no E2M1"):
        next_runs("qat", runs, noisy(QAT_W4A4, runs), Settings.of(1e8, 1e10, "e2m1", 32),
                  Quantity.constant("k"))  # fmt: skip
    with pytest.raises(ValueError, match="settings: expected one row, got 16"):
        Quantity.loss(RUNS)
