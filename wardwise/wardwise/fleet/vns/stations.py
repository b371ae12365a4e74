"""Chargers and reloads within one route: none that is useless, and the best for its stops.

`tidy` takes out visits of stations and of the depot that a route can do without: under
the triangle inequality no best plan has any.

`restation` forgets all stations of a route and places them anew. Along the stops of the
route it keeps, for each, the labels (metres, t, e, x; see `labels`) that no other one
dominates: one with fewer metres, an earlier start and at every later moment at least
as much energy. Every leg is driven directly or over one of the stations near it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.vns.insertion import FITS, probe
from wardwise.fleet.vns.labels import (
    GOODS,
    LOAD_TOLERANCE,
    arrive,
    lateness,
    leave,
    refresh,
    settle,
)
from wardwise.fleet.vns.punctual import is_punctual, is_row_punctual

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats, Ints
    from wardwise.fleet.vns.model import Model

EPSILON = 1e-7
# Labels that are kept at a stop.
MOST_LABELS = 24
# Places of a request in one route that are tried with all stations placed anew, and the
# mark of such a result.
MOST_ANEW = 2
ANEW = -2.0
# Columns of `Placing.label`.
MONEY, AT, LEVEL, SPARE, RATE = range(5)


class Placing(NamedTuple):
    """Scratch of `restation`.

    Parameters
    ----------
    stop, goods
        Shape (W,): stops of the route without stations; of a depot, when the goods of
        the trip that starts there stand ready.
    ahead
        Shape (W,): money of the direct way from a stop to the end, the least that is left.
    label, parent, via, num_labels
        Shapes (W, L, 5), (W, L), (W, L) and (W,): labels of each stop, where each came
        from, over which station (-1: none), and how many there are.
    before
        Shape (W,): a route as it was.
    """

    stop: Ints
    goods: Floats
    ahead: Floats
    label: Floats
    parent: Ints
    via: Ints
    num_labels: Ints
    before: Ints


def make_placing(model: Model, width: int) -> Placing:
    """Scratch for routes of up to `width` vertices."""
    most = MOST_LABELS if model.near_station.shape[2] else 1
    return Placing(
        stop=np.zeros(width, dtype=np.int64),
        goods=np.zeros(width),
        ahead=np.zeros(width),
        label=np.zeros((width, most, 5)),
        parent=np.zeros((width, most), dtype=np.int64),
        via=np.zeros((width, most), dtype=np.int64),
        num_labels=np.zeros(width, dtype=np.int64),
        before=np.zeros(width, dtype=np.int64),
    )


@inlined
def drop(s, k, p):  # type: ignore[no-untyped-def]
    """Take the vertex at position `p` out of a route; labels are left as they were."""
    for q in range(p, s.length[k] - 1):
        s.node[k, q] = s.node[k, q + 1]
    s.length[k] -= 1


@kernel
def tidy(m, s, k):  # type: ignore[no-untyped-def]
    """Take out useless visits of stations and depot from a feasible route, dearest first."""
    while True:
        best, best_position = EPSILON, -1
        for p in range(1, s.length[k] - 1):
            i, v, j = s.node[k, p - 1], s.node[k, p], s.node[k, p + 1]
            if 0 < v <= m.num_requests:
                continue
            saved = m.distance[i, j] - m.distance[i, v] - m.distance[v, j]
            if m.metre_price * saved > best:
                continue
            verdict, money = probe(m, s, k, p - 1, p + 1, -1, -1, -1)
            if verdict == FITS and m.metre_price * saved + money <= best:
                if m.has_promise and not is_punctual(m, s, k, p - 1, p + 1, -1, -1, -1):
                    continue
                best, best_position = m.metre_price * saved + money, p
        if best_position < 0:
            return
        drop(s, k, best_position)
        refresh(m, s, k)


@inlined
def _offer(w, p, parent, via, money, t, e, x, r):  # type: ignore[no-untyped-def]
    """Keep a label at stop `p` unless another dominates it; drop those that it dominates."""
    kept, count = 0, w.num_labels[p]
    for q in range(count):
        other = w.label[p, q]
        ahead = t - other[AT]
        if (
            other[MONEY] <= money + EPSILON
            and ahead >= 0.0
            and other[LEVEL] + min(ahead, other[SPARE]) * other[RATE] >= e
            and other[LEVEL] + other[SPARE] * other[RATE] >= e + x * r
        ):
            return
    for q in range(count):
        other = w.label[p, q]
        ahead = other[AT] - t
        if (
            money <= other[MONEY]
            and ahead >= 0.0
            and e + min(ahead, x) * r >= other[LEVEL]
            and e + x * r >= other[LEVEL] + other[SPARE] * other[RATE]
        ):
            continue
        if kept != q:
            for column in range(5):
                w.label[p, kept, column] = w.label[p, q, column]
            w.parent[p, kept], w.via[p, kept] = w.parent[p, q], w.via[p, q]
        kept += 1
    if kept == w.label.shape[1]:
        # Full: the dearest label makes room.
        worst = 0
        for q in range(1, kept):
            if w.label[p, q, MONEY] > w.label[p, worst, MONEY]:
                worst = q
        w.num_labels[p] = kept
        if w.label[p, worst, MONEY] <= money:
            return
        at = worst
    else:
        at = kept
        kept += 1
    w.num_labels[p] = kept
    label = w.label[p, at]
    label[MONEY], label[AT], label[LEVEL], label[SPARE], label[RATE] = money, t, e, x, r
    w.parent[p, at], w.via[p, at] = parent, via


@inlined
def _extend(m, w, k, p, q, via, bound):  # type: ignore[no-untyped-def]
    """Drive from stop `p` with its label `q` to the next stop, over a station or not."""
    label, i, j = w.label[p, q], w.stop[p], w.stop[p + 1]
    money, t, e, x, r = label[MONEY], label[AT], label[LEVEL], label[SPARE], label[RATE]
    t, e, x, r = leave(m, k, i, p == 0, w.goods[p], t, e, x, r)
    if via >= 0:
        money += m.metre_price * m.distance[i, via]
        t, e = arrive(m, k, i, via, t, e)
        t, e, x, late, short = settle(m, k, via, t, e, x, r)
        if late > 0.0 or short > 0.0:
            return
        t, e, x, r = leave(m, k, via, False, 0.0, t, e, x, r)
        i = via
    money += m.metre_price * m.distance[i, j]
    if money + w.ahead[p + 1] >= bound:
        return
    t, e = arrive(m, k, i, j, t, e)
    t, e, x, late, short = settle(m, k, j, t, e, x, r)
    if late > 0.0 or short > 0.0:
        return
    _offer(w, p + 1, q, via, money + lateness(m, j, t), t, e, x, r)


@kernel
def place(m, w, k, size, bound):  # type: ignore[no-untyped-def]
    """Cheapest stations along `size` stops in `w.stop`; money, or infinity if none is below it."""
    w.num_labels[0] = 1
    label = w.label[0, 0]
    label[MONEY], label[AT], label[LEVEL] = 0.0, m.start[k], m.first[k]
    label[SPARE], label[RATE] = 0.0, 1.0
    w.ahead[size - 1] = 0.0
    for p in range(size - 2, -1, -1):
        w.ahead[p] = w.ahead[p + 1] + m.metre_price * m.distance[w.stop[p], w.stop[p + 1]]
    for p in range(size - 1):
        w.num_labels[p + 1] = 0
        i, j = w.stop[p], w.stop[p + 1]
        for q in range(w.num_labels[p]):
            _extend(m, w, k, p, q, -1, bound)
            for a in range(m.near_station.shape[2]):
                _extend(m, w, k, p, q, m.near_station[i, j, a], bound)
        if w.num_labels[p + 1] == 0:
            return np.inf
    best = np.inf
    for q in range(w.num_labels[size - 1]):
        best = min(best, w.label[size - 1, q, MONEY])
    return best


@kernel
def write(s, w, k, size):  # type: ignore[no-untyped-def]
    """Make the cheapest result of `place` the route; labels are left as they were."""
    q = 0
    for other in range(1, w.num_labels[size - 1]):
        if w.label[size - 1, other, MONEY] < w.label[size - 1, q, MONEY]:
            q = other
    # From the back, at first without knowing where the front will be.
    at = s.node.shape[1]
    for p in range(size - 1, -1, -1):
        at -= 1
        s.node[k, at] = w.stop[p]
        if p > 0 and w.via[p, q] >= 0:
            at -= 1
            s.node[k, at] = w.via[p, q]
        q = w.parent[p, q]
    s.length[k] = s.node.shape[1] - at
    for p in range(s.length[k]):
        s.node[k, p] = s.node[k, at + p]


@inlined
def _stops(m, s, w, k):  # type: ignore[no-untyped-def]
    """Copy the stops of a route, without stations, to `w.stop`; returns how many."""
    size = 0
    for p in range(s.length[k]):
        v = s.node[k, p]
        if v <= m.num_requests:
            w.stop[size], w.goods[size] = v, 0.0
            if v == 0 and p + 1 < s.length[k]:
                w.goods[size] = s.back[k, p + 1, GOODS]
            size += 1
    return size


@kernel
def scan_anew(m, s, w, k, u, found):  # type: ignore[no-untyped-def]
    """Look for the cheapest place of request `u` in a route whose stations are all placed anew.

    Only places that would do without any station at less than `found` are looked at, the
    `MOST_ANEW` nearest ones. A result in `found` has the position among the stops alone,
    and `ANEW` for its second vertex.
    """
    if m.near_station.shape[2] == 0 or m.battery[k] == 0.0 or s.length[k] == 2:
        return
    size = _stops(m, s, w, k)
    if size == s.length[k]:
        return
    metres = 0.0
    for p in range(size - 1):
        metres += m.distance[w.stop[p], w.stop[p + 1]]
    least = m.metre_price * metres - (s.price[k] - m.robot_price)
    last = -np.inf
    for _ in range(MOST_ANEW):
        # The next dearer place of those that the loads and windows of neighbours allow.
        best, at = np.inf, -1
        for p in range(size - 1):
            i, j = w.stop[p], w.stop[p + 1]
            price = m.metre_price * (m.distance[i, u] + m.distance[u, j] - m.distance[i, j])
            if last < price < best and _may_follow(m, i, u) and _may_follow(m, u, j):
                best, at = price, p
        if at < 0 or least + best >= found[0] - EPSILON:
            return
        last = best
        if _fits_load(m, w, k, size, at, u):
            for p in range(size, at + 1, -1):
                w.stop[p], w.goods[p] = w.stop[p - 1], w.goods[p - 1]
            w.stop[at + 1], w.goods[at + 1] = u, 0.0
            money = place(m, w, k, size + 1, s.price[k] - m.robot_price + found[0])
            for p in range(at + 1, size):
                w.stop[p], w.goods[p] = w.stop[p + 1], w.goods[p + 1]
            if money - (s.price[k] - m.robot_price) < found[0]:
                found[0], found[1], found[2] = money - (s.price[k] - m.robot_price), k, at
                found[3], found[4] = u, ANEW


@inlined
def _may_follow(m, i, j):  # type: ignore[no-untyped-def]
    """Whether `j` can be served in time right after `i`."""
    if i == 0 or j == 0:
        return True
    return m.earliest[i] + m.service[i] + m.travel[i, j] <= m.latest[j]


@inlined
def _fits_load(m, w, k, size, at, u):  # type: ignore[no-untyped-def]
    """Whether the trip behind whose stop `at` request `u` comes still carries its loads."""
    first = at
    while w.stop[first] != 0:
        first -= 1
    load = m.deliver[u]
    for p in range(first + 1, size):
        if w.stop[p] == 0:
            break
        load += m.deliver[w.stop[p]]
    peak = load
    for p in range(first, size):
        v = w.stop[p]
        if p > first and v == 0:
            break
        load += m.collect[v] - m.deliver[v]
        peak = max(peak, load)
        if p == at:
            load += m.collect[u] - m.deliver[u]
            peak = max(peak, load)
    return peak <= m.capacity[k] + LOAD_TOLERANCE


@kernel
def put_anew(m, s, w, found):  # type: ignore[no-untyped-def]
    """Carry out a result of `scan_anew`."""
    k, at = int(found[1]), int(found[2])
    size = _stops(m, s, w, k)
    for p in range(size, at + 1, -1):
        w.stop[p], w.goods[p] = w.stop[p - 1], w.goods[p - 1]
    w.stop[at + 1], w.goods[at + 1] = np.int64(found[3]), 0.0
    place(m, w, k, size + 1, np.inf)
    write(s, w, k, size + 1)
    refresh(m, s, k)


@kernel
def restation(m, s, w, k):  # type: ignore[no-untyped-def]
    """Place the stations of a feasible route anew; returns whether that saves anything."""
    if m.near_station.shape[2] == 0 or m.battery[k] == 0.0:
        return False
    size = _stops(m, s, w, k)
    if size == s.length[k]:
        return False
    price = s.price[k] - m.robot_price
    if place(m, w, k, size, price) >= price - EPSILON:
        return False
    if m.has_promise:
        return _write_if_punctual(m, s, w, k, size)
    write(s, w, k, size)
    refresh(m, s, k)
    return True


@inlined
def _write_if_punctual(m, s, w, k, size):  # type: ignore[no-untyped-def]
    length = s.length[k]
    for p in range(length):
        w.before[p] = s.node[k, p]
    write(s, w, k, size)
    for p in range(s.length[k]):
        s.row[p] = s.node[k, p]
    is_kept = is_row_punctual(m, s, k, s.length[k])
    if not is_kept:
        s.length[k] = length
        for p in range(length):
            s.node[k, p] = w.before[p]
    refresh(m, s, k)
    return is_kept
