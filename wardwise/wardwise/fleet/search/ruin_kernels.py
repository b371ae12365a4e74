"""Compiled loop of ruin and recreate by slack induction by string removals.

Christiaens and Vanden Berghe 2020, Transportation Science 54(2). An iteration

1. takes strings of consecutive stops out of several chains near a random
   request, each with the stops in its middle kept now and then;
2. puts the requests back one by one, each where it is cheapest, in a random one
   of seven orders, passing over a place now and then ("blink");
3. keeps the result with the probability of simulated annealing, else takes it back.

Requests may stay unserved; each costs its penalty. To empty a robot (fewest
robots), absence counters tell which requests were hard to place: a result with
a smaller sum of counters over its unserved requests is always kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.chains import UNSERVED
from wardwise.fleet.search.insertion import draw, next_blink, scan
from wardwise.fleet.search.tails import exchange_tails
from wardwise.fleet.search.undo import (
    count_absences,
    evaluate,
    forget,
    keep,
    keep_best,
    sort_in,
    take_back,
    touch,
)

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Bools, Floats, Ints


class Work(NamedTuple):
    """What an iteration reads and scribbles on.

    Parameters
    ----------
    random
        State of `draw` and `next_blink`.
    requests
        Nodes of all requests that may be moved.
    adjacent
        For each node the nearest requests, by distance: where strings are taken out.
    near
        For each node the chains of which requests are looked at when it is put
        back; no columns: all chains.
    is_fixed
        Nodes that stay where they are.
    is_closed
        Robots that stay at home.
    penalty
        What an unserved request costs.
    absences
        How often a request was left unserved (absence counters).
    saved_node, saved_length, saved_price, touched, is_touched
        Chains as they were before the iteration, and which ones changed.
    best_node, best_length
        Chains of the best result.
    pool, keys, was_absent
        Requests to put back, their sorting keys, and whether they were unserved before.
    seen, tally
        The mark of chains looked at for a request; number of touched chains and
        the newest mark.
    """

    random: Ints
    requests: Ints
    adjacent: Ints
    near: Ints
    is_fixed: Bools
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
    seen: Ints
    tally: Ints


class Strings(NamedTuple):
    """Sizes of the paper: mean number of removed stops, longest string, and three rates.

    ``split`` is the rate of strings with a kept middle, ``grow`` the rate at which
    that middle of one stop grows by one more. Places are passed over at a rate of
    ``1 - exp(1 / inverse_log_blink)``. Before each iteration ``num_exchanges`` exchanges
    of tails are tried; 0 where they cannot be made.
    """

    mean_removed: float = 10.0
    longest: float = 10.0
    split: float = 0.5
    grow: float = 0.01
    inverse_log_blink: float = 1.0 / np.log(1.0 - 0.01)
    num_exchanges: int = 0


@kernel
def anneal(packed, chains, weights, work, strings, state, temperature, is_emptying, iterations):  # type: ignore[no-untyped-def]
    """Run iterations at one temperature.

    With `is_emptying` the absence counters decide, and the first result without
    unserved requests ends the run.

    Parameters
    ----------
    state
        Cost, best cost, unserved requests, and how many the best may have; changed.

    Returns
    -------
    num_improvements, num_done
        How often the best was improved, its chains stand in `work`; iterations that ran.
    """
    num_improvements = 0
    for done in range(iterations):
        if strings.num_exchanges > 0 and not is_emptying:
            state[0] += exchange_tails(packed, chains, work, temperature, strings.num_exchanges)
            num_improvements += keep_best(chains, work, state)
        size = _ruin(packed, chains, work, strings)
        size = _add_absent(chains, work, size)
        _sort(packed, work, size)
        _recreate(packed, chains, weights, work, strings, size)
        cost, num_absent, harder = evaluate(chains, work, size, state[0])
        is_kept = cost < state[0] - temperature * np.log(1.0 - draw(work.random))
        if is_emptying:
            is_kept = harder < 0.0 or (is_kept and harder == 0.0)
            count_absences(chains, work, size)
        if not is_kept:
            take_back(packed, chains, work, size)
            continue
        state[0], state[2] = cost, num_absent
        forget(work)
        if is_emptying and num_absent == 0:
            keep(chains, work)
            return 1, done + 1
        if not is_emptying:
            num_improvements += keep_best(chains, work, state)
    return num_improvements, iterations


@inlined
def _ruin(packed, chains, work, strings):  # type: ignore[no-untyped-def]
    """Take strings out of chains near a random request; returns the size of the pool."""
    num_requests = len(work.requests)
    used = total = 0
    for robot in range(len(chains.length)):
        if chains.length[robot] > 2:
            used += 1
            total += chains.length[robot] - 2
    mean_length = total / max(used, 1)
    longest = min(strings.longest, mean_length)
    most = 4.0 * strings.mean_removed / (1.0 + longest) - 1.0
    num_strings = int(draw(work.random) * most + 1.0)
    seed = work.requests[int(draw(work.random) * num_requests)]
    size = ruined = 0
    for i in range(-1, work.adjacent.shape[1]):
        node = seed if i < 0 else work.adjacent[seed, i]
        robot = chains.owner[node]
        if robot == UNSERVED or work.is_touched[robot] or work.is_fixed[node]:
            continue
        before = size
        size = _remove_string(packed, chains, work, strings, robot, node, longest, size)
        ruined += size > before
        if ruined >= num_strings:
            break
    return size


@inlined
def _remove_string(packed, chains, work, strings, robot, node, longest, size):  # type: ignore[no-untyped-def]
    """Take a string with `node` in it out of a chain; returns the new size of the pool."""
    touch(chains, work, robot)
    before, length, nodes = size, chains.length[robot], work.saved_node
    num_stops = length - 2
    position = 1
    while nodes[robot, position] != node:
        position += 1
    count = int(draw(work.random) * min(float(num_stops), longest) + 1.0)
    kept = 0
    if 1 < count < num_stops and draw(work.random) < strings.split:
        kept = 1
        while count + kept < num_stops and draw(work.random) < strings.grow:
            kept += 1
    width = count + kept
    low, high = max(1, position - width + 1), min(position, length - 1 - width)
    start = low + int(draw(work.random) * (high - low + 1))
    gap = start + 1 + int(draw(work.random) * (count - 1)) if kept else start + width
    for k in range(start, start + width):
        if gap <= k < gap + kept and nodes[robot, k] != node:
            continue
        size = _pull(packed, chains, work, nodes[robot, k], size)
    kernels.close_gaps(chains, robot)
    if kernels.refresh(packed, chains, robot):
        return size
    # Without the triangle inequality the rest may be late: all that can goes.
    for k in range(1, length):
        if chains.owner[nodes[robot, k]] == robot:
            size = _pull(packed, chains, work, nodes[robot, k], size)
    kernels.close_gaps(chains, robot)
    if kernels.refresh(packed, chains, robot):
        return size
    kernels.set_chain(packed, chains, robot, nodes[robot], length)
    return before


@inlined
def _pull(packed, chains, work, node, size):  # type: ignore[no-untyped-def]
    """Disown a stop, of a transfer both, and put its request into the pool."""
    if node == 0 or work.is_fixed[node] or chains.owner[node] == UNSERVED:
        return size
    partner = packed.partner[node]
    chains.owner[node] = UNSERVED
    if partner >= 0:
        chains.owner[partner] = UNSERVED
        if packed.is_pickup[node]:
            node = partner
    work.pool[size] = node
    work.was_absent[size] = False
    return size + 1


@inlined
def _add_absent(chains, work, size):  # type: ignore[no-untyped-def]
    """Add the requests that were unserved before; returns the new size of the pool."""
    removed = size
    for node in work.requests:
        if chains.owner[node] != UNSERVED:
            continue
        is_new = True
        for i in range(removed):
            if work.pool[i] == node:
                is_new = False
                break
        if is_new:
            work.pool[size] = node
            work.was_absent[size] = True
            size += 1
    return size


@inlined
def _sort(packed, work, size):  # type: ignore[no-untyped-def]
    """Order the pool: random, by load, far, near, narrow, early or late windows."""
    # Weights 4, 4, 2, 1, 2, 2, 2 of 17: the paper's for time windows.
    pick = draw(work.random) * 17.0
    for i in range(size):
        node = work.pool[i]
        if pick < 4.0:
            key = draw(work.random)
        elif pick < 8.0:
            key = -packed.load[node]
        elif pick < 10.0:
            key = -packed.distance[0, packed.place[node]]
        elif pick < 11.0:
            key = packed.distance[0, packed.place[node]]
        elif pick < 13.0:
            key = packed.latest[node] - packed.earliest[node]
        elif pick < 15.0:
            key = packed.earliest[node]
        else:
            key = -packed.latest[node]
        sort_in(work, i, key)


@inlined
def _recreate(packed, chains, weights, work, strings, size):  # type: ignore[no-untyped-def]
    """Put the pool back, each request where it is cheapest."""
    if work.random[1] <= 0:
        next_blink(work.random, strings.inverse_log_blink)
    for i in range(size):
        u = work.pool[i]
        bound = work.penalty[u] if packed.is_money else np.inf
        best, best_robot = bound, -1
        best_position, best_drop, best_opens = -1, -1, False
        work.tally[1] += 1
        mark = work.tally[1]
        num_near = work.near.shape[1]
        for j in range(num_near + len(chains.length)):
            if j < num_near:
                robot = chains.owner[work.near[u, j]]
                if robot == UNSERVED:
                    continue
            else:
                robot = j - num_near
                if num_near > 0 and chains.length[robot] > 2:
                    continue
            if work.seen[robot] == mark or work.is_closed[robot]:
                continue
            work.seen[robot] = mark
            twin = packed.twin[robot]
            if chains.length[robot] == 2 and twin >= 0 and chains.length[twin] == 2:
                continue
            price, position, drop, opens = scan(
                packed, chains, weights, robot, u, best, work.random, strings.inverse_log_blink
            )
            if price < best:
                best, best_robot = price, robot
                best_position, best_drop, best_opens = position, drop, opens
        if best_robot >= 0:
            touch(chains, work, best_robot)
            kernels.put(packed, chains, best_robot, best_position, best_drop, best_opens, u)
