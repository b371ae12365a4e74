"""All ways of one robot: which sets of requests it can serve, each at its least distance.

Layers are sets of served requests, as bits; a robot drives from every label to a request
not yet served, to a station, or home. Where it may make several trips it can be reloaded
at the depot, once for each moment at which goods become ready that is worth waiting for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from wardwise.fleet.charging.labels import (
    IS_DEAD,
    METRES,
    NEXT_IN_LAYER,
    NONE,
    TRIPS,
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
    from numpy.typing import NDArray

    from wardwise.fleet.charging.network import Floats, Ints, Network


@njit(cache=True)
def all_ways(
    net: Network,
    can_follow: NDArray[np.bool_],
    goods_s: Floats,
    max_trips: int,
    max_labels: int,
) -> tuple[Store, int, Ints]:
    """Find the least distance, then the earliest end, for every set of requests.

    Parameters
    ----------
    can_follow
        Shape (nodes, nodes): legs that may be driven.
    goods_s
        Moments at which a trip may leave the depot to carry all goods ready by then.
    max_trips
        0: any number.

    Returns
    -------
    Labels, their number (more than `max_labels`: given up), and for each set the label at
    the end (-1: none).
    """
    num_sets, num_nodes = 1 << net.num_stops, len(net.ready_s)
    heads, first, last = links(num_sets, num_nodes)
    best = np.full(num_sets, NONE)
    store = new_store(4096, net.curve_wh.shape[1])
    num, latest_s = 0, net.latest_s[0]
    for leave_s in goods_s:
        num = set_out(net, store, num, leave_s, latest_s, heads, first, last, max_trips)
    room = (num_nodes + 2) * (net.curve_wh.shape[1] + 2) * (len(goods_s) + 1)
    for served in range(num_sets):
        here = first[served]
        while here != NONE and num <= max_labels:
            while num + room >= len(store.mark):
                store = grown(store, num)
            if not store.mark[here, IS_DEAD]:
                num = extend(
                    net, store, here, num, served, can_follow, goods_s, max_trips,
                    heads, first, last, best,
                )  # fmt: skip
            here = store.mark[here, NEXT_IN_LAYER]
    return store, num, best


@njit(cache=True)
def extend(
    net: Network, store: Store, here: int, num: int, served: int,
    can_follow: NDArray[np.bool_], goods_s: Floats, max_trips: int,
    heads: Ints, first: Ints, last: Ints, best: Ints,
) -> int:  # fmt: skip
    """Drive on from a label in every way; returns the next free row."""
    node = store.mark[here, 0]
    if finish(net, store, here, num) and (
        best[served] == NONE or is_better(store, num, best[served])
    ):
        best[served], num = num, num + 1
    for stop in range(1, net.num_stops + 1):
        bit = 1 << (stop - 1)
        if (
            not served & bit
            and can_follow[node, stop]
            and serve(net, store, here, num, stop, net.latest_s[stop])
        ):
            num = offer(net, store, num, heads, first, last, served | bit, max_trips)
    for station in range(net.num_stops + 1, len(net.ready_s)):
        if can_follow[node, station] and may_charge(net, store, here, station):
            home_s = net.latest_s[0] - net.move_s[station, 0]
            num = charge_at(
                net, store, here, num, station, home_s,
                heads, first, last, served, max_trips,
            )  # fmt: skip
    if max_trips == 0 or store.mark[here, TRIPS] < max_trips:
        for leave_s in goods_s:
            num = reload(
                net, store, here, num, leave_s, net.latest_s[0],
                heads, first, last, served, max_trips,
            )  # fmt: skip
    return num


def least_metres(store: Store, best: Ints) -> Floats:
    """Distance of the best way for each set, infinite where there is none."""
    metres = np.where(best == NONE, np.inf, store.amount[best, METRES])
    metres[0] = np.inf
    return np.asarray(metres)
