"""New routes put together from pieces of old ones, tried, and kept or taken back.

Every move of the local search is a set of proposals, one for each route it changes: the
front of the route up to a position, vertices of any number, and the rest of this or
another route. Metres decide first. Where labels are exact (`Model.is_exact`), front,
vertices and rest are then judged without driving more than the vertices between; whatever
passes is written, driven through by `refresh`, and taken back if it is not feasible, not
cheaper, or breaks a promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search.undo import touch
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
    settle,
)
from wardwise.fleet.vns.punctual import is_row_punctual
from wardwise.fleet.vns.stations import tidy

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Bools, Ints
    from wardwise.fleet.vns.labels import Routes

EPSILON = 1e-6
# Routes that one change may touch: those of the widest cyclic exchange.
MOST_ROUTES = 4
# Columns of `Edit.cut`.
ROBOT, FRONT, SOURCE, REST = range(4)


class Edit(NamedTuple):
    """Proposals and scratch; W is the width of a route.

    Parameters
    ----------
    cut
        Shape (4, 4): robot, last position of its front, robot whose rest follows, and
        where that rest starts.
    part, num_part
        Shapes (4, W) and (4,): vertices between front and rest.
    row, size
        Shapes (4, W) and (4,): the routes put together.
    is_done
        Shape (K, M): kinds of moves that found nothing in a route since it last changed.
    is_near
        Shape (K,): routes near to a request.
    tally
        Shape (2,): number of proposals, and size of the next cyclic exchange.
    """

    cut: Ints
    part: Ints
    num_part: Ints
    row: Ints
    size: Ints
    is_done: Bools
    is_near: Bools
    tally: Ints


def make_edit(routes: Routes, num_kinds: int) -> Edit:
    """Scratch for the routes of one search."""
    num_robots, width = routes.node.shape
    return Edit(
        cut=np.zeros((MOST_ROUTES, 4), dtype=np.int64),
        part=np.zeros((MOST_ROUTES, width), dtype=np.int64),
        num_part=np.zeros(MOST_ROUTES, dtype=np.int64),
        row=np.zeros((MOST_ROUTES, width), dtype=np.int64),
        size=np.zeros(MOST_ROUTES, dtype=np.int64),
        is_done=np.zeros((num_robots, num_kinds), dtype=np.bool_),
        is_near=np.zeros(num_robots, dtype=np.bool_),
        tally=np.array([0, 1], dtype=np.int64),
    )


# Numbers in calls of compiled functions would make a version of each for every value, so
# proposals count themselves.
@kernel
def propose_first(e, k, front, source, rest):  # type: ignore[no-untyped-def]
    """`propose` after what was proposed before is forgotten."""
    e.tally[0] = 0
    propose(e, k, front, source, rest)


@kernel
def propose(e, k, front, source, rest):  # type: ignore[no-untyped-def]
    """Propose route `k` up to `front`, then route `source` from `rest` on."""
    z = e.tally[0]
    e.tally[0] += 1
    e.cut[z, ROBOT], e.cut[z, FRONT], e.cut[z, SOURCE], e.cut[z, REST] = k, front, source, rest
    e.num_part[z] = 0


@kernel
def append(s, e, k, first, end):  # type: ignore[no-untyped-def]
    """Add positions `first` to `end` - 1 of route `k` to the last proposal; or backwards.

    Backwards it goes from `first` down to `end` + 1.
    """
    z, step = e.tally[0] - 1, 1 if first < end else -1
    for p in range(first, end, step):
        e.part[z, e.num_part[z]] = s.node[k, p]
        e.num_part[z] += 1


@kernel
def append_vertex(e, v):  # type: ignore[no-untyped-def]
    """Add one vertex to the last proposal."""
    z = e.tally[0] - 1
    e.part[z, e.num_part[z]] = v
    e.num_part[z] += 1


@kernel
def least_change(m, s, e):  # type: ignore[no-untyped-def]
    """Money for metres and robots by which all proposals change the price."""
    num, metres, robots = e.tally[0], 0.0, 0.0
    for z in range(num):
        k, front, source, rest = e.cut[z, ROBOT], e.cut[z, FRONT], e.cut[z, SOURCE], e.cut[z, REST]
        i = s.node[k, front]
        for q in range(e.num_part[z]):
            metres += m.distance[i, e.part[z, q]]
            i = e.part[z, q]
        metres += m.distance[i, s.node[source, rest]]
        # What lies between the front of this route and the rest that somebody takes.
        for y in range(num):
            if e.cut[y, SOURCE] == k:
                for q in range(front, e.cut[y, REST]):
                    metres -= m.distance[s.node[k, q], s.node[k, q + 1]]
        if s.length[k] == 2:
            robots += m.robot_price
        elif front == 0 and e.num_part[z] == 0 and rest == s.length[source] - 1:
            robots -= m.robot_price
    return m.metre_price * metres + robots


@kernel
def fits(m, s, e, z):  # type: ignore[no-untyped-def]
    """Whether proposal `z` can be driven: exact labels, and robots that drive alike."""
    k, front, source, rest = e.cut[z, ROBOT], e.cut[z, FRONT], e.cut[z, SOURCE], e.cut[z, REST]
    i, label = s.node[k, front], s.front[k, front]
    t, level, x, r = label[T], label[E], label[X], label[R]
    collected, peak = (0.0, 0.0) if i == 0 else (label[COLLECTED], label[PEAK])
    is_start = front == 0
    for q in range(e.num_part[z] + 1):
        v = e.part[z, q] if q < e.num_part[z] else s.node[source, rest]
        t, level, x, r = leave(m, k, i, is_start, 0.0, t, level, x, r)
        t, level = arrive(m, k, i, v, t, level)
        if q == e.num_part[z]:
            break
        t, level, x, late, short = settle(m, k, v, t, level, x, r)
        if late > 0.0 or short > 0.0:
            return False
        peak = max(peak + m.deliver[v], collected + m.collect[v])
        collected += m.collect[v]
        if peak > m.capacity[k] + LOAD_TOLERANCE:
            return False
        if v == 0:
            collected = peak = 0.0
        is_start, i = False, v
    back = s.back[source, rest]
    if max(peak + back[AFTER_DELIVERED], collected + back[AFTER_PEAK]) > (
        m.capacity[k] + LOAD_TOLERANCE
    ):
        return False
    return reaches(m, t, level, x, back[C], back[D], back[N]) == 0


@inlined
def _drives_alike(m, k, other):  # type: ignore[no-untyped-def]
    return (
        m.end[k] == m.end[other]
        and m.battery[k] == m.battery[other]
        and m.reserve[k] == m.reserve[other]
        and m.per_m[k] == m.per_m[other]
        and m.base[k] == m.base[other]
    )


@kernel
def assemble(m, s, e, z):  # type: ignore[no-untyped-def]
    """Write the route of proposal `z` to `e.row`; returns whether every trip serves somebody."""
    k, source, row = e.cut[z, ROBOT], e.cut[z, SOURCE], e.row[z]
    front, rest = e.cut[z, FRONT] + 1, e.cut[z, REST]
    size = front + e.num_part[z] + s.length[source] - rest
    if size > s.node.shape[1]:
        return False
    for p in range(front):
        row[p] = s.node[k, p]
    for p in range(e.num_part[z]):
        row[front + p] = e.part[z, p]
    for p in range(rest, s.length[source]):
        row[size - s.length[source] + p] = s.node[source, p]
    served, was_served, is_whole = 0, 0, True
    for p in range(1, size):
        if row[p] == 0:
            is_whole = is_whole and served > was_served
            was_served = served
        served += 0 < row[p] <= m.num_requests
    if served == 0:
        row[1], size = 0, 2
    e.size[z] = size
    return is_whole or served == 0


@kernel
def swap(s, e, z):  # type: ignore[no-untyped-def]
    """Exchange the route of a robot with the one in `e.row`; labels are left as they were."""
    k, length = e.cut[z, ROBOT], s.length[e.cut[z, ROBOT]]
    for p in range(max(length, e.size[z])):
        s.node[k, p], e.row[z, p] = e.row[z, p], s.node[k, p]
    s.length[k], e.size[z] = e.size[z], length


@kernel
def is_kept(m, s, k):  # type: ignore[no-untyped-def]
    """Whether promises hold along a route."""
    if not m.has_promise or s.length[k] == 2:
        return True
    for p in range(s.length[k]):
        s.row[p] = s.node[k, p]
    return is_row_punctual(m, s, k, s.length[k])


@kernel
def attempt(m, s, w, e):  # type: ignore[no-untyped-def]
    """Make all proposals the routes if that is feasible and cheaper; whether it was."""
    num = e.tally[0]
    if m.is_exact and not m.has_goods:
        for z in range(num):
            if _drives_alike(m, e.cut[z, ROBOT], e.cut[z, SOURCE]) and not fits(m, s, e, z):
                return False
    for z in range(num):
        if not assemble(m, s, e, z):
            return False
    num_touched, change, is_fine = w.tally[0], 0.0, True
    for z in range(num):
        k = e.cut[z, ROBOT]
        touch(s, w, k)
        change -= s.price[k]
        swap(s, e, z)
    for z in range(num):
        is_fine = refresh(m, s, e.cut[z, ROBOT]) and is_fine
        change += s.price[e.cut[z, ROBOT]]
    is_fine = is_fine and change < -EPSILON
    for z in range(num):
        is_fine = is_fine and is_kept(m, s, e.cut[z, ROBOT])
    if is_fine:
        for z in range(num):
            tidy(m, s, e.cut[z, ROBOT])
            for kind in range(e.is_done.shape[1]):
                e.is_done[e.cut[z, ROBOT], kind] = False
        return True
    for z in range(num):
        swap(s, e, z)
        refresh(m, s, e.cut[z, ROBOT])
    for q in range(num_touched, w.tally[0]):
        w.is_touched[w.touched[q]] = False
    w.tally[0] = num_touched
    return False


@kernel
def try_shorter(m, s, w, e):  # type: ignore[no-untyped-def]
    """`attempt` where metres and robots alone already save something."""
    return least_change(m, s, e) < -EPSILON and attempt(m, s, w, e)
