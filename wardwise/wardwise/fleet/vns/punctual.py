"""Promises along a route: the normal chain of arrival times with charges of fixed length.

Arrivals are taken as normal, and starts after a wait by their first two moments (Clark
1961; `wardwise.fleet.chance.normal`). How long a robot charges is planned for the mean
day and kept on all. A stop is punctual if ``m + z sqrt(v)`` of its arrival is in time;
where a promise holds for a whole trip, if the probabilities that its stops are late sum
to no more than the promised share. Both are what the search believes: accepted plans
are certified by scenarios, which set ``z`` and the shares anew for stops that fail.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.chance.normal import late_probability, start_moments
from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.vns.labels import TOLERANCE, arrive, leave


@inlined
def charge_times(m, s, k, length):  # type: ignore[no-untyped-def]
    """Seconds at each charger of the row in `s.row`, as in `charges.drive`, into `s.seconds`."""
    t, e, x, r, charger = m.start[k], m.first[k], 0.0, 1.0, -1
    for p in range(length - 1):
        i, j = s.row[p], s.row[p + 1]
        s.seconds[p] = 0.0
        if i == 0 or i > m.num_requests:
            before, level = t, e
            t, e, x, r = leave(m, k, i, p == 0, s.row_goods[p], t, e, x, r)
            if m.rate[i] > 0.0 and m.battery[k] > 0.0:
                charger = p
                s.seconds[p] = max((e - level) / m.rate[i], 0.0)
            elif charger >= 0 and s.row_goods[p] > 0.0:
                # What a wait for goods allowed to charge longer.
                gained = e - level + m.base[k] * (t - before)
                s.seconds[charger] += max(gained / (r + m.base[k]), 0.0)
        t, e = arrive(m, k, i, j, t, e)
        used = 0.0
        wait = m.earliest[j] - t
        if wait > 0.0:
            used = min(wait, x)
            e -= (wait - used) * m.base[k]
            t = m.earliest[j]
        short = m.reserve[k] - e - used * r
        if short > 0.0 and x > used:
            owed = min(x - used, short / r)
            used += owed
            t += owed
        e += used * r
        x = max(min(x - used, (m.latest[j] if j != 0 else m.end[k]) - t), 0.0)
        if used > 0.0 and charger >= 0:
            s.seconds[charger] += used
    if charger >= 0:
        # Nothing is charged that would be left at the end.
        spare = max(e - max(m.reserve[k], 0.0), 0.0)
        s.seconds[charger] = (
            max(s.seconds[charger] - spare / r, 0.0) if m.is_partial else (s.seconds[charger])
        )


@inlined
def goods_of_trips(m, s, length):  # type: ignore[no-untyped-def]
    """When the goods of each trip of the row in `s.row` stand ready, into `s.row_goods`."""
    goods = 0.0
    for p in range(length - 1, -1, -1):
        v = s.row[p]
        s.row_goods[p] = goods
        goods = 0.0 if v == 0 else max(goods, m.available[v])


@kernel
def is_row_punctual(m, s, k, length):  # type: ignore[no-untyped-def]
    """Whether all promises hold along the route of robot `k` in `s.row`."""
    goods_of_trips(m, s, length)
    charge_times(m, s, k, length)
    mean, var, late, share = m.start[k], 0.0, 0.0, np.inf
    for p in range(length - 1):
        i, j = s.row[p], s.row[p + 1]
        if i == 0:
            mean += max(m.reload if p > 0 else 0.0, s.seconds[p])
            if s.row_goods[p] > 0.0:
                mean, var = start_moments(mean, var, s.row_goods[p])
            late, share = 0.0, np.inf
        else:
            mean += s.seconds[p]
        mean += m.service[i] + m.travel[i, j]
        var += m.service_var[i] + m.travel_var[i, j]
        if j == 0:
            if p == length - 2 and mean + m.z[0] * np.sqrt(var) > m.end[k] + TOLERANCE:
                return False
        elif j <= m.num_requests:
            if m.is_joint:
                late += late_probability(mean, var, m.latest[j])
                share = min(share, m.share[j])
                if late > share:
                    return False
            elif mean + m.z[j] * np.sqrt(var) > m.latest[j] + TOLERANCE:
                return False
            mean, var = start_moments(mean, var, m.earliest[j])
    return True


@kernel
def is_punctual(m, s, k, p, then, a, b, c):  # type: ignore[no-untyped-def]
    """Whether promises hold with `a`, `b`, `c` (-1: none) between positions `p` and `then`."""
    length = 0
    for q in range(p + 1):
        s.row[length] = s.node[k, q]
        length += 1
    for v in (a, b, c):
        if v >= 0:
            s.row[length] = v
            length += 1
    for q in range(then, s.length[k]):
        s.row[length] = s.node[k, q]
        length += 1
    return is_row_punctual(m, s, k, length)
