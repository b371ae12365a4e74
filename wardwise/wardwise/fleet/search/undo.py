"""What an iteration has changed, how it is judged, the way back, and the best so far.

The searches over chains and over electric routes (`wardwise.fleet.vns`) share all but
`take_back`: both have rows of nodes with a length, a price and owners of requests.
"""

from __future__ import annotations

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.chains import UNSERVED

# Below the price of any difference that matters, above the rounding of sums.
EPSILON = 1e-7


@inlined
def touch(chains, work, robot):  # type: ignore[no-untyped-def]
    """Remember a chain before its first change in this iteration."""
    if work.is_touched[robot]:
        return
    work.is_touched[robot] = True
    work.touched[work.tally[0]] = robot
    work.tally[0] += 1
    length = chains.length[robot]
    work.saved_length[robot], work.saved_price[robot] = length, chains.price[robot]
    for k in range(length):
        work.saved_node[robot, k] = chains.node[robot, k]


@inlined
def take_back(packed, chains, work, size):  # type: ignore[no-untyped-def]
    """Undo the iteration."""
    for i in range(size):
        node = work.pool[i]
        chains.owner[node] = UNSERVED
        if packed.partner[node] >= 0:
            chains.owner[packed.partner[node]] = UNSERVED
    for i in range(work.tally[0]):
        robot = work.touched[i]
        work.is_touched[robot] = False
        chains.length[robot] = work.saved_length[robot]
        for k in range(chains.length[robot]):
            node = work.saved_node[robot, k]
            chains.node[robot, k] = node
            if node != 0:
                chains.owner[node] = robot
        kernels.refresh(packed, chains, robot)
    work.tally[0] = 0


@inlined
def forget(work):  # type: ignore[no-untyped-def]
    """Keep what was changed."""
    for i in range(work.tally[0]):
        work.is_touched[work.touched[i]] = False
    work.tally[0] = 0


@inlined
def keep_best(chains, work, state):  # type: ignore[no-untyped-def]
    """Keep the chains if they are the best so far; returns whether they are."""
    if state[2] > state[3] or state[0] >= state[1] - EPSILON:
        return False
    state[1] = state[0]
    keep(chains, work)
    return True


@kernel
def keep(chains, work):  # type: ignore[no-untyped-def]
    """Copy all chains into the best."""
    for robot in range(len(chains.length)):
        length = chains.length[robot]
        work.best_length[robot] = length
        for k in range(length):
            work.best_node[robot, k] = chains.node[robot, k]


@inlined
def evaluate(chains, work, size, cost):  # type: ignore[no-untyped-def]
    """Judge the iteration.

    Returns
    -------
    cost, num_absent, harder
        Cost after it, unserved requests, and by how much the sum of absence
        counters over the unserved has grown.
    """
    num_absent, harder = 0, 0.0
    for i in range(work.tally[0]):
        robot = work.touched[i]
        cost += chains.price[robot] - work.saved_price[robot]
    for i in range(size):
        node = work.pool[i]
        is_absent = chains.owner[node] == UNSERVED
        num_absent += is_absent
        if is_absent != work.was_absent[i]:
            cost += work.penalty[node] if is_absent else -work.penalty[node]
            harder += work.absences[node] if is_absent else -work.absences[node]
    return cost, num_absent, harder


@inlined
def count_absences(chains, work, size):  # type: ignore[no-untyped-def]
    """Count for each request of the pool that it was left unserved."""
    for i in range(size):
        if chains.owner[work.pool[i]] == UNSERVED:
            work.absences[work.pool[i]] += 1.0


@inlined
def sort_in(work, i, key):  # type: ignore[no-untyped-def]
    """Put the request at position `i` of the pool among those before it, by their keys."""
    node, absent = work.pool[i], work.was_absent[i]
    j = i
    while j > 0 and work.keys[j - 1] > key:
        work.keys[j], work.pool[j] = work.keys[j - 1], work.pool[j - 1]
        work.was_absent[j] = work.was_absent[j - 1]
        j -= 1
    work.keys[j], work.pool[j], work.was_absent[j] = key, node, absent
