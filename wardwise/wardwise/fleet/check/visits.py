"""A trip as the places it leads to, in driving order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

from wardwise.fleet.plan import Charge
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from wardwise.fleet.plan import Stop, Trip
    from wardwise.fleet.problem import Instance, Request

DEPOT = 0


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A stop or a charge, with its place; `request` and `place` are none where unknown."""

    event: Stop | Charge
    request: Request | None = None
    place: int | None = None


def visits(instance: Instance, trip: Trip) -> list[Visit]:
    """What a trip drives to after it departed, without the depot at its end."""
    num_before = len(depot_charges(instance, trip))
    return [_visit(instance, event) for event in trip.visits()][num_before:]


def depot_charges(instance: Instance, trip: Trip) -> list[Charge]:
    """Charges before a trip departs: the first of it, as long as they are made at the depot."""

    def is_at_depot(charge: Charge) -> bool:
        station = instance.station_by_id.get(charge.station)
        at_depot = station is not None and instance.place_index[station.place] == DEPOT
        return at_depot and charge.before == 0

    return list(takewhile(is_at_depot, trip.charges))


def is_pickup(request: Request, stop: Stop) -> bool:
    """Whether a stop is the first of the two of a transfer."""
    return request.kind == Kind.TRANSFER and stop.is_pickup


def is_drop(request: Request, stop: Stop) -> bool:
    """Whether a stop is the second of the two of a transfer."""
    return request.kind == Kind.TRANSFER and not stop.is_pickup


def metres(instance: Instance, origin: int | None, target: int | None) -> float:
    """Metres of a leg that can be driven, else 0."""
    if origin is None or target is None or not math.isfinite(instance.distance_m[origin, target]):
        return 0.0
    return float(instance.distance_m[origin, target])


def _visit(instance: Instance, event: Stop | Charge) -> Visit:
    if isinstance(event, Charge):
        station = instance.station_by_id.get(event.station)
        place = None if station is None else instance.place_index[station.place]
        return Visit(event=event, place=place)
    request = instance.request_by_id.get(event.request)
    if request is None:
        return Visit(event=event)
    place = instance.place_index[request.stop_place(is_pickup=event.is_pickup)]
    return Visit(event=event, request=request, place=place)
