"""From the best label back to trips with charges."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.charging.fronts import level_at, time_from_empty
from wardwise.fleet.charging.labels import (
    CHARGER,
    CORNERS,
    NODE,
    NONE,
    PARENT,
    PLUGGED_S,
    PLUGGED_WH,
    TRIPS,
    Store,
)

if TYPE_CHECKING:
    from wardwise.fleet.charging.network import Network


class Step(NamedTuple):
    """A stop or a charge of a trip; `trip` counts from 0, `charged_wh` is 0 at stops."""

    node: int
    trip: int
    charged_wh: float


def steps(net: Network, store: Store, label: int) -> list[Step]:
    """What the robot does up to a label at the end, with the least last charge.

    Going back, the time at which each label was left is that of its successor less the
    move, at most the last of its front: what is left then was spent waiting.
    """
    found: list[Step] = []
    left_s = float(store.t[label, 0])
    while label != NONE:
        mark = store.mark[label]
        node, parent, station = int(mark[NODE]), int(mark[PARENT]), int(mark[CHARGER])
        trip = int(mark[TRIPS]) - 1
        left_s = min(left_s, float(store.t[label, mark[CORNERS] - 1]))
        if station != NONE:
            charged_wh = _charged_wh(net, store, label, left_s)
            left_s = float(store.amount[label, PLUGGED_S])
            if node != 0 or charged_wh > net.tolerance_wh:
                found.append(Step(station, trip, charged_wh))
        elif 0 < node <= net.num_stops:
            found.append(Step(node, trip, 0.0))
        elif node == 0 and parent != NONE:
            left_s -= net.reload_s
        if parent != NONE:
            here = int(store.mark[parent, NODE])
            left_s -= float(net.move_s[here, node if node < len(net.ready_s) else 0])
        label = parent
    return found[::-1]


def _charged_wh(net: Network, store: Store, label: int, left_s: float) -> float:
    """Energy charged until a time at the station of a label, up to the full battery."""
    amount, station = store.amount[label], int(store.mark[label, CHARGER])
    curve_wh, curve_s = net.curve_wh[station], net.curve_s[station]
    level_wh = float(amount[PLUGGED_WH])
    if net.is_full:
        return max(0.0, net.capacity_wh - level_wh)
    begin_s = time_from_empty(curve_wh, curve_s, level_wh)
    reached_wh = level_at(curve_wh, curve_s, begin_s + left_s - float(amount[PLUGGED_S]))
    return max(0.0, min(reached_wh, net.capacity_wh) - level_wh)
