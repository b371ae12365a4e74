"""The compiled day: requests that come in, answered by the dispatcher's rules D1, D2 and D6.

`simulate_day` gives the answers of `wardwise.fleet.dispatch` with rules D3, D4 and
D5 off, robot for robot and position for position; a test holds the two together.

Beside the outcome it counts *calls*: requests for which a robot is sent that has
nothing else to do, fresh or back at the depot. From the call until it is back and
reloaded the robot is away; one that may make no further trip is away for the rest of
its shift. A call is *lost* when the request is denied although one more robot at the
depot could serve it at a price below the denial's (or at any, if it is stat). Calls,
lost calls and times away are what the closed forms of `wardwise.fleet.loss` speak of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from wardwise.fleet.compiled import kernel
from wardwise.fleet.dispatch.kernels import copy_chains, from_depot, tighten
from wardwise.fleet.dispatch.slack_kernels import best_kept
from wardwise.fleet.search.chains import commit, may_open, put
from wardwise.fleet.search.insertion import scan

if TYPE_CHECKING:
    from wardwise.fleet.search.chains import Chains
    from wardwise.fleet.search.packed import Floats, Ints

# Answers, in `Scratch.answer`.
PLANNED, INSERTED, OPENED, DENIED, UNSERVABLE = range(5)

# What a day is counted by, in `tally`: one number each, then three, one a class.
MONEY, ROBOTS, METRES, NUM_LATE, LATE_S, SERVED, AWAY_S, DENIED_BEFOREHAND = range(8)
DENIALS, UNSERVABLES, CALLS, LOST, SIZE = 8, 11, 14, 17, 20

# Starts later than this are late; the checker's tolerance for rounding.
LATE_FROM_S = 1e-6
NOT_AWAY = -1.0


class Calls(NamedTuple):
    """Requests that come in during the day.

    ``order`` holds their nodes in the order of the answers; ``release`` and
    ``priority`` run over all nodes.
    """

    order: Ints
    release: Floats
    priority: Ints


class Start(NamedTuple):
    """The day as planned in advance: chains, promised starts, and ends of shifts.

    The plan may have turned down known requests: how many, at which loss.
    """

    chains: Chains
    latest: Floats
    end: Floats
    num_denied: float
    loss: float


class Scratch(NamedTuple):
    """What a day scribbles on, and the one kind of robot there is.

    ``away_since`` (robots): since when a called robot is away. ``answer`` (nodes).
    ``capacity``, ``start`` and ``end`` have one element: a robot that is no longer
    promised anything, to tell what even one more could not serve.
    """

    blink: Ints
    away_since: Floats
    answer: Ints
    capacity: Floats
    start: Floats
    end: Floats


@kernel
def simulate_day(  # type: ignore[no-untyped-def]
    packed, chains, weights, chances, start, calls, protection, scratch, tally
):
    """Live through a day from its start, and fill `tally`.

    Parameters
    ----------
    packed
        In money; ``latest`` and ``end`` are overwritten.
    chains
        Overwritten; arrays over as many robots as there are.
    chances
        What insertions must leave besides mean slacks; `None`: nothing.
    protection
        Spares that each class may not use.
    """
    copy_chains(start.chains, chains)
    for node in range(len(start.latest)):
        packed.latest[node] = start.latest[node]
        scratch.answer[node] = PLANNED
    for robot in range(len(chains.length)):
        packed.end[robot] = start.end[robot]
        scratch.away_since[robot] = NOT_AWAY
    for k in range(SIZE):
        tally[k] = 0.0
    tally[MONEY], tally[DENIED_BEFOREHAND] = start.loss, start.num_denied
    for i in range(len(calls.order)):
        u = calls.order[i]
        rank = calls.priority[u] - 1
        commit(packed, chains, calls.release[u])
        answer = _answer(
            packed, chains, weights, chances, u, rank, calls.release[u], protection[rank], scratch,
            tally,
        )  # fmt: skip
        scratch.answer[u] = answer
        if answer >= DENIED:
            tally[MONEY] += packed.denial_price[u]
            tally[(DENIALS if answer == DENIED else UNSERVABLES) + rank] += 1.0
    _sum_up(packed, chains, scratch, tally)


@kernel
def _answer(  # type: ignore[no-untyped-def]
    packed, chains, weights, chances, u, rank, now, level, scratch, tally
):
    """Serve request `u` by the first rule that can, and say which."""
    best, best_robot, best_position, best_drop, best_opens = np.inf, -1, -1, -1, False
    spare_price, spare, spare_drop, num_spares = np.inf, -1, -1, 0
    for robot in range(len(chains.length)):
        is_idle = chains.length[robot] == 2
        if is_idle:
            num_spares += packed.end[robot] > now
            twin = packed.twin[robot]
            if twin >= 0 and chains.length[twin] == 2:
                continue
        bound = np.inf if is_idle else best
        if chances is None:
            price, position, drop, opens = scan(
                packed, chains, weights, robot, u, bound, scratch.blink, 0.0
            )
        else:
            price, position, drop, opens = best_kept(packed, chains, weights, chances, robot, u)
        if is_idle:
            if price < spare_price:
                spare_price, spare, spare_drop = price, robot, drop
        elif price < best:
            best, best_robot, best_position, best_drop = price, robot, position, drop
            best_opens = opens
    loss = packed.denial_price[u]
    if best_robot >= 0 and best <= loss:
        _send(packed, chains, best_robot, best_position, best_drop, best_opens, u, rank, now,
              scratch, tally)  # fmt: skip
        return INSERTED
    if spare >= 0 and num_spares > level and (rank == 0 or spare_price <= loss):
        _send(packed, chains, spare, 0, spare_drop, False, u, rank, now, scratch, tally)
        return OPENED
    price = from_depot(packed, scratch.capacity, scratch.start, scratch.end, u, now)
    if price == np.inf:
        return UNSERVABLE
    if rank == 0 or price <= loss:
        tally[LOST + rank] += 1.0
    return DENIED


@kernel
def _send(packed, chains, robot, position, drop, opens, u, rank, now, scratch, tally):  # type: ignore[no-untyped-def]
    """Put a request on a robot; if that had nothing else to do, count a call."""
    last = chains.length[robot] - 1
    is_back = chains.first[robot] == last and chains.leave[robot, last] <= now
    if last == 1 or is_back:
        if scratch.away_since[robot] >= 0.0:
            back = chains.begin[robot, last] + packed.reload
            tally[AWAY_S] += back - scratch.away_since[robot]
        scratch.away_since[robot] = now
        tally[CALLS + rank] += 1.0
    put(packed, chains, robot, position, drop, opens, u)
    tighten(packed, chains, robot, scratch.end[0])


@kernel
def _sum_up(packed, chains, scratch, tally):  # type: ignore[no-untyped-def]
    """Add up what the robots did."""
    for robot in range(len(chains.length)):
        last = chains.length[robot] - 1
        if last == 1:
            continue
        tally[MONEY] += chains.price[robot]
        tally[ROBOTS] += 1.0
        for k in range(last):
            tally[METRES] += chains.leg[robot, k]
            node = chains.node[robot, k]
            if node == 0 or packed.is_pickup[node]:
                continue
            tally[SERVED] += 1.0
            late = chains.begin[robot, k] - packed.due[node]
            if late > LATE_FROM_S:
                tally[NUM_LATE] += 1.0
                tally[LATE_S] += late
        if scratch.away_since[robot] >= 0.0:
            is_done = not may_open(packed, chains, robot)
            back = chains.begin[robot, last] + packed.reload
            until = max(back, scratch.end[0]) if is_done else back
            tally[AWAY_S] += until - scratch.away_since[robot]
