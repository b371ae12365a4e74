"""How late robots are because they wait for slots of stations that others hold.

The labels of a route know nothing of other robots. So all routes are driven together once,
on the mean day and with what each charges settled beforehand; who finds all slots of a
station taken waits for the first that gets free, as in `wardwise.fleet.schedule`. The
search pays for what is then late, at a price that rises until nothing is, and keeps no
plan with any.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.vns.punctual import charge_times, goods_of_trips

# Price of a second in units of a metre's: first, least and largest, and how it changes with
# every iteration (after Schneider, Stenger and Goeke 2014, who rule so over windows).
FIRST_PRICE, LEAST_PRICE, LARGEST_PRICE, PRICE_STEP = 10.0, 0.5, 1e9, 1.05
# Shares of requests that are not put back though they fit: of those served before, while
# queues make robots late, and of those denied before, which would all come back at once.
SKIP, SKIP_DENIED = 0.3, 0.7


@kernel
def late_by_queues(m, s, w):  # type: ignore[no-untyped-def]
    """Seconds by which stops and returns are late, summed over all robots with batteries."""
    w.free_s[:] = 0.0
    late = 0.0
    for k in range(len(s.length)):
        w.at[k], w.now[k] = s.length[k] - 1, np.inf
        if s.length[k] > 2 and m.battery[k] > 0.0:
            _settle_charges(m, s, w, k)
            w.at[k], w.now[k] = 0, m.start[k]
            if not _charges_at(m, s, w, k):
                late += _drive_on(m, s, w, k, m.start[k])
    while True:
        k = int(np.argmin(w.now))
        if w.now[k] == np.inf:
            return late
        station = m.station_of[s.node[k, w.at[k]]]
        slot = 0
        for q in range(1, m.num_slots[station]):
            if w.free_s[station, q] < w.free_s[station, slot]:
                slot = q
        begin = max(w.now[k], w.free_s[station, slot])
        w.free_s[station, slot] = begin + w.charge_s[k, w.at[k]]
        late += _drive_on(m, s, w, k, begin)


@inlined
def _settle_charges(m, s, w, k):  # type: ignore[no-untyped-def]
    for p in range(s.length[k]):
        s.row[p] = s.node[k, p]
    goods_of_trips(m, s, s.length[k])
    charge_times(m, s, k, s.length[k])
    for p in range(s.length[k] - 1):
        w.charge_s[k, p], w.goods_s[k, p] = s.seconds[p], s.row_goods[p]


@inlined
def _charges_at(m, s, w, k):  # type: ignore[no-untyped-def]
    """Whether a robot takes a slot where it is now."""
    v = s.node[k, w.at[k]]
    return m.station_of[v] >= 0 and (v > m.num_requests or w.charge_s[k, w.at[k]] > 0.0)


@kernel
def _drive_on(m, s, w, k, begin):  # type: ignore[no-untyped-def]
    """Drive from where a robot begins to charge or serve to its next slot; seconds late."""
    late = 0.0
    while True:
        p = w.at[k]
        i, j = s.node[k, p], s.node[k, p + 1]
        leave = begin + w.charge_s[k, p]
        if i == 0:
            rest = m.reload if p > 0 else 0.0
            leave = max(leave, w.now[k] + rest, w.goods_s[k, p])
        arrival = leave + m.service[i] + m.travel[i, j]
        begin = max(arrival, m.earliest[j]) if 0 < j <= m.num_requests else arrival
        late += max(begin - (m.latest[j] if j != 0 else m.end[k]), 0.0)
        w.at[k], w.now[k] = p + 1, begin
        if p + 1 == s.length[k] - 1:
            w.now[k] = np.inf
            return late
        if _charges_at(m, s, w, k):
            return late


@inlined
def next_price(price, late):  # type: ignore[no-untyped-def]
    """Price of a second for the next iteration."""
    if late > 0.0:
        return min(price * PRICE_STEP, LARGEST_PRICE)
    return max(price / PRICE_STEP, LEAST_PRICE)
