"""What late starts cost, and what a change passes on to the stops behind it."""

from __future__ import annotations

from wardwise.fleet.compiled import kernel
from wardwise.fleet.search.chains import pause_at


@kernel
def lateness(packed, node, start):  # type: ignore[no-untyped-def]
    """Price of a start of service at a node."""
    return packed.late_price[node] * max(0.0, start - packed.due[node])


@kernel
def passed_on(packed, chains, robot, k, start):  # type: ignore[no-untyped-def]
    """Change in the price of delays from position `k` on, when `k` starts at `start`."""
    node, place, begin = chains.node, chains.place, chains.begin
    last = chains.length[robot] - 1
    change = 0.0
    while start != begin[robot, k]:
        late = lateness(packed, node[robot, k], start) - lateness(
            packed, node[robot, k], begin[robot, k]
        )
        change += late
        if k == last:
            break
        leave = start + pause_at(packed, node[robot, k], k)
        k += 1
        arrive = leave + packed.travel[place[robot, k - 1], place[robot, k]]
        start = max(arrive, packed.earliest[node[robot, k]])
    return change
