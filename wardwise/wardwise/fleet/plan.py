"""What a solver answers: timed trips of robots, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Stop:
    """A visit: the robot arrives, waits if early, and starts service at `start_s`.

    A transfer has two stops, its pickup (`is_pickup`) and then its drop; all other
    requests have one, which is no pickup in this sense.
    """

    request: str
    arrive_s: float
    start_s: float
    is_pickup: bool = False


@dataclass(frozen=True, kw_only=True)
class Trip:
    """One round of one robot: out of the depot, through `stops`, back to the depot.

    If it `is_broken_off`, the robot broke down at `return_s`, after the last of
    `stops`, and people took it to the depot: it drove no way home.
    """

    robot: str
    depart_s: float
    stops: tuple[Stop, ...]
    return_s: float
    is_broken_off: bool = False

    def __post_init__(self) -> None:
        if not self.stops:
            raise ValueError(
                f"trip of robot {self.robot!r}: stops: expected at least one, got none"
            )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All trips of a day, and the requests that are turned down.

    Trips of one robot stand in the order in which they are driven.
    """

    instance: str
    trips: tuple[Trip, ...]
    denied: tuple[str, ...] = ()

    def trips_by_robot(self) -> dict[str, tuple[Trip, ...]]:
        """Trips of every robot that has any, in driving order."""
        robots: dict[str, tuple[Trip, ...]] = {}
        for trip in self.trips:
            robots[trip.robot] = (*robots.get(trip.robot, ()), trip)
        return robots


@dataclass(frozen=True, kw_only=True)
class CostBreakdown:
    """The four parts of a day's cost, as amounts and as money.

    `lateness_s` is the plain sum of delays past `due_s`; the money weighs each
    by its priority.
    """

    num_robots: int
    distance_m: float
    num_late: int
    lateness_s: float
    num_denied: int
    robot_cost: float
    distance_cost: float
    lateness_cost: float
    denial_cost: float

    @property
    def total(self) -> float:
        """Cost of the day in money."""
        return self.robot_cost + self.distance_cost + self.lateness_cost + self.denial_cost
