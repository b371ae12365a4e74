"""Best sequence of orders that are served one after the other, exactly: dynamic programming.

Lines of an order are contiguous and may be permuted; a line whose drug lies in several bins may
take any of them. What the future needs to know of the past is the last m bins. So one recursion
runs over the whole horizon, inside an order over sets S of its lines (Held and Karp, 1962)::

    m = 1   g[S, c]     cheapest way with S served and bin c last
    m = 2   g[S, c, d]  cheapest way with S served and bins c, d last

and the best values at the end of an order are where the next one starts. Work is linear in the
orders; an order of n lines costs n^2 2^n (m = 1) or n^3 2^n steps. Tables are not kept: on the way
back each order's is made once more from the values at its start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wardwise.pharmacy.timing import compiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.pharmacy.costs import Costs
    from wardwise.pharmacy.rack import Floats

Ints = NDArray[np.int64]
# Entries of the largest table: 13 lines for two points, 17 for one.
MAX_TABLE = 2_500_000


class Packed(NamedTuple):
    """Orders as arrays; a candidate is a bin that may serve a line.

    Parameters
    ----------
    node
        Node of each candidate, order by order, shape (C,).
    line
        Line of its order that a candidate serves, from 0, shape (C,).
    start
        First candidate of each order, and C; shape (K + 1,).
    size
        Lines of each order, at least 1, shape (K,).
    """

    node: Ints
    line: Ints
    start: Ints
    size: Ints

    @property
    def num_lines(self) -> int:
        """Lines of all orders."""
        return int(self.size.sum())

    def part(self, first: int, last: int) -> Packed:
        """Orders `first` to `last` - 1; their candidates are numbered from 0."""
        low, high = self.start[first], self.start[last]
        return Packed(
            self.node[low:high], self.line[low:high], self.start[first : last + 1] - low,
            self.size[first:last],
        )  # fmt: skip


def pack(orders: Sequence[Sequence[Sequence[int]]]) -> Packed:
    """Orders as lists of lines, each a list of the nodes of its candidates.

    Raises
    ------
    ValueError
        If an order has no line or a line no candidate.
    """
    for number, order in enumerate(orders, start=1):
        if not order or not all(order):
            raise ValueError(f"orders: order {number}: expected lines with at least one bin each")
    return Packed(
        node=np.array(
            [node for order in orders for line in order for node in line], dtype=np.int64
        ),
        line=np.array(
            [k for order in orders for k, line in enumerate(order) for _ in line], dtype=np.int64
        ),
        start=np.cumsum([0, *(sum(map(len, order)) for order in orders)], dtype=np.int64),
        size=np.array([len(order) for order in orders], dtype=np.int64),
    )


def table_sizes(packed: Packed, num_points: int) -> Floats:
    """Entries of the table that each order needs, shape (K,)."""
    return np.asarray(2.0**packed.size * np.diff(packed.start).astype(float) ** num_points)


def best_chain(
    costs: Costs,
    packed: Packed,
    *,
    standing: Sequence[int] | None = None,
    position: int = 0,
    following: Sequence[int] = (),
) -> tuple[Ints, float]:
    """Cheapest sequence of the orders' lines, exactly.

    Parameters
    ----------
    costs
        Pair costs for one or two points.
    packed
        Orders in the sequence of service.
    standing
        Nodes at the points at the start, oldest first, shape (m,); None: all empty.
    position
        Position of the first line, which decides its point.
    following
        Nodes that come right after, at most m: the orders' last bins are chosen to suit them.

    Returns
    -------
    Candidates in sequence, shape (lines,), and the sum of pair costs, those of `following`
    included.

    Raises
    ------
    ValueError
        For three points and more, or if an order is too large for a table.
    """
    m = costs.num_points
    if m > 2:
        raise ValueError(f"machine: points_m: expected one or two points, got {m}")
    if not len(packed.size):
        return np.zeros(0, dtype=np.int64), 0.0
    sizes = table_sizes(packed, m)
    if sizes.max() > MAX_TABLE:
        raise ValueError(
            f"orders: lines: order {int(sizes.argmax()) + 1} has {packed.size[sizes.argmax()]}, "
            "too many for an exact sequence"
        )
    first = np.array([costs.empty] * m if standing is None else standing, dtype=np.int64)
    after = np.full(2, -1, dtype=np.int64)
    after[: len(following)] = following
    sequence = np.empty(packed.num_lines, dtype=np.int64)
    if m == 1:
        total = _chain_one(costs.pair_s[0], *packed, first, after, sequence)
    else:
        total = _chain_two(costs.pair_s, *packed, first, position, after, sequence)
    return sequence, float(total)


@compiled
def fill_one(pair: Any, node: Any, line: Any, n: int, prior: Any, value: Any, g: Any) -> None:
    """Table of an order for one point; `value` are the best costs with each prior bin last."""
    num = len(node)
    g[: 1 << n, :num] = np.inf
    for c in range(num):
        best = np.inf
        for u in range(len(prior)):
            best = min(best, value[u] + pair[prior[u], node[c]])
        g[1 << line[c], c] = best
    for served in range(1, 1 << n):
        for c in range(num):
            if not served >> line[c] & 1:
                continue
            for d in range(num):
                bit = 1 << line[d]
                if not served & bit:
                    cost = g[served, c] + pair[node[c], node[d]]
                    g[served | bit, d] = min(g[served | bit, d], cost)


@compiled
def trace_one(
    pair: Any, node: Any, line: Any, n: int, prior: Any, value: Any, g: Any, last: int, out: Any
) -> int:
    """Write an order's best sequence that ends with candidate `last`; returns the prior bin."""
    served, c = (1 << n) - 1, last
    for at in range(n - 1, 0, -1):
        out[at] = c
        rest = served ^ (1 << line[c])
        best, chosen = np.inf, -1
        for d in range(len(node)):
            if rest >> line[d] & 1:
                cost = g[rest, d] + pair[node[d], node[c]]
                if cost < best:
                    best, chosen = cost, d
        served, c = rest, chosen
    out[0] = c
    best, chosen = np.inf, -1
    for u in range(len(prior)):
        cost = value[u] + pair[prior[u], node[c]]
        if cost < best:
            best, chosen = cost, u
    return chosen


@compiled
def _chain_one(
    cost: Any, node: Any, line: Any, start: Any, size: Any, standing: Any, after: Any,
    sequence: Any,
) -> Any:  # fmt: skip
    """Dynamic programme over all orders for one point; `sequence` is overwritten."""
    num_orders = len(size)
    g = np.empty((1 << size.max(), np.diff(start).max()))
    # Best costs with each candidate of an order last; before the first order, the standing bin.
    value = np.zeros(start[num_orders] + 1)
    nodes = np.append(standing, node)
    low, high = 0, 1
    for k in range(num_orders):
        own = slice(start[k], start[k + 1])
        fill_one(cost, node[own], line[own], size[k], nodes[low:high], value[low:high], g)
        low, high = start[k] + 1, start[k + 1] + 1
        value[low:high] = g[(1 << size[k]) - 1, : high - low]
    ends = value[low:high].copy()
    if after[0] >= 0:
        for c in range(high - low):
            ends[c] += cost[nodes[low + c], after[0]]
    last, end = np.argmin(ends), len(sequence)
    total = ends[last]
    for k in range(num_orders - 1, -1, -1):
        own = slice(start[k], start[k + 1])
        low, high = (start[k - 1] + 1, start[k] + 1) if k else (0, 1)
        prior, entry = nodes[low:high], value[low:high]
        if k < num_orders - 1:  # the table of the last order is still there
            fill_one(cost, node[own], line[own], size[k], prior, entry, g)
        out = sequence[end - size[k] : end]
        last = trace_one(cost, node[own], line[own], size[k], prior, entry, g, last, out)
        out += start[k]
        end -= size[k]
    return total


@compiled
def fill_two(
    pair: Any, node: Any, line: Any, n: int, older: Any, newer: Any, value: Any, at: int, h: Any,
    g: Any,
) -> None:  # fmt: skip
    """Tables of an order for two points.

    `value` are the best costs with each pair of prior bins last, `at` the position of the order's
    first line. `h[b, c]` gets the best costs with one line served, `g` those with two and more.
    """
    num = len(node)
    for b in range(len(newer)):
        for c in range(num):
            best = np.inf
            for a in range(len(older)):
                best = min(best, value[a, b] + pair[at % 2, older[a], node[c]])
            h[b, c] = best
    if n < 2:
        return
    g[: 1 << n, :num, :num] = np.inf
    cost = pair[(at + 1) % 2]
    for c in range(num):
        for d in range(num):
            if line[c] != line[d]:
                best = np.inf
                for b in range(len(newer)):
                    best = min(best, h[b, c] + cost[newer[b], node[d]])
                g[1 << line[c] | 1 << line[d], c, d] = best
    for served in range(3, (1 << n) - 1):
        count = 0
        for k in range(n):
            count += served >> k & 1
        if count < 2:
            continue
        cost = pair[(at + count) % 2]
        for e in range(num):
            if served >> line[e] & 1:
                continue
            to = g[served | 1 << line[e]]
            for d in range(num):
                if served >> line[d] & 1:
                    best = np.inf
                    for c in range(num):
                        best = min(best, g[served, c, d] + cost[node[c], node[e]])
                    to[d, e] = best


@compiled
def trace_two(
    pair: Any, node: Any, line: Any, n: int, older: Any, newer: Any, value: Any, at: int, h: Any,
    g: Any, last: Any, out: Any,
) -> None:  # fmt: skip
    """Write an order's best sequence that ends in state `last`, which becomes that at its start."""
    c, d = last[0], last[1]
    if n >= 2:
        served = (1 << n) - 1
        for k in range(n - 1, 1, -1):
            out[k] = d
            served ^= 1 << line[d]
            best, chosen = np.inf, -1
            for z in range(len(node)):
                cost = g[served, z, c] + pair[(at + k) % 2, node[z], node[d]]
                if cost < best:
                    best, chosen = cost, z
            c, d = chosen, c
        out[1] = d
        best, b = np.inf, -1
        for u in range(len(newer)):
            cost = h[u, c] + pair[(at + 1) % 2, newer[u], node[d]]
            if cost < best:
                best, b = cost, u
    else:
        b, c = c, d
    out[0] = c
    best, a = np.inf, -1
    for u in range(len(older)):
        cost = value[u, b] + pair[at % 2, older[u], node[c]]
        if cost < best:
            best, a = cost, u
    last[0], last[1] = a, b


@compiled
def _chain_two(
    pair: Any, node: Any, line: Any, start: Any, size: Any, standing: Any, position: int,
    after: Any, sequence: Any,
) -> Any:  # fmt: skip
    """Dynamic programme over all orders for two points; `sequence` is overwritten."""
    num_orders, widest = len(size), max(np.diff(start).max(), 1)
    g, h = np.empty((1 << size.max(), widest, widest)), np.empty((widest, widest))
    nodes = np.append(standing, node)
    # Bins that can stand at the points before each order: ranges of `nodes`, older and newer.
    ends = np.zeros((num_orders + 1, 4), dtype=np.int64)
    ends[0] = np.array([0, 1, 1, 2])
    for k in range(num_orders):
        span = np.array([start[k] + 2, start[k + 1] + 2])
        ends[k + 1, :2] = span if size[k] > 1 else ends[k, 2:]
        ends[k + 1, 2:] = span
    value = np.zeros((num_orders + 1, widest, widest))
    at = position
    for k in range(num_orders):
        own = slice(start[k], start[k + 1])
        older, newer = nodes[ends[k, 0] : ends[k, 1]], nodes[ends[k, 2] : ends[k, 3]]
        fill_two(pair, node[own], line[own], size[k], older, newer, value[k], at, h, g)
        num = start[k + 1] - start[k]
        if size[k] > 1:
            value[k + 1, :num, :num] = g[(1 << size[k]) - 1, :num, :num]
        else:
            value[k + 1, : len(newer), :num] = h[: len(newer), :num]
        at += size[k]
    total, last = _cheapest_end(pair, nodes, ends[num_orders], value[num_orders], at, after)
    end = len(sequence)
    for k in range(num_orders - 1, -1, -1):
        own = slice(start[k], start[k + 1])
        older, newer = nodes[ends[k, 0] : ends[k, 1]], nodes[ends[k, 2] : ends[k, 3]]
        at -= size[k]
        if k < num_orders - 1:
            fill_two(pair, node[own], line[own], size[k], older, newer, value[k], at, h, g)
        out = sequence[end - size[k] : end]
        trace_two(pair, node[own], line[own], size[k], older, newer, value[k], at, h, g, last, out)
        out += start[k]
        end -= size[k]
    return total


@compiled
def _cheapest_end(pair: Any, nodes: Any, ends: Any, value: Any, at: int, after: Any) -> Any:
    """Best cost and last two bins, with what comes after."""
    best, last = np.inf, np.zeros(2, dtype=np.int64)
    for a in range(ends[1] - ends[0]):
        for b in range(ends[3] - ends[2]):
            cost = value[a, b]
            if after[0] >= 0:
                cost += pair[at % 2, nodes[ends[0] + a], after[0]]
            if after[1] >= 0:
                cost += pair[(at + 1) % 2, nodes[ends[2] + b], after[1]]
            if cost < best:
                best = cost
                last[0], last[1] = a, b
    return best, last
