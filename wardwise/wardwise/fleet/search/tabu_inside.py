"""Moves within one chain, each in a constant number of joins.

* Or-opt: a piece of one, two or three stops goes elsewhere in the chain, driven
  forward or backward. The sums before (after) the gap grow stop by stop along
  the chain without the piece;
* 2-opt: a run of stops of one trip is driven backward; its sum grows likewise;
* a trip is split by a visit to the depot, two trips become one.

They change no (request, robot) and are proposed only where they improve.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import expanded, kernel
from wardwise.fleet.search.tabu_memory import (
    EPSILON,
    EVALUATED,
    MERGE,
    PER_LOAD,
    PER_SECOND,
    REVERSE,
    SHIFT,
    SPLIT,
    WEIGHED,
    consider,
    note,
)
from wardwise.fleet.search.tabu_routes import (
    LEG,
    LONGEST_PIECE,
    NUM_FIELDS,
    ONE,
    OVERLOAD,
    TAKE,
    THREE,
    TIME_WARP,
    TWO,
    append,
    join_pieces,
    meet,
    over_with,
    prepend,
    warp_with,
)


@kernel
def scan_inside(packed, chains, sums, memory, a, best):  # type: ignore[no-untyped-def]
    """Propose the best improving move within chain `a`; returns the cost to beat.

    The chain stays dirty while there is any, allowed or not.
    """
    memory.is_dirty[a] = False
    for k in range(1, chains.length[a] - 1):
        if chains.node[a, k] == 0:
            best = _scan_merge(packed, chains, sums, memory, a, k, best)
            continue
        head = chains.node[a, k]
        for size in range(1, LONGEST_PIECE + 1):
            is_trip = chains.node[a, k - 1] == 0 and chains.node[a, k + size] == 0
            if sums.piece[head, size - 1, TAKE] == np.inf or is_trip:
                break
            best = _scan_later(packed, chains, sums, memory, a, k, size, best)
            best = _scan_earlier(packed, chains, sums, memory, a, k, size, best)
        best = _scan_reverse(packed, chains, sums, memory, a, k, best)
        best = _scan_split(packed, chains, sums, memory, a, k, best)
    return best


@expanded
def _propose(packed, chains, sums, memory, a, best, metres, over, warp):  # type: ignore[no-untyped-def]
    """Weigh the noted move, of which distance change, overload and time warp are known."""
    memory.tally[EVALUATED] += 1
    memory.tally[WEIGHED] += 1
    over -= sums.total[a, OVERLOAD]
    late = warp - sums.total[a, TIME_WARP]
    cost = packed.metre_price * metres + memory.level[PER_LOAD] * over
    cost += memory.level[PER_SECOND] * late
    if cost > -EPSILON:
        return best
    memory.is_dirty[a] = True
    if cost > best:
        return best
    return consider(packed, chains, sums, memory, best, cost, metres, over, late, 0.0)


# fmt: off
@expanded
def _scan_gap(  # type: ignore[no-untyped-def]
    packed, chains, sums, memory, a, k, size, before, i_before, i, after, j_after, j, p, best
):
    # fmt: on
    """Propose a piece, in both directions, between a row of `before` and a row of `after`."""
    head, piece = chains.node[a, k], sums.piece
    bound = min(best, -EPSILON) + memory.penalty[a]
    for is_backward in range(2 if size > 1 else 1):
        variant = size + 1 if is_backward else size - 1
        first, last = chains.place[a, k], chains.place[a, k + size - 1]
        if is_backward:
            first, last = last, first
        here, there = chains.place[a, p], chains.place[a, p + 1]
        metres = packed.distance[here, first] + packed.distance[last, there]
        metres += piece[head, variant, TAKE] - chains.leg[a, p]
        if packed.metre_price * metres > bound:
            memory.tally[EVALUATED] += 1
            continue
        warp = warp_with(
            before, i_before, i, piece, head, variant, after, j_after, j,
            packed.travel[here, first], packed.travel[last, there],
        )  # fmt: skip
        over = over_with(
            before, i_before, i, piece, head, variant, after, j_after, j, packed.capacity[a]
        )
        note(memory.trial, SHIFT, a, k, size, is_backward, a, p)
        best = _propose(packed, chains, sums, memory, a, best, metres, over, warp)
    return best


@expanded
def _scan_later(packed, chains, sums, memory, a, k, size, best):  # type: ignore[no-untyped-def]
    """Propose the best gap behind a piece."""
    record, run = sums.record, memory.run
    for field in range(NUM_FIELDS):
        run[0, 0, field] = record[a, k - 1, field]
    here = chains.place[a, k - 1]
    for p in range(k + size, chains.length[a] - 1):
        there = chains.place[a, p]
        append(
            packed, sums, a, chains.node[a, p], p, run, 0, 0, run, 0, 0, packed.travel[here, there]
        )
        here = there
        best = _scan_gap(
            packed, chains, sums, memory, a, k, size, run, 0, 0, record, a, p + 1, p,
            best,
        )  # fmt: skip
    return best


@expanded
def _scan_earlier(packed, chains, sums, memory, a, k, size, best):  # type: ignore[no-untyped-def]
    """Propose the best gap in front of a piece."""
    record, run = sums.record, memory.run
    for field in range(NUM_FIELDS):
        run[0, 0, field] = record[a, k + size, field]
    there = chains.place[a, k + size]
    for p in range(k - 2, -1, -1):
        here = chains.place[a, p + 1]
        prepend(
            packed, sums, a, chains.node[a, p + 1], p + 1, run, 0, 0, run, 0, 0,
            packed.travel[here, there],
        )  # fmt: skip
        there = here
        best = _scan_gap(
            packed, chains, sums, memory, a, k, size, record, a, p, run, 0, 0, p, best
        )
    return best


@expanded
def _scan_reverse(packed, chains, sums, memory, a, k, best):  # type: ignore[no-untyped-def]
    """Propose the best run of stops from position `k` on to drive backward."""
    piece, place = sums.piece, chains.place
    # The row of the depot is free: nothing starts there.
    head, variant, target = chains.node[a, k], ONE, TWO
    longer = 0.0
    for end in range(k + 1, chains.length[a] - 1):
        node = chains.node[a, end]
        if node == 0:
            break
        here, there = place[a, end - 1], place[a, end]
        join_pieces(piece, node, ONE, head, variant, packed.travel[there, here], 0, target)
        head, variant, target = 0, target, THREE if target == TWO else TWO
        longer += packed.distance[there, here] - chains.leg[a, end - 1]
        first, last = place[a, k - 1], place[a, end + 1]
        metres = packed.distance[first, there] + packed.distance[place[a, k], last] + longer
        metres -= chains.leg[a, k - 1] + chains.leg[a, end]
        if packed.metre_price * metres > min(best, -EPSILON) + memory.penalty[a]:
            memory.tally[EVALUATED] += 1
            continue
        warp = warp_with(
            sums.record, a, k - 1, piece, 0, variant, sums.record, a, end + 1,
            packed.travel[first, there], packed.travel[place[a, k], last],
        )  # fmt: skip
        over = over_with(
            sums.record, a, k - 1, piece, 0, variant, sums.record, a, end + 1, packed.capacity[a]
        )
        note(memory.trial, REVERSE, a, k, end + 1 - k, 1, a, 0)
        best = _propose(packed, chains, sums, memory, a, best, metres, over, warp)
    return best


@expanded
def _scan_merge(packed, chains, sums, memory, a, k, best):  # type: ignore[no-untyped-def]
    """Propose to pass the depot at position `k` by."""
    here, there = chains.place[a, k - 1], chains.place[a, k + 1]
    metres = packed.distance[here, there] - sums.record[a, k - 1, LEG] - sums.record[a, k, LEG]
    over, warp = meet(
        sums.record, a, k - 1, sums.record, a, k + 1, packed.travel[here, there], packed.capacity[a]
    )
    note(memory.trial, MERGE, a, k, 0, 0, a, 0)
    return _propose(packed, chains, sums, memory, a, best, metres, over, warp)


@expanded
def _scan_split(packed, chains, sums, memory, a, k, best):  # type: ignore[no-untyped-def]
    """Propose to visit the depot between position `k` and a stop behind it."""
    most = packed.max_trips[a]
    if most == 1 or chains.node[a, k + 1] == 0:
        return best
    num_trips = 0
    for position in range(chains.length[a] - 1):
        num_trips += chains.node[a, position] == 0
    if num_trips >= most:
        return best
    run, here, there = memory.run, chains.place[a, k], chains.place[a, k + 1]
    depot = packed.place[0]
    append(packed, sums, a, 0, k + 1, sums.record, a, k, run, 0, 0, packed.travel[here, depot])
    over, warp = meet(
        run, 0, 0, sums.record, a, k + 1, packed.travel[depot, there], packed.capacity[a]
    )
    metres = packed.distance[here, depot] + packed.distance[depot, there]
    metres -= sums.record[a, k, LEG]
    note(memory.trial, SPLIT, a, k, 1, 0, a, 0)
    return _propose(packed, chains, sums, memory, a, best, metres, over, warp)
