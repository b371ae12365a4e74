"""Ways from place to place, in pieces: drives, and rides in elevators.

Without elevators a way is one drive, as the matrices of the instance have it. With
elevators it is the quickest path through the building, the one that the matrices were
computed from, cut where a robot enters and leaves a cabin.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.simulate.disturbances import Disturbances
    from wardwise.site import Elevator, Site


class Drive(NamedTuple):
    """A piece that a robot drives."""

    mean_s: float
    variance_s2: float


class Lift(NamedTuple):
    """A piece in a cabin, from floor to floor."""

    elevator: Elevator
    floor: int
    target: int

    @property
    def mean_s(self) -> float:
        """Mean time, without other robots."""
        return self.elevator.ride_s(self.floor, self.target)

    @property
    def ride_s(self) -> float:
        """Time from the door that opens to the door that has closed behind the robot."""
        return self.mean_s - self.elevator.wait_mean_s


class Ways:
    """Pieces of each way, made when first asked for.

    Raises
    ------
    ValueError
        If the instance lacks what the disturbances ask for: variances, or a building
        with all its places.
    """

    def __init__(self, instance: Instance, disturbances: Disturbances) -> None:
        self._instance = instance
        self._cv = disturbances.travel_cv
        self._site: Site | None = None
        self._landings: dict[str, tuple[Elevator, int]] = {}
        self._known: dict[tuple[str, str], tuple[Drive | Lift, ...]] = {}
        self._drives: dict[tuple[str, str], Drive] = {}
        if disturbances.uses_elevators:
            self._site = require_site(instance)
            for elevator in self._site.elevators:
                for floor in elevator.floors:
                    self._landings[elevator.landing(floor)] = (elevator, floor)
        elif self._cv is None and instance.travel_var_s2 is None:
            raise ValueError(
                "disturbances: travel_cv: expected a number, the instance has no variances"
            )

    def pieces(self, start: str, end: str) -> tuple[Drive | Lift, ...]:
        """Pieces of the way from one place to another, in order."""
        key = (start, end)
        if key not in self._known:
            self._known[key] = self._cut(start, end)
        return self._known[key]

    def _cut(self, start: str, end: str) -> tuple[Drive | Lift, ...]:
        if self._site is None:
            return (self._drive(start, end),)
        pieces: list[Drive | Lift] = []
        begin = start
        for here, there in pairwise(self._site.path(start, end)):
            elevator, floor = self._landings.get(here, (None, 0))
            other, target = self._landings.get(there, (None, 0))
            if elevator is None or elevator is not other:
                continue
            if begin != here:
                pieces.append(self._drive(begin, here))
            pieces.append(Lift(elevator, floor, target))
            begin = there
        if begin != end:
            pieces.append(self._drive(begin, end))
        return tuple(pieces)

    def _drive(self, start: str, end: str) -> Drive:
        key = (start, end)
        if key not in self._drives:
            mean_s, variance_s2 = self._times(start, end)
            if self._cv is not None:
                variance_s2 = (self._cv * mean_s) ** 2
            self._drives[key] = Drive(mean_s, variance_s2)
        return self._drives[key]

    def _times(self, start: str, end: str) -> tuple[float, float]:
        """Mean and variance of driving without elevators in between."""
        if self._site is not None:
            travel = self._site.travel([start, end])
            return float(travel.travel_s[0, 1]), float(travel.travel_var_s2[0, 1])
        instance = self._instance
        leg = instance.place_index[start], instance.place_index[end]
        variance_s2 = instance.travel_var_s2
        return float(instance.travel_s[leg]), 0.0 if variance_s2 is None else float(
            variance_s2[leg]
        )


def require_site(instance: Instance) -> Site:
    """The building of an instance, which holds all of its places; `ValueError` without one."""
    site = instance.site
    if site is None:
        raise ValueError("disturbances: uses_elevators: expected a site, the instance has none")
    for place in instance.places:
        if place.id not in site.points:
            raise ValueError(
                f"disturbances: uses_elevators: expected all places in the site, "
                f"{place.id!r} is not"
            )
    return site
