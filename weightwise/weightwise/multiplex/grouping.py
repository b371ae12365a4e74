"""Which neighbouring blocks share, for a budget of parameters.

Either all groups have the same length, the smallest that meets the budget, or groups are chosen for
what merging them costs (ours; the paper fixes them by hand). The cost of a group is the
least-squares error that one set of weights makes at the outputs of its linear layers on calibration
data, or the squared distance of the weights from their mean without data; each layer counts
relative to a block's own outputs or weights, so that wide layers do not drown narrow ones.

Parameters and costs of neighbouring groups add up, so a dynamic programme over the ends of groups
finds every choice that no other one beats in both; so it does over stages, where the best choice
within the budget is read off.
"""

# Shapes: L blocks of a stage, O outputs, I inputs

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from weightwise.multiplex.linears import linear_layers, matrix_of
from weightwise.multiplex.start import least_squares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Price:
    """Parameters that the blocks of a stage take.

    Parameters
    ----------
    length
        Blocks.
    shared
        Parameters of one set of weights.
    own
        Parameters that each execution of shared weights has of its own.
    """

    length: int
    shared: int
    own: int

    def of(self, length: int) -> int:
        """Parameters of a group; a block alone has no transforms."""
        return self.shared + (self.own * length if length > 1 else 0)


Groups = tuple[int, ...]
Choice = tuple[int, float, tuple[Groups, ...]]


def even_groups(prices: Sequence[Price], budget: int) -> list[Groups]:
    """Groups of one length in all stages, the smallest that meets the budget.

    Parameters
    ----------
    prices
        Of each stage.
    budget
        Most parameters for all stages.

    Returns
    -------
    Lengths for each stage; the last group of a stage may be shorter.

    Raises
    ------
    ValueError
        If even one group per stage takes more.
    """
    least = None
    for run in range(1, max(price.length for price in prices) + 1):
        groups = [runs_of(price.length, run) for price in prices]
        total = sum(p.of(n) for p, one in zip(prices, groups, strict=True) for n in one)
        if total <= budget:
            return groups
        least = total if least is None else min(least, total)
    raise _TooLittleError(budget, least or 0)


def runs_of(length: int, run: int) -> Groups:
    """Cut blocks into runs; the last one may be shorter."""
    rest = length % run
    return (run,) * (length // run) + ((rest,) if rest else ())


def cheapest_groups(
    prices: Sequence[Price], costs: Sequence[Callable[[int, int], float]], budget: int
) -> list[Groups]:
    """Groups of least cost within the budget.

    Parameters
    ----------
    prices
        Of each stage.
    costs
        For each stage, the cost of merging the blocks from one index up to another.
    budget
        Most parameters for all stages.

    Returns
    -------
    Lengths for each stage.

    Raises
    ------
    ValueError
        If even the smallest choice takes more.
    """
    choices: list[Choice] = [(0, 0.0, ())]
    for price, cost in zip(prices, costs, strict=True):
        own = _of_stage(price, cost)
        choices = _unbeaten(
            (p + q, c + d, (*groups, one)) for p, c, groups in choices for q, d, (one,) in own
        )
    fitting = [choice for choice in choices if choice[0] <= budget]
    if not fitting:
        raise _TooLittleError(budget, choices[0][0])
    return list(fitting[-1][2])  # the dearer, the lower its cost


class _TooLittleError(ValueError):
    """The budget is below what the smallest choice takes."""

    def __init__(self, budget: int, least: int) -> None:
        super().__init__(f"{least - budget:,} parameters too few")
        self.lacking = least - budget


def _of_stage(price: Price, cost: Callable[[int, int], float]) -> list[Choice]:
    """Choices for one stage that no other one beats; groups are a tuple of one."""
    best: list[list[Choice]] = [[(0, 0.0, ((),))]]
    for end in range(1, price.length + 1):
        best.append(
            _unbeaten(
                (p + price.of(end - start), c + cost(start, end), ((*groups, end - start),))
                for start in range(end)
                for p, c, (groups,) in best[start]
            )
        )
    return best[-1]


def _unbeaten(choices: Iterable[Choice]) -> list[Choice]:
    """Choices with rising parameters and falling cost."""
    kept: list[Choice] = []
    for choice in sorted(choices, key=lambda one: one[:2]):
        if not kept or choice[1] < kept[-1][1]:
            kept.append(choice)
    return kept


def merging_costs(
    blocks: Sequence[nn.Module], shared: Sequence[str], products: Mapping[nn.Module, Tensor]
) -> Callable[[int, int], float]:
    """Cost of merging neighbouring blocks of a stage.

    Parameters
    ----------
    blocks, shared
        Blocks, and the parameters that can be shared.
    products
        Of the inputs of linear layers, see `weightwise.multiplex.observe.input_products`; layers
        without count by their weights.

    Returns
    -------
    A function of the first index and the one after the last: relative squared error, summed over
    weights and blocks.
    """
    table_LL = torch.zeros(len(blocks), len(blocks) + 1, dtype=torch.float64)
    layers = linear_layers(blocks[0], shared)
    for name in shared:
        tensors = [block.get_parameter(name).detach() for block in blocks]
        if tensors[0].dim() < 2:
            continue
        layer = name.removesuffix(".weight")
        modules = [block.get_submodule(layer) for block in blocks] if layer in layers else []
        if modules and all(one in products for one in modules):
            table_LL += _output_errors(
                [matrix_of(one) for one in modules], [products[one] for one in modules]
            )
        else:
            table_LL += _distances(tensors)
    costs = table_LL.tolist()
    return lambda start, end: float(costs[start][end])


def _output_errors(weights: Sequence[Tensor], products: Sequence[Tensor]) -> Tensor:
    num = len(weights)
    table_LL = torch.zeros(num, num + 1, dtype=torch.float64)
    usual = sum(_energy(w, g) for w, g in zip(weights, products, strict=True)) / num
    for start in range(num):
        for end in range(start + 2, num + 1):
            part = range(start, end)
            merged_OI = least_squares([weights[i] for i in part], [products[i] for i in part])
            table_LL[start, end] = sum(
                _energy(weights[i].double() - merged_OI, products[i]) for i in part
            )
    return table_LL / max(usual, torch.finfo(torch.float64).tiny)


def _energy(weight_OI: Tensor, product_II: Tensor) -> float:
    """Squared outputs of a layer for inputs with these products."""
    weight_OI = weight_OI.double()
    return float(((weight_OI @ product_II) * weight_OI).sum())


def _distances(tensors: Sequence[Tensor]) -> Tensor:
    num = len(tensors)
    flat_LX = torch.stack([one.double().flatten() for one in tensors])
    table_LL = torch.zeros(num, num + 1, dtype=torch.float64)
    for start in range(num):
        for end in range(start + 2, num + 1):
            part = flat_LX[start:end]
            table_LL[start, end] = (part - part.mean(0)).square().sum()
    usual = float(flat_LX.square().sum()) / num
    return table_LL / max(usual, torch.finfo(torch.float64).tiny)
