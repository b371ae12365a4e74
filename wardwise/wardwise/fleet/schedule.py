"""From sequences of stops and charges to a timed plan.

A robot drives a chain of trips: depot, stops, depot, reload, stops, ..., depot.
Two passes give the times:

1. forward, every service and every charge starts as early as possible,
   ``start[k] = max(earliest[k], start[k-1] + service[k-1] + travel[k-1, k])``;
2. every departure from the depot then moves as late as it can without moving
   the start of what follows, so a robot waits at the depot, loaded, and not in
   front of a ward or station.

Early starts are kept because with them no delay can be avoided by another
timing of the same sequence.

The level of the battery runs along in the forward pass, since it says how long a
charge takes: a robot draws energy while it waits. A trip that begins with charges at
the depot is charged while it is reloaded. Slots of stations go to the robots in the
order in which they arrive; who finds all taken waits for the first that gets free.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from wardwise.fleet.energy import HOUR_S, Recharge
from wardwise.fleet.plan import Charge, ChargeVisit, Plan, Stop, Trip
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from wardwise.fleet.problem import Instance, Request, Robot, Station

    _Visit = ChargeVisit | tuple[Request, bool]

# Sums in another order differ by far less; a robot never notices a microsecond.
TOLERANCE_S = 1e-6
# Of the capacity, or of one slot if that is more: 0.1 + 0.2 fits into 0.3.
LOAD_TOLERANCE = 1e-9
# Of the battery: half of what the referee allows, so that rounding never decides there.
ENERGY_TOLERANCE = 5e-8
DEPOT = 0


class ScheduleError(ValueError):
    """Known visits that `robot` cannot drive: a window, a shift or a battery is in the way."""

    def __init__(self, robot: str, message: str) -> None:
        super().__init__(message)
        self.robot = robot


def schedule(
    instance: Instance,
    routes: Mapping[str, Sequence[Sequence[str | ChargeVisit]]],
    denied: Sequence[str] = (),
) -> Plan:
    """Time the trips of every robot.

    Parameters
    ----------
    instance
        The problem that the sequences belong to.
    routes
        For each robot its trips in driving order, each the ids of its requests and,
        where it is charged, a `ChargeVisit`. The id of a transfer stands twice on its
        trip, at its pickup and at its drop.
    denied
        Ids of the requests that are turned down; passed on as they are.

    Returns
    -------
    Plan
        Services and charges start as early as possible, departures as late as
        possible. Whether every request is served exactly once is left to the checker.

    Raises
    ------
    ScheduleError
        Naming robot and request or station, when a window closes before the robot comes,
        its battery falls below the reserve, or its shift ends before it is back.
    ValueError
        The same, when an id is unknown, a transfer has not its two stops, a load does not
        fit, or a battery is charged in a way that it or the station does not allow.
    """
    slots = _Slots()
    drives = [
        _drive(instance, robot_id, sequences, slots) for robot_id, sequences in routes.items()
    ]
    trips = [trip for found in _in_time_order(drives) for trip in found]
    return Plan(instance=instance.name, trips=tuple(trips), denied=tuple(denied))


def _in_time_order(drives: Sequence[Generator[float, None, list[Trip]]]) -> list[list[Trip]]:
    """Let all robots drive: each yields the moment at which it arrives at a station.

    It goes on when all others have got to their next arrival, if that is earlier: what
    it then finds taken was taken before.
    """
    found: list[list[Trip]] = [[] for _ in drives]
    arrivals: list[tuple[float, int]] = []

    def go_on(number: int) -> None:
        try:
            heapq.heappush(arrivals, (next(drives[number]), number))
        except StopIteration as end:
            found[number] = end.value

    for number in range(len(drives)):
        go_on(number)
    while arrivals:
        go_on(heapq.heappop(arrivals)[1])
    return found


class _Slots:
    """When the slots of every station get free."""

    def __init__(self) -> None:
        self._ends: dict[str, list[float]] = {}

    def first_free_s(self, station: Station, arrive_s: float) -> float:
        """First moment from an arrival on at which there is a slot."""
        ends = self._ends.get(station.id, [])
        if station.num_slots is None or len(ends) < station.num_slots:
            return arrive_s
        return max(arrive_s, ends[0])

    def take(self, station: Station, end_s: float) -> None:
        """Occupy the slot that is free first up to a moment."""
        ends = self._ends.setdefault(station.id, [])
        if station.num_slots is not None and len(ends) == station.num_slots:
            heapq.heapreplace(ends, end_s)
        elif station.num_slots is not None:
            heapq.heappush(ends, end_s)


def _drive(
    instance: Instance,
    robot_id: str,
    sequences: Sequence[Sequence[str | ChargeVisit]],
    slots: _Slots,
) -> Generator[float, None, list[Trip]]:
    """Drive all trips of a robot."""
    if robot_id not in instance.robot_by_id:
        raise ValueError(f"robot {robot_id!r}: no robot of this name in {instance.name!r}")
    robot = instance.robot_by_id[robot_id]
    if robot.max_trips is not None and len(sequences) > robot.max_trips:
        raise ValueError(
            f"robot {robot_id!r}: trips: expected at most {robot.max_trips}, got {len(sequences)}"
        )
    drive = _RobotDrive(instance, robot, slots)
    trips: list[Trip] = []
    for sequence in sequences:
        trips += [(yield from drive.trip(sequence))]
    return trips


class _RobotDrive:
    """Where a robot is on its day: at the depot between trips, with some level."""

    def __init__(self, instance: Instance, robot: Robot, slots: _Slots) -> None:
        self._instance, self._robot, self._slots = instance, robot, slots
        self._ready_s = self._back_s = robot.start_s
        # Up to `_counted_s` the level accounts for what the robot draws at all times.
        self._counted_s = robot.start_s
        self._level_wh = robot.battery.first_wh if robot.battery else math.inf

    def trip(self, sequence: Sequence[str | ChargeVisit]) -> Generator[float, None, Trip]:
        """Drive one trip."""
        travel_s = self._instance.travel_s
        visits = _look_up(self._instance, self._robot, sequence)
        charges: list[Charge] = []
        stops: list[Stop] = []
        leave_s = self._back_s
        num_before = len(list(takewhile(self._is_charge_at_depot, visits)))
        for visit in visits[:num_before]:
            assert isinstance(visit, ChargeVisit)
            charges.append((yield from self._charge(visit, 0, 0.0, leave_s)))
            leave_s = charges[-1].end_s
        requests = [visit[0] for visit in visits if not isinstance(visit, ChargeVisit)]
        ready_s = max(self._ready_s, leave_s, *(request.available_s for request in requests))
        here, leave_s, depart_s = DEPOT, ready_s, ready_s
        for number, visit in enumerate(visits[num_before:]):
            there = self._place(visit)
            arrive_s = leave_s + float(travel_s[here, there])
            leg_m = self._metres(here, there)
            if isinstance(visit, ChargeVisit):
                charge = yield from self._charge(visit, len(stops), leg_m, arrive_s)
                start_s, leave_s = charge.start_s, charge.end_s
                charges.append(charge if number else replace(charge, arrive_s=start_s))
            else:
                stop = self._stop(*visit, leg_m, arrive_s)
                start_s, leave_s = stop.start_s, stop.start_s + visit[0].service_s
                stops.append(stop if number else replace(stop, arrive_s=start_s))
            if number == 0:
                # The robot waits at the depot, so it arrives at what comes first on time.
                depart_s = max(ready_s, start_s - float(travel_s[DEPOT, there]))
            here = there
        return Trip(
            robot=self._robot.id,
            depart_s=depart_s,
            stops=tuple(stops),
            return_s=self._return(stops[-1].request, here, leave_s),
            charges=tuple(charges),
        )

    def _stop(self, request: Request, is_pickup: bool, leg_m: float, arrive_s: float) -> Stop:
        start_s = max(arrive_s, request.earliest_s)
        who = f"robot {self._robot.id!r}: request {request.id!r}"
        if not (is_pickup or start_s <= request.latest_s + TOLERANCE_S):
            raise ScheduleError(
                self._robot.id,
                f"{who}: service: expected to start by {request.latest_s:g}, got {start_s:g}",
            )
        self._spend(who, leg_m, start_s)
        return Stop(request=request.id, arrive_s=arrive_s, start_s=start_s, is_pickup=is_pickup)

    def _charge(
        self, visit: ChargeVisit, before: int, leg_m: float, arrive_s: float
    ) -> Generator[float, None, Charge]:
        """Charge at a station that the robot reaches after a leg at `arrive_s`."""
        station = self._instance.station_by_id[visit.station]
        who = f"robot {self._robot.id!r}: station {station.id!r}"
        if station.charge is None or self._robot.battery is None:
            lacks = "station with a charger" if station.charge is None else "robot with a battery"
            raise ValueError(f"{who}: charge: expected a {lacks}, got one without")
        if not math.isfinite(arrive_s):
            raise ValueError(f"{who}: travel: expected a way to it, got none")
        yield arrive_s
        start_s = self._slots.first_free_s(station, arrive_s)
        self._spend(who, leg_m, start_s)
        charged_wh = self._amount_wh(who, self._robot.battery.capacity_wh, visit.charged_wh)
        after_wh = self._level_wh + charged_wh
        self._counted_s = end_s = start_s + station.charge.time_s(self._level_wh, after_wh)
        self._level_wh = after_wh
        self._slots.take(station, end_s)
        return Charge(
            station=station.id,
            before=before,
            arrive_s=arrive_s,
            start_s=start_s,
            end_s=end_s,
            charged_wh=charged_wh,
        )

    def _amount_wh(self, who: str, capacity_wh: float, wanted_wh: float | None) -> float:
        """What a charge adds to the present level: what is wanted, or all that fits."""
        most_wh = max(0.0, capacity_wh - self._level_wh)
        if wanted_wh is None:
            return most_wh
        slack_wh = ENERGY_TOLERANCE * capacity_wh
        is_full = self._instance.recharge is Recharge.FULL
        if wanted_wh > most_wh + slack_wh or (is_full and wanted_wh < most_wh - slack_wh):
            raise ValueError(
                f"{who}: charge: expected {'the' if is_full else 'at most the'} {most_wh:g} Wh "
                f"up to the full battery, got {wanted_wh:g}"
            )
        return min(wanted_wh, most_wh)

    def _return(self, last: str, here: int, leave_s: float) -> float:
        """Drive home after the request `last`, and be reloaded."""
        robot = self._robot
        who = f"robot {robot.id!r}: request {last!r}: return"
        return_s = leave_s + float(self._instance.travel_s[here, DEPOT])
        if not return_s <= robot.end_s + TOLERANCE_S:
            raise ScheduleError(robot.id, f"{who}: expected by {robot.end_s:g}, got {return_s:g}")
        self._spend(who, self._metres(here, DEPOT), return_s)
        self._back_s, self._ready_s = return_s, return_s + self._instance.reload_s
        return return_s

    def _spend(self, who: str, leg_m: float, until_s: float) -> None:
        """Take what a leg and the time up to the next event draw from the battery."""
        battery = self._robot.battery
        if battery is None:
            return
        base_wh = battery.base_w * (until_s - self._counted_s) / HOUR_S
        self._level_wh -= battery.wh_per_m * leg_m + base_wh
        self._counted_s = until_s
        if self._level_wh < battery.reserve_wh - ENERGY_TOLERANCE * battery.capacity_wh:
            raise ScheduleError(
                self._robot.id,
                f"{who}: battery: expected at least {battery.reserve_wh:g} Wh, "
                f"got {self._level_wh:g}",
            )

    def _is_charge_at_depot(self, visit: _Visit) -> bool:
        return isinstance(visit, ChargeVisit) and self._place(visit) == DEPOT

    def _place(self, visit: _Visit) -> int:
        if isinstance(visit, ChargeVisit):
            return self._instance.place_index[self._instance.station_by_id[visit.station].place]
        request, is_pickup = visit
        return self._instance.place_index[request.stop_place(is_pickup=is_pickup)]

    def _metres(self, here: int, there: int) -> float:
        """Length of a leg that can be driven, else 0: such a leg takes for ever, which shows."""
        leg_m = float(self._instance.distance_m[here, there])
        return leg_m if math.isfinite(leg_m) else 0.0


def _look_up(
    instance: Instance, robot: Robot, sequence: Sequence[str | ChargeVisit]
) -> list[_Visit]:
    """Charges as they are, and each stop's request and whether it is a transfer's pickup."""
    ids = [element for element in sequence if isinstance(element, str)]
    if not ids:
        raise ValueError(f"robot {robot.id!r}: trip: expected at least one request, got none")
    for element in sequence:
        what, id_, known = (
            ("station", element.station, instance.station_by_id.keys())
            if isinstance(element, ChargeVisit)
            else ("request", element, instance.request_by_id.keys())
        )
        if id_ not in known:
            raise ValueError(
                f"robot {robot.id!r}: {what} {id_!r}: no {what} of this name in {instance.name!r}"
            )
    for request_id, count in Counter(ids).items():
        is_transfer = instance.request_by_id[request_id].kind is Kind.TRANSFER
        if is_transfer and count != 2:
            raise ValueError(
                f"robot {robot.id!r}: request {request_id!r}: stops: "
                f"expected a pickup and a drop on one trip, got {count}"
            )
    visits: list[_Visit] = []
    seen: set[str] = set()
    for element in sequence:
        if isinstance(element, ChargeVisit):
            visits.append(element)
        else:
            request = instance.request_by_id[element]
            visits.append((request, request.kind is Kind.TRANSFER and element not in seen))
            seen.add(element)
    _require_loads_fit(robot, [visit for visit in visits if not isinstance(visit, ChargeVisit)])
    return visits


def _require_loads_fit(robot: Robot, stops: list[tuple[Request, bool]]) -> None:
    load = sum(request.load for request, _ in stops if request.kind is Kind.DELIVER)
    _require_room(robot, stops[0][0], load)
    for request, is_pickup in stops:
        load += request.load if is_pickup or request.kind is Kind.COLLECT else -request.load
        _require_room(robot, request, load)


def _require_room(robot: Robot, request: Request, load: float) -> None:
    if load > robot.capacity + LOAD_TOLERANCE * max(1.0, robot.capacity):
        raise ValueError(
            f"robot {robot.id!r}: request {request.id!r}: load: "
            f"expected at most the capacity {robot.capacity:g}, got {load:g}"
        )
