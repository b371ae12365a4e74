"""One request into a route, alone or with what it needs beside it: a charger or a reload.

A request ``u`` goes between two neighbours as ``u``, or, where the battery does not
last, as ``s u``, ``u s`` or ``s u s'`` with stations ``s`` that add few metres, or,
where the load does not fit or a day of several trips allows it, as ``0 u`` or ``u 0``
with a visit of the depot.

`probe` gives the verdict: the new part is driven from the label of the vertex before
it; what comes after answers in constant time, or, where that is not exact, is driven
through (see `labels`).
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search.insertion import next_blink
from wardwise.fleet.vns.labels import (
    AFTER_DELIVERED,
    AFTER_PEAK,
    COLLECTED,
    DELIVERED,
    GOODS,
    LATE,
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
    lateness,
    leave,
    reaches,
    settle,
)
from wardwise.fleet.vns.punctual import is_punctual

# Verdicts of `probe`.
FITS, TOO_LATE, TOO_EMPTY, TOO_FULL = 0, 1, 2, 3


@inlined
def _drive_on(m, k, i, j, is_start, goods, t, e, x, r):  # type: ignore[no-untyped-def]
    t, e, x, r = leave(m, k, i, is_start, goods, t, e, x, r)
    t, e = arrive(m, k, i, j, t, e)
    return t, e, x, r


@inlined
def _tail(m, s, k, p, t, e, x, r):  # type: ignore[no-untyped-def]
    """Drive from the arrival at position `p` to the end; verdict and money for delays."""
    money = 0.0
    for q in range(p, s.length[k]):
        j = s.node[k, q]
        t, e, x, late, short = settle(m, k, j, t, e, x, r)
        if short > 0.0:
            return TOO_EMPTY, money
        if late > 0.0:
            return TOO_LATE, money
        money += lateness(m, j, t)
        if q < s.length[k] - 1:
            t, e, x, r = _drive_on(
                m, k, j, s.node[k, q + 1], False, s.back[k, q, GOODS], t, e, x, r
            )
    return FITS, money


@inlined
def _goods(m, s, k, p, rest, a, b, c):  # type: ignore[no-untyped-def]
    """When the goods of the trip that drives on from `p` stand ready, and of the one after it.

    Returns
    -------
    first, start, second
        Of the part before an inserted depot, where its trip starts, and of the part
        behind it.
    """
    first, second, has_depot = 0.0, s.back[k, rest, GOODS], False
    q = p
    while s.node[k, q] != 0:
        first = max(first, m.available[s.node[k, q]])
        q -= 1
    for v in (a, b, c):
        if v == 0:
            has_depot = True
        elif v > 0:
            if has_depot:
                second = max(second, m.available[v])
            else:
                first = max(first, m.available[v])
    if not has_depot:
        first = max(first, second)
    return first, q, second


@inlined
def drive_in(m, s, k, p, then, a, b, c):  # type: ignore[no-untyped-def]
    """Verdict on vertices `a`, `b`, `c` (-1: none) between positions `p` and `then`.

    Returns
    -------
    verdict, money
        By how much delays cost more than now.
    """
    i, label = s.node[k, p], s.front[k, p]
    t, e, x, r = label[T], label[E], label[X], label[R]
    delivered, collected, peak = label[DELIVERED], label[COLLECTED], label[PEAK]
    if i == 0:
        delivered = collected = peak = 0.0
    is_start, goods, second, money = p == 0, 0.0, 0.0, label[LATE]
    if m.has_goods:
        goods, q, second = _goods(m, s, k, p, then, a, b, c)
        if i != 0 and goods != s.back[k, q, GOODS]:
            # The trip departs at another time: drive it again from its start.
            t, e, x, r = s.front[k, q, T], s.front[k, q, E], s.front[k, q, X], s.front[k, q, R]
            money = s.front[k, q, LATE]
            for w in range(q + 1, p + 1):
                j = s.node[k, w]
                t, e, x, r = _drive_on(m, k, s.node[k, w - 1], j, q == 0, goods, t, e, x, r)
                t, e, x, late, short = settle(m, k, j, t, e, x, r)
                if late > 0.0 or short > 0.0:
                    return TOO_LATE if late > 0.0 else TOO_EMPTY, 0.0
                money += lateness(m, j, t)
    for v in (a, b, c):
        if v < 0:
            continue
        t, e, x, r = _drive_on(m, k, i, v, is_start, goods, t, e, x, r)
        t, e, x, late, short = settle(m, k, v, t, e, x, r)
        if short > 0.0 or late > 0.0:
            return TOO_EMPTY if short > 0.0 else TOO_LATE, 0.0
        money += lateness(m, v, t)
        is_start = False
        if v == 0:
            if peak > m.capacity[k] + LOAD_TOLERANCE:
                return TOO_FULL, 0.0
            delivered = collected = peak = 0.0
            goods = second
        else:
            delivered += m.deliver[v]
            peak = max(peak + m.deliver[v], collected + m.collect[v])
            collected += m.collect[v]
        i = v
    j, rest = s.node[k, then], s.back[k, then]
    if max(peak + rest[AFTER_DELIVERED], collected + rest[AFTER_PEAK]) > (
        m.capacity[k] + LOAD_TOLERANCE
    ):
        return TOO_FULL, 0.0
    t, e, x, r = _drive_on(m, k, i, j, is_start, goods, t, e, x, r)
    if m.is_exact:
        return reaches(m, t, e, x, rest[C], rest[D], rest[N]), 0.0
    verdict, tail = _tail(m, s, k, then, t, e, x, r)
    return verdict, money + tail - s.front[k, s.length[k] - 1, LATE]


@inlined
def added(m, i, j, a, b, c):  # type: ignore[no-untyped-def]
    """Metres that vertices between `i` and `j` add."""
    metres = -m.distance[i, j]
    for v in (a, b, c):
        if v >= 0:
            metres += m.distance[i, v]
            i = v
    return metres + m.distance[i, j]


@kernel
def probe(m, s, k, p, then, a, b, c):  # type: ignore[no-untyped-def]
    """`drive_in`, compiled alone."""
    return drive_in(m, s, k, p, then, a, b, c)


@kernel
def scan(m, s, k, u, found, random, inverse_log_blink):  # type: ignore[no-untyped-def]
    """Look for the cheapest place of request `u` in a route; a better one goes to `found`."""
    length = s.length[k]
    is_idle = length == 2
    if length + 3 >= s.node.shape[1] or max(m.deliver[u], m.collect[u]) > m.capacity[k]:
        return
    extra = m.robot_price if is_idle else 0.0
    has_trips = not is_idle and s.trips[k] < m.max_trips[k]
    for p in range(length - 1):
        i, j, label = s.node[k, p], s.node[k, p + 1], s.front[k, p]
        # Nothing later can be reached in time; delays only grow along a route.
        if i != 0 and label[T] + m.service[i] + m.travel[i, u] > m.latest[u] and not m.has_goods:
            if label[T] > m.latest[u]:
                break
            continue
        if random[1] <= 0:
            next_blink(random, inverse_log_blink)
        random[1] -= 1
        if random[1] <= 0:
            continue
        metres = m.distance[i, u] + m.distance[u, j] - m.distance[i, j]
        if extra + m.metre_price * metres >= found[0] and not (has_trips and (i == 0 or j == 0)):
            continue
        _try_all(m, s, k, p, u, extra, has_trips, found)


@inlined
def _try_all(m, s, k, p, u, extra, has_trips, found):  # type: ignore[no-untyped-def]
    """Try the request at one position alone, and then with what it needs beside it.

    Options are numbered: alone; a depot before or behind; a station before, behind, and
    on both sides.
    """
    i, j = s.node[k, p], s.node[k, p + 1]
    near = m.near_station.shape[2]
    first, skip_to = FITS, -1
    for option in range(3 + 2 * near + near * near):
        if option < skip_to:
            continue
        a, b, c = u, -1, -1
        if option == 1 or option == 2:
            is_useful = first == TOO_FULL or i == 0 or j == 0
            neighbour = i if option == 1 else j
            if not (has_trips and is_useful and 0 < neighbour <= m.num_requests):
                continue
            a, b = (0, u) if option == 1 else (u, 0)
        elif option == 3 and first != TOO_EMPTY:
            return
        elif option >= 3:
            a, b, c = _beside(m, i, j, u, option - 3)
            if a == i or b == j or c == j:
                continue
        price = extra - m.metre_price * m.distance[i, j]
        before = i
        for v in (a, b, c):
            if v >= 0:
                price += m.metre_price * m.distance[before, v]
                before = v
        price += m.metre_price * m.distance[before, j]
        if price >= found[0]:
            continue
        verdict, money = drive_in(m, s, k, p, p + 1, a, b, c)
        if option == 0:
            first = verdict
        if verdict != FITS:
            continue
        if price + money < found[0]:
            if m.has_promise and not is_punctual(m, s, k, p, p + 1, a, b, c):
                continue
            found[0], found[1], found[2] = price + money, k, p
            found[3], found[4], found[5] = a, b, c
        # The nearest station that does is enough; where one does, two are too many.
        if 3 <= option < 3 + near:
            skip_to = 3 + near
        if 3 + near <= option < 3 + 2 * near:
            return


@inlined
def _beside(m, i, j, u, rank):  # type: ignore[no-untyped-def]
    """Vertices of the option of some rank with stations."""
    near = m.near_station.shape[2]
    if rank < near:
        return m.near_station[i, u, rank], u, -1
    if rank < 2 * near:
        return u, m.near_station[u, j, rank - near], -1
    rank -= 2 * near
    return m.near_station[i, u, rank // near], u, m.near_station[u, j, rank % near]


@kernel
def put(s, k, p, vertices):  # type: ignore[no-untyped-def]
    """Write up to three vertices (-1: none) behind position `p`; labels are left as they were."""
    count = 0
    for q in range(3):
        count += vertices[q] >= 0
    for q in range(s.length[k] - 1, p, -1):
        s.node[k, q + count] = s.node[k, q]
    at = p + 1
    for q in range(3):
        if vertices[q] >= 0:
            s.node[k, at] = np.int64(vertices[q])
            at += 1
    s.length[k] += count
