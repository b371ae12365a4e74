"""The figures by which a simulated day is judged.

Requests are those of the instance, under their own names. Where goods went on under
another name after a breakdown, what became of that one counts; that collected goods
were lost on the way home does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.dispatch import Status
from wardwise.fleet.facts import Deed
from wardwise.fleet.problem import NUM_PRIORITIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.check import Report
    from wardwise.fleet.dispatch import Dispatcher
    from wardwise.fleet.facts import Ride
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Request
    from wardwise.fleet.simulate.log import Log

# Lateness up to the rounding of a sum of times is none.
TOLERANCE_S = 1e-6


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """What became of the requests of one class that came in; each is counted once.

    ``num_by_hand`` are deliveries that were on board of a robot that broke down where
    they were to go; nobody measured when people carried them in. ``num_open`` are
    neither served nor turned down when the simulation ends.
    """

    num_requests: int
    num_on_time: int
    num_late: int
    num_denied: int
    num_unservable: int
    num_cancelled: int
    num_by_hand: int
    num_open: int

    @property
    def on_time(self) -> float:
        """Share of those not cancelled that were served by their due time; 1 without any."""
        return self._share(self.num_on_time, empty=1.0)

    @property
    def denied(self) -> float:
        """Share of those not cancelled that were denied, or unservable; 0 without any."""
        return self._share(self.num_denied + self.num_unservable, empty=0.0)

    def _share(self, part: int, *, empty: float) -> float:
        whole = self.num_requests - self.num_cancelled
        return part / whole if whole > 0 else empty


@dataclass(frozen=True, kw_only=True)
class ElevatorFigures:
    """Waits before one elevator on one floor.

    `wait_s` and `longest_s` are the mean and the longest wait until the cabin was
    there, `queue_s` the mean of the part in which other robots had their turn.
    """

    elevator: str
    floor: int
    num_rides: int
    wait_s: float
    queue_s: float
    longest_s: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures of one simulated day.

    Attributes
    ----------
    classes
        Of stat, urgent and routine requests.
    elevators
        By elevator and floor, where there were rides.
    num_robots, distance_m, lateness_s, cost
        As the checker has them: robots used, metres, seconds past due, money.
    num_breakdowns
        Of all robots.
    utilisation
        Share of the shifts of all robots in which they were under way or served.
    """

    classes: tuple[ClassFigures, ...]
    elevators: tuple[ElevatorFigures, ...]
    num_robots: int
    distance_m: float
    lateness_s: float
    cost: float
    num_breakdowns: int
    utilisation: float


def figures_of(
    instance: Instance, dispatcher: Dispatcher, log: Log, plan: Plan, report: Report
) -> Figures:
    """Figures of a day.

    Parameters
    ----------
    instance
        The one simulated, with all its requests.
    plan, report
        The day as executed, and the checker's verdict.
    """
    starts_s = _starts(log, plan)
    fates: list[list[str]] = [[] for _ in range(NUM_PRIORITIES)]
    for request in instance.requests:
        if dispatcher.status(request.id) is not None:
            fates[request.priority - 1].append(_fate(request, dispatcher, starts_s))
    shifts_s = sum(robot.end_s - robot.start_s for robot in instance.robots)
    return Figures(
        classes=tuple(_class_figures(each) for each in fates),
        elevators=_elevator_figures(log.rides),
        num_robots=report.cost.num_robots,
        distance_m=report.cost.distance_m,
        lateness_s=report.cost.lateness_s,
        cost=report.cost.total,
        num_breakdowns=sum(fact.deed is Deed.BREAK_DOWN for fact in log.facts),
        utilisation=sum(log.busy_s.values()) / shifts_s if shifts_s > 0 else 0.0,
    )


def unserved_of(instance: Instance, dispatcher: Dispatcher, log: Log) -> tuple[str, ...]:
    """Requests that were accepted and never served, by the names in the instance."""
    starts_s = _starts(log, dispatcher.plan())
    return tuple(
        request.id
        for request in instance.requests
        if dispatcher.status(request.id) is not None
        and _fate(request, dispatcher, starts_s) == "num_open"
    )


def _starts(log: Log, plan: Plan) -> dict[str, float]:
    """When service began, of what was served; of a transfer, at its drop."""
    return {
        stop.request: stop.start_s
        for trip in plan.trips
        for stop in trip.stops
        if not stop.is_pickup and stop.request in log.served
    }


_FATES = {
    Status.DENIED: "num_denied",
    Status.UNSERVABLE: "num_unservable",
    Status.CANCELLED: "num_cancelled",
}


def _fate(request: Request, dispatcher: Dispatcher, starts_s: dict[str, float]) -> str:
    """Field of `ClassFigures` in which a request counts."""
    name = request.id
    while (status := dispatcher.status(name)) is Status.REPLACED:
        name += "/rescue"
    if status is None:
        return "num_by_hand"
    if status is Status.ACCEPTED and name in starts_s:
        is_late = starts_s[name] > request.due_s + TOLERANCE_S
        return "num_late" if is_late else "num_on_time"
    return _FATES.get(status, "num_open")


def _class_figures(fates: Sequence[str]) -> ClassFigures:
    fields = [name for name in ClassFigures.__dataclass_fields__ if name != "num_requests"]
    counts = {name: fates.count(name) for name in fields}
    return ClassFigures(num_requests=len(fates), **counts)


def _elevator_figures(rides: Sequence[Ride]) -> tuple[ElevatorFigures, ...]:
    by_door: dict[tuple[str, int], list[Ride]] = {}
    for ride in rides:
        by_door.setdefault((ride.elevator, ride.floor), []).append(ride)
    return tuple(
        ElevatorFigures(
            elevator=elevator,
            floor=floor,
            num_rides=len(those),
            wait_s=sum(ride.wait_s for ride in those) / len(those),
            queue_s=sum(ride.queue_s for ride in those) / len(those),
            longest_s=max(ride.wait_s for ride in those),
        )
        for (elevator, floor), those in sorted(by_door.items())
    )
