"""Look-ahead: the best next bin, from the exact sequence of the next orders' lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.chain import best_chain, pack
from wardwise.pharmacy.costs import costs_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.pharmacy.costs import Costs
    from wardwise.pharmacy.rack import Machine
    from wardwise.pharmacy.service_time import ServiceTime

# The exact sequence of an order takes a time that grows with the cube of its bins.
MOST_BINS = 12


@dataclass(frozen=True, kw_only=True)
class Window:
    """The best sequence of a window.

    Parameters
    ----------
    steps
        Line of its order and bin of that line, in sequence; shape (lines, 3): order, line, bin,
        all from 0.
    cost_s
        Expected seconds until all is delivered, by the sum of pair costs.
    """

    steps: tuple[tuple[int, int, int], ...]
    cost_s: float


def best_window(
    machine: Machine,
    service: ServiceTime,
    standing: Sequence[int | None],
    point: int,
    orders: Sequence[Sequence[Sequence[int]]],
) -> Window:
    """Sequence the lines of a few orders, served one after the other, from what stands now.

    Exact for one and two points, by the pair costs of `wardwise.pharmacy.costs`; for more points
    the line that is cheapest to fetch now comes first.

    Parameters
    ----------
    machine, service
        What costs are made of.
    standing
        Cells of the bins at the points, the one to be stored next first, shape (m,); None: empty.
    point
        Point of the next bin, from 0.
    orders
        For each order and line the cells of the bins that it may take, in order of preference.
    """
    orders = [_cut(order) for order in orders]
    wanted = [cell for order in orders for line in order for cell in line]
    costs = costs_of(machine, service, wanted + [cell for cell in standing if cell is not None])
    before = [costs.empty if cell is None else _node(costs, cell) for cell in standing]
    nodes = [[[_node(costs, cell) for cell in line] for line in order] for order in orders]
    places = [
        (k, n, b) for k, order in enumerate(orders) for n, line in enumerate(order)
        for b in range(len(line))
    ]  # fmt: skip
    if machine.num_points > 2:
        rating = costs.pair_s[point, before[0], [node for line in nodes[0] for node in line]]
        best = int(np.argmin(rating))
        return Window(steps=(places[best],), cost_s=float(rating[best]))
    sequence, cost_s = best_chain(costs, pack(nodes), standing=before, position=point)
    return Window(steps=tuple(places[chosen] for chosen in sequence.tolist()), cost_s=cost_s)


def _node(costs: Costs, cell: int) -> int:
    return int(costs.cells.searchsorted(cell))


def _cut(order: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """At most so many bins that the exact sequence stays quick, the preferred ones of each line."""
    share = max(1, MOST_BINS // len(order))
    return [line[:share] for line in order]
