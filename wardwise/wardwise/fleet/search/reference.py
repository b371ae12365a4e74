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
        leg = packed.place[here], packed.place[there]
        time = max(time + (packed.travel[leg] if len(chain) > 2 else 0.0), packed.earliest[there])
        if time > (packed.latest[there] if there != 0 else packed.end[robot]):
            return None
        price += packed.metre_price * packed.distance[leg] if len(chain) > 2 else 0.0
        price += packed.late_price[there] * max(0.0, time - packed.due[there])
    return float(price)


def candidates(
    packed: Packed, chain: list[int], node: int
) -> Iterator[tuple[int, int, bool, list[int]]]:
    """All ways to put a request into a chain: position, drop behind, opens, new chain."""
    last, pickup = len(chain) - 1, int(packed.partner[node])
    for opens in (False, True):
        for k, here in enumerate(chain):
            head, tail = list(chain[: k + 1]), list(chain[k + 1 :])
            if opens and here == 0 and last > 1:
                own = [node] if pickup < 0 else [pickup, node]
                yield k, -1 if pickup < 0 else k, True, [*head, *own, 0, *tail]
            if opens or k == last:
                continue
            if pickup < 0:
                yield k, -1, False, [*head, node, *tail]
                continue
            end = chain.index(0, k + 1)
            for j in range(k, end):
                middle, rest = chain[k + 1 : j + 1], chain[j + 1 :]
                yield k, j, False, [*head, pickup, *middle, node, *rest]


def best_in_chain(
    packed: Packed, robot: int, chain: list[int], node: int
) -> tuple[float, int, int, bool]:
    """Cheapest feasible insertion, as the kernel of the same name reports it."""
    before = drive(packed, robot, chain)
    assert before is not None
    best = (math.inf, -1, -1, False)
    for position, drop, opens, new_chain in candidates(packed, chain, node):
        after = drive(packed, robot, new_chain)
        if after is not None and after - before < best[0]:
            best = (after - before, position, drop, opens)
    return best


def _loads_fit(packed: Packed, robot: int, chain: list[int]) -> bool:
    on_board = 0.0
    for position, here in enumerate(chain[:-1]):
        if here == 0:
            trip = chain[position + 1 : chain.index(0, position + 1)]
            on_board = sum(packed.at_depot[n] for n in trip)
        else:
            on_board += packed.delta[here]
        if on_board > packed.capacity[robot]:
            return False
    return True
