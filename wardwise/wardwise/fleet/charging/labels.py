"""Labels: partial ways of a robot, what they cost, and which of them need not go on.

A label is a row of three arrays. It stands in a cell: what has been served, and where the
robot is. Of two labels in a cell one can go if the other has driven no further, has at
every time at least its battery level, and can do in its trip whatever the first can.

A `Label` in a compiled function is the row's number; `Store` holds the arrays, which
`grown` replaces by longer ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from wardwise.fleet.charging.fronts import TOLERANCE_M, charge, cut, drive, is_above, wait

if TYPE_CHECKING:
    from wardwise.fleet.charging.network import Floats, Ints, Network

# Columns of `Store.mark`. A cell's labels are linked, and so are those of a layer.
NODE, LAYER, PARENT, CORNERS, NEXT_IN_CELL, NEXT_IN_LAYER, IS_DEAD = range(7)
# Station where the label was charged (-1: none); trips begun; 1 while its trip has no stop.
CHARGER, TRIPS, IS_FRESH, NUM_MARKS = 7, 8, 9, 10
# Columns of `Store.amount`: metres; load collected and largest load in this trip; latest
# `available_s` of goods that this trip may carry; time and level at which the charge begins.
METRES, ABOARD, PEAK, GOODS_S, PLUGGED_S, PLUGGED_WH, NUM_AMOUNTS = range(7)
NONE = -1


class Store(NamedTuple):
    """Labels, a row each: marks, amounts, and fronts as times and levels."""

    mark: Ints
    amount: Floats
    t: Floats
    q: Floats


@njit(cache=True)
def new_store(num_rows: int, num_points: int) -> Store:
    """Empty rows for fronts over charging curves of `num_points` points."""
    return Store(
        np.zeros((num_rows, NUM_MARKS), dtype=np.int64),
        np.zeros((num_rows, NUM_AMOUNTS)),
        np.zeros((num_rows, num_points + 2)),
        np.zeros((num_rows, num_points + 2)),
    )


@njit(cache=True)
def grown(store: Store, num: int) -> Store:
    """The first `num` labels in twice the rows."""
    more = new_store(2 * len(store.mark), store.t.shape[1] - 2)
    more.mark[:num] = store.mark[:num]
    more.amount[:num] = store.amount[:num]
    more.t[:num] = store.t[:num]
    more.q[:num] = store.q[:num]
    return more


@njit(cache=True)
def start(net: Network, store: Store, new: int) -> None:
    """Write the label of a robot at the start of its shift, not yet charged."""
    mark = store.mark[new]
    mark[:] = 0
    mark[PARENT] = mark[CHARGER] = NONE
    mark[TRIPS] = mark[IS_FRESH] = mark[CORNERS] = 1
    store.amount[new, :] = 0.0
    store.t[new, 0] = net.ready_s[0]
    store.q[new, 0] = net.first_wh


@njit(cache=True)
def arrive(net: Network, store: Store, old: int, new: int, node: int, latest_s: float) -> bool:
    """Write the label of driving on to a node, if it gets there; shared by all kinds of nodes."""
    here = store.mark[old, NODE]
    t, q = store.t[new], store.q[new]
    num = drive(
        store.t[old], store.q[old], store.mark[old, CORNERS],
        net.move_s[here, node], net.move_wh[here, node], t, q,
    )  # fmt: skip
    is_stop = 0 < node <= net.num_stops
    if is_stop:
        num = wait(t, q, num, net.ready_s[node], net.base_wh_per_s)
    least_wh = net.reserve_wh + net.home_wh[node]
    num = cut(t, q, num, latest_s, least_wh, net.tolerance_wh)
    if num == 0:
        return False
    store.mark[new] = store.mark[old]
    store.amount[new] = store.amount[old]
    mark = store.mark[new]
    mark[NODE], mark[PARENT], mark[CORNERS], mark[CHARGER] = node, old, num, NONE
    mark[IS_DEAD] = 0
    store.amount[new, METRES] += net.distance_m[here, node]
    return True


@njit(cache=True)
def serve(net: Network, store: Store, old: int, new: int, stop: int, latest_s: float) -> bool:
    """Write the label of serving a stop next, if that is possible; loads are counted."""
    aboard = store.amount[old, ABOARD] + net.collected[stop]
    peak = max(store.amount[old, PEAK] + net.delivered[stop], aboard)
    if peak > net.capacity * (1 + 1e-9) or net.available_s[stop] > store.amount[old, GOODS_S]:
        return False
    if not arrive(net, store, old, new, stop, latest_s):
        return False
    store.amount[new, ABOARD] = aboard
    store.amount[new, PEAK] = peak
    store.mark[new, IS_FRESH] = 0
    return True


@njit(cache=True)
def plug_in(
    net: Network, store: Store, old: int, arrived: int, new: int, station: int, corner: int,
    wait_s: float, latest_s: float,
) -> bool:  # fmt: skip
    """Write the label of charging from one corner of the front of an arrived label.

    The robot stays at least `wait_s`; `arrived` may be a scratch row, `old` is its parent.
    """
    mark = store.mark[arrived]
    store.mark[new] = mark
    store.amount[new] = store.amount[arrived]
    num = charge(
        store.t[arrived, corner], store.q[arrived, corner], net.curve_wh[station],
        net.curve_s[station], net.capacity_wh, wait_s, net.base_wh_per_s, net.is_full,
        store.t[new], store.q[new],
    )  # fmt: skip
    num = cut(store.t[new], store.q[new], num, latest_s, net.reserve_wh, net.tolerance_wh)
    store.mark[new, CORNERS], store.mark[new, PARENT] = num, old
    store.mark[new, CHARGER] = station
    store.amount[new, PLUGGED_S] = store.t[arrived, corner]
    store.amount[new, PLUGGED_WH] = store.q[arrived, corner]
    return num > 0


@njit(cache=True)
def dominates(store: Store, one: int, other: int, slack_wh: float, max_trips: int) -> bool:
    """Whether whatever the other label can still do, this one can, at no greater cost."""
    a, b = store.amount[one], store.amount[other]
    if a[METRES] > b[METRES] + TOLERANCE_M or a[GOODS_S] < b[GOODS_S]:
        return False
    if a[ABOARD] > b[ABOARD] or a[PEAK] > b[PEAK]:
        return False
    mark, other_mark = store.mark[one], store.mark[other]
    if mark[IS_FRESH] > other_mark[IS_FRESH]:
        return False
    if max_trips > 0 and mark[TRIPS] > other_mark[TRIPS]:
        return False
    return bool(
        is_above(
            store.t[one], store.q[one], mark[CORNERS],
            store.t[other], store.q[other], other_mark[CORNERS], slack_wh,
        )
    )  # fmt: skip


@njit(cache=True)
def keep(store: Store, new: int, heads: Ints, cell: int, slack_wh: float, max_trips: int) -> bool:
    """Put a label into its cell unless one there dominates it; those that it dominates leave."""
    mark = store.mark
    here = heads[cell]
    while here != NONE:
        if dominates(store, here, new, slack_wh, max_trips):
            return False
        here = mark[here, NEXT_IN_CELL]
    before, here = NONE, heads[cell]
    while here != NONE:
        after = mark[here, NEXT_IN_CELL]
        if dominates(store, new, here, slack_wh, max_trips):
            mark[here, IS_DEAD] = 1
            if before == NONE:
                heads[cell] = after
            else:
                mark[before, NEXT_IN_CELL] = after
        else:
            before = here
        here = after
    mark[new, NEXT_IN_CELL] = heads[cell]
    heads[cell] = new
    return True


@njit(cache=True)
def enqueue(store: Store, new: int, layer: int, first: Ints, last: Ints) -> None:
    """Append a label to those of a layer that are still to be extended."""
    mark = store.mark
    mark[new, LAYER] = layer
    mark[new, NEXT_IN_LAYER] = NONE
    if first[layer] == NONE:
        first[layer] = new
    else:
        mark[last[layer], NEXT_IN_LAYER] = new
    last[layer] = new


@njit(cache=True)
def is_better(store: Store, one: int, other: int) -> bool:
    """Whether a label at the end beats another: fewer metres, then earlier."""
    metres, than = store.amount[one, METRES], store.amount[other, METRES]
    if metres < than - TOLERANCE_M:
        return True
    return bool(metres <= than + TOLERANCE_M and store.t[one, 0] < store.t[other, 0] - 1e-6)
