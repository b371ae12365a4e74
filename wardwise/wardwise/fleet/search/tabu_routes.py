"""Sums over the beginnings, the ends and short pieces of chains, for moves in constant time.

For position ``k`` of a chain, with time warp as in `segments`:

* before ``k``: the earliest departure from ``k`` and the time warp up to it;
* after ``k``: the latest start at ``k`` that adds no time warp behind it, and the
  time warp from ``k`` on if it starts by then. A segment of a chain always starts
  at the depot or ends there, so these two numbers say all that its duration ``D``,
  time warp ``W``, earliest ``E`` and latest ``L`` do: the departure is ``E + D - W``;
* loads of the trip up to ``k`` and from ``k`` on: delivered, collected, and the
  peak; and the overload of all trips that are over, or that are still to come.

A piece is a run of one, two or three stops of a trip, driven forward or backward:
a segment with all seven numbers, and what its chain is like without it.

The close of a window is `due`, not the tolerated latest start: where lateness is
allowed the search prices it as time warp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from wardwise.fleet.compiled import inlined, kernel

if TYPE_CHECKING:
    from wardwise.fleet.search.chains import Chains
    from wardwise.fleet.search.packed import Floats, Ints, Packed

# Fields of a position: what a move that keeps all up to it reads, then what one that keeps
# all from it on reads. Eight doubles are one line of the cache.
LEAVE, WARP_BEFORE, LEG, DELIVER_BEFORE, COLLECT_BEFORE, PEAK_BEFORE, OVER_BEFORE = range(7)
LATEST, WARP_AFTER, DELIVER_AFTER, COLLECT_AFTER, PEAK_AFTER, OVER_AFTER = range(8, 14)
NUM_FIELDS = 16
# Fields of a piece: the segment, then the chain without it: change in distance (that within a
# piece driven backward included), overload, time warp, and whether the robot stays at home.
DURATION, WARP, EARLY, LATE, DELIVER, COLLECT, PEAK = range(7)
TAKE, OVER_WITHOUT, WARP_WITHOUT, EMPTIES = range(7, 11)
NUM_PIECE_FIELDS = 12
# Pieces that start at a stop and go on along the chain, driven forward or backward.
ONE, TWO, THREE, TWO_BACK, THREE_BACK = range(5)
NUM_PIECES, LONGEST_PIECE = 5, 3
# Fields of a stop.
OPENS, CLOSES, PAUSE = range(3)
OVERLOAD, TIME_WARP = range(2)


class Sums(NamedTuple):
    """Sums of all chains.

    Parameters
    ----------
    record
        Over robots, positions and their fields.
    piece
        Over the node at which a piece starts, pieces and their fields.
    stop
        Over nodes: opening, close and service.
    total
        Over robots: overload and time warp.
    position
        Over nodes: where in its chain a stop is.
    """

    record: Floats
    piece: Floats
    stop: Floats
    total: Floats
    position: Ints


def sums_of(packed: Packed, chains: Chains) -> Sums:
    """Sums of given chains."""
    num_nodes, num_robots = len(packed.place), len(packed.capacity)
    sums = Sums(
        record=np.zeros((*chains.node.shape, NUM_FIELDS)),
        piece=np.zeros((num_nodes, NUM_PIECES, NUM_PIECE_FIELDS)),
        stop=np.zeros((num_nodes, 3)),
        total=np.zeros((num_robots, 2)),
        position=np.zeros(num_nodes, dtype=np.int64),
    )
    sums.stop[:, OPENS] = packed.earliest
    sums.stop[:, CLOSES] = np.maximum(packed.due, packed.earliest)
    sums.stop[:, PAUSE] = packed.service
    single = sums.piece[:, ONE]
    single[:, DURATION] = packed.service
    single[:, EARLY], single[:, LATE] = sums.stop[:, OPENS], sums.stop[:, CLOSES]
    single[:, DELIVER] = packed.at_depot
    single[:, COLLECT] = packed.load - packed.at_depot
    single[:, PEAK] = packed.load
    add_up_all(packed, chains, sums)
    return sums


@njit(cache=True)
def add_up_all(packed, chains, sums):  # type: ignore[no-untyped-def]
    """Recompute the sums of every chain."""
    for robot in range(len(chains.length)):
        add_up(packed, chains, sums, robot)


@kernel
def add_up(packed, chains, sums, robot):  # type: ignore[no-untyped-def]
    """Recompute the sums of one chain."""
    _add_up_rows(packed, chains, sums, robot)
    last = chains.length[robot] - 1
    sums.total[robot, OVERLOAD] = sums.record[robot, 0, OVER_AFTER]
    sums.total[robot, TIME_WARP] = sums.record[robot, last, WARP_BEFORE]
    for k in range(1, last):
        if chains.node[robot, k] != 0:
            sums.position[chains.node[robot, k]] = k
            _add_up_pieces(packed, chains, sums, robot, k)


@inlined
def window_at(packed, sums, robot, node, position):  # type: ignore[no-untyped-def]
    """Opening, close and pause of a position; the depot's are those of the shift."""
    if node != 0:
        return sums.stop[node, OPENS], sums.stop[node, CLOSES], sums.stop[node, PAUSE]
    if position == 0:
        return packed.start[robot], packed.end[robot], 0.0
    return 0.0, packed.end[robot], packed.reload


@inlined
def append(packed, sums, robot, node, position, before, a, i, after, b, j, travel):  # type: ignore[no-untyped-def]
    """Row `j` of chain `b` in `after`: the sums before row `i` of `a`, and one more node."""
    opens, closes, pause = window_at(packed, sums, robot, node, position)
    start = max(before[a, i, LEAVE] + travel, opens)
    after[b, j, WARP_BEFORE] = before[a, i, WARP_BEFORE] + max(start - closes, 0.0)
    after[b, j, LEAVE] = min(start, closes) + pause
    deliver, collect = before[a, i, DELIVER_BEFORE], before[a, i, COLLECT_BEFORE]
    peak, over = before[a, i, PEAK_BEFORE], before[a, i, OVER_BEFORE]
    if node == 0:
        over += max(peak - packed.capacity[robot], 0.0)
        deliver = collect = peak = 0.0
    else:
        more = sums.piece[node, ONE, DELIVER]
        peak = max(peak + more, collect + sums.piece[node, ONE, PEAK])
        deliver += more
        collect += sums.piece[node, ONE, COLLECT]
    after[b, j, DELIVER_BEFORE], after[b, j, COLLECT_BEFORE] = deliver, collect
    after[b, j, PEAK_BEFORE], after[b, j, OVER_BEFORE] = peak, over


@inlined
def prepend(packed, sums, robot, node, position, after, a, i, before, b, j, travel):  # type: ignore[no-untyped-def]
    """Row `j` of chain `b` in `before`: one more node, and the sums after row `i` of `a`."""
    opens, closes, pause = window_at(packed, sums, robot, node, position)
    latest = after[a, i, LATEST] - travel - pause
    before[b, j, WARP_AFTER] = after[a, i, WARP_AFTER] + max(opens - latest, 0.0)
    before[b, j, LATEST] = min(max(latest, opens), closes)
    deliver, collect = after[a, i, DELIVER_AFTER], after[a, i, COLLECT_AFTER]
    peak, over = after[a, i, PEAK_AFTER], after[a, i, OVER_AFTER]
    if node == 0:
        over += max(peak - packed.capacity[robot], 0.0)
        deliver = collect = peak = 0.0
    else:
        more = sums.piece[node, ONE, COLLECT]
        peak = max(sums.piece[node, ONE, PEAK] + deliver, more + peak)
        deliver += sums.piece[node, ONE, DELIVER]
        collect += more
    before[b, j, DELIVER_AFTER], before[b, j, COLLECT_AFTER] = deliver, collect
    before[b, j, PEAK_AFTER], before[b, j, OVER_AFTER] = peak, over


@inlined
def _add_up_rows(packed, chains, sums, robot):  # type: ignore[no-untyped-def]
    """Sums before and after every position of a chain."""
    node, place, record = chains.node, chains.place, sums.record
    last = chains.length[robot] - 1
    for field in range(NUM_FIELDS):
        record[robot, 0, field] = record[robot, last, field] = 0.0
    record[robot, 0, LEAVE], record[robot, last, LATEST] = packed.start[robot], packed.end[robot]
    for k in range(1, last + 1):
        travel = packed.travel[place[robot, k - 1], place[robot, k]] if last > 1 else 0.0
        append(
            packed, sums, robot, node[robot, k], k, record, robot, k - 1, record, robot, k, travel
        )
    for k in range(last - 1, -1, -1):
        travel = packed.travel[place[robot, k], place[robot, k + 1]] if last > 1 else 0.0
        prepend(
            packed, sums, robot, node[robot, k], k, record, robot, k + 1, record, robot, k, travel
        )
        record[robot, k, LEG] = chains.leg[robot, k]


@inlined
def _add_up_pieces(packed, chains, sums, robot, k):  # type: ignore[no-untyped-def]
    """Pieces that start at position `k`; one that would reach beyond the trip is infinite."""
    piece, node, place = sums.piece, chains.node, chains.place
    head = node[robot, k]
    back = 0.0  # how much longer the piece is when driven backward
    for size in range(1, LONGEST_PIECE + 1):
        end = k + size - 1
        tail = node[robot, end] if end < chains.length[robot] else 0
        forward, backward = size - 1, size + 1
        if tail == 0:
            for longer in range(size, LONGEST_PIECE + 1):
                piece[head, longer - 1, TAKE] = piece[head, longer + 1, TAKE] = np.inf
            return
        if size > 1:
            here, there = place[robot, end - 1], place[robot, end]
            join_pieces(
                piece, head, forward - 1, tail, ONE, packed.travel[here, there], head, forward
            )
            join_pieces(
                piece, tail, ONE, head, backward - 1 if size > 2 else ONE,
                packed.travel[there, here], head, backward,
            )  # fmt: skip
            back += packed.distance[there, here] - chains.leg[robot, end - 1]
        i, j, metres, travel, is_idle = link(packed, chains, robot, k - 1, robot, end + 1)
        metres -= chains.leg[robot, k - 1] + chains.leg[robot, end]
        over, warp = meet(
            sums.record, robot, i, sums.record, robot, j, travel, packed.capacity[robot]
        )
        for variant in (forward, backward) if size > 1 else (forward, forward):
            piece[head, variant, TAKE] = metres + (back if variant > THREE else 0.0)
            piece[head, variant, OVER_WITHOUT] = 0.0 if is_idle else over
            piece[head, variant, WARP_WITHOUT] = 0.0 if is_idle else warp
            piece[head, variant, EMPTIES] = 1.0 if is_idle else 0.0


@inlined
def join_pieces(piece, a, variant_a, b, variant_b, travel, target, variant):  # type: ignore[no-untyped-def]
    """Sum of two segments over a leg: `segments.concatenate` on rows of `Sums.piece`."""
    early, late = piece[a, variant_a, EARLY], piece[a, variant_a, LATE]
    early_b, late_b = piece[b, variant_b, EARLY], piece[b, variant_b, LATE]
    gap = piece[a, variant_a, DURATION] - piece[a, variant_a, WARP] + travel
    wait = max(early_b - gap - late, 0.0)
    warp = max(early + gap - late_b, 0.0)
    collect, peak = piece[a, variant_a, COLLECT], piece[a, variant_a, PEAK]
    deliver_b = piece[b, variant_b, DELIVER]
    duration = piece[a, variant_a, DURATION] + piece[b, variant_b, DURATION] + travel + wait
    piece[target, variant, DURATION] = duration
    piece[target, variant, WARP] = piece[a, variant_a, WARP] + piece[b, variant_b, WARP] + warp
    piece[target, variant, EARLY] = max(early_b - gap, early) - wait
    piece[target, variant, LATE] = min(late_b - gap, late) + warp
    piece[target, variant, DELIVER] = piece[a, variant_a, DELIVER] + deliver_b
    piece[target, variant, COLLECT] = collect + piece[b, variant_b, COLLECT]
    piece[target, variant, PEAK] = max(peak + deliver_b, collect + piece[b, variant_b, PEAK])


@inlined
def link(packed, chains, a, i, b, j):  # type: ignore[no-untyped-def]
    """How position `i` of chain `a` goes on to position `j` of chain `b`.

    A trip without stops in between vanishes.

    Returns
    -------
    i, j, metres, travel, is_idle
        Positions that meet, the length of the leg (zero where a trip vanishes: the
        leg that is left has been there before), its seconds, and whether no
        stop is left at all.
    """
    if chains.node[a, i] != 0 or chains.node[b, j] != 0:
        here, there = chains.place[a, i], chains.place[b, j]
        return i, j, packed.distance[here, there], packed.travel[here, there], False
    if j < chains.length[b] - 1:
        return i, j + 1, 0.0, packed.travel[chains.place[a, i], chains.place[b, j + 1]], False
    if i > 0:
        return i - 1, j, 0.0, packed.travel[chains.place[a, i - 1], chains.place[b, j]], False
    return i, j, 0.0, 0.0, True


@inlined
def meet(before, a, i, after, b, j, travel, capacity):  # type: ignore[no-untyped-def]
    """Overload and time warp of what stands before row `i` of `a`, then from row `j` of `b` on."""
    warp = before[a, i, WARP_BEFORE] + after[b, j, WARP_AFTER]
    warp += max(before[a, i, LEAVE] + travel - after[b, j, LATEST], 0.0)
    peak = max(
        before[a, i, PEAK_BEFORE] + after[b, j, DELIVER_AFTER],
        before[a, i, COLLECT_BEFORE] + after[b, j, PEAK_AFTER],
    )
    over = before[a, i, OVER_BEFORE] + after[b, j, OVER_AFTER]
    return over + max(peak - capacity, 0.0), warp


@inlined
def warp_with(before, a, i, piece, head, variant, after, b, j, to_piece, from_piece):  # type: ignore[no-untyped-def]
    """Time warp with a piece in between; the legs to it and from it in seconds."""
    late = piece[head, variant, LATE]
    start = before[a, i, LEAVE] + to_piece
    warp = before[a, i, WARP_BEFORE] + piece[head, variant, WARP] + max(start - late, 0.0)
    start = max(min(start, late), piece[head, variant, EARLY])
    leave = start + piece[head, variant, DURATION] - piece[head, variant, WARP]
    warp += max(leave + from_piece - after[b, j, LATEST], 0.0)
    return warp + after[b, j, WARP_AFTER]


@inlined
def over_with(before, a, i, piece, head, variant, after, b, j, capacity):  # type: ignore[no-untyped-def]
    """Overload with a piece in between."""
    deliver = piece[head, variant, DELIVER]
    peak = max(
        before[a, i, PEAK_BEFORE] + deliver,
        before[a, i, COLLECT_BEFORE] + piece[head, variant, PEAK],
    )
    collect = before[a, i, COLLECT_BEFORE] + piece[head, variant, COLLECT]
    peak = max(peak + after[b, j, DELIVER_AFTER], collect + after[b, j, PEAK_AFTER])
    over = before[a, i, OVER_BEFORE] + after[b, j, OVER_AFTER]
    return over + max(peak - capacity, 0.0)
