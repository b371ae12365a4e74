"""What a solver answers: timed trips of robots, and what they cost."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


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
class Charge:
    """A visit to a charging station: arrive, wait for a slot, charge, leave.

    It is made just before `stops[before]` of its trip; with `before` the number of
    stops, on the way back. With `before` 0 at a station at the depot, the robot is
    charged before it leaves: it arrived with the trip before, or started its shift
    there, and is charged while it is reloaded or waits.
    """

    station: str
    before: int
    arrive_s: float
    start_s: float
    end_s: float
    charged_wh: float


@dataclass(frozen=True, kw_only=True)
class ChargeVisit:
    """A visit to a charging station in a route, which has no times yet.

    Parameters
    ----------
    charged_wh
        Energy to charge, finite and at least 0; `None`: up to the full battery.
    """

    station: str
    charged_wh: float | None = None

    def __post_init__(self) -> None:
        if self.charged_wh is not None and not 0 <= self.charged_wh < math.inf:
            raise ValueError(
                f"visit to station {self.station!r}: charged_wh: expected a finite number of at "
                f"least 0, got {self.charged_wh}"
            )


@dataclass(frozen=True, kw_only=True)
class Trip:
    """One round of one robot: out of the depot, through `stops`, back to the depot.

    `charges` stand in driving order.

    If it `is_broken_off`, the robot broke down at `return_s`, after the last of
    `stops`, and people took it to the depot: it drove no way home.
    """

    robot: str
    depart_s: float
    stops: tuple[Stop, ...]
    return_s: float
    is_broken_off: bool = False
    charges: tuple[Charge, ...] = ()

    def __post_init__(self) -> None:
        if not self.stops:
            raise ValueError(
                f"trip of robot {self.robot!r}: stops: expected at least one, got none"
            )
        first = 0
        for charge in self.charges:
            if not first <= charge.before <= len(self.stops):
                raise ValueError(
                    f"trip of robot {self.robot!r}: charges: before: expected {first} to "
                    f"{len(self.stops)}, got {charge.before}"
                )
            first = charge.before

    def visits(self) -> Iterator[Stop | Charge]:
        """Stops and charges in driving order."""
        charges = list(self.charges)
        for number, stop in enumerate(self.stops):
            while charges and charges[0].before <= number:
                yield charges.pop(0)
            yield stop
        yield from charges


@dataclass(frozen=True, kw_only=True)
class RequestRisk:
    """Share of the scenarios in which a request is late, and its upper bound."""

    request: str
    late_share: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class ReturnRisk:
    """Share of the scenarios in which a robot is back after its shift, and its bound."""

    robot: str
    late_share: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What random days made of a plan: how often what is late, with confidence bounds.

    Parameters
    ----------
    confidence
        With which each `upper` bounds the true share.
    expected_lateness_s
        Mean sum of all delays of a day.
    holds
        Whether every bound keeps the promise of the instance.
    """

    num_scenarios: int
    seed: int
    confidence: float = 0.99
    requests: tuple[RequestRisk, ...]
    returns: tuple[ReturnRisk, ...]
    expected_lateness_s: float
    holds: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All trips of a day, and the requests that are turned down.

    Trips of one robot stand in the order in which they are driven. Times are those of
    a day on which everything takes its mean; what randomness does to them, the
    `certificate` says.
    """

    instance: str
    trips: tuple[Trip, ...]
    denied: tuple[str, ...] = ()
    certificate: Certificate | None = None

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
    by its priority. Energy is that of robots with batteries.
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
    energy_wh: float = 0.0
    charged_wh: float = 0.0
    num_charges: int = 0

    @property
    def total(self) -> float:
        """Cost of the day in money."""
        return self.robot_cost + self.distance_cost + self.lateness_cost + self.denial_cost
