"""Sequences of large orders, of many points, or both: local search on the sum of pair costs.

A change of a sequence touches the cost of the positions that it moves and of those m later; nothing
else is counted again. Moves keep orders contiguous. For one and two points the search also solves
windows of eight consecutive lines exactly, with what stands before and comes after them given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wardwise.pharmacy.baselines import greedy
from wardwise.pharmacy.chain import MAX_TABLE, Packed, best_chain, table_sizes
from wardwise.pharmacy.timing import compiled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.pharmacy.chain import Ints
    from wardwise.pharmacy.costs import Costs

WINDOW = 8
LONGEST_SEGMENT = 3
MAX_PASSES = 6
_LEAST_GAIN = 1e-9


def improve(
    costs: Costs,
    packed: Packed,
    sequence: Ints | None = None,
    *,
    kicks: int = 30,
    rng: np.random.Generator | None = None,
) -> Ints:
    """Sequence orders of any size for any number of points.

    Runs of orders that are small enough are sequenced exactly (one and two points), given what
    stands around them; the others by swaps, 2-opt and Or-opt, exact windows, and kicks.

    Parameters
    ----------
    costs, packed
        Pair costs and orders.
    sequence
        Candidates where to start; None: the greedy sequence.
    kicks
        Random changes an order, each followed by local search and taken back if it did not help.
    rng
        For the kicks; None: seed 0.

    Returns
    -------
    Candidates in sequence, shape (lines,).
    """
    rng = rng or np.random.default_rng(0)
    m = costs.num_points
    current = greedy(costs, packed) if sequence is None else np.array(sequence, dtype=np.int64)
    is_small = table_sizes(packed, min(m, 2)) <= MAX_TABLE
    stretches = list(_stretches(is_small))
    ends = np.concatenate([[0], np.cumsum(packed.size)])
    before = np.inf
    for _ in range(MAX_PASSES):
        for first, last in stretches:
            low, high = ends[first], ends[last]
            if is_small[first] and m > 2:
                bounds = m + ends[first : last + 1]
                _shake(costs, packed, current, bounds, kicks, rng)
            elif is_small[first]:
                _exact(costs, packed.part(first, last), packed, current, low, high, first)
            else:
                _search(costs, packed, current, low, high, kicks, rng)
        cost = float(costs.of_pairs(packed.node[current]).sum())
        if cost > before - _LEAST_GAIN or len(stretches) == 1:
            break
        before = cost
    return current


def _stretches(is_small: np.typing.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Runs of small orders, and each other order alone: first, last + 1."""
    k = 0
    while k < len(is_small):
        last = k + 1
        while is_small[k] and last < len(is_small) and is_small[last]:
            last += 1
        yield k, last
        k = last


def _around(costs: Costs, packed: Packed, current: Ints, low: int, high: int) -> dict[str, Any]:
    """What stands before positions `low` to `high` - 1 and what comes after."""
    m = costs.num_points
    nodes = np.concatenate([np.full(m, costs.empty), packed.node[current]])
    return {
        "standing": nodes[low : low + m].tolist(),
        "position": int(low),
        "following": nodes[high + m : high + 2 * m].tolist(),
    }


def _exact(
    costs: Costs, part: Packed, packed: Packed, current: Ints, low: int, high: int, first: int
) -> None:
    """Sequence a run of small orders exactly, in place."""
    around = _around(costs, packed, current, low, high)
    sequence, _ = best_chain(costs, part, **around)
    current[low:high] = sequence + packed.start[first]


def _search(
    costs: Costs, packed: Packed, current: Ints, low: int, high: int, kicks: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Improve one order in place."""
    m = costs.num_points
    nodes = np.append(packed.node, costs.empty)
    whole = np.concatenate([np.full(m, len(packed.node)), current])
    low, high = low + m, high + m

    def descend() -> float:
        descend_order(costs.pair_s, nodes, whole, low, high)
        if m <= 2:
            current[:] = whole[m:]
            while _windows(costs, packed, current, low - m, high - m):
                whole[m:] = current
                descend_order(costs.pair_s, nodes, whole, low, high)
                current[:] = whole[m:]
        return float(cost_of(costs.pair_s, nodes, whole, low, high + m))

    best_cost, best = descend(), whole.copy()
    for _ in range(kicks if high - low > 3 else 0):
        # Three random places cut the order in segments; the middle two change places.
        a, b, c = np.sort(rng.choice(np.arange(low, high + 1), 3, replace=False))
        whole[a:c] = np.concatenate([whole[b:c], whole[a:b]])
        cost = descend()
        if cost < best_cost - _LEAST_GAIN:
            best_cost, best = cost, whole.copy()
        else:
            whole[:] = best
    current[:] = best[m:]


def _shake(
    costs: Costs, packed: Packed, current: Ints, bounds: Ints, kicks: int,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    """Improve a run of small orders in place, for many points; `bounds` are their positions."""
    m, num_orders = costs.num_points, len(bounds) - 1
    nodes = np.append(packed.node, costs.empty)
    whole = np.concatenate([np.full(m, len(packed.node)), current])
    for k in range(num_orders):
        descend_order(costs.pair_s, nodes, whole, bounds[k], bounds[k + 1])
    draws = rng.random((kicks * num_orders, 5))
    shake_orders(costs.pair_s, nodes, whole, bounds, draws)
    current[:] = whole[m:]


def _windows(costs: Costs, packed: Packed, current: Ints, low: int, high: int) -> bool:
    """Solve overlapping windows of one order exactly; whether that helped."""
    order = int(np.searchsorted(packed.start, current[low], side="right")) - 1
    own = np.arange(packed.start[order], packed.start[order + 1])
    helped = False
    for left in range(low, max(low + 1, high - WINDOW // 2), WINDOW // 2):
        right = min(left + WINDOW, high)
        lines = packed.line[current[left:right]]
        rank = {line: k for k, line in enumerate(sorted(lines.tolist()))}
        chosen = own[np.isin(packed.line[own], lines)]
        part = Packed(
            node=packed.node[chosen],
            line=np.array([rank[line] for line in packed.line[chosen].tolist()], dtype=np.int64),
            start=np.array([0, len(chosen)]),
            size=np.array([right - left]),
        )
        if table_sizes(part, costs.num_points)[0] > MAX_TABLE:
            continue
        before = current[left:right].copy()
        nodes, m = packed.node, costs.num_points
        old = costs.of_pairs(nodes[current])[left : right + m].sum()
        sequence, cost = best_chain(costs, part, **_around(costs, packed, current, left, right))
        current[left:right] = chosen[sequence]
        if cost > old - _LEAST_GAIN:
            current[left:right] = before
        else:
            helped = True
    return helped


@compiled
def cost_of(pair: Any, nodes: Any, whole: Any, low: int, high: int) -> float:
    """Cost of positions `low` to `high` - 1 of a sequence with the m standing bins in front."""
    m, total = pair.shape[0], 0.0
    for p in range(low, min(high, len(whole))):
        total += pair[p % m, nodes[whole[p - m]], nodes[whole[p]]]
    return total


@compiled
def _turn(whole: Any, low: int, high: int) -> None:
    """Reverse positions `low` to `high` - 1."""
    while low < high - 1:
        high -= 1
        whole[low], whole[high] = whole[high], whole[low]
        low += 1


@compiled
def _try_turn(pair: Any, nodes: Any, whole: Any, low: int, high: int) -> bool:
    """Reverse positions if that is cheaper."""
    m = pair.shape[0]
    old = cost_of(pair, nodes, whole, low, high + m)
    _turn(whole, low, high)
    if cost_of(pair, nodes, whole, low, high + m) < old - _LEAST_GAIN:
        return True
    _turn(whole, low, high)
    return False


@compiled
def _try_swap(pair: Any, nodes: Any, whole: Any, p: int, q: int) -> bool:
    """Swap two positions if that is cheaper."""
    m = pair.shape[0]
    gain = 0.0
    for sign in (1.0, -1.0):
        for k in (p, q, p + m, q + m):
            # With q = p + m one position would be counted twice.
            if k < len(whole) and not (k == p + m and p + m == q):
                gain += sign * pair[k % m, nodes[whole[k - m]], nodes[whole[k]]]
        if sign > 0 or gain <= _LEAST_GAIN:
            whole[p], whole[q] = whole[q], whole[p]
    return gain > _LEAST_GAIN


@compiled
def _try_shift(pair: Any, nodes: Any, whole: Any, low: int, middle: int, high: int) -> bool:
    """Let two neighbouring segments change places if that is cheaper (Or-opt)."""
    m = pair.shape[0]
    old = cost_of(pair, nodes, whole, low, high + m)
    _turn(whole, low, middle)
    _turn(whole, middle, high)
    _turn(whole, low, high)
    if cost_of(pair, nodes, whole, low, high + m) < old - _LEAST_GAIN:
        return True
    _turn(whole, low, high)
    _turn(whole, low, middle)
    _turn(whole, middle, high)
    return False


@compiled
def descend_order(pair: Any, nodes: Any, whole: Any, low: int, high: int) -> None:
    """Swap, reverse and shift inside positions `low` to `high` - 1 until nothing helps.

    Parameters
    ----------
    pair
        Costs, shape (m, U + 3, U).
    nodes
        Node of each candidate; the last is that of an empty point.
    whole
        Candidates in sequence, with m candidates for what stands at the points in front; it is
        overwritten.
    low, high
        Positions in `whole`.
    """
    helped = True
    while helped:
        helped = False
        for p in range(low, high):
            for q in range(p + 1, high):
                if _try_swap(pair, nodes, whole, p, q):
                    helped = True
                if q - p > 1 and _try_turn(pair, nodes, whole, p, q + 1):
                    helped = True
                for length in range(1, LONGEST_SEGMENT + 1):
                    if p + length <= q and _try_shift(pair, nodes, whole, p, p + length, q + 1):
                        helped = True
                    if q + 1 - length > p + LONGEST_SEGMENT and _try_shift(
                        pair, nodes, whole, p, q + 1 - length, q + 1
                    ):
                        helped = True


@compiled
def shake_orders(pair: Any, nodes: Any, whole: Any, bounds: Any, draws: Any) -> None:
    """Swap two pairs of lines in a random order, repair it and its neighbours, keep what helps.

    Parameters
    ----------
    pair, nodes, whole
        As for `descend_order`.
    bounds
        Positions in `whole` where each order begins, and where the last one ends.
    draws
        Random numbers from 0 to 1, shape (kicks, 5).
    """
    m, num_orders = pair.shape[0], len(bounds) - 1
    for draw in draws:
        k = int(draw[0] * num_orders)
        first, last = max(0, k - 1), min(num_orders, k + 2)
        low, high = bounds[first], bounds[last]
        before, old = whole[low:high].copy(), cost_of(pair, nodes, whole, low, high + m)
        size = bounds[k + 1] - bounds[k]
        for pick in (1, 3):
            p, q = bounds[k] + int(draw[pick] * size), bounds[k] + int(draw[pick + 1] * size)
            whole[p], whole[q] = whole[q], whole[p]
        # Neighbours first: they answer to what was swapped before it is undone.
        for j in (k - 1, k + 1, k, k - 1, k + 1):
            if first <= j < last:
                descend_order(pair, nodes, whole, bounds[j], bounds[j + 1])
        if cost_of(pair, nodes, whole, low, high + m) > old:
            whole[low:high] = before
