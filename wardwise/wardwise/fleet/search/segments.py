"""Segments of a trip that can be joined in constant time: the slow, obvious reference.

A segment is a run of consecutive stops of one trip, summed up in a few numbers
(Vidal, Crainic, Gendreau, Prins 2013, Computers & Operations Research 40(1),
after Kindervater and Savelsbergh 1997). Joining two of them costs a constant
number of operations, however long they are, so every classical move can be
evaluated as a handful of joins.

Time warp is the time one would have to travel back to be in time everywhere: a
measure of infeasibility for a search, not the delay that a plan reports.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from wardwise.fleet.problem import Request


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
