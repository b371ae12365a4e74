"""Moves that make several labels: to a station, through the depot, out of the depot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from wardwise.fleet.charging.fronts import cut, drive, wait
from wardwise.fleet.charging.labels import (
    ABOARD,
    CHARGER,
    CORNERS,
    GOODS_S,
    IS_FRESH,
    NODE,
    NONE,
    PARENT,
    PEAK,
    TRIPS,
    Store,
    arrive,
    enqueue,
    keep,
    plug_in,
    start,
)

if TYPE_CHECKING:
    from wardwise.fleet.charging.network import Ints, Network


@njit(cache=True)
def offer(
    net: Network, store: Store, new: int, heads: Ints, first: Ints, last: Ints,
    layer: int, max_trips: int,
) -> int:  # fmt: skip
    """Keep a written label, if none dominates it; returns the next free row."""
    cell = layer * (len(net.ready_s) + 1) + store.mark[new, NODE]
    if not keep(store, new, heads, cell, net.tolerance_wh, max_trips):
        return new
    enqueue(store, new, layer, first, last)
    return new + 1


@njit(cache=True)
def charge_at(
    net: Network, store: Store, old: int, num: int, station: int, latest_s: float,
    heads: Ints, first: Ints, last: Ints, layer: int, max_trips: int,
) -> int:  # fmt: skip
    """Labels of charging at a station next, one for each corner; returns the next free row."""
    arrived = len(store.mark) - 1
    if not arrive(net, store, old, arrived, station, latest_s):
        return num
    for corner in range(store.mark[arrived, CORNERS]):
        if plug_in(net, store, old, arrived, num, station, corner, 0.0, latest_s):
            num = offer(net, store, num, heads, first, last, layer, max_trips)
    return num


@njit(cache=True)
def leave(
    net: Network, store: Store, old: int, arrived: int, num: int, wait_s: float, goods_s: float,
    latest_s: float, heads: Ints, first: Ints, last: Ints, layer: int, max_trips: int,
) -> int:  # fmt: skip
    """Labels of a robot that stands at the depot and leaves with goods, charged or not.

    Charging while the robot is loaded takes no time of its own; where any amount may be
    charged, the label that is not charged is dominated then.
    """
    for station in range(net.num_stops, len(net.ready_s)):
        # Number `num_stops` stands for not charging.
        if station > net.num_stops and not net.is_at_depot[station]:
            continue
        for corner in range(store.mark[arrived, CORNERS]):
            if station == net.num_stops:
                if corner > 0:
                    break
                store.mark[num] = store.mark[arrived]
                store.amount[num] = store.amount[arrived]
                points = drive(
                    store.t[arrived], store.q[arrived], store.mark[arrived, CORNERS],
                    wait_s, net.base_wh_per_s * wait_s, store.t[num], store.q[num],
                )  # fmt: skip
                store.mark[num, PARENT], store.mark[num, CHARGER] = old, NONE
                store.mark[num, CORNERS] = points
            elif not plug_in(net, store, old, arrived, num, station, corner, wait_s, latest_s):
                continue
            t, q = store.t[num], store.q[num]
            points = wait(t, q, store.mark[num, CORNERS], goods_s, net.base_wh_per_s)
            points = cut(t, q, points, latest_s, net.reserve_wh, net.tolerance_wh)
            store.mark[num, CORNERS] = points
            store.amount[num, GOODS_S] = goods_s
            if points > 0:
                num = offer(net, store, num, heads, first, last, layer, max_trips)
    return num


@njit(cache=True)
def reload(
    net: Network, store: Store, old: int, num: int, goods_s: float, latest_s: float,
    heads: Ints, first: Ints, last: Ints, layer: int, max_trips: int,
) -> int:  # fmt: skip
    """Labels of a robot that comes back, is reloaded and leaves; returns the next free row."""
    arrived = len(store.mark) - 1
    if store.mark[old, IS_FRESH] or not arrive(net, store, old, arrived, 0, net.latest_s[0]):
        return num
    store.mark[arrived, TRIPS] += 1
    store.mark[arrived, IS_FRESH] = 1
    store.amount[arrived, ABOARD] = store.amount[arrived, PEAK] = 0.0
    return leave(
        net, store, old, arrived, num, net.reload_s, goods_s, latest_s,
        heads, first, last, layer, max_trips,
    )  # fmt: skip


@njit(cache=True)
def set_out(
    net: Network, store: Store, num: int, goods_s: float, latest_s: float,
    heads: Ints, first: Ints, last: Ints, max_trips: int,
) -> int:  # fmt: skip
    """Labels of a robot at the start of its shift; returns the next free row."""
    arrived = len(store.mark) - 1
    start(net, store, arrived)
    return leave(
        net, store, NONE, arrived, num, 0.0, goods_s, latest_s,
        heads, first, last, 0, max_trips,
    )  # fmt: skip


@njit(cache=True)
def finish(net: Network, store: Store, old: int, new: int) -> bool:
    """Write the label of driving home for good, if the robot is back in time."""
    if store.mark[old, IS_FRESH] or not arrive(net, store, old, new, 0, net.latest_s[0]):
        return False
    store.mark[new, NODE] = len(net.ready_s)
    return True


@njit(cache=True)
def may_charge(net: Network, store: Store, old: int, station: int) -> bool:
    """Whether a station is an answer: not the one left, and at the depot only on the way.

    What is charged before a trip is charged at the depot when the robot leaves it.
    """
    here = store.mark[old, NODE]
    return bool(here != station and not (here == 0 and net.is_at_depot[station]))


@njit(cache=True)
def links(num_layers: int, num_nodes: int) -> tuple[Ints, Ints, Ints]:
    """Empty cells and layers."""
    heads = np.full(num_layers * (num_nodes + 1), NONE)
    return heads, np.full(num_layers, NONE), np.full(num_layers, NONE)
