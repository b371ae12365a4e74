"""A plan as the steps of its robots, each one sum of random times and one wait.

All robots share one form: a step is done at::

    t = max(t + serve * F + drive * G * D + wait * H + fixed, earliest)

with the factors ``F`` of the service before, ``G`` and ``H`` of the leg's driving and
elevators, and ``D`` of the day. A step ends at a request, at a charging station, at the
depot, or with the departure of a trip.

A robot departs as soon as it is back, reloaded, charged and loaded, whatever departure
the plan states: leaving earlier makes nothing later. Charges take their planned time.
They start no earlier than planned where the plan waits for a slot, which shows where a
robot arrives before its charge starts or where another's charge ends when it starts.
Queues that luck makes elsewhere are left to the twin (`wardwise.fleet.simulate`).

Of a day as it was dispatched, no robot leaves for a request before it is known, as the
checker has it with the same `Timing`: what is brought from the depot holds up the
departure, all else the way to its own stop. And what was decided during the day was
decided on what had happened by then: up to the last call on a robot's way to a request
the day has gone as planned, and chance begins with the step that it is doing then.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.chance.luck import Aim, Purpose, Stream
from wardwise.fleet.check import Timing
from wardwise.fleet.plan import Charge
from wardwise.fleet.problem import Kind
from wardwise.fleet.randomness import Randomness

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from wardwise.fleet.chance.legs import Legs
    from wardwise.fleet.plan import Plan, Stop, Trip
    from wardwise.fleet.problem import Instance, Request
    from wardwise.fleet.randomness import Spread

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

DEPOT = 0
TOLERANCE_S = 1e-6
# Row of the table of factors that holds ones.
CERTAIN = 0
NO_TRIP = -1


class Draw(NamedTuple):
    """Factors of one random time: whose luck, which law, which deviation over the mean."""

    stream: Stream
    spread: Spread
    cv: float


class Step(NamedTuple):
    """One step: means of its parts in s, and the rows of their factors in the robot's table.

    Parameters
    ----------
    latest_s
        Later is late; infinite where nothing can be late.
    due_s, price_per_s
        From when on a delay counts, and what each second of it costs.
    var_s2
        Variance of the service before and of the leg.
    waits
        1 at stops, where waiting counts, else 0.
    trip
        At the depot the number of the trip that ends there, else -1.
    """

    serve_s: float = 0.0
    drive_s: float = 0.0
    wait_s: float = 0.0
    fixed_s: float = 0.0
    earliest_s: float = 0.0
    latest_s: float = math.inf
    due_s: float = math.inf
    price_per_s: float = 0.0
    var_s2: float = 0.0
    serve_row: int = CERTAIN
    drive_row: int = CERTAIN
    wait_row: int = CERTAIN
    waits: int = 0
    trip: int = NO_TRIP


INTEGERS = ("serve_row", "drive_row", "wait_row", "waits", "trip")


class Steps(NamedTuple):
    """Arrays of shape (S,) over the steps of all robots, as fields of `Step`."""

    serve_s: Floats
    drive_s: Floats
    wait_s: Floats
    fixed_s: Floats
    earliest_s: Floats
    latest_s: Floats
    due_s: Floats
    price_per_s: Floats
    var_s2: Floats
    serve_row: Integers
    drive_row: Integers
    wait_row: Integers
    waits: Integers
    trip: Integers


@dataclass(frozen=True, kw_only=True)
class Row:
    """Steps `first` to `last` - 1 belong to a robot; its factors are `draws`, from row 1 on."""

    robot: str
    start_s: float
    first: int
    last: int
    draws: tuple[Draw, ...]


@dataclass(frozen=True, kw_only=True)
class Itinerary:
    """All steps of a plan.

    Attributes
    ----------
    requests
        Step at which each request that the plan serves is served; of a transfer, dropped.
    returns
        Step of the last return of each robot.
    trips
        Requests of each trip, in the order of the plan.
    since
        Of a dispatched day, for each request the step that its robot is doing at the last
        call on the way to it, and when that begins; else empty.
    """

    steps: Steps
    rows: tuple[Row, ...]
    requests: dict[str, int]
    returns: dict[str, int]
    trips: tuple[frozenset[str], ...]
    since: dict[str, tuple[int, float]]


def itinerary_of(
    instance: Instance,
    plan: Plan,
    legs: Legs | None = None,
    *,
    timing: Timing = Timing.PLANNED,
) -> Itinerary:
    """Steps of all robots of a plan.

    Parameters
    ----------
    timing
        Whether all requests are known beforehand, or robots wait for their release.

    Raises
    ------
    ValueError
        Naming the robot, if a trip is broken off, robots, requests or stations are
        unknown, there is no way, or times are not finite.
    """
    by_robot: dict[str, list[tuple[int, Trip]]] = {}
    for number, trip in enumerate(plan.trips):
        by_robot.setdefault(trip.robot, []).append((number, trip))
    builder = _Builder(instance, legs or legs_of(instance), plan, timing)
    rows = tuple(builder.row(robot, trips) for robot, trips in by_robot.items())
    return Itinerary(
        steps=_stacked(builder.steps),
        rows=rows,
        requests=builder.requests,
        returns=builder.returns,
        trips=tuple(frozenset(stop.request for stop in trip.stops) for trip in plan.trips),
        since={} if timing is Timing.PLANNED else builder.since(rows),
    )


def _stacked(steps: Sequence[Step]) -> Steps:
    columns: dict[str, Any] = {
        name: np.array(
            [getattr(step, name) for step in steps],
            dtype=np.int64 if name in INTEGERS else np.float64,
        )
        for name in Step._fields
    }
    return Steps(**columns)


class _Builder:
    """Steps of one robot after the other; rows of factors count from 1 for each."""

    def __init__(self, instance: Instance, legs: Legs, plan: Plan, timing: Timing) -> None:
        self._instance, self._legs = instance, legs
        self._heeds_release = timing is not Timing.PLANNED
        self._law = instance.randomness or Randomness()
        # When charges end at a station, and whose they are.
        self._ends: dict[str, list[tuple[float, str]]] = {}
        for trip in plan.trips:
            for charge in trip.charges:
                self._ends.setdefault(charge.station, []).append((charge.end_s, trip.robot))
        self.steps: list[Step] = []
        # When each step is done as planned, and when the call came that it answers.
        self._done_s: list[float] = []
        self._called_s: list[float] = []
        self.requests: dict[str, int] = {}
        self.returns: dict[str, int] = {}
        self._draws: list[Draw] = []
        self._here = DEPOT
        # What is done at the place where the robot is: it counts into the next step.
        self._after = Step()

    def row(self, robot_id: str, trips: Sequence[tuple[int, Trip]]) -> Row:
        """Add the steps of a robot's trips, each with its number in the plan."""
        robot = self._instance.robot_by_id.get(robot_id)
        if robot is None:
            raise ValueError(f"robot {robot_id!r}: no robot of this name in the instance")
        first = len(self.steps)
        self._draws, self._here, self._after = [], DEPOT, Step()
        for order, (number, trip) in enumerate(trips):
            if trip.is_broken_off:
                raise ValueError(
                    f"robot {robot_id!r}: is_broken_off: expected trips that end at the depot"
                )
            self._trip(trip, number, self._instance.reload_s if order else 0.0)
        self.steps[-1] = self.steps[-1]._replace(latest_s=robot.end_s)
        self.returns[robot_id] = len(self.steps) - 1
        return Row(
            robot=robot_id,
            start_s=robot.start_s,
            first=first,
            last=len(self.steps),
            draws=tuple(self._draws),
        )

    def since(self, rows: Sequence[Row]) -> dict[str, tuple[int, float]]:
        """For each request the step done at the last release up to it, and when that begins."""
        served = {step: name for name, step in self.requests.items()}
        found = {}
        for row in rows:
            step, begin_s, called_s = row.first, row.start_s, 0.0
            for last in range(row.first, row.last):
                called_s = max(called_s, self._called_s[last])
                while step < last and self._done_s[step] <= called_s:
                    step, begin_s = step + 1, self._done_s[step]
                if last in served:
                    found[served[last]] = step, begin_s
        return found

    def _trip(self, trip: Trip, number: int, reload_s: float) -> None:
        events = list(trip.visits())
        before = []
        while isinstance(events[0], Charge) and self._place(events[0]) == DEPOT:
            before.append(events.pop(0))
        self._depart(trip, [each for each in before if isinstance(each, Charge)], reload_s)
        detour, request = 0, trip.stops[-1].request
        upcoming = [event for event in events if not isinstance(event, Charge)]
        for event in events:
            if isinstance(event, Charge):
                detour += 1
                aim = self._aim(upcoming[0]) if upcoming else Aim.HOME
                whose = upcoming[0].request if upcoming else request
                self._charge(trip.robot, event, Stream(Purpose.DRIVE, aim, detour, whose))
            else:
                detour = 0
                self._stop(upcoming.pop(0))
        self._arrive(DEPOT, Stream(Purpose.DRIVE, Aim.HOME, 0, request), Step(trip=number))
        self._note(trip.return_s)

    def _depart(self, trip: Trip, charges: Sequence[Charge], reload_s: float) -> None:
        """Depart when back and reloaded, charged one after the other, and with the goods."""
        lasts_s, free_s = 0.0, 0.0
        for charge in charges:
            free_s = max(free_s, self._slot_s(trip.robot, charge))
            free_s += charge.end_s - charge.start_s
            lasts_s += charge.end_s - charge.start_s
        requests = [self._request(stop.request) for stop in trip.stops]
        goods_s = max(self._at_depot_s(request) for request in requests)
        self.steps.append(Step(fixed_s=max(reload_s, lasts_s), earliest_s=max(free_s, goods_s)))
        self._note(trip.depart_s)

    def _charge(self, robot: str, charge: Charge, stream: Stream) -> None:
        step = Step(earliest_s=self._slot_s(robot, charge))
        self._arrive(self._place(charge), stream, step)
        self._note(charge.start_s)
        self._after = Step(fixed_s=charge.end_s - charge.start_s)

    def _stop(self, stop: Stop) -> None:
        request = self._request(stop.request)
        is_transfer = request.kind is Kind.TRANSFER
        aim = self._aim(stop)
        place = self._instance.place_index[request.stop_place(is_pickup=stop.is_pickup)]
        step = Step(waits=1)
        is_drop = is_transfer and aim is Aim.STOP
        if not (is_drop or request.kind is Kind.DELIVER):
            self._hear_of(request)
        if not is_drop:
            step = step._replace(earliest_s=request.earliest_s)
        if aim is Aim.STOP:
            price_per_s = self._instance.costs.lateness_per_s[request.priority - 1]
            step = step._replace(
                latest_s=request.latest_s, due_s=request.due_s, price_per_s=price_per_s
            )
            self.requests[request.id] = len(self.steps)
        self._arrive(place, Stream(Purpose.DRIVE, aim, 0, request.id), step)
        self._note(stop.start_s, request.release_s)
        service = self._law.service
        row = self._draw(
            Stream(Purpose.SERVICE, aim, 0, request.id), service, service.cv, request.service_s
        )
        variance = (service.cv * request.service_s) ** 2
        self._after = Step(serve_s=request.service_s, serve_row=row, var_s2=variance)

    def _note(self, done_s: float, called_s: float = 0.0) -> None:
        self._done_s.append(done_s)
        self._called_s.append(called_s)

    def _at_depot_s(self, request: Request) -> float:
        """From when on what a request brings from the depot can be loaded."""
        is_heeded = self._heeds_release and request.kind is Kind.DELIVER
        return max(request.available_s, request.release_s if is_heeded else 0.0)

    def _hear_of(self, request: Request) -> None:
        """Be done where the robot is, and stay there until it knows of its next stop."""
        if self._heeds_release and request.release_s > 0:
            self.steps.append(self._after._replace(earliest_s=request.release_s))
            self._note(max(self._done_s[-1] + self._after.serve_s, request.release_s))
            self._after = Step()

    def _arrive(self, there: int, stream: Stream, step: Step) -> None:
        """Add a step that ends at a place after a leg of its own luck."""
        legs, leg, law = self._legs, (self._here, there), self._law
        drive_s, wait_s, fixed_s = (
            float(part[leg]) for part in (legs.drive_s, legs.wait_s, legs.fixed_s)
        )
        after = self._after
        if not math.isfinite(drive_s + wait_s + fixed_s + after.fixed_s):
            raise ValueError(f"request {stream.request!r}: travel: expected a way, got none")
        drive_row = self._draw(stream, law.travel, float(legs.drive_cv[leg]), drive_s)
        wait = stream._replace(purpose=Purpose.WAIT)
        self.steps.append(
            step._replace(
                serve_s=after.serve_s,
                serve_row=after.serve_row,
                drive_s=drive_s,
                drive_row=drive_row,
                wait_s=wait_s,
                wait_row=self._draw(wait, law.elevator, float(legs.wait_cv[leg]), wait_s),
                fixed_s=fixed_s + after.fixed_s,
                var_s2=float(legs.travel_var_s2[leg]) + after.var_s2,
            )
        )
        self._here, self._after = there, Step()

    def _draw(self, stream: Stream, spread: Spread, cv: float, mean_s: float) -> int:
        """Row of the factors of a random time; times that are certain share one row."""
        if mean_s == 0 or cv == 0 or spread.cv == 0:
            return CERTAIN
        self._draws.append(Draw(stream, spread, cv))
        return len(self._draws)

    def _slot_s(self, robot: str, charge: Charge) -> float:
        """When a slot gets free that the plan waits for, else 0."""
        is_handed_on = any(
            other != robot and abs(end_s - charge.start_s) <= TOLERANCE_S
            for end_s, other in self._ends[charge.station]
        )
        waits = charge.start_s > charge.arrive_s + TOLERANCE_S
        return charge.start_s if waits or is_handed_on else 0.0

    def _aim(self, stop: Stop) -> Aim:
        is_transfer = self._request(stop.request).kind is Kind.TRANSFER
        return Aim.PICKUP if is_transfer and stop.is_pickup else Aim.STOP

    def _request(self, id_: str) -> Request:
        request = self._instance.request_by_id.get(id_)
        if request is None:
            raise ValueError(f"request {id_!r}: no request of this name in the instance")
        return request

    def _place(self, charge: Charge) -> int:
        station = self._instance.station_by_id.get(charge.station)
        if station is None:
            raise ValueError(f"station {charge.station!r}: no station of this name in the instance")
        return self._instance.place_index[station.place]
