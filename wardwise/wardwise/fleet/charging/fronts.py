"""Fronts of time and energy: what a robot can have in its battery, and by when.

A front is a concave, rising, piecewise-linear function: the highest battery level with
which a robot can be somewhere at a time. It comes from the last charge, which may be
stopped sooner or later; the charges before are settled. Driving moves a front, a window
cuts it, a new charge starts at one of its corners (Froger, Mendoza, Jabali and Laporte
2019, Computers & Operations Research 104). Corners suffice: between two of them the old
charger is quicker than the new one all the time, or slower, and the next charger slows
down with the level, so that only a corner of the old one can be the best moment to change.

A robot that waits takes `base_wh_per_s`. It would rather have charged on, so of a front
that begins before a window, the part before is dropped; where the whole front is too
early, its last corner waits.

Fronts are rows of two arrays, times `t` and levels `q`, with the number of corners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

if TYPE_CHECKING:
    from wardwise.fleet.charging.network import Floats

TOLERANCE_S = 1e-7
TOLERANCE_M = 1e-7


@njit(cache=True)
def between(x: float, x0: float, y0: float, x1: float, y1: float) -> float:
    """Height at `x` of the line through two points, x0 < x1."""
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@njit(cache=True)
def drive(
    t: Floats,
    q: Floats,
    num: int,
    move_s: float,
    move_wh: float,
    new_t: Floats,
    new_q: Floats,
) -> int:
    """Move a front along a leg; returns its number of corners."""
    for k in range(num):
        new_t[k] = t[k] + move_s
        new_q[k] = q[k] - move_wh
    return num


@njit(cache=True)
def wait(t: Floats, q: Floats, num: int, ready_s: float, base_wh_per_s: float) -> int:
    """Cut a front, in place, to times from `ready_s` on; returns its number of corners."""
    last = num - 1
    if t[last] <= ready_s:
        q[0] = q[last] - base_wh_per_s * (ready_s - t[last])
        t[0] = ready_s
        return 1
    if t[0] >= ready_s:
        return num
    first = 0
    while t[first + 1] <= ready_s:
        first += 1
    q[0] = between(ready_s, t[first], q[first], t[first + 1], q[first + 1])
    t[0] = ready_s
    for k in range(first + 1, num):
        t[k - first] = t[k]
        q[k - first] = q[k]
    return num - first


@njit(cache=True)
def cut(t: Floats, q: Floats, num: int, latest_s: float, least_wh: float, slack_wh: float) -> int:
    """Cut a front, in place, to times up to and levels from a bound; 0 if nothing is left."""
    if t[0] > latest_s + TOLERANCE_S or q[num - 1] < least_wh - slack_wh:
        return 0
    while num > 1 and t[num - 2] >= latest_s:
        num -= 1
    last = num - 1
    if num > 1 and t[last] > latest_s:
        q[last] = between(latest_s, t[last - 1], q[last - 1], t[last], q[last])
        t[last] = latest_s
    if q[last] < least_wh - slack_wh:
        return 0
    first = 0
    while first < last and q[first + 1] < least_wh:
        first += 1
    if first == last or q[first] >= least_wh:
        first_t, first_q = t[first], q[first]
    else:
        first_t = between(least_wh, q[first], t[first], q[first + 1], t[first + 1])
        first_q = least_wh
    t[0], q[0] = first_t, first_q
    for k in range(first + 1, num):
        t[k - first] = t[k]
        q[k - first] = q[k]
    return num - first


@njit(cache=True)
def time_from_empty(curve_wh: Floats, curve_s: Floats, level_wh: float) -> float:
    """Time that a curve takes from empty to a level."""
    if level_wh <= curve_wh[0]:
        return float(curve_s[0])
    for k in range(1, len(curve_wh)):
        if level_wh <= curve_wh[k]:
            return between(level_wh, curve_wh[k - 1], curve_s[k - 1], curve_wh[k], curve_s[k])
    return float(curve_s[-1])


@njit(cache=True)
def level_at(curve_wh: Floats, curve_s: Floats, time_s: float) -> float:
    """Level that a curve reaches from empty after some time."""
    if time_s <= curve_s[0]:
        return float(curve_wh[0])
    for k in range(1, len(curve_s)):
        if time_s <= curve_s[k]:
            return between(time_s, curve_s[k - 1], curve_wh[k - 1], curve_s[k], curve_wh[k])
    return float(curve_wh[-1])


@njit(cache=True)
def charge(
    at_s: float,
    level_wh: float,
    curve_wh: Floats,
    curve_s: Floats,
    capacity_wh: float,
    reload_s: float,
    base_wh_per_s: float,
    is_full: bool,
    new_t: Floats,
    new_q: Floats,
) -> int:
    """Front of a robot that is charged from a moment and level on; its number of corners.

    It leaves no earlier than `reload_s` later, and until then charges as long as it can.
    """
    begin_s = time_from_empty(curve_wh, curve_s, level_wh)
    full_s = time_from_empty(curve_wh, curve_s, capacity_wh) - begin_s
    if is_full or full_s <= reload_s:
        stay_s = max(full_s, reload_s)
        new_t[0] = at_s + stay_s
        new_q[0] = capacity_wh - base_wh_per_s * (stay_s - full_s)
        return 1
    new_t[0] = at_s + reload_s
    new_q[0] = max(level_wh, level_at(curve_wh, curve_s, begin_s + reload_s))
    num = 1
    for k in range(len(curve_wh)):
        if new_q[0] < curve_wh[k] < capacity_wh and new_t[num - 1] < at_s + curve_s[k] - begin_s:
            new_t[num] = at_s + curve_s[k] - begin_s
            new_q[num] = curve_wh[k]
            num += 1
    new_t[num] = at_s + full_s
    new_q[num] = capacity_wh
    return num + 1


@njit(cache=True)
def level_on(t: Floats, q: Floats, num: int, time_s: float) -> float:
    """Level of a front at a time not before its first; behind its end, that of its end."""
    for k in range(1, num):
        if time_s <= t[k]:
            return between(time_s, t[k - 1], q[k - 1], t[k], q[k]) if t[k] > t[k - 1] else q[k]
    return float(q[num - 1])


@njit(cache=True)
def is_above(
    t: Floats, q: Floats, num: int, other_t: Floats, other_q: Floats, other: int, slack_wh: float
) -> bool:
    """Whether at every time of the other front this one has at least its level.

    The difference of two piecewise-linear functions is least at a corner of one of them.
    """
    if t[0] > other_t[0] + TOLERANCE_S:
        return False
    for k in range(other):
        if level_on(t, q, num, max(other_t[k], t[0])) < other_q[k] - slack_wh:
            return False
    for k in range(num):
        if (
            other_t[0] < t[k] < other_t[other - 1]
            and q[k] < level_on(other_t, other_q, other, t[k]) - slack_wh
        ):
            return False
    return True
