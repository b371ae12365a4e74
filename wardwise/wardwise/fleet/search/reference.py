"""The slow, obvious twin of the kernels: drive through the whole chain every time.

Tests hold the kernels to it bit for bit; nothing else uses it.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.fleet.search.packed import Packed


def drive(packed: Packed, robot: int, chain: list[int]) -> float | None:
    """Price of a chain of one robot, or `None` if a window, the shift or a load is violated.

    Parameters
    ----------
    chain
        Nodes from depot to depot; ``[0, 0]`` for a robot that stays at home.
    """
    if chain.count(0) - 1 > packed.max_trips[robot] or not _loads_fit(packed, robot, chain):
        return None
    price = packed.robot_price if len(chain) > 2 else 0.0
    time = packed.start[robot]
    for position, (here, there) in enumerate(pairwise(chain)):
        if here != 0:
            time += packed.service[here]
        elif position > 0:
            time += packed.reload
        time = max(time + packed.travel[here, there], packed.earliest[there])
        if time > (packed.latest[there] if there != 0 else packed.end[robot]):
            return None
        price += packed.metre_price * packed.distance[here, there]
        price += packed.late_price[there] * max(0.0, time - packed.due[there])
    return float(price)


def candidates(chain: list[int], node: int) -> Iterator[tuple[int, bool, list[int]]]:
    """All ways to put a node into a chain: position before it, opens a trip, new chain."""
    last = len(chain) - 1
    for k, here in enumerate(chain):
        head, tail = list(chain[: k + 1]), list(chain[k + 1 :])
        if k < last:
            yield k, False, [*head, node, *tail]
        if here == 0 and last > 1:
            yield k, True, [*head, node, 0, *tail]


def best_in_chain(
    packed: Packed, robot: int, chain: list[int], node: int
) -> tuple[float, int, bool]:
    """Cheapest feasible insertion, as the kernel of the same name reports it."""
    before = drive(packed, robot, chain)
    assert before is not None
    best = (math.inf, -1, False)
    for position, opens, new_chain in candidates(chain, node):
        after = drive(packed, robot, new_chain)
        if after is not None and after - before < best[0]:
            best = (after - before, position, opens)
    return best


def _loads_fit(packed: Packed, robot: int, chain: list[int]) -> bool:
    on_board = 0.0
    for position, here in enumerate(chain[:-1]):
        if here == 0:
            trip = chain[position + 1 : chain.index(0, position + 1)]
            on_board = sum(packed.load[n] for n in trip if packed.is_deliver[n])
        else:
            on_board += -packed.load[here] if packed.is_deliver[here] else packed.load[here]
        if on_board > packed.capacity[robot]:
            return False
    return True
