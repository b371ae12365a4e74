"""What an iteration has changed, and the way back."""

from __future__ import annotations

from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.chains import UNSERVED
from wardwise.fleet.search.compiled import inlined


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
