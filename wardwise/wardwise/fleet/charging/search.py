"""The search over one sequence: layers of targets, and stations between them.

A layer holds the labels that have passed the same number of targets: stops, the depot
between two trips, the depot at the end. From every label the robot drives to the next
target or to a station; labels at stations stay in their layer, so that any number of
stations may stand between two targets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from numba import njit

from wardwise.fleet.charging.labels import (
    CORNERS,
    IS_DEAD,
    NEXT_IN_LAYER,
    NODE,
    NONE,
    Store,
    grown,
    is_better,
    new_store,
    serve,
)
from wardwise.fleet.charging.moves import (
    charge_at,
    finish,
    links,
    may_charge,
    offer,
    reload,
    set_out,
)

if TYPE_CHECKING:
    from wardwise.fleet.charging.network import Floats, Ints, Network


@njit(cache=True)
def search(
    net: Network, targets: Ints, goods_s: Floats, latest_s: Floats
) -> tuple[Store, int, int]:
    """Find the way along the targets with the least distance, then the earliest end.

    Parameters
    ----------
    targets
        Shape (T,): stops in their order, 0 for the depot between two trips and at the end.
    goods_s
        Shape (T,): at each 0, when the goods of the trip after it are ready; the last
        entry is that of the first trip.
    latest_s
        Shape (T + 1,): latest departure from a layer's target, service start of a stop.

    Returns
    -------
    Labels, the best of them at the end (-1: none), and the last layer that was reached.
    """
    num_targets, num_nodes = len(targets), len(net.ready_s)
    heads, first, last = links(num_targets + 1, num_nodes)
    store = new_store(256, net.curve_wh.shape[1])
    num = set_out(net, store, 0, goods_s[-1], latest_s[0], heads, first, last, 0)
    best, reached = NONE, 0
    # From one label at most this many come.
    room = (num_nodes + 2) * (net.curve_wh.shape[1] + 2)
    for layer in range(num_targets):
        here, target = first[layer], targets[layer]
        while here != NONE:
            reached = layer
            while num + room >= len(store.mark):
                store = grown(store, num)
            if store.mark[here, IS_DEAD]:
                here = store.mark[here, NEXT_IN_LAYER]
                continue
            if layer == num_targets - 1:
                if finish(net, store, here, num) and (best == NONE or is_better(store, num, best)):
                    best, num = num, num + 1
            elif target == 0:
                num = reload(
                    net, store, here, num, goods_s[layer], latest_s[layer + 1],
                    heads, first, last, layer + 1, 0,
                )  # fmt: skip
            elif serve(net, store, here, num, target, latest_s[layer + 1]):
                num = offer(net, store, num, heads, first, last, layer + 1, 0)
            for station in range(net.num_stops + 1, num_nodes):
                if may_charge(net, store, here, station):
                    num = charge_at(
                        net, store, here, num, station,
                        latest_s[layer + 1] - net.move_s[station, target],
                        heads, first, last, layer, 0,
                    )  # fmt: skip
            here = store.mark[here, NEXT_IN_LAYER]
    return store, best, reached


__all__ = ["CORNERS", "NODE", "search"]
