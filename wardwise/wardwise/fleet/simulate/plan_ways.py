"""How long legs of a planned day take: certain parts, random parts, and queues on the way.

A leg is ``drive * F * D + wait * G + fixed`` as in `wardwise.fleet.chance.legs`. In a
building it is driven piece by piece instead: a door lets one robot pass at a time, and
so does an elevator, whose wait has a factor of its own. Without other robots in the
way both take the same time in the mean.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.chance.legs import legs_of
from wardwise.fleet.randomness import Law, Randomness, Spread
from wardwise.fleet.simulate.disturbances import Luck, Source
from wardwise.fleet.simulate.ways import require_site

if TYPE_CHECKING:
    from wardwise.fleet.chance.legs import Legs
    from wardwise.fleet.problem import Instance
    from wardwise.site import Corridor, Elevator, Site

Key = tuple[str | int, ...]


class Piece(NamedTuple):
    """Part of a way: how long it takes, how much of the leg's metres it has.

    `wait_s` is the mean time before an elevator comes, 0 on corridors; `door` is the
    door or elevator that lets one robot pass at a time, if any; `lift` tells an elevator
    and the floors that it goes from and to.
    """

    drive_s: float
    fixed_s: float
    wait_s: float
    metres: float
    door: str | None
    lift: tuple[str, int, int] | None = None


class PlanWays:
    """Times of legs and services on one day.

    Parameters
    ----------
    uses_building
        Whether legs are driven through the site of the instance.
    legs
        Those of the instance, where they are known.

    Raises
    ------
    ValueError
        If there is no such site.
    """

    def __init__(
        self, instance: Instance, seed: int, *, uses_building: bool, legs: Legs | None = None
    ) -> None:
        self.instance = instance
        self.legs = legs or legs_of(instance)
        self.law = instance.randomness or Randomness()
        self._luck = Luck(seed, Law.GAMMA)
        day = Spread(law=Law.LOGNORMAL, cv=self.law.day)
        self._day = self._factor(day, None, Source.DAY)
        self._site = require_site(instance) if uses_building else None
        self._pieces: dict[tuple[int, int], tuple[Piece, ...]] = {}

    def service_s(self, mean_s: float, *key: str | int) -> float:
        """Time of a service."""
        return mean_s * self._factor(self.law.service, None, Source.SERVICE, *key)

    def leg(self, here: int, there: int, *key: str | int) -> list[Piece]:
        """Pieces of a leg with the times of this day; luck is in all three of them."""
        drive = self._factor(
            self.law.travel, self._drive_cv(here, there), Source.TRAVEL, *key
        )  # one factor for the whole leg: who is slow stays slow
        found = []
        for number, piece in enumerate(self._cut(here, there)):
            wait_cv = None if self._site else float(self.legs.wait_cv[here, there])
            wait_s = piece.wait_s
            if wait_s > 0:
                source = Source.ELEVATOR
                wait_s *= self._factor(self.law.elevator, wait_cv, source, *key, number)
            drive_s = piece.drive_s * drive * self._day
            found.append(piece._replace(drive_s=drive_s, wait_s=wait_s))
        return found

    def _drive_cv(self, here: int, there: int) -> float | None:
        return None if self._site else float(self.legs.drive_cv[here, there])

    def _factor(self, spread: Spread, cv: float | None, source: Source, *key: str | int) -> float:
        if (spread.cv if cv is None else cv) == 0:
            return 1.0
        return float(spread.quantile(self._luck.uniform(source, *key), cv=cv))

    def _cut(self, here: int, there: int) -> tuple[Piece, ...]:
        """Pieces with mean times."""
        key = here, there
        if key not in self._pieces:
            if self._site is not None:
                places = self.instance.places
                self._pieces[key] = cut(self._site, places[here].id, places[there].id)
            else:
                parts = (self.legs.drive_s, self.legs.fixed_s, self.legs.wait_s)
                drive_s, fixed_s, wait_s = (float(part[key]) for part in parts)
                metres = float(self.instance.distance_m[key])
                self._pieces[key] = (Piece(drive_s, fixed_s, wait_s, metres, None),)
        return self._pieces[key]


def doors_of(site: Site) -> list[str]:
    """Names of all doors and elevators that let one robot pass at a time."""
    corridors = [_door(corridor) for corridor in site.corridors if corridor.door_s > 0]
    return [*dict.fromkeys(corridors), *(_cabin(elevator) for elevator in site.elevators)]


def cut(site: Site, start: str, end: str) -> tuple[Piece, ...]:
    """Pieces of the quickest path with mean times: corridors, doors, elevators."""
    landings = {e.landing(floor): (e, floor) for e in site.elevators for floor in e.floors}
    corridors = _corridors(site)
    pieces: list[Piece] = []
    for here, there in pairwise(site.path(start, end)):
        elevator, floor = landings.get(here, (None, 0))
        other, target = landings.get(there, (None, 0))
        if elevator is not None and elevator is other:
            fixed_s = elevator.ride_s(floor, target) - elevator.wait_mean_s
            lift = elevator.id, floor, target
            pieces.append(Piece(0.0, fixed_s, elevator.wait_mean_s, 0.0, _cabin(elevator), lift))
            continue
        total_s, metres, corridor = corridors[here, there]
        pieces.append(Piece(total_s - corridor.door_s, 0.0, 0.0, metres, None))
        if corridor.door_s > 0:
            pieces.append(Piece(corridor.door_s, 0.0, 0.0, 0.0, _door(corridor)))
    return tuple(pieces)


def _corridors(site: Site) -> dict[tuple[str, str], tuple[float, float, Corridor]]:
    """Quickest corridor between two points: seconds, metres, and itself."""
    found: dict[tuple[str, str], tuple[float, float, Corridor]] = {}
    for corridor in site.corridors:
        metres = site.length_m(corridor)
        speed = site.speed_m_per_s * corridor.speed_factor
        edge = metres / speed + corridor.door_s, metres, corridor
        ends = [(corridor.start, corridor.end)]
        if not corridor.one_way:
            ends.append((corridor.end, corridor.start))
        for key in ends:
            if key not in found or edge[:2] < found[key][:2]:
                found[key] = edge
    return found


def _door(corridor: Corridor) -> str:
    return "door " + " - ".join(sorted((corridor.start, corridor.end)))


def _cabin(elevator: Elevator) -> str:
    return f"elevator {elevator.id}"
