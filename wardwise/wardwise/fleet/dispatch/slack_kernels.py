"""Insertions that keep promises on random days, compiled.

The dispatcher's robots wait where they are and leave as late as the next start allows.
So between leaving position k - 1 and the start at k there are two waits, of a normal time
each (`wardwise.fleet.chance.normal`): until the departure ``earliest - travel``, and on
coming early until ``earliest``. What is done has no variance; of a leg or a service that
is going on what is left of its time has its share of the variance.

A stop is punctual if ``mean + z sqrt(variance)`` of its arrival is at most its limit: its
last moment, or the quantile that it has anyhow where that is later, so that a stop that is
late already only bars what makes it later.

A place is looked for by the scan for mean times, on a chain whose latest starts are
shortened: `Chains.latest` is as ever the latest start with which all that follows is in
time, only that each stop must be so by ``z sqrt(variance)`` of its present arrival. An
insertion does not lower variances, so this rules places out in constant time and hardly
any that would do. The suffix minima of `wardwise.fleet.chance.slack` give no credit for
waits behind the place, of which a day of windows is full: they would rule out one in seven
of the places that do (measured on mornings of a hospital). The place that the scan finds is
confirmed by the whole chain; if it fails, it is struck out, and the next in price is
looked for.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.chance.normal import start_moments
from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search.chains import pause_at
from wardwise.fleet.search.insertion import scan

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats, Ints

# Rounding of a sum of times; the tolerance of the checker.
TOLERANCE_S = 1e-6
NOWHERE = -1


class Chances(NamedTuple):
    """What is random and promised, and what the kernels scribble on.

    ``travel_var`` (places, places); ``service_cv``; ``z`` by priority, 0 for a robot's
    return; ``priority`` and ``hard`` as in `State`; ``end`` of the shift of each robot.
    ``limit`` (nodes) and ``limit_end`` (robots): the latest quantiles allowed. ``row``,
    ``mean`` and ``var``: what a robot does from the committed position on, and its
    arrivals there. ``kept``: the latest starts of the chain at hand.
    ``blink``: that of a scan that looks at every position.
    """

    travel_var: Floats
    service_cv: float
    z: Floats
    priority: Ints
    hard: Floats
    end: Floats
    limit: Floats
    limit_end: Floats
    row: Ints
    mean: Floats
    var: Floats
    kept: Floats
    blink: Ints


@kernel
def ready(packed, chains, chances, robot):  # type: ignore[no-untyped-def]
    """Mean and variance of the moment at which a robot can leave its committed position."""
    k = chains.first[robot]
    node, begin, leave = chains.node[robot, k], chains.begin[robot, k], chains.leave[robot, k]
    now, service = chains.floor[robot], packed.service[node]
    if k == 0:
        return leave, 0.0
    service_var = (chances.service_cv * service) ** 2 if node != 0 else 0.0
    if begin <= now:
        share = min(1.0, (leave - now) / service) if service_var > 0.0 else 0.0
        return leave, share * service_var
    before, here = chains.place[robot, k - 1], chains.place[robot, k]
    travel = packed.travel[before, here]
    share = min(1.0, (begin - now) / travel) if travel > 0.0 else 0.0
    left = share * chances.travel_var[before, here]
    mean, var = start_moments(begin, left, packed.earliest[node])
    return mean + leave - begin, var + service_var


@kernel
def write_row(packed, chains, chances, robot, position, drop, opens, u):  # type: ignore[no-untyped-def]
    """What a robot does from its committed position on, with `u` put in; returns the number."""
    row, size = chances.row, 0
    for k in range(chains.first[robot], chains.length[robot]):
        row[size] = chains.node[robot, k]
        size += 1
        if k == position:
            row[size] = packed.partner[u] if drop >= 0 else u
            size += 1
        if k == drop:
            row[size] = u
            size += 1
        if k == position and opens:
            row[size] = 0
            size += 1
    return size


@inlined
def reach(packed, chances, before, node, mean, var):  # type: ignore[no-untyped-def]
    """Moments of the arrival at a node, from those of being ready at the place before."""
    here = packed.place[node]
    travel = packed.travel[before, here]
    mean, var = start_moments(mean, var, packed.earliest[node] - travel)
    return mean + travel, var + chances.travel_var[before, here]


@inlined
def leave(packed, chances, node, mean, var):  # type: ignore[no-untyped-def]
    """Moments of being ready to leave a node, from those of the arrival there."""
    mean, var = start_moments(mean, var, packed.earliest[node])
    if node == 0:
        return mean + packed.reload, var
    service = packed.service[node]
    return mean + service, var + (chances.service_cv * service) ** 2


@kernel
def arrivals_of(packed, chains, chances, robot, size):  # type: ignore[no-untyped-def]
    """Fill mean and variance of the arrival at each position of the row but the first."""
    row = chances.row
    mean, var = ready(packed, chains, chances, robot)
    before = chains.place[robot, chains.first[robot]]
    for i in range(1, size):
        mean, var = reach(packed, chances, before, row[i], mean, var)
        chances.mean[i], chances.var[i] = mean, var
        mean, var = leave(packed, chances, row[i], mean, var)
        before = packed.place[row[i]]


@inlined
def margin(chances, node, var):  # type: ignore[no-untyped-def]
    """Seconds by which the quantile of an arrival lies behind its mean."""
    return chances.z[chances.priority[node]] * math.sqrt(var)


@kernel
def set_limits(packed, chains, chances, robot):  # type: ignore[no-untyped-def]
    """Fill the limits of a chain as it is, and its arrivals."""
    chances.limit_end[robot] = chances.end[robot]
    if chains.length[robot] == 2:
        return
    size = write_row(packed, chains, chances, robot, NOWHERE, NOWHERE, False, 0)
    arrivals_of(packed, chains, chances, robot, size)
    for i in range(1, size):
        node = chances.row[i]
        quantile = chances.mean[i] + margin(chances, node, chances.var[i])
        if node != 0:
            chances.limit[node] = max(chances.hard[node], quantile)
        elif i == size - 1:
            chances.limit_end[robot] = max(chances.end[robot], quantile)


@kernel
def is_punctual(packed, chains, chances, robot, size, known):  # type: ignore[no-untyped-def]
    """Whether all stops of the row behind position `known`, and the return, keep their limits.

    The arrival at that position is the one at hand. Of a transfer only the drop is promised.
    """
    row = chances.row
    if known == 0:
        mean, var = ready(packed, chains, chances, robot)
        before = chains.place[robot, chains.first[robot]]
    else:
        mean, var = chances.mean[known], chances.var[known]
        mean, var = leave(packed, chances, row[known], mean, var)
        before = packed.place[row[known]]
    for i in range(known + 1, size):
        node = row[i]
        mean, var = reach(packed, chances, before, node, mean, var)
        if not packed.is_pickup[node] and (node != 0 or i == size - 1):
            limit = chances.limit[node] if node != 0 else chances.limit_end[robot]
            if mean + margin(chances, node, var) > limit + TOLERANCE_S:
                return False
        mean, var = leave(packed, chances, node, mean, var)
        before = packed.place[node]
    return True


@kernel
def shorten(packed, chains, chances, robot):  # type: ignore[no-untyped-def]
    """Keep the latest starts of a chain, and replace them by shortened ones.

    The arrivals are those of the chain as it is.
    """
    first, last = chains.first[robot], chains.length[robot] - 1
    bound = packed.end[robot]
    for k in range(last, first - 1, -1):
        chances.kept[k] = chains.latest[robot, k]
        node, is_idle = chains.node[robot, k], last == 1
        if k < last:
            places = chains.place[robot, k], chains.place[robot, k + 1]
            bound -= pause_at(packed, node, k) + (0.0 if is_idle else packed.travel[places])
        if node != 0:
            bound = min(bound, packed.latest[node])
        if k > first and not is_idle and not packed.is_pickup[node]:
            if node != 0:
                bound = min(
                    bound, chances.limit[node] - margin(chances, node, chances.var[k - first])
                )
            elif k == last:
                bound = min(
                    bound, chances.limit_end[robot] - margin(chances, 0, chances.var[k - first])
                )
        chains.latest[robot, k] = bound


@kernel
def best_place(packed, chains, weights, robot, u, blink):  # type: ignore[no-untyped-def]
    """`best_in_chain` with a random state at hand."""
    return scan(packed, chains, weights, robot, u, np.inf, blink, 0.0)


@kernel
def best_kept(packed, chains, weights, chances, robot, u):  # type: ignore[no-untyped-def]
    """`best_in_chain` of those places with which all promises are kept.

    Striking out a place strikes out those, too, that rejoin the chain at the same stop:
    of a transfer other pickups before the same drop. They are dearer, and mostly later.
    """
    blink = chances.blink
    price, position, drop, opens = best_place(packed, chains, weights, robot, u, blink)
    if position < 0:
        return price, position, drop, opens
    set_limits(packed, chains, chances, robot)
    chances.limit[u] = chances.hard[u]
    first, last, end = chains.first[robot], chains.length[robot] - 1, packed.end[robot]
    size = write_row(packed, chains, chances, robot, position, drop, opens, u)
    if is_punctual(packed, chains, chances, robot, size, position - first):
        return price, position, drop, opens
    if last == 1:
        return np.inf, -1, -1, False
    shorten(packed, chains, chances, robot)
    while True:
        price, position, drop, opens = best_place(packed, chains, weights, robot, u, blink)
        if position < 0:
            break
        size = write_row(packed, chains, chances, robot, position, drop, opens, u)
        if is_punctual(packed, chains, chances, robot, size, position - first):
            break
        behind = max(position, drop)
        if behind == last:
            packed.end[robot] = -np.inf
        else:
            chains.latest[robot, behind + 1] = -np.inf
    packed.end[robot] = end
    for k in range(first, last + 1):
        chains.latest[robot, k] = chances.kept[k]
    return price, position, drop, opens


@kernel
def best_kept_per_robot(  # type: ignore[no-untyped-def]
    packed, chains, weights, chances, u, prices, positions, drops, opens
):
    """`best_kept` of every robot, as `best_per_robot` has it."""
    for robot in range(len(chains.length)):
        twin = packed.twin[robot]
        if chains.length[robot] == 2 and twin >= 0 and chains.length[twin] == 2:
            prices[robot], positions[robot], drops[robot], opens[robot] = np.inf, -1, -1, False
        else:
            prices[robot], positions[robot], drops[robot], opens[robot] = best_kept(
                packed, chains, weights, chances, robot, u
            )


@kernel
def quantiles(packed, chains, chances, robots, positions, drops, opens, u, found):  # type: ignore[no-untyped-def]
    """By when service of `u` starts as surely as promised, at each of some places.

    At position -1 it is where the chain has it already; what is committed is no longer
    random, and left as it is.
    """
    for i in range(len(robots)):
        robot = robots[i]
        size = write_row(packed, chains, chances, robot, positions[i], drops[i], opens[i], u)
        arrivals_of(packed, chains, chances, robot, size)
        for k in range(1, size):
            if chances.row[k] == u:
                quantile = chances.mean[k] + margin(chances, u, chances.var[k])
                found[i] = max(quantile, packed.earliest[u])


@kernel
def set_all_limits(packed, chains, chances, latest, end):  # type: ignore[no-untyped-def]
    """Fill the limits of all chains, and windows so much shorter for searches by mean times.

    Nothing that stands becomes infeasible.
    """
    for robot in range(len(chains.length)):
        set_limits(packed, chains, chances, robot)
        first, last = chains.first[robot], chains.length[robot] - 1
        if last == 1:
            continue
        for k in range(first + 1, last + 1):
            node, begin = chains.node[robot, k], chains.begin[robot, k]
            if node == 0 or packed.is_pickup[node]:
                continue
            closes = chances.limit[node] - margin(chances, node, chances.var[k - first])
            latest[node] = max(begin, min(packed.latest[node], closes))
        if last > first:
            closes = chances.limit_end[robot] - margin(chances, 0, chances.var[last - first])
            end[robot] = max(chains.begin[robot, last], min(packed.end[robot], closes))


@kernel
def are_punctual(packed, chains, chances):  # type: ignore[no-untyped-def]
    """Whether all chains keep the limits."""
    for robot in range(len(chains.length)):
        if chains.length[robot] > 2:
            size = write_row(packed, chains, chances, robot, NOWHERE, NOWHERE, False, 0)
            if not is_punctual(packed, chains, chances, robot, size, 0):
                return False
    return True
