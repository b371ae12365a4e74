"""Segments of a trip that can be joined in constant time: the slow, obvious reference.

A segment is a run of consecutive stops of one trip, summed up in a few numbers
(Vidal, Crainic, Gendreau, Prins 2013, Computers & Operations Research 40(1),
after Kindervater and Savelsbergh 1997). Joining two of them costs a constant
number of operations, however long they are, so every classical move can be
evaluated as a handful of joins.

Time warp is the time one would have to travel back to be in time everywhere: a
measure of infeasibility for a search, not the delay that a plan reports.

`weigh` sums up a chain of trips by joins alone; tests hold the compiled sums of the
tabu search to it bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.problem import Request
    from wardwise.fleet.search.packed import Packed


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A run of stops of one trip.

    Parameters
    ----------
    duration_s
        Least time from the start of the first service to the end of the last,
        time warp included.
    time_warp_s
        Least total time warp.
    earliest_s, latest_s
        Starts of the first service between which both minima are reached.
    deliver_load, collect_load
        Slots on board before the first and after the last stop.
    peak_load
        Most slots on board at any moment.
    """

    duration_s: float
    time_warp_s: float
    earliest_s: float
    latest_s: float
    deliver_load: float = 0.0
    collect_load: float = 0.0
    peak_load: float = 0.0

    @staticmethod
    def of(request: Request) -> Segment:
        """Segment of one stop."""
        is_deliver = request.kind is Kind.DELIVER
        return Segment(
            duration_s=request.service_s,
            time_warp_s=0.0,
            earliest_s=request.earliest_s,
            latest_s=request.latest_s,
            deliver_load=request.load if is_deliver else 0.0,
            collect_load=0.0 if is_deliver else request.load,
            peak_load=request.load,
        )


def concatenate(first: Segment, second: Segment, travel_s: float) -> Segment:
    """Join two segments over a leg of `travel_s` seconds.

    Parameters
    ----------
    first, second
        Segments in driving order.
    travel_s
        Travel from the last stop of `first` to the first stop of `second`.

    Returns
    -------
    Segment
        The sum of both; joining is associative.
    """
    gap_s = first.duration_s - first.time_warp_s + travel_s
    wait_s = max(second.earliest_s - gap_s - first.latest_s, 0.0)
    warp_s = max(first.earliest_s + gap_s - second.latest_s, 0.0)
    return Segment(
        duration_s=first.duration_s + second.duration_s + travel_s + wait_s,
        time_warp_s=first.time_warp_s + second.time_warp_s + warp_s,
        earliest_s=max(second.earliest_s - gap_s, first.earliest_s) - wait_s,
        latest_s=min(second.latest_s - gap_s, first.latest_s) + warp_s,
        deliver_load=first.deliver_load + second.deliver_load,
        collect_load=first.collect_load + second.collect_load,
        # While in `first` the goods for `second` are on board, and later those from `first`.
        peak_load=max(first.peak_load + second.deliver_load, first.collect_load + second.peak_load),
    )


def weigh(packed: Packed, robot: int, chain: Sequence[int]) -> tuple[float, float, float]:
    """Distance, overload over all trips, and time warp of a chain of one robot.

    Parameters
    ----------
    chain
        Nodes from depot to depot, no transfers; ``[0, 0]`` for a robot that stays at
        home. Windows close at `due`, tolerated lateness counts as time warp.
    """
    if len(chain) == 2:
        return 0.0, 0.0, 0.0
    start, end = float(packed.start[robot]), float(packed.end[robot])
    depot = Segment(duration_s=packed.reload, time_warp_s=0.0, earliest_s=0.0, latest_s=end)
    whole = Segment(duration_s=0.0, time_warp_s=0.0, earliest_s=start, latest_s=end)
    trip, distance, overload = EMPTY, 0.0, 0.0
    for here, there in pairwise(chain):
        leg = packed.place[here], packed.place[there]
        distance += float(packed.distance[leg])
        stop = _stop(packed, there) if there else depot
        whole = concatenate(whole, stop, float(packed.travel[leg]))
        if there:
            trip = concatenate(trip, stop, 0.0)
        else:
            overload += max(trip.peak_load - float(packed.capacity[robot]), 0.0)
            trip = EMPTY
    return distance, overload, whole.time_warp_s


EMPTY = Segment(duration_s=0.0, time_warp_s=0.0, earliest_s=0.0, latest_s=math.inf)
"""A trip before its first stop."""


def _stop(packed: Packed, node: int) -> Segment:
    earliest, load = float(packed.earliest[node]), float(packed.load[node])
    return Segment(
        duration_s=float(packed.service[node]),
        time_warp_s=0.0,
        earliest_s=earliest,
        latest_s=max(float(packed.due[node]), earliest),
        deliver_load=float(packed.at_depot[node]),
        collect_load=load - float(packed.at_depot[node]),
        peak_load=load,
    )
