"""Charging at the depot whenever a robot stands there, on a day whose times are settled.

Nothing is planned: a robot that comes back plugs in if a slot is free, waits for one in
the order of arrival if none is, and is unplugged when it is full or has to depart. That
costs no time, and at any moment it takes no knowledge of what comes later, so it suits a
day that is dispatched. Whether it is enough is for the checker to say.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.fleet.energy import HOUR_S, Recharge
from wardwise.fleet.plan import Charge, Plan

if TYPE_CHECKING:
    from wardwise.fleet.energy import Battery
    from wardwise.fleet.plan import Trip
    from wardwise.fleet.problem import Instance, Station

DEPOT = 0
# For less nobody plugs a robot in.
SHORTEST_S = 60.0


def charge_while_idle(instance: Instance, plan: Plan) -> Plan:
    """Add charges at the depot between the trips of a plan; no time of it changes.

    Parameters
    ----------
    instance
        Without stations that charge at its depot, or without batteries, the plan stays
        as it is.
    plan
        Its own charges are replaced.
    """
    slots = _slots(instance)
    if not slots:
        return plan
    trips = list(plan.trips)
    stands: list[tuple[float, int, _Stand]] = []
    for number, (robot_id, driven) in enumerate(plan.trips_by_robot().items()):
        robot = instance.robot_by_id[robot_id]
        if robot.battery is not None:
            rows = [row for row, trip in enumerate(trips) if trip.robot == robot_id]
            stand = _Stand(robot.battery, list(driven), rows, robot.battery.first_wh)
            stands.append((robot.start_s, number, stand))
    heapq.heapify(stands)
    while stands:
        since_s, number, stand = heapq.heappop(stands)
        trip, row = stand.trips.pop(0), stand.rows.pop(0)
        charge = _charge(instance, stand, since_s, trip, slots)
        trips[row] = replace(trip, charges=() if charge is None else (charge,))
        stand.drive(instance, since_s, trips[row])
        if stand.trips:
            heapq.heappush(stands, (trip.return_s, number, stand))
    return replace(plan, trips=tuple(trips))


@dataclass
class _Slot:
    """A slot of a station, free from a moment on."""

    station: Station
    free_s: float = 0.0


def _slots(instance: Instance) -> list[_Slot]:
    """Slots at the depot; more than robots are not needed."""
    count = len(instance.robots) if instance.batteries else 0
    return [
        _Slot(station)
        for station in instance.stations
        if station.charge is not None and instance.place_index[station.place] == DEPOT
        for _ in range(count if station.num_slots is None else min(station.num_slots, count))
    ]


@dataclass
class _Stand:
    """A robot at the depot: its level, and the trips to come with their rows in the plan."""

    battery: Battery
    trips: list[Trip]
    rows: list[int]
    level_wh: float

    def drive(self, instance: Instance, since_s: float, trip: Trip) -> None:
        """Take what standing since a moment, charging and a trip do to the level."""
        requests = instance.request_by_id
        stops = [
            instance.place_index[requests[stop.request].stop_place(is_pickup=stop.is_pickup)]
            for stop in trip.stops
        ]
        places = [DEPOT, *stops, *([] if trip.is_broken_off else [DEPOT])]
        driven_m = sum(float(instance.distance_m[leg]) for leg in pairwise(places))
        charging_s = sum(charge.end_s - charge.start_s for charge in trip.charges)
        base_s = trip.return_s - since_s - charging_s
        self.level_wh += sum(charge.charged_wh for charge in trip.charges)
        self.level_wh -= self.battery.wh_per_m * driven_m + self.battery.base_w * base_s / HOUR_S
        # As the checker goes on after an empty battery.
        self.level_wh = max(self.level_wh, self.battery.reserve_wh)


def _charge(
    instance: Instance, stand: _Stand, since_s: float, trip: Trip, slots: list[_Slot]
) -> Charge | None:
    """What a robot that stands since a moment charges before a trip, and where, if anything."""
    slot = min(slots, key=lambda slot: max(slot.free_s, since_s))
    curve, capacity_wh = slot.station.charge, stand.battery.capacity_wh
    assert curve is not None
    start_s = max(slot.free_s, since_s)
    level_wh = stand.level_wh - stand.battery.base_w * (start_s - since_s) / HOUR_S
    full_s = start_s + curve.time_s(level_wh, capacity_wh)
    end_s = min(full_s, trip.depart_s)
    if end_s - start_s < SHORTEST_S or (instance.recharge is Recharge.FULL and end_s < full_s):
        return None
    slot.free_s = end_s
    after_wh = capacity_wh if end_s == full_s else curve.level_after(level_wh, end_s - start_s)
    return Charge(
        station=slot.station.id,
        before=0,
        arrive_s=since_s,
        start_s=start_s,
        end_s=end_s,
        charged_wh=after_wh - level_wh,
    )
