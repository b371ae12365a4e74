"""Orders whose sequence is free, too: which order goes next, and its lines, for least travel.

Orders stay together (a clustered travelling salesman, NP-hard). For each sequence of orders the
lines are sequenced exactly by `wardwise.pharmacy.chain`; over the sequences of orders runs a local
search with late acceptance: a change is kept if it is no worse than the plan a few steps ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.chain import Packed, best_chain

if TYPE_CHECKING:
    from wardwise.pharmacy.chain import Ints
    from wardwise.pharmacy.costs import Costs

MEMORY = 30  # steps back


def free_orders(
    costs: Costs, packed: Packed, *, tries: int = 5000, seed: int = 0
) -> tuple[Ints, Ints, float]:
    """Sequence orders and their lines on a machine with one or two points, empty at the start.

    Parameters
    ----------
    costs, packed
        Pair costs and orders.
    tries
        Changes of the sequence of orders, at least 0.
    seed
        Of the search.

    Returns
    -------
    Orders in sequence, shape (K,); candidates in sequence, shape (lines,), and the sum of their
    pair costs.

    Raises
    ------
    ValueError
        As `wardwise.pharmacy.chain.best_chain`, or for negative tries.
    """
    if tries < 0:
        raise ValueError(f"tries: expected at least 0, got {tries}")
    num_orders = len(packed.size)
    rng = np.random.default_rng(seed)
    current = np.arange(num_orders)
    cost = _cost(costs, packed, current)
    best, best_cost = current, cost
    past = [cost] * MEMORY
    for number in range(tries if num_orders > 1 else 0):
        changed = _change(current, rng)
        new = _cost(costs, packed, changed)
        if new <= max(cost, past[number % MEMORY]):
            current, cost = changed, new
            if cost < best_cost - 1e-9:
                best, best_cost = current, cost
        past[number % MEMORY] = cost
    arranged, candidates = arrange(packed, best)
    sequence, total = best_chain(costs, arranged)
    return best, candidates[sequence], total


def arrange(packed: Packed, orders: Ints) -> tuple[Packed, Ints]:
    """Orders in another sequence, and the number that each of their candidates had before."""
    widths = np.diff(packed.start)[orders]
    start = np.concatenate([[0], np.cumsum(widths)])
    # Each order's candidates follow on from its first.
    candidates = np.arange(start[-1]) + np.repeat(packed.start[orders] - start[:-1], widths)
    arranged = Packed(packed.node[candidates], packed.line[candidates], start, packed.size[orders])
    return arranged, candidates


def _cost(costs: Costs, packed: Packed, orders: Ints) -> float:
    return best_chain(costs, arrange(packed, orders)[0])[1]


def _change(orders: Ints, rng: np.random.Generator) -> Ints:
    """Move a run of up to three orders, swap two orders, or turn a run round."""
    a, b = (int(place) for place in np.sort(rng.choice(len(orders) + 1, 2, replace=False)))
    changed = orders.copy()
    kind = rng.random()
    if kind < 0.5 and b - a > 1:
        cut = min(int(rng.integers(1, 4)), b - a - 1)
        at = a + cut if rng.random() < 0.5 else b - cut
        changed[a:b] = np.concatenate([orders[at:b], orders[a:at]])
    elif kind < 0.8:
        changed[[a, b - 1]] = orders[[b - 1, a]]
    else:
        changed[a:b] = orders[a:b][::-1]
    return changed
