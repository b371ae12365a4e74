"""What an iteration scribbles on, the way back, and the way to the best so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.compiled import kernel
from wardwise.fleet.vns.labels import refresh

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Bools, Floats, Ints
    from wardwise.fleet.vns.labels import Routes
    from wardwise.fleet.vns.model import Model


class Work(NamedTuple):
    """What an iteration reads and scribbles on.

    Parameters
    ----------
    random
        State of `draw` and `next_blink`.
    adjacent
        For each request the others by distance: where strings are taken out.
    is_closed
        Robots that stay at home.
    penalty, absences
        What an unserved request costs, and how often it was left unserved.
    saved_node, saved_length, saved_price, touched, is_touched
        Routes as they were before the iteration, and which ones changed.
    best_node, best_length
        Routes of the best result.
    pool, keys, was_absent
        Requests to put back, their sorting keys, and whether they were unserved before.
    found
        The cheapest insertion: price, robot, position, vertices.
    tally
        Number of touched routes.
    at, now, charge_s, goods_s, free_s
        Scratch of `slots`: where robots are and since when, what they do there, and from
        when on each slot of each station is free.
    """

    random: Ints
    adjacent: Ints
    is_closed: Bools
    penalty: Floats
    absences: Floats
    saved_node: Ints
    saved_length: Ints
    saved_price: Floats
    touched: Ints
    is_touched: Bools
    best_node: Ints
    best_length: Ints
    pool: Ints
    keys: Floats
    was_absent: Bools
    found: Floats
    tally: Ints
    at: Ints
    now: Floats
    charge_s: Floats
    goods_s: Floats
    free_s: Floats


def make_work(model: Model, routes: Routes, seed: int) -> Work:
    """Scratch arrays for one search; nobody is served in its best plan."""
    num_robots, width = routes.node.shape
    size, num_requests = len(model.service), model.num_requests
    adjacent = np.zeros((size, max(num_requests - 1, 0)), dtype=np.int64)
    requests = np.arange(1, num_requests + 1)
    if num_requests > 1:
        both = np.ix_(requests, requests)
        metres = np.minimum(model.distance[both], model.distance[both].T)
        np.fill_diagonal(metres, -1.0)
        adjacent[requests] = requests[np.argsort(metres, axis=1, kind="stable")[:, 1:]]
    return Work(
        random=np.array([seed, 0], dtype=np.int64),
        adjacent=adjacent,
        is_closed=np.zeros(num_robots, dtype=np.bool_),
        penalty=np.zeros(size),
        absences=np.ones(size),
        saved_node=np.zeros((num_robots, width), dtype=np.int64),
        saved_length=np.zeros(num_robots, dtype=np.int64),
        saved_price=np.zeros(num_robots),
        touched=np.zeros(num_robots, dtype=np.int64),
        is_touched=np.zeros(num_robots, dtype=np.bool_),
        best_node=np.zeros((num_robots, width), dtype=np.int64),
        best_length=np.full(num_robots, 2, dtype=np.int64),
        pool=np.zeros(size, dtype=np.int64),
        keys=np.zeros(size),
        was_absent=np.zeros(size, dtype=np.bool_),
        found=np.zeros(6),
        tally=np.zeros(1, dtype=np.int64),
        at=np.zeros(num_robots, dtype=np.int64),
        now=np.zeros(num_robots),
        charge_s=np.zeros((num_robots, width)),
        goods_s=np.zeros((num_robots, width)),
        free_s=np.zeros((len(model.num_slots), max(model.num_slots, default=0))),
    )


@kernel
def take_back(m, s, w, size):  # type: ignore[no-untyped-def]
    """Undo the iteration, in which the first `size` requests of the pool were moved."""
    for q in range(size):
        s.owner[w.pool[q]] = -1
    for q in range(w.tally[0]):
        k = w.touched[q]
        w.is_touched[k] = False
        s.length[k] = w.saved_length[k]
        for p in range(s.length[k]):
            s.node[k, p] = w.saved_node[k, p]
        refresh(m, s, k)
    w.tally[0] = 0


@kernel
def restore(m, s, w):  # type: ignore[no-untyped-def]
    """Make the best the current routes."""
    for v in range(1, m.num_requests + 1):
        s.owner[v] = -1
    for k in range(len(s.length)):
        s.length[k] = w.best_length[k]
        for p in range(s.length[k]):
            s.node[k, p] = w.best_node[k, p]
        refresh(m, s, k)
