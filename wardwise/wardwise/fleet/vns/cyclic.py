"""Shaking by cyclic exchange: segments of two to four routes change places in a circle.

After Schneider, Stenger and Goeke (2014, Transportation Science 48(4)): exchange number
``kappa`` of 1 to 15 takes ``2 + (kappa - 1) // 5`` routes and segments of at most
``(kappa - 1) % 5 + 1`` stops, with the stations among them. Routes are those nearest to a
random request. A segment that its new route cannot take is repaired: its requests go to
the pool and are inserted anew.
"""

from __future__ import annotations

from wardwise.fleet.compiled import kernel
from wardwise.fleet.search.insertion import draw
from wardwise.fleet.search.undo import touch
from wardwise.fleet.vns.edits import (
    FRONT,
    MOST_ROUTES,
    REST,
    ROBOT,
    append,
    assemble,
    is_kept,
    propose,
    swap,
)
from wardwise.fleet.vns.labels import refresh
from wardwise.fleet.vns.ruin import mend, pull
from wardwise.fleet.vns.stations import tidy

LARGEST, LONGEST = 15, 5


@kernel
def next_kappa(e, is_kept):  # type: ignore[no-untyped-def]
    """Start again with the smallest exchange after a success, else take the next larger."""
    e.tally[1] = 1 if is_kept else e.tally[1] % LARGEST + 1


@kernel
def shake(m, s, w, e):  # type: ignore[no-untyped-def]
    """Exchange segments; returns the size of the pool of what found no place."""
    num = _choose(m, s, w, e)
    e.tally[0] = 0
    for z in range(num):
        # With nobody to exchange with, a segment is its own and inserted anew.
        source = (z + 1) % num
        e.tally[0] += 1
        append(s, e, e.cut[source, ROBOT], e.cut[source, FRONT] + 1, e.cut[source, REST])
    for z in range(num):
        assemble(m, s, e, z)
    for z in range(num):
        touch(s, w, e.cut[z, ROBOT])
        swap(s, e, z)
    size = 0
    for z in range(num):
        k = e.cut[z, ROBOT]
        if num > 1 and refresh(m, s, k) and is_kept(m, s, k):
            tidy(m, s, k)
            continue
        for q in range(e.num_part[z]):
            v = e.part[z, q]
            if v <= m.num_requests:
                size = pull(s, w, v, size)
        size = mend(m, s, w, k, size)
    return size


@kernel
def _choose(m, s, w, e):  # type: ignore[no-untyped-def]
    """Propose a segment of each of some routes, all near to a random request; how many."""
    most = (e.tally[1] - 1) % LONGEST + 1
    wanted = min(2 + (e.tally[1] - 1) // LONGEST, MOST_ROUTES)
    seed = 1 + int(draw(w.random) * m.num_requests)
    e.tally[0] = 0
    for q in range(-1, w.adjacent.shape[1]):
        u = seed if q < 0 else w.adjacent[seed, q]
        k = s.owner[u]
        is_new = k >= 0
        for z in range(e.tally[0]):
            is_new = is_new and e.cut[z, ROBOT] != k
        if not is_new:
            continue
        low = high = s.position[u]
        for _ in range(int(draw(w.random) * most)):
            # One more at a random end, within the trip.
            if draw(w.random) < 0.5:
                low -= s.node[k, low - 1] != 0
            else:
                high += s.node[k, high + 1] != 0
        propose(e, k, low - 1, k, high + 1)
        if e.tally[0] == wanted:
            break
    return e.tally[0]
