r"""Local search in the neighbourhood of changed routes: 2-opt* and relocate.

*2-opt\\** (Potvin and Rousseau 1995, Journal of the Operational Research Society 46(12))
joins the front of one route to the tail of another and the other way round, so that
request ``v`` comes right after ``u``. Both joints are answered by the labels of the
routes in constant time, which holds for robots of one kind and where labels from the back
are exact. *Relocate* moves a request to where it is cheapest in another route, with the
station it takes there. Both make what improves at once, cheap neighbourhood first, and
start again with it after a success (variable neighbourhood descent).
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search.undo import touch
from wardwise.fleet.vns.insertion import put, scan
from wardwise.fleet.vns.labels import (
    AFTER_DELIVERED,
    AFTER_PEAK,
    COLLECTED,
    LOAD_TOLERANCE,
    PEAK,
    C,
    D,
    E,
    N,
    R,
    T,
    X,
    arrive,
    leave,
    reaches,
    refresh,
)
from wardwise.fleet.vns.stations import drop, tidy

EPSILON = 1e-6
# Nearest requests that are tried behind each request.
NUM_NEAR = 12


@kernel
def descend(m, s, w):  # type: ignore[no-untyped-def]
    """Improve the touched routes until no move does; returns the number of moves."""
    moves = 0
    is_open = True
    while is_open:
        is_open = False
        for q in range(w.tally[0]):
            if _cross(m, s, w, w.touched[q]) or _relocate(m, s, w, w.touched[q]):
                moves += 1
                is_open = True
                break
    return moves


@inlined
def _position(s, k, v):  # type: ignore[no-untyped-def]
    p = 1
    while s.node[k, p] != v:
        p += 1
    return p


@inlined
def joins(m, s, k, p, other, q):  # type: ignore[no-untyped-def]
    """Whether the front of route `k` up to `p` fits the rest of route `other` from `q` on."""
    i, j = s.node[k, p], s.node[other, q]
    label, rest = s.front[k, p], s.back[other, q]
    collected, peak = (0.0, 0.0) if i == 0 else (label[COLLECTED], label[PEAK])
    if max(peak + rest[AFTER_DELIVERED], collected + rest[AFTER_PEAK]) > (
        m.capacity[k] + LOAD_TOLERANCE
    ):
        return False
    t, e, x, _r = leave(m, k, i, p == 0, 0.0, label[T], label[E], label[X], label[R])
    t, e = arrive(m, k, i, j, t, e)
    return reaches(m, t, e, x, rest[C], rest[D], rest[N]) == 0


@inlined
def _is_alike(m, k, other):  # type: ignore[no-untyped-def]
    return (
        m.capacity[k] == m.capacity[other]
        and m.end[k] == m.end[other]
        and m.max_trips[k] == 1
        and m.max_trips[other] == 1
        and m.battery[k] == m.battery[other]
        and m.reserve[k] == m.reserve[other]
        and m.per_m[k] == m.per_m[other]
    )


@inlined
def _cross(m, s, w, k):  # type: ignore[no-untyped-def]
    """Make the first exchange of tails that improves; returns whether there was one."""
    if not m.is_exact or m.has_promise or m.has_goods:
        return False
    for p in range(1, s.length[k] - 1):
        u, after = s.node[k, p], s.node[k, p + 1]
        if u > m.num_requests:
            continue
        for a in range(min(NUM_NEAR, w.adjacent.shape[1])):
            v = w.adjacent[u, a]
            other = s.owner[v]
            if other < 0 or other == k or not _is_alike(m, k, other):
                continue
            if m.distance[u, v] >= m.distance[u, after] + m.distance[0, v]:
                continue
            q = _position(s, other, v)
            before = s.node[other, q - 1]
            change = m.distance[u, v] + m.distance[before, after]
            change -= m.distance[u, after] + m.distance[before, v]
            if (
                change < -EPSILON
                and joins(m, s, k, p, other, q)
                and joins(m, s, other, q - 1, k, p + 1)
            ):
                touch(s, w, other)
                exchange(m, s, k, p, other, q)
                tidy(m, s, k)
                tidy(m, s, other)
                return True
    return False


@kernel
def exchange(m, s, k, p, other, q):  # type: ignore[no-untyped-def]
    """Put the tail of route `other` from `q` on behind `p` of route `k`, and the other way."""
    count, more = s.length[k] - p - 1, s.length[other] - q
    for z in range(max(count, more)):
        first, second = s.node[k, p + 1 + z], s.node[other, q + z]
        if z < more:
            s.node[k, p + 1 + z] = second
        if z < count:
            s.node[other, q + z] = first
    s.length[k], s.length[other] = p + 1 + more, q + count
    refresh(m, s, k)
    refresh(m, s, other)


@inlined
def _relocate(m, s, w, k):  # type: ignore[no-untyped-def]
    """Move the first request that is cheaper elsewhere; returns whether there was one."""
    if m.has_promise or s.trips[k] > 1:
        return False
    for p in range(1, s.length[k] - 1):
        i, u, j = s.node[k, p - 1], s.node[k, p], s.node[k, p + 1]
        if u > m.num_requests or s.length[k] == 3:
            continue
        saved = m.metre_price * (m.distance[i, u] + m.distance[u, j] - m.distance[i, j])
        w.found[0], w.found[1] = saved - EPSILON, -1.0
        for a in range(min(NUM_NEAR, w.adjacent.shape[1])):
            other = s.owner[w.adjacent[u, a]]
            if other >= 0 and other != k and not w.is_closed[other]:
                w.random[1] = np.int64(2**40)
                scan(m, s, other, u, w.found, w.random, 1.0)
        w.random[1] = 0
        if w.found[1] < 0.0:
            continue
        other = int(w.found[1])
        touch(s, w, other)
        drop(s, k, p)
        if not refresh(m, s, k):
            # Without the triangle inequality the way without it may be longer.
            for z in range(s.length[k], p, -1):
                s.node[k, z] = s.node[k, z - 1]
            s.node[k, p] = u
            s.length[k] += 1
            refresh(m, s, k)
            continue
        put(s, other, int(w.found[2]), w.found[3:])
        refresh(m, s, other)
        tidy(m, s, k)
        return True
    return False
