"""Sequences from windows of a few orders, each solved exactly without knowing what comes later.

Adjacent orders are coupled: the return of an order's last bins is paired with the retrieval of the
next one's first bins. A window of L orders sees L - 1 couplings ahead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.chain import best_chain

if TYPE_CHECKING:
    from wardwise.pharmacy.chain import Ints, Packed
    from wardwise.pharmacy.costs import Costs


def rolling(costs: Costs, packed: Packed, window: int = 2) -> Ints:
    """Solve each order together with the next ones, keep the sequence of the first of them.

    Parameters
    ----------
    costs, packed
        As for `wardwise.pharmacy.chain.best_chain`.
    window
        Orders L seen at once, at least 1. With 1 an order knows only what stands at the points.

    Returns
    -------
    Candidates in sequence, shape (lines,).
    """
    return _solve(costs, packed, _require(window), step=1)


def disjoint(costs: Costs, packed: Packed, window: int = 2) -> Ints:
    """Solve L orders at a time and keep all of them; parameters as of `rolling`."""
    return _solve(costs, packed, _require(window), step=window)


def isolated(costs: Costs, packed: Packed) -> Ints:
    """Solve each order alone, as if any bin stood at the points: best inside, blind outside."""
    standing = [costs.any_bin] * costs.num_points
    parts, position = [], 0
    for k in range(len(packed.size)):
        part = packed.part(k, k + 1)
        sequence, _ = best_chain(costs, part, standing=standing, position=position)
        parts.append(sequence + packed.start[k])
        position += len(sequence)
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _solve(costs: Costs, packed: Packed, window: int, step: int) -> Ints:
    m, num_orders = costs.num_points, len(packed.size)
    fetched = np.full(m, costs.empty)  # nodes at the points at first, then all fetched ones
    parts = []
    for k in range(0, num_orders, step):
        ahead = packed.part(k, min(k + window, num_orders))
        standing = fetched[-m:].tolist()
        sequence, _ = best_chain(costs, ahead, standing=standing, position=len(fetched) - m)
        kept = sequence[: packed.size[k : k + step].sum()]
        fetched = np.concatenate([fetched, ahead.node[kept]])
        parts.append(kept + packed.start[k])
    return np.concatenate([np.zeros(0, dtype=np.int64), *parts])


def _require(window: int) -> int:
    if window < 1:
        raise ValueError(f"window: expected at least 1, got {window}")
    return window
