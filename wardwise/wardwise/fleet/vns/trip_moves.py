"""Moves of whole trips and of stations.

A trip moves to another robot (which pays where that sends a robot home or makes somebody
less late), joins another trip of the same or another robot, or becomes two. Visits of
stations change to another station or another leg; useless ones go after every move
(`stations.tidy`).
"""

from __future__ import annotations

from wardwise.fleet.compiled import kernel
from wardwise.fleet.vns.edits import (
    append,
    append_vertex,
    attempt,
    propose,
    propose_first,
    try_shorter,
)

# Stations that are tried on another leg.
NUM_ELSEWHERE = 3


@kernel
def improve_stations(m, s, w, e, k):  # type: ignore[no-untyped-def]
    """Make the first change of one station that shortens route `k`; whether there was one."""
    near = m.near_station.shape[2]
    for p in range(1, s.length[k] - 1):
        if s.node[k, p] <= m.num_requests:
            continue
        for q in range(s.length[k] - 1):
            # Instead of the visit at `p`, one on the leg behind `q`.
            if q == p:
                continue
            i, j = s.node[k, q], s.node[k, p + 1 if q == p - 1 else q + 1]
            for a in range(near if q == p - 1 else min(near, NUM_ELSEWHERE)):
                f = m.near_station[i, j, a]
                if f in (i, j) or (q == p - 1 and f == s.node[k, p]):
                    continue
                if q < p:
                    propose_first(e, k, q, k, p + 1)
                    append_vertex(e, f)
                    append(s, e, k, q + 1, p)
                else:
                    propose_first(e, k, p - 1, k, q + 1)
                    append(s, e, k, p + 1, q + 1)
                    append_vertex(e, f)
                if try_shorter(m, s, w, e):
                    return True
    return False


@kernel
def improve_trips(m, s, w, e, k):  # type: ignore[no-untyped-def]
    """Make the first move of a trip of route `k` that saves money; whether there was one."""
    if _split(m, s, w, e, k):
        return True
    for end in range(1, s.length[k]):
        if s.node[k, end] != 0:
            continue
        start = end - 1
        while s.node[k, start] != 0:
            start -= 1
        if end > start + 1:
            for other in range(len(s.length)):
                if w.is_closed[other] or (s.length[other] == 2 and not m.is_soft):
                    continue
                if _put_trip(m, s, w, e, k, start, end, other):
                    return True
    return False


@kernel
def _put_trip(m, s, w, e, k, start, end, other):  # type: ignore[no-untyped-def]
    """Try a trip beside the trips of a route: as one of them, or joined to one of them."""
    last = s.length[other] - 1
    for q in range(last + 1):
        if s.node[other, q] != 0:
            continue
        if other == k:
            if q < start or q > end:
                for behind in (q, q - 1):
                    if _join_own(m, s, w, e, k, start, end, behind):
                        return True
            continue
        if last > 1:
            for behind in (q, q - 1):
                if 0 <= behind < last:
                    _take_out(e, s, k, start, end)
                    propose(e, other, behind, other, behind + 1)
                    append(s, e, k, start + 1, end)
                    if try_shorter(m, s, w, e):
                        return True
        # Apart from robots only times change, so metres cannot tell.
        if m.is_soft or (m.robot_price > 0.0 and s.length[k] == end - start + 1):
            _take_out(e, s, k, start, end)
            # The trip and a visit of the depot; of an idle robot it is the only trip.
            if last == 1:
                propose(e, other, 0, other, 1)
            else:
                propose(e, other, q, other, min(q + 1, last))
            if q == last:
                append(s, e, k, start + 1, end)
            else:
                append(s, e, k, start + 1, end + (last > 1))
            if attempt(m, s, w, e):
                return True
    return False


@kernel
def _take_out(e, s, k, start, end):  # type: ignore[no-untyped-def]
    """Propose route `k` without the trip between two visits of the depot."""
    if end < s.length[k] - 1:
        propose_first(e, k, start, k, end + 1)
    else:
        propose_first(e, k, max(start - 1, 0), k, end)


@kernel
def _join_own(m, s, w, e, k, start, end, behind):  # type: ignore[no-untyped-def]
    """Try a trip behind a position of another trip of its route."""
    last = s.length[k] - 1
    if not 0 <= behind < last or start <= behind <= end:
        return False
    if behind > end:
        propose_first(e, k, start, k, behind + 1)
        append(s, e, k, end + 1, behind + 1)
        append(s, e, k, start + 1, end)
    else:
        kept = start + 1 if end < last else start
        propose_first(e, k, behind, k, end + 1 if end < last else end)
        append(s, e, k, start + 1, end)
        if behind + 1 < kept:
            append(s, e, k, behind + 1, kept)
    return try_shorter(m, s, w, e)


@kernel
def _split(m, s, w, e, k):  # type: ignore[no-untyped-def]
    """Try the depot in place of a station or, where that can make a start earlier, on a leg."""
    if s.trips[k] >= m.max_trips[k] or s.length[k] == 2:
        return False
    for p in range(1, s.length[k] - 1):
        if s.node[k, p] > m.num_requests:
            propose_first(e, k, p - 1, k, p + 1)
            append_vertex(e, 0)
            if try_shorter(m, s, w, e):
                return True
        if m.is_soft and s.node[k, p] > 0 and s.node[k, p + 1] > 0:
            propose_first(e, k, p, k, p + 1)
            append_vertex(e, 0)
            if attempt(m, s, w, e):
                return True
    return False
