"""Local search in the neighbourhood of changed routes: variable neighbourhood descent.

Kinds of moves come cheap ones first (`moves.Move`). A kind makes the first change that
improves; after every success the descent starts again with the first kind. Only routes
that were touched are looked at, and what is near to their stops; a route that a move
changes counts as touched, and a kind that found nothing in a route comes back to it once
the route has changed.

Every change leads from feasible routes to feasible ones: shaking repairs by inserting
anew what does not fit, so that no price for broken limits is needed.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import kernel
from wardwise.fleet.search.undo import touch
from wardwise.fleet.vns.edits import EPSILON, is_kept, swap
from wardwise.fleet.vns.insertion import put, scan
from wardwise.fleet.vns.labels import refresh
from wardwise.fleet.vns.moves import RELOCATE, STATIONS, TRIPS
from wardwise.fleet.vns.pairs import NUM_NEAR, improve_pairs
from wardwise.fleet.vns.ruin import close_gaps
from wardwise.fleet.vns.stations import tidy
from wardwise.fleet.vns.trip_moves import improve_stations, improve_trips


@kernel
def descend(m, s, w, e, moves):  # type: ignore[no-untyped-def]
    """Improve the touched routes until no move of the set `moves` does; number of moves made."""
    for q in range(w.tally[0]):
        for kind in range(e.is_done.shape[1]):
            e.is_done[w.touched[q], kind] = False
    num_moves, is_better = 0, True
    while is_better:
        is_better = False
        for kind in range(e.is_done.shape[1]):
            if moves >> kind & 1 and _improve_touched(m, s, w, e, kind):
                is_better = True
                num_moves += 1
                break
    return num_moves


@kernel
def _improve_touched(m, s, w, e, kind):  # type: ignore[no-untyped-def]
    for q in range(w.tally[0]):
        k = w.touched[q]
        if e.is_done[k, kind] or s.length[k] == 2:
            continue
        if _improve(m, s, w, e, k, kind):
            return True
        e.is_done[k, kind] = True
    return False


@kernel
def _improve(m, s, w, e, k, kind):  # type: ignore[no-untyped-def]
    if kind == RELOCATE:
        return relocate(m, s, w, e, k)
    if kind == STATIONS:
        return improve_stations(m, s, w, e, k)
    if kind == TRIPS:
        return improve_trips(m, s, w, e, k)
    return improve_pairs(m, s, w, e, k, kind)


@kernel
def relocate(m, s, w, e, k):  # type: ignore[no-untyped-def]
    """Move the first request of a route that is cheaper elsewhere; whether there was one."""
    for p in range(1, s.length[k] - 1):
        i, u, j = s.node[k, p - 1], s.node[k, p], s.node[k, p + 1]
        if not 0 < u <= m.num_requests:
            continue
        saved = m.metre_price * (m.distance[i, u] + m.distance[u, j] - m.distance[i, j])
        if s.length[k] == 3:
            saved += m.robot_price
        w.found[0], w.found[1] = saved - EPSILON, -1.0
        _scan_near(m, s, w, e, k, u, max(m.distance[i, u], m.distance[u, j]))
        if w.found[1] >= 0.0 and _carry_over(m, s, w, e, k, u):
            return True
    return False


@kernel
def _scan_near(m, s, w, e, k, u, longest):  # type: ignore[no-untyped-def]
    """Look for the cheapest place of a request in the routes, but `k`, near to it."""
    for other in range(len(s.length)):
        e.is_near[other] = False
    for a in range(min(NUM_NEAR, w.adjacent.shape[1])):
        v = w.adjacent[u, a]
        other = s.owner[v]
        if min(m.distance[u, v], m.distance[v, u]) >= longest:
            break
        if other >= 0 and other != k and not e.is_near[other]:
            e.is_near[other] = True
            w.random[1] = np.int64(2**40)
            scan(m, s, other, u, w.found, w.random, 1.0)
    w.random[1] = 0


@kernel
def _carry_over(m, s, w, e, k, u):  # type: ignore[no-untyped-def]
    """Carry out what `_scan_near` found; the route may turn out not to do without."""
    other, num_touched = int(w.found[1]), w.tally[0]
    touch(s, w, k)
    e.cut[0, 0], e.size[0] = k, s.length[k]
    for q in range(s.length[k]):
        e.row[0, q] = s.node[k, q]
    s.owner[u] = -1
    close_gaps(m, s, k)
    if not (refresh(m, s, k) and is_kept(m, s, k)):
        # Without the triangle inequality the way without it may be longer.
        swap(s, e, 0)
        refresh(m, s, k)
        if w.tally[0] > num_touched:
            w.is_touched[k] = False
            w.tally[0] = num_touched
        return False
    touch(s, w, other)
    put(s, other, int(w.found[2]), w.found[3:])
    refresh(m, s, other)
    tidy(m, s, k)
    for kind in range(e.is_done.shape[1]):
        e.is_done[k, kind] = e.is_done[other, kind] = False
    return True
