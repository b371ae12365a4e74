"""Simple sequences inside each order, to compare with: random, as prescribed, and greedy rules.

Each takes the first bin of a line where there are several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.pharmacy.chain import Ints, Packed
    from wardwise.pharmacy.costs import Costs


def first_come(packed: Packed) -> Ints:
    """Lines as they are prescribed; candidates in sequence, shape (lines,)."""
    return np.concatenate([np.zeros(0, dtype=np.int64), *_first_bins(packed)])


def at_random(packed: Packed, rng: np.random.Generator) -> Ints:
    """Lines of each order in uniformly random sequence."""
    shuffled = [rng.permutation(lines) for lines in _first_bins(packed)]
    return np.concatenate([np.zeros(0, dtype=np.int64), *shuffled])


def greedy(costs: Costs, packed: Packed, rule: str = "nearest") -> Ints:
    """Take the line that looks best, one after the other.

    Parameters
    ----------
    costs, packed
        Pair costs for any number of points, and the orders.
    rule
        ``nearest``: least pair cost to the bin that is stored in the same cycle; ``shortest-leg``:
        nearest to the I/O point; ``farthest-first``: farthest from it.

    Returns
    -------
    Candidates in sequence, shape (lines,).
    """
    reach_s = costs.machine.reach_s[:, costs.cells]
    if rule not in ("nearest", "shortest-leg", "farthest-first"):
        raise ValueError(
            f"rule: expected 'nearest', 'shortest-leg' or 'farthest-first', got {rule!r}"
        )
    m = costs.num_points
    fetched = [costs.empty] * m
    sequence: list[int] = []
    for lines in _first_bins(packed):
        left = lines.tolist()
        while left:
            point, nodes = len(sequence) % m, packed.node[left]
            if rule == "nearest":
                rating = costs.pair_s[point, fetched[-m], nodes]
            else:
                rating = reach_s[point, nodes] * (1 if rule == "shortest-leg" else -1)
            sequence.append(left.pop(int(np.argmin(rating))))
            fetched.append(int(packed.node[sequence[-1]]))
    return np.array(sequence, dtype=np.int64)


def _first_bins(packed: Packed) -> Iterator[Ints]:
    """First candidate of each line, order by order."""
    for low, high in zip(packed.start[:-1], packed.start[1:], strict=True):
        yield low + np.unique(packed.line[low:high], return_index=True)[1]
