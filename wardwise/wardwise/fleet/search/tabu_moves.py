"""All moves of one request between chains, each in a constant number of joins.

For every gap behind one of the requests that are best visited before ``u``, or
in front of one that is best visited after it:

* relocate: ``u`` goes there, or a piece of two or three stops that begins
  (ends) with ``u``, driven forward or backward;
* swap: ``u`` and the stop behind (in front of) that request change places;
* 2-opt*: the chain goes on with ``u`` and what follows, and the rest of it
  comes behind the predecessor of ``u``; between robots that are alike.

Single stops and tails also go behind the depot of every trip, and to the first
idle robot of every kind. A move whose distance alone is too long to win is dropped
there; for all others overload and time warp are exact.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search.tabu_memory import (
    AFTER,
    BEFORE,
    EVALUATED,
    LENGTH,
    MOVE,
    PER_LOAD,
    PER_SECOND,
    POSITION,
    ROBOT,
    SPARE,
    SWAP,
    TAILS,
    WEIGHED,
    consider,
    note,
)
from wardwise.fleet.search.tabu_routes import (
    EMPTIES,
    LEG,
    NUM_PIECES,
    ONE,
    OVER_WITHOUT,
    OVERLOAD,
    TAKE,
    TIME_WARP,
    TWO_BACK,
    WARP_WITHOUT,
    link,
    meet,
    over_with,
    warp_with,
)


@kernel
def list_fronts(packed, chains, memory):  # type: ignore[no-untyped-def]
    """Note the gaps behind depots; returns their number."""
    size = 0
    for robot in range(len(chains.length)):
        last, twin = chains.length[robot] - 1, packed.twin[robot]
        if memory.is_closed[robot] or (
            last == 1 and twin >= 0 and chains.length[twin] == 2 and not memory.is_closed[twin]
        ):
            continue
        for k in range(last):
            if chains.node[robot, k] == 0:
                memory.front[size, ROBOT], memory.front[size, POSITION] = robot, k
                size += 1
    return size


@kernel
def scan_request(packed, chains, sums, memory, num_fronts, a, i, best):  # type: ignore[no-untyped-def]
    """Propose the best move of the stop at position `i` of chain `a`; returns the cost to beat."""
    for side in range(2):
        num_gaps, num_all = _gather(packed, chains, sums, memory, a, i, side, num_fronts)
        for variant in range(NUM_PIECES):
            is_backward = variant >= TWO_BACK
            size = variant - 1 if is_backward else variant + 1
            # Behind a gap's first stop the piece begins with ours, before its last it ends with it.
            start = i if (side == 0) != is_backward else i + 1 - size
            if start < 1:
                continue
            head = chains.node[a, start]
            if head == 0 or sums.piece[head, variant, TAKE] == np.inf:
                continue
            count = num_all if variant == ONE else num_gaps
            memory.tally[EVALUATED] += count
            best = _scan_piece(
                packed, chains, sums, memory, a, start, size, variant, side, count, best
            )
        memory.tally[EVALUATED] += num_gaps
        best = _scan_swaps(packed, chains, sums, memory, a, i, side, num_gaps, best)
        if side == 0:
            memory.tally[EVALUATED] += num_all
            best = _scan_tails(packed, chains, sums, memory, a, i, num_all, best)
    return best


@inlined
def _gather(packed, chains, sums, memory, a, i, side, num_fronts):  # type: ignore[no-untyped-def]
    """Note gaps of other chains near the stop; returns their number without and with fronts.

    On the first side these are behind what is best visited before the stop and behind
    depots, on the second in front of what is best visited after it.
    """
    u = chains.node[a, i]
    near = memory.near_after if side else memory.near_before
    width = near.shape[1]
    gap, size, num_near = memory.gap, 0, 0
    for c in range(width if side else width + num_fronts):
        if c < width:
            v = near[u, c]
            b, p = chains.owner[v], sums.position[v] - side
        else:
            b, p = memory.front[c - width, ROBOT], memory.front[c - width, POSITION]
        if b == a or b < 0:
            continue
        gap[side, size, ROBOT], gap[side, size, POSITION] = b, p
        gap[side, size, BEFORE], gap[side, size, AFTER] = chains.place[b, p], chains.place[b, p + 1]
        memory.gap_value[side, size, LENGTH] = sums.record[b, p, LEG]
        opening = packed.robot_price if chains.length[b] == 2 else 0.0
        memory.gap_value[side, size, SPARE] = memory.penalty[b] - opening
        size += 1
        num_near = size if c < width else num_near
    return num_near, size


# fmt: off
@inlined
def _scan_piece(  # type: ignore[no-untyped-def]
    packed, chains, sums, memory, a, start, size, variant, side, count, best
):
    # fmt: on
    """Propose the best gap for one piece."""
    record, piece, head = sums.record, sums.piece, chains.node[a, start]
    gap, value = memory.gap, memory.gap_value
    first, last = chains.place[a, start], chains.place[a, start + size - 1]
    if variant >= TWO_BACK:
        first, last = last, first
    per_load, per_second = memory.level[PER_LOAD], memory.level[PER_SECOND]
    per_metre = packed.metre_price
    take = piece[head, variant, TAKE]
    over_a = piece[head, variant, OVER_WITHOUT] - sums.total[a, OVERLOAD]
    late_a = piece[head, variant, WARP_WITHOUT] - sums.total[a, TIME_WARP]
    used_a = -piece[head, variant, EMPTIES]
    base = per_load * over_a + per_second * late_a + packed.robot_price * used_a
    for c in range(count):
        before, after = gap[side, c, BEFORE], gap[side, c, AFTER]
        metres = packed.distance_to[first, before] + packed.distance[last, after]
        metres += take - value[side, c, LENGTH]
        if per_metre * metres + base - value[side, c, SPARE] > best:
            continue
        memory.tally[WEIGHED] += 1
        b, p = gap[side, c, ROBOT], gap[side, c, POSITION]
        late = late_a - sums.total[b, TIME_WARP] + warp_with(
            record, b, p, piece, head, variant, record, b, p + 1,
            packed.travel_to[first, before], packed.travel[last, after],
        )  # fmt: skip
        over = over_a - sums.total[b, OVERLOAD] + over_with(
            record, b, p, piece, head, variant, record, b, p + 1, packed.capacity[b]
        )
        used = used_a + (1.0 if chains.length[b] == 2 else 0.0)
        cost = per_metre * metres + per_load * over + per_second * late + packed.robot_price * used
        if cost <= best:
            note(memory.trial, MOVE, a, start, size, int(variant >= TWO_BACK), b, p)
            best = consider(
                packed, chains, sums, memory, best, cost, metres, over, late, used
            )
    return best


@inlined
def _scan_swaps(packed, chains, sums, memory, a, i, side, count, best):  # type: ignore[no-untyped-def]
    """Propose the best stop for position `i` of chain `a` to change places with."""
    record, piece, gap = sums.record, sums.piece, memory.gap
    u, here = chains.node[a, i], chains.place[a, i]
    before_u, after_u = chains.place[a, i - 1], chains.place[a, i + 1]
    leg_a = record[a, i - 1, LEG] + record[a, i, LEG]
    per_load, per_second = memory.level[PER_LOAD], memory.level[PER_SECOND]
    per_metre = packed.metre_price
    for c in range(count):
        b, q = gap[side, c, ROBOT], gap[side, c, POSITION] + 1 - side
        x = chains.node[b, q]
        if x == 0:
            continue
        there = chains.place[b, q]
        before, after = chains.place[b, q - 1], chains.place[b, q + 1]
        metres = packed.distance_to[here, before] + packed.distance[here, after] - leg_a
        metres += packed.distance_to[there, before_u] + packed.distance[there, after_u]
        metres -= record[b, q - 1, LEG] + record[b, q, LEG]
        if per_metre * metres - memory.penalty[a] - memory.penalty[b] > best:
            continue
        memory.tally[WEIGHED] += 1
        late = -sums.total[a, TIME_WARP] - sums.total[b, TIME_WARP]
        late += warp_with(
            record, a, i - 1, piece, x, ONE, record, a, i + 1,
            packed.travel_to[there, before_u], packed.travel[there, after_u],
        )  # fmt: skip
        late += warp_with(
            record, b, q - 1, piece, u, ONE, record, b, q + 1,
            packed.travel_to[here, before], packed.travel[here, after],
        )  # fmt: skip
        over = -sums.total[a, OVERLOAD] - sums.total[b, OVERLOAD]
        over += over_with(
            record, a, i - 1, piece, x, ONE, record, a, i + 1, packed.capacity[a]
        )
        over += over_with(
            record, b, q - 1, piece, u, ONE, record, b, q + 1, packed.capacity[b]
        )
        cost = per_metre * metres + per_load * over + per_second * late
        if cost <= best:
            note(memory.trial, SWAP, a, i, 1, 0, b, q)
            best = consider(
                packed, chains, sums, memory, best, cost, metres, over, late, 0.0
            )
    return best


@inlined
def _scan_tails(packed, chains, sums, memory, a, i, count, best):  # type: ignore[no-untyped-def]
    """Propose the best predecessor for a stop and all that follow it in its chain."""
    record, gap = sums.record, memory.gap
    here = chains.place[a, i]
    per_load, per_second = memory.level[PER_LOAD], memory.level[PER_SECOND]
    per_metre = packed.metre_price
    for c in range(count):
        b, p = gap[0, c, ROBOT], gap[0, c, POSITION]
        if memory.kind[a] != memory.kind[b]:
            continue
        before = gap[0, c, BEFORE]
        i_a, j_b, metres, travel, is_idle = link(packed, chains, a, i - 1, b, p + 1)
        metres += packed.distance_to[here, before] - memory.gap_value[0, c, LENGTH]
        metres -= record[a, i - 1, LEG]
        used = (1.0 if chains.length[b] == 2 else 0.0) - (1.0 if is_idle else 0.0)
        price = per_metre * metres + packed.robot_price * used
        if price - memory.penalty[a] - memory.penalty[b] > best:
            continue
        memory.tally[WEIGHED] += 1
        over, late = meet(
            record, b, p, record, a, i, packed.travel_to[here, before], packed.capacity[a]
        )
        if not is_idle:
            over_a, late_a = meet(record, a, i_a, record, b, j_b, travel, packed.capacity[a])
            over, late = over + over_a, late + late_a
        over -= sums.total[a, OVERLOAD] + sums.total[b, OVERLOAD]
        late -= sums.total[a, TIME_WARP] + sums.total[b, TIME_WARP]
        cost = price + per_load * over + per_second * late
        if cost <= best:
            note(memory.trial, TAILS, a, i, 0, 0, b, p)
            best = consider(
                packed, chains, sums, memory, best, cost, metres, over, late, used
            )
    return best
