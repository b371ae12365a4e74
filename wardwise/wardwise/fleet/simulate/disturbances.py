"""What goes otherwise than planned, and the random numbers behind it.

Every random number belongs to a key: the service of this request, the way to that
one, the third failure of that robot. It is the same whatever else happens on the day,
so that two policies under the same seed meet the same luck wherever they do the same
(common random numbers). A draw is a quantile of its distribution at a uniform number,
so that a longer leg or a larger variance stretches the same luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from wardwise.fleet.randomness import MOST_CV, Law, Spread

SHORTEST_S = 1.0

# Laws that a mean and a variance describe, and that have no negative times.
LAWS = (Law.GAMMA, Law.LOGNORMAL)


@dataclass(frozen=True, kw_only=True)
class Disturbances:
    """What may go otherwise than planned; by default nothing does.

    Parameters
    ----------
    law
        Distribution of all times but those of failures: gamma or log-normal.
    travel_cv
        Standard deviation of a leg's time over its mean, 0 to 10; `None` takes the
        variances of the instance. With elevators it is that of the driving parts, and
        `None` stands for the building's own `drive_cv`.
    service_cv
        The same for service times.
    uses_elevators
        Whether robots drive through the building of the instance: a leg is then a
        chain of drives and rides, a cabin takes one robot at a time, and robots queue
        for it. Otherwise a leg is one random time.
    driving_s_per_failure
        Mean driving time between two breakdowns of a robot, exponentially distributed;
        at least 1, infinite for none. Rides and waits wear nothing.
    repair_s
        Mean time until a broken robot is back at the depot, exponentially distributed;
        at least 1.
    cancels_per_s
        Rate at which a request is withdrawn from its release until it is served.
    """

    law: Law = Law.GAMMA
    travel_cv: float | None = 0.0
    service_cv: float = 0.0
    uses_elevators: bool = False
    driving_s_per_failure: float = math.inf
    repair_s: float = 1800.0
    cancels_per_s: float = 0.0

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ValueError(
                f"disturbances: law: expected one of {', '.join(LAWS)}, got {self.law!r}"
            )
        object.__setattr__(self, "law", Law(self.law))
        for name in ("travel_cv", "service_cv"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MOST_CV:
                raise ValueError(f"disturbances: {name}: expected 0 to {MOST_CV:g}, got {value}")
        if not self.driving_s_per_failure >= SHORTEST_S:
            raise ValueError(
                f"disturbances: driving_s_per_failure: expected at least {SHORTEST_S:g}, "
                f"got {self.driving_s_per_failure}"
            )
        if not (math.isfinite(self.repair_s) and self.repair_s >= SHORTEST_S):
            raise ValueError(
                f"disturbances: repair_s: expected a finite number of at least {SHORTEST_S:g}, "
                f"got {self.repair_s}"
            )
        if not (math.isfinite(self.cancels_per_s) and self.cancels_per_s >= 0):
            raise ValueError(
                f"disturbances: cancels_per_s: expected a finite number of at least 0, "
                f"got {self.cancels_per_s}"
            )


class Source(IntEnum):
    """What a random number is for; the numbers are part of what a seed means."""

    TRAVEL = 0
    SERVICE = 1
    ELEVATOR = 2
    FAILURE = 3
    REPAIR = 4
    CANCEL = 5
    SEARCH = 6
    DAY = 7


class Luck:
    """The random numbers of one day, by key.

    Parameters
    ----------
    seed
        At least 0.
    law
        Of `duration`.
    """

    def __init__(self, seed: int, law: Law) -> None:
        self._seed = seed
        self._spread = Spread(law=law)

    def generator(self, source: Source, number: int) -> np.random.Generator:
        """Generator for a search."""
        return np.random.default_rng(self._sequence(source, number))

    def duration(self, mean: float, variance: float, source: Source, *key: str | int) -> float:
        """Random time of given mean and variance."""
        if mean <= 0 or variance <= 0:
            return mean
        uniform = self.uniform(source, *key)
        return mean * float(self._spread.quantile(uniform, cv=math.sqrt(variance) / mean))

    def exponential(self, mean: float, source: Source, *key: str | int) -> float:
        """Exponential time of given mean."""
        return -mean * math.log(self.uniform(source, *key))

    def uniform(self, source: Source, *key: str | int) -> float:
        """Uniform number for a key, above 0 and below 1."""
        bits = int(self._sequence(source, *key).generate_state(1, np.uint64)[0])
        return ((bits >> 11) + 0.5) * 2.0**-53

    def _sequence(self, source: Source, *key: str | int) -> np.random.SeedSequence:
        numbers = [part if isinstance(part, int) else _number(part) for part in key]
        return np.random.SeedSequence(self._seed, spawn_key=(source, *numbers))


def _number(text: str) -> int:
    """A whole number for a name; the leading 1 keeps names with leading zeros apart."""
    return int.from_bytes(b"\x01" + text.encode(), "big")
