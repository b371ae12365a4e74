"""A dispatched day as the page plays it: what was planned and decided at every moment.

The records of a day hold its events and answers, not the plans in between. Those
are made again by handing the same events to a new dispatcher, which is exact. To
keep the page small a moment holds only the trips that changed, behind those that
did not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from wardwise.fleet.dispatch import Dispatcher, Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.fleet.dispatch import Decision
    from wardwise.fleet.plan import Plan, Trip
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.replay import Replay

DECIMALS = 1  # of the times that the page holds
DEPOT = 0

# depart, leaves for home, back, broken off, then for each stop: row (of a pickup -1 - row),
# leaves for it, starts there.
PackedTrip = list[float]


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What changed at one event.

    Attributes
    ----------
    answers
        Rows of requests, and where they stand from now on.
    changes
        Robot, number of its first trips that stay, and the trips behind them.
    """

    time_s: float
    answers: list[tuple[int, str]]
    changes: list[tuple[int, int, list[PackedTrip]]]

    def document(self) -> list[Any]:
        """Content for the page's script."""
        return [self.time_s, self.answers, self.changes]


def live_through(replay: Replay) -> Iterator[tuple[float, tuple[Decision, ...], Plan]]:
    """Every event's time and answers, and the plan after it, after the plan made in advance."""
    dispatcher = Dispatcher(replay.instance, replay.first_plan, replay.policy)
    yield 0.0, (), dispatcher.plan()
    for record in replay.records:
        again = dispatcher.handle(record.event)
        yield record.event.now_s, again.decisions, dispatcher.plan()


def moments_of(replay: Replay) -> list[Moment]:
    """Moments in order, from the plan made in advance; where nothing changed there is none."""
    instance = replay.instance
    row_of = {request.id: row for row, request in enumerate(instance.requests)}
    packed: dict[str, list[PackedTrip]] = {robot.id: [] for robot in instance.robots}
    moments: list[Moment] = []
    for time_s, decisions, plan in live_through(replay):
        changes = []
        trips = plan.trips_by_robot()
        for number, robot in enumerate(packed):
            new = [_pack(trip, instance, row_of) for trip in trips.get(robot, ())]
            kept = _num_equal(packed[robot], new)
            if kept < max(len(new), len(packed[robot])):
                changes.append((number, kept, new[kept:]))
                packed[robot] = new
        answers = [(row_of[d.request], str(d.status)) for d in decisions]
        if not moments:
            answers = _advance_answers(plan, row_of)
        if answers or changes or not moments:
            moment = Moment(time_s=round(time_s, DECIMALS), answers=answers, changes=changes)
            moments.append(moment)
    return moments


def legs_of(instance: Instance, moments: list[Moment]) -> set[tuple[int, int]]:
    """Pairs of places between which a robot is ever planned to drive."""
    legs: set[tuple[int, int]] = set()
    for moment in moments:
        for _, _, trips in moment.changes:
            for _, _, _, is_broken_off, *stops in trips:
                places = [_place(instance, int(row)) for row in stops[::3]]
                legs.update(pairwise([DEPOT, *places, *([] if is_broken_off else [DEPOT])]))
    return legs


def stop_places(instance: Instance, row: int) -> tuple[int, int]:
    """Indices of a request's places: where it is picked up, if it is a transfer, and served."""
    request = instance.requests[row]
    place = instance.place_index[request.place]
    return (instance.place_index[request.origin] if request.origin else place), place


def _pack(trip: Trip, instance: Instance, row_of: dict[str, int]) -> PackedTrip:
    """Flat list of a trip; robots leave as late as the next start allows."""
    stops: list[float] = []
    here, free_s = DEPOT, trip.depart_s
    for stop in trip.stops:
        row = row_of[stop.request]
        request = instance.requests[row]
        place = stop_places(instance, row)[not stop.is_pickup]
        leave_s = max(free_s, stop.arrive_s - float(instance.travel_s[here, place]))
        stops += (-1 - row if stop.is_pickup else row, leave_s, stop.start_s)
        here, free_s = place, stop.start_s + request.service_s
    home_s = max(free_s, trip.return_s - float(instance.travel_s[here, DEPOT]))
    if trip.is_broken_off:
        home_s = trip.return_s
    flat = [trip.depart_s, home_s, trip.return_s, float(trip.is_broken_off), *stops]
    return [round(value, DECIMALS) for value in flat]


def _num_equal(old: list[PackedTrip], new: list[PackedTrip]) -> int:
    """Number of trips at the start that are the same."""
    pairs = enumerate(zip(old, new, strict=False))
    return next((k for k, (a, b) in pairs if a != b), min(len(old), len(new)))


def _advance_answers(plan: Plan, row_of: dict[str, int]) -> list[tuple[int, str]]:
    """Where the requests stand that were known in advance."""
    served = {stop.request for trip in plan.trips for stop in trip.stops}
    answers = [(row_of[id_], str(Status.ACCEPTED)) for id_ in served]
    answers += [(row_of[id_], str(Status.DENIED)) for id_ in plan.denied]
    return sorted(answers)


def _place(instance: Instance, number: int) -> int:
    """Place of a stop of a packed trip."""
    is_pickup = number < 0
    return stop_places(instance, -1 - number if is_pickup else number)[not is_pickup]
