"""Groups for a budget, weights that groups start from, and parts of low rank."""

import runpy
from itertools import product
from pathlib import Path

import pytest
import torch

from weightwise.multiplex import Plan, StagePlan, Transforms, multiplex, num_unique_parameters
from weightwise.multiplex.grouping import (
    Price,
    cheapest_groups,
    even_groups,
    merging_costs,
    runs_of,
)
from weightwise.multiplex.start import least_squares, low_rank

SHARED = runpy.run_path(str(Path(__file__).with_name("multiplex_models.py")))
Plain, batch_of = SHARED["Plain"], SHARED["batch_of"]


def drawn(*shape, seed=0):
    """Standard normal numbers in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator)


def compositions(length):
    """Every way to cut a row of blocks into runs."""
    if length == 0:
        return [()]
    return [
        (first, *rest) for first in range(1, length + 1) for rest in compositions(length - first)
    ]


@pytest.mark.parametrize(
    ("length", "run", "wanted"),
    [(6, 2, (2, 2, 2)), (5, 2, (2, 2, 1)), (2, 6, (2,)), (3, 1, (1,) * 3)],
)
def test_runs_cut_a_stage(length, run, wanted):
    """The last run takes what is left."""
    assert runs_of(length, run) == wanted


def test_even_groups_are_the_shortest_that_fit():
    """Stages of 2 and 6 blocks of 10 and 100: runs of 2 take 10 + 300, of 3 take 10 + 200."""
    prices = [Price(length=2, shared=10, own=0), Price(length=6, shared=100, own=0)]
    assert even_groups(prices, 620) == [(1, 1), (1,) * 6]
    assert even_groups(prices, 310) == [(2,), (2, 2, 2)]
    assert even_groups(prices, 309) == [(2,), (3, 3)]
    assert even_groups(prices, 110) == [(2,), (6,)]
    with pytest.raises(ValueError, match="1 parameters too few"):
        even_groups(prices, 109)


@pytest.mark.parametrize("seed", list(range(6)))
def test_cheapest_groups_are_those_of_all_choices_tried(seed):
    """Two stages with drawn costs, and transforms that make a group dearer than a block alone."""
    generator = torch.Generator().manual_seed(seed)
    prices = [Price(length=4, shared=7, own=2), Price(length=5, shared=11, own=1)]
    tables = [torch.rand(6, 6, generator=generator, dtype=torch.float64).tolist() for _ in prices]
    costs = [
        lambda start, end, table=table: table[start][end] * (end - start > 1) for table in tables
    ]

    def judge(choice):
        used, lost = 0, 0.0
        for price, cost, groups in zip(prices, costs, choice, strict=True):
            start = 0
            for length in groups:
                used += price.of(length)
                lost += cost(start, start + length)
                start += length
        return lost, used

    every = list(product(compositions(4), compositions(5)))
    for budget in (40, 55, 70, 83):
        fitting = [judge(one) for one in every if judge(one)[1] <= budget]
        found = judge(cheapest_groups(prices, costs, budget))
        assert found[1] <= budget
        assert found[0] == pytest.approx(min(fitting)[0])


def test_too_small_a_budget_says_what_is_lacking():
    """One group of 3 blocks takes 10 + 3 * 2 = 16."""
    price = Price(length=3, shared=10, own=2)
    assert cheapest_groups([price], [lambda *_: 0.0], 16) == [(3,)]
    with pytest.raises(ValueError, match="1 parameters too few"):
        cheapest_groups([price], [lambda *_: 0.0], 15)


def test_blocks_that_are_alike_are_merged():
    """Two pairs of blocks of nearly the same weights, then another; with and without data."""
    for batches in ([], [batch_of("tokens 8")]):
        torch.manual_seed(0)
        model = Plain(depth=5)
        for one, other in ((0, 1), (2, 3)):
            for name, weight in model.blocks[one].named_parameters():
                noise = 1e-3 * torch.randn(weight.shape)
                model.blocks[other].get_parameter(name).data = weight.data + noise
        # 5 * 600 + 27 parameters; three sets of 568, 5 * 32 own and 27 are 1891.
        plan = multiplex(model, 1891, by="sensitivity", batches=batches)
        assert plan.stages[0].groups == (2, 2, 1)
        assert num_unique_parameters(model) == 1891


def test_costs_are_relative_squared_errors():
    """Weights 1 and 3 of one layer: off their mean by 1 each, so 2 of a mean square of 5."""
    model = Plain(depth=2, width=2)
    for block, value in zip(model.blocks, (1.0, 3.0), strict=True):
        torch.nn.init.constant_(block.fc1.weight, value)
    cost = merging_costs(list(model.blocks), ("fc1.weight", "fc1.bias"), {})
    assert cost(0, 2) == pytest.approx(2 / 5)
    assert cost(0, 1) == 0
    # Inputs of the first count 3 times as much: at the weighted mean of 1.5 the errors are 0.5 and
    # 1.5, so (3 * 0.25 + 2.25) of a mean of (3 * 1 + 9) / 2.
    eye = torch.eye(2, dtype=torch.float64)
    given = {model.blocks[0].fc1: 3 * eye, model.blocks[1].fc1: eye}
    cost = merging_costs(list(model.blocks), ("fc1.weight",), given)
    assert cost(0, 2) == pytest.approx(3 / 6, rel=1e-4)


def test_least_squares_is_that_of_torch():
    """Rows of all blocks below each other are one problem for torch.linalg.lstsq."""
    weights = [drawn(3, 4, seed=i) for i in range(3)]
    inputs = [drawn(20, 4, seed=10 + i) for i in range(3)]
    found = least_squares(weights, [x.T @ x for x in inputs])
    outputs = torch.cat([x @ w.T for x, w in zip(inputs, weights, strict=True)])
    wanted = torch.linalg.lstsq(torch.cat(inputs), outputs).solution.T
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_directions_without_inputs_take_the_mean():
    """Inputs have nothing in their last channel; and there may be no inputs at all."""
    weights = [drawn(3, 4, seed=i) for i in range(2)]
    inputs = [drawn(20, 4, seed=10 + i) for i in range(2)]
    for x in inputs:
        x[:, 3] = 0
    found = least_squares(weights, [x.T @ x for x in inputs])
    torch.testing.assert_close(found[:, 3], (weights[0] + weights[1])[:, 3] / 2)
    none = torch.zeros(4, 4, dtype=torch.float64)
    torch.testing.assert_close(least_squares(weights, [none, none]), sum(weights) / 2)


@pytest.mark.parametrize("shape", [(5, 7), (7, 5)])
def test_low_rank_is_the_truncated_singular_value_decomposition(shape):
    """Of torch.linalg.svd; a rank above the smaller side gives the matrix itself."""
    matrix = drawn(*shape)
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    for rank in (1, 3, 9):
        down, up = low_rank(matrix, rank)
        wanted = (left[:, :rank] * values[:rank]) @ right[:rank]
        torch.testing.assert_close(up @ down, wanted)
        torch.testing.assert_close(down @ down.T, torch.eye(len(down), dtype=matrix.dtype))


def test_equal_weights_get_parts_of_low_rank_that_are_zero():
    """Whatever directions they look in, they look in some."""
    down, up = low_rank(torch.zeros(4, 6), 2)
    assert not up.any()
    torch.testing.assert_close(down @ down.T, torch.eye(2))


def test_plans_survive_a_file():
    """Every field, and places for all transforms."""
    model, batch = Plain(), batch_of("tokens 8")
    transforms = Transforms(mixes=True, mix_bias=True, kernel=3, rank=2, delta="zero")
    plan = multiplex(model, 0.99, transforms=transforms, batches=[batch], keep=("proj",))
    again = Plan.from_json(plan.to_json())
    assert again == plan
    other = Plain()
    assert multiplex(other, plan=again) == plan
    assert num_unique_parameters(other) == num_unique_parameters(model)


def test_plans_that_do_not_fit_are_refused():
    """The text, the fields, the model."""
    stage = StagePlan(name="blocks", first=0, groups=(2, 3))
    plan = Plan(stages=(stage,), transforms=Transforms())
    with pytest.raises(ValueError, match="expected 5 equal blocks in blocks from 0 on, found 4"):
        multiplex(Plain(), plan=plan)
    for text in ("{", "[]", "{}", plan.to_json().replace("kernel", "colonel")):
        with pytest.raises(ValueError, match="plan: expected one that to_json wrote"):
            Plan.from_json(text)
    with pytest.raises(ValueError, match="groups: expected lengths of at least 1"):
        StagePlan(name="blocks", first=0, groups=(2, 0))
    with pytest.raises(ValueError, match="first: expected at least 0, got -1"):
        StagePlan(name="blocks", first=-1, groups=(2,))
    with pytest.raises(ValueError, match="stages: expected at least 1, got none"):
        Plan(stages=(), transforms=Transforms())
