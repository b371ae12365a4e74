r"""Moves that bring a request beside one that is near to it, within a route or between two.

*Relocate* and *Or-opt* (Or 1976) move one or two and three stops, Or-opt forwards and
backwards; *swap* changes one or two stops for one; *2-opt* turns a stretch of a route;
*2-opt\** (Potvin and Rousseau 1995) exchanges the tails of two, whatever trips they have.
Stations between the stops of a segment go with them.
"""

from __future__ import annotations

from wardwise.fleet.compiled import kernel
from wardwise.fleet.vns.edits import append, propose, propose_first, try_shorter
from wardwise.fleet.vns.moves import INTRA, OR_OPT, SWAP_ONE, SWAP_TWO, TAILS, TWO_OPT

# Nearest requests that are tried beside each request: the sheet's candidate list.
NUM_NEAR = 30
# Lengths of segments that change places.
SEGMENTS = ((1, 0), (2, 0), (3, 0), (1, 1), (2, 1), (1, 2))


@kernel
def improve_pairs(m, s, w, e, k, kind):  # type: ignore[no-untyped-def]
    """Make the first move of a kind that shortens route `k`; returns whether there was one."""
    num_near = min(NUM_NEAR, w.adjacent.shape[1])
    for p in range(1, s.length[k] - 1):
        u = s.node[k, p]
        if not 0 < u <= m.num_requests:
            continue
        # A chain of exchanged legs that saves has a start where the new leg is the shorter.
        longest = max(m.distance[s.node[k, p - 1], u], m.distance[u, s.node[k, p + 1]])
        for a in range(num_near):
            v = w.adjacent[u, a]
            other = s.owner[v]
            if min(m.distance[u, v], m.distance[v, u]) >= longest:
                break
            if other >= 0 and _beside(m, s, w, e, k, p, other, s.position[v], kind):
                return True
    return False


@kernel
def _beside(m, s, w, e, k, p, other, q, kind):  # type: ignore[no-untyped-def]
    """Try a kind of move for the stops at two positions."""
    if kind == TWO_OPT:
        return other == k and _turn(m, s, w, e, k, min(p, q), max(p, q))
    if kind == TAILS:
        return other != k and (
            _exchange_tails(m, s, w, e, k, p, other, q - 1)
            or _exchange_tails(m, s, w, e, k, p - 1, other, q)
        )
    if (kind == INTRA) != (other == k) and kind != OR_OPT:
        return False
    for count, back in SEGMENTS:
        belongs = (
            (kind == INTRA and count == 1 and back == 0)
            or (kind == OR_OPT and count > 1 and back == 0)
            or (kind == SWAP_ONE and count == 1 and back == 1)
            or (kind == SWAP_TWO and count + back == 3 and back > 0)
        )
        if belongs and _both_sides(m, s, w, e, k, p, count, other, q, back):
            return True
    return False


@kernel
def _turn(m, s, w, e, k, p, q):  # type: ignore[no-untyped-def]
    """2-opt: turn what comes up to `q` behind `p`, or what comes from `p` on before `q`."""
    if q == p + 1:
        return False
    propose_first(e, k, p, k, q + 1)
    append(s, e, k, q, p)
    if try_shorter(m, s, w, e):
        return True
    propose_first(e, k, p - 1, k, q)
    append(s, e, k, q - 1, p - 1)
    return try_shorter(m, s, w, e)


@kernel
def _exchange_tails(m, s, w, e, k, p, other, q):  # type: ignore[no-untyped-def]
    """2-opt*: the front of each route up to a position, and the tail of the other."""
    propose_first(e, k, p, other, q + 1)
    propose(e, other, q, k, p + 1)
    return try_shorter(m, s, w, e)


@kernel
def _both_sides(m, s, w, e, k, p, count, other, q, back):  # type: ignore[no-untyped-def]
    """Try a segment of `count` vertices that starts or ends at `p` on both sides of `q`.

    It takes the place of `back` vertices beside `q`.
    """
    for first in (p, p - count + 1):
        if first < 1 or first + count >= s.length[k]:
            continue
        if not _is_segment(m, s, k, first, count):
            continue
        for behind in (q, q - back - 1):
            if behind < 0 or behind + back >= s.length[other] - 1:
                continue
            if not _is_segment(m, s, other, behind + 1, back):
                continue
            for is_turned in range(min(count, 2)):
                if _move(m, s, w, e, k, first, count, other, behind, back, is_turned):
                    return True
        if count == 1:
            break
    return False


@kernel
def _is_segment(m, s, k, first, count):  # type: ignore[no-untyped-def]
    """Whether no depot is among the vertices, and a request is, if there are any."""
    has_stop = count == 0
    for p in range(first, first + count):
        if s.node[k, p] == 0:
            return False
        has_stop = has_stop or s.node[k, p] <= m.num_requests
    return has_stop


@kernel
def _move(m, s, w, e, k, first, count, other, behind, back, is_turned):  # type: ignore[no-untyped-def]
    """Put a segment behind a position, in place of `back` vertices that go where it was."""
    start, end = (first + count - 1, first - 1) if is_turned else (first, first + count)
    if other != k:
        propose_first(e, k, first - 1, k, first + count)
        if back:
            append(s, e, other, behind + 1, behind + 1 + back)
        propose(e, other, behind, other, behind + 1 + back)
        append(s, e, k, start, end)
        return try_shorter(m, s, w, e)
    if back or first - 1 <= behind < first + count:
        return False
    if behind < first:
        propose_first(e, k, behind, k, first + count)
        append(s, e, k, start, end)
        append(s, e, k, behind + 1, first)
    else:
        propose_first(e, k, first - 1, k, behind + 1)
        append(s, e, k, first + count, behind + 1)
        append(s, e, k, start, end)
    return try_shorter(m, s, w, e)
