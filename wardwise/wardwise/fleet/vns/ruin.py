"""Shaking by ruin and recreate: strings of stops are taken out and put back where cheapest.

Slack induction by string removals (Christiaens and Vanden Berghe 2020, Transportation
Science 54(2)) for routes with chargers and reloads: strings are counted in stops, and
stations that a shortened route can do without go, too. Requests come back in a random
one of seven orders, each where it is cheapest, with a charger or a reload beside it
where it takes one.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search.insertion import draw, next_blink
from wardwise.fleet.search.ruin_kernels import Strings
from wardwise.fleet.search.undo import sort_in, touch
from wardwise.fleet.vns.insertion import put, scan
from wardwise.fleet.vns.labels import refresh
from wardwise.fleet.vns.stations import ANEW, put_anew, scan_anew, tidy

MEAN_REMOVED, LONGEST, SPLIT, GROW, INVERSE_LOG_BLINK, _ = Strings()

# Rate at which a request that fits somewhere is tried with all stations of a route placed
# anew, too, and the length of a route from which on one that fits nowhere is tried less.
ANEW_RATE, ANEW_LENGTH = 0.03, 12.0


@kernel
def ruin(m, s, w):  # type: ignore[no-untyped-def]
    """Take strings out of routes near a random request; returns the size of the pool."""
    used, total = 0, 0
    for k in range(len(s.length)):
        if s.length[k] > 2:
            used += 1
    for v in range(1, m.num_requests + 1):
        total += s.owner[v] >= 0
    mean_length = total / max(used, 1)
    longest = min(LONGEST, mean_length)
    most = 4.0 * MEAN_REMOVED / (1.0 + longest) - 1.0
    num_strings = int(draw(w.random) * most + 1.0)
    seed = 1 + int(draw(w.random) * m.num_requests)
    size = ruined = 0
    for q in range(-1, w.adjacent.shape[1]):
        u = seed if q < 0 else w.adjacent[seed, q]
        k = s.owner[u]
        if k < 0 or w.is_touched[k]:
            continue
        size = _remove_string(m, s, w, k, u, longest, size)
        ruined += 1
        if ruined >= num_strings:
            break
    return size


@inlined
def _remove_string(m, s, w, k, u, longest, size):  # type: ignore[no-untyped-def]
    """Take a string of stops with `u` among them out of a route; returns the size of the pool."""
    touch(s, w, k)
    num_stops = rank = 0
    for p in range(1, s.length[k] - 1):
        v = w.saved_node[k, p]
        if v == u:
            rank = num_stops
        num_stops += 0 < v <= m.num_requests
    count = int(draw(w.random) * min(float(num_stops), longest) + 1.0)
    kept = 0
    if 1 < count < num_stops and draw(w.random) < SPLIT:
        kept = 1
        while count + kept < num_stops and draw(w.random) < GROW:
            kept += 1
    width = count + kept
    low, high = max(0, rank - width + 1), min(rank, num_stops - width)
    start = low + int(draw(w.random) * (high - low + 1))
    gap = start + 1 + int(draw(w.random) * (count - 1)) if kept else start + width
    at = -1
    for p in range(1, s.length[k] - 1):
        v = w.saved_node[k, p]
        if not 0 < v <= m.num_requests:
            continue
        at += 1
        if start <= at < start + width and not (gap <= at < gap + kept and v != u):
            size = pull(s, w, v, size)
    return mend(m, s, w, k, size)


@kernel
def mend(m, s, w, k, size):  # type: ignore[no-untyped-def]
    """Close the gaps of requests that were pulled out; returns the size of the pool."""
    close_gaps(m, s, k)
    if refresh(m, s, k):
        tidy(m, s, k)
        return size
    # Without the triangle inequality the rest may be late or run empty: all goes.
    for p in range(1, s.length[k] - 1):
        v = s.node[k, p]
        if 0 < v <= m.num_requests and s.owner[v] == k:
            size = pull(s, w, v, size)
    close_gaps(m, s, k)
    refresh(m, s, k)
    return size


@inlined
def pull(s, w, v, size):  # type: ignore[no-untyped-def]
    """Disown a request and put it into the pool."""
    s.owner[v] = -1
    w.pool[size] = v
    w.was_absent[size] = False
    return size + 1


@kernel
def close_gaps(m, s, k):  # type: ignore[no-untyped-def]
    """Drop disowned requests and trips without any; labels are left as they were."""
    length, start, has_stop = 1, 1, False
    for p in range(1, s.length[k]):
        v = s.node[k, p]
        if 0 < v <= m.num_requests:
            if s.owner[v] != k:
                continue
            has_stop = True
        if v == 0 and not has_stop:
            length = start
            continue
        s.node[k, length] = v
        length += 1
        if v == 0:
            start, has_stop = length, False
    if length == 1:
        s.node[k, 1] = 0
        length = 2
    s.length[k] = length


@kernel
def add_absent(m, s, w, size):  # type: ignore[no-untyped-def]
    """Add the requests that were unserved before; returns the new size of the pool."""
    removed = size
    for v in range(1, m.num_requests + 1):
        if s.owner[v] >= 0:
            continue
        is_new = True
        for q in range(removed):
            if w.pool[q] == v:
                is_new = False
                break
        if is_new:
            w.pool[size] = v
            w.was_absent[size] = True
            size += 1
    return size


@kernel
def sort(m, w, size):  # type: ignore[no-untyped-def]
    """Order the pool: random, by load, far, near, narrow, early or late windows."""
    # Weights 4, 4, 2, 1, 2, 2, 2 of 17: the paper's for time windows.
    pick = draw(w.random) * 17.0
    for q in range(size):
        v = w.pool[q]
        if pick < 4.0:
            key = draw(w.random)
        elif pick < 8.0:
            key = -m.deliver[v] - m.collect[v]
        elif pick < 10.0:
            key = -m.distance[0, v]
        elif pick < 11.0:
            key = m.distance[0, v]
        elif pick < 13.0:
            key = m.latest[v] - m.earliest[v]
        elif pick < 15.0:
            key = m.earliest[v]
        else:
            key = -m.latest[v]
        sort_in(w, q, key)


@kernel
def recreate(m, s, w, placing, size, skip, skip_denied):  # type: ignore[no-untyped-def]
    """Put the pool back, each request where it is cheapest; what fits nowhere stays out.

    So do random shares of the requests that were served, and denied, before.
    """
    if w.random[1] <= 0:
        next_blink(w.random, INVERSE_LOG_BLINK)
    for q in range(size):
        share = skip_denied if w.was_absent[q] else skip
        if share > 0.0 and draw(w.random) < share:
            continue
        u = w.pool[q]
        w.found[0] = w.penalty[u] if m.is_money else np.inf
        w.found[1] = -1.0
        for k in range(len(s.length)):
            if w.is_closed[k]:
                continue
            twin = m.twin[k]
            if s.length[k] == 2 and twin >= 0 and s.length[twin] == 2:
                continue
            scan(m, s, k, u, w.found, w.random, INVERSE_LOG_BLINK)
        if m.near_station.shape[2] > 0 and not m.has_promise and not m.has_goods:
            rate = 1.0 if w.found[1] < 0.0 else ANEW_RATE
            for k in range(len(s.length)):
                # A long route takes long, and has other places to offer.
                if s.length[k] > 2 and draw(w.random) < rate * (ANEW_LENGTH / s.length[k]) ** 2:
                    scan_anew(m, s, placing, k, u, w.found)
        if w.found[1] >= 0.0:
            k = int(w.found[1])
            touch(s, w, k)
            if w.found[4] == ANEW:
                put_anew(m, s, placing, w.found)
                continue
            put(s, k, int(w.found[2]), w.found[3:])
            refresh(m, s, k)
