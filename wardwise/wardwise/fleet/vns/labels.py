"""Where a robot is in time, energy and load along a route, from the front and from the back.

**From the front** (after Desaulniers, Errico, Irnich and Schneider 2016, Operations
Research 64(6), and Schiffer and Walther 2017, Transportation Science 52(2)). With
partial recharge the amounts stay open until they are needed. The label of a vertex is

    t  earliest start, with the least charged so far,
    e  level at that start,
    x  seconds that could still be charged longer at the last charger, all starts since
       then and that of this vertex postponed as much,
    r  rate of that charger in Wh a second:

every point ``(t + y, e + r y)`` with ``0 <= y <= x`` can be reached. Waiting takes from
``x`` what it can, for free; a level below the reserve takes from it at the price of
time. At the next charger of the same rate all but ``(t, e)`` is forgotten: what is
charged there costs the same time and nothing before it.

**From the back** the arrivals from which the rest of a route can be driven are

    t <= min(c, d + g e),   e >= n,        g seconds a Wh:

with a full battery until ``c``, with less to charge later, and never with less than
``n``. Both together answer whether a front and a rest fit in constant time. That is
exact where all chargers have one rate and waiting draws nothing (`Model.is_exact`);
elsewhere the rest is driven through.

Loads: what is delivered was on board from the start of the trip. With ``delivered``,
``collected`` and the ``peak`` of two parts of a trip, the peak of both together is
``max(peak1 + delivered2, collected1 + peak2)`` (Vidal et al. 2014, EJOR 234(3)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.compiled import inlined, kernel

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats, Ints
    from wardwise.fleet.vns.model import Model

# Below what the referee forgives, above the rounding of sums.
TOLERANCE = 1e-7
# Half a billionth of a slot: loads are whole billionths.
LOAD_TOLERANCE = 0.5

# Columns of `Routes.front` and `Routes.back`.
T, E, X, R, DELIVERED, COLLECTED, PEAK, LATE = range(8)
C, D, N, AFTER_DELIVERED, AFTER_PEAK, GOODS = range(6)


class Routes(NamedTuple):
    """All routes and their labels.

    Parameters
    ----------
    node, length
        Shapes (K, W) and (K,): vertices of each robot's route, from depot to depot.
    front, back
        Shapes (K, W, 8) and (K, W, 6): labels at every vertex. At a reload the loads of
        the front are those of the trip that ends; `GOODS` is when all goods stand ready
        from here to the end of the trip.
    price, trips
        Shape (K,): metres and tolerated lateness of a route in money; its trips.
    owner, position
        Shape (V,): robot that serves a request, or -1, and where in its route.
    row, row_goods, seconds
        Shape (W,): scratch of `punctual`.
    """

    node: Ints
    length: Ints
    front: Floats
    back: Floats
    price: Floats
    trips: Ints
    owner: Ints
    position: Ints
    row: Ints
    row_goods: Floats
    seconds: Floats


def empty_routes(model: Model) -> Routes:
    """Every robot at home."""
    shape = (len(model.capacity), 3 * model.num_requests + 8)
    return Routes(
        node=np.zeros(shape, dtype=np.int64),
        length=np.full(shape[0], 2, dtype=np.int64),
        front=np.zeros((*shape, 8)),
        back=np.zeros((*shape, 6)),
        price=np.zeros(shape[0]),
        trips=np.ones(shape[0], dtype=np.int64),
        owner=np.full(len(model.service), -1, dtype=np.int64),
        position=np.zeros(len(model.service), dtype=np.int64),
        row=np.zeros(shape[1], dtype=np.int64),
        row_goods=np.zeros(shape[1]),
        seconds=np.zeros(shape[1]),
    )


@inlined
def leave(m, k, i, is_start, goods, t, e, x, r):  # type: ignore[no-untyped-def]
    """What is done at a charger or the depot before the robot drives on; a new (t, e, x, r)."""
    if i > m.num_requests:
        rate = m.rate[i]
        if m.is_partial:
            return t, e, max((m.battery[k] - e) / rate, 0.0), rate
        return t + max((m.battery[k] - e) / rate, 0.0), m.battery[k], 0.0, rate
    if i != 0:
        return t, e, x, r
    rest, rate = (0.0 if is_start else m.reload), m.rate[0]
    t += rest
    if rate > 0.0 and m.battery[k] > 0.0:
        r = rate
        e += min(m.battery[k] - e, rate * rest)
        x = (m.battery[k] - e) / rate
        if not m.is_partial:
            t += x
            e, x = m.battery[k], 0.0
    else:
        e -= m.base[k] * rest
    if goods > t:
        used = min(goods - t, x)
        e += used * r - (goods - t - used) * m.base[k]
        x -= used
        t = goods
    return t, e, x, r


@inlined
def arrive(m, k, i, j, t, e):  # type: ignore[no-untyped-def]
    """Serve `i` and drive on to `j`: time and level of the arrival."""
    takes = m.service[i] + m.travel[i, j]
    return t + takes, e - m.per_m[k] * m.distance[i, j] - m.base[k] * takes


@inlined
def settle(m, k, j, t, e, x, r):  # type: ignore[no-untyped-def]
    """Wait for the window of `j` and charge what is owed.

    Returns
    -------
    t, e, x, late, short
        Label of `j`; seconds past its window and watt-hours below the reserve, of which
        both the label is freed.
    """
    wait = m.earliest[j] - t
    if wait > 0.0:
        used = min(wait, x)
        e += used * r - (wait - used) * m.base[k]
        x -= used
        t = m.earliest[j]
    short = m.reserve[k] - e
    if short > 0.0:
        if x > 0.0:
            used = min(x, short / r)
            t += used
            x -= used
            e += used * r
            short = m.reserve[k] - e
        if short > TOLERANCE:
            e = m.reserve[k]
        else:
            short = 0.0
    else:
        short = 0.0
    last = m.latest[j] if j != 0 else m.end[k]
    late = t - last
    if late > TOLERANCE:
        t, x = last, 0.0
    else:
        # Postponing a start that costs money is left to those who time the plan.
        limit = m.due[j] if m.is_soft and j != 0 and t <= m.due[j] else last
        x = max(min(x, limit - t), 0.0) if not (m.is_soft and t > m.due[j]) else 0.0
        late = 0.0
    return t, e, x, late, short


@inlined
def lateness(m, j, t):  # type: ignore[no-untyped-def]
    """Money for a start after the due time."""
    return m.late_price[j] * (t - m.due[j]) if m.is_soft and t > m.due[j] else 0.0


@inlined
def reaches(m, t, e, x, c, d, n):  # type: ignore[no-untyped-def]
    """Whether an arrival lies among those from which the rest can be driven.

    Returns
    -------
    0 if it does, 1 if it is too late even with a full battery, 2 if more energy helps.
    """
    owed = max((n - e) * m.inverse_rate, 0.0) if n > e + TOLERANCE else 0.0
    if t > c + TOLERANCE:
        return 1
    if owed > x + TOLERANCE or t + owed > c + TOLERANCE or (n > e + TOLERANCE and x <= 0.0):
        return 2
    if t > d + m.inverse_rate * e + TOLERANCE:
        return 2
    return 0


@kernel
def refresh(m, s, k):  # type: ignore[no-untyped-def]
    """Compute all labels of a route; returns whether it is feasible."""
    _from_back(m, s, k)
    length, front = s.length[k], s.front[k]
    t, e, x, r = m.start[k], m.first[k], 0.0, 1.0
    metres, late_money, is_fine, num_trips = 0.0, 0.0, True, 1
    delivered = collected = peak = 0.0
    for p in range(length):
        j = s.node[k, p]
        if p > 0:
            i = s.node[k, p - 1]
            if i == 0:
                num_trips += p > 1
                delivered = collected = peak = 0.0
            t, e, x, r = leave(m, k, i, p == 1, s.back[k, p, GOODS], t, e, x, r)
            t, e = arrive(m, k, i, j, t, e)
            t, e, x, late, short = settle(m, k, j, t, e, x, r)
            is_fine = is_fine and late == 0.0 and short == 0.0
            metres += m.distance[i, j]
            delivered += m.deliver[j]
            peak = max(peak + m.deliver[j], collected + m.collect[j])
            collected += m.collect[j]
            late_money += lateness(m, j, t)
            is_fine = is_fine and peak <= m.capacity[k] + LOAD_TOLERANCE
            if 0 < j <= m.num_requests:
                s.owner[j], s.position[j] = k, p
        label = front[p]
        label[T], label[E], label[X], label[R] = t, e, x, r
        label[DELIVERED], label[COLLECTED], label[PEAK] = delivered, collected, peak
        label[LATE] = late_money
    s.price[k] = metres * m.metre_price + late_money + (m.robot_price if length > 2 else 0.0)
    s.trips[k] = num_trips
    return is_fine and num_trips <= m.max_trips[k]


@inlined
def _from_back(m, s, k):  # type: ignore[no-untyped-def]
    """Labels from the back of a route."""
    last, g = s.length[k] - 1, m.inverse_rate
    c, d, n = m.end[k], np.inf, m.reserve[k]
    delivered = peak = goods = 0.0
    for p in range(last, -1, -1):
        j = s.node[k, p]
        if p < last:
            c, d, n = _before_leg(m, k, j, s.node[k, p + 1], p == 0, goods, c, d, n)
        if j == 0:
            delivered = peak = goods = 0.0
        else:
            delivered += m.deliver[j]
            peak = max(delivered, m.collect[j] + peak)
            goods = max(goods, m.available[j])
        if p < last:
            c = min(c, m.latest[j] if j != 0 else m.end[k])
            if c < m.earliest[j] - TOLERANCE:
                c = -np.inf
            elif g > 0.0:
                n = max(n, (m.earliest[j] - d) / g)
            n = max(n, m.reserve[k])
        label = s.back[k, p]
        label[C], label[D], label[N] = c, d, n
        label[AFTER_DELIVERED], label[AFTER_PEAK], label[GOODS] = delivered, peak, goods


@inlined
def _before_leg(m, k, i, j, is_start, goods, c, d, n):  # type: ignore[no-untyped-def]
    """Starts at `i` from which the arrival at `j` is among those given."""
    takes, used, g = m.service[i] + m.travel[i, j], m.per_m[k] * m.distance[i, j], m.inverse_rate
    c, d, n = c - takes, d - takes - g * used, n + used
    is_charger = i > m.num_requests or (i == 0 and m.rate[0] > 0.0 and m.battery[k] > 0.0)
    if i == 0 and goods > 0.0:
        if c < goods - TOLERANCE:
            c = -np.inf
        if g > 0.0:
            n = max(n, (goods - d) / g)
    if is_charger:
        full = m.battery[k]
        if n > full + TOLERANCE:
            c = -np.inf
        c = min(c, d + g * full)
        rest = m.reload if i == 0 and not is_start else 0.0
        if m.is_partial:
            d = min(c - g * n, d)
            c -= rest
        else:
            d = c - g * full
            c = min(c, c - rest)
        n = -np.inf
    elif i == 0 and not is_start:
        c, d = c - m.reload, d - m.reload
    return c, d, n
