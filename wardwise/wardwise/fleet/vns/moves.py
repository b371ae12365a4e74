"""The moves of the local search, cheap ones first."""

from __future__ import annotations

from enum import IntFlag, auto


class Move(IntFlag):
    """Neighbourhoods of the descent in the order in which they are tried.

    ``INTRA``: a stop to another place in its route; ``TWO_OPT``: a stretch of a route
    turned; ``OR_OPT``: two or three stops, within and between routes; ``RELOCATE``: a stop
    to where it is cheapest in another route, with a station or a reload beside it;
    ``SWAP_ONE`` and ``SWAP_TWO``: one or two stops for one of another route; ``TAILS``:
    2-opt*; ``STATIONS``: a visit of a station to another station or leg; ``TRIPS``: whole
    trips to other robots, two trips into one, one into two.
    """

    INTRA = auto()
    TWO_OPT = auto()
    OR_OPT = auto()
    RELOCATE = auto()
    SWAP_ONE = auto()
    SWAP_TWO = auto()
    TAILS = auto()
    STATIONS = auto()
    TRIPS = auto()


ALL = Move(2 ** len(Move) - 1)
NONE = Move(0)

# The same as numbers for compiled code.
INTRA, TWO_OPT, OR_OPT, RELOCATE, SWAP_ONE, SWAP_TWO, TAILS, STATIONS, TRIPS = range(len(Move))
