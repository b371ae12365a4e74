"""Buildings: floors, corridors, doors and elevators, turned into travel times.

A site is a directed graph. Its points are the nodes (wards, stores, docks,
junctions) and one landing per floor of every elevator, called ``lift@2`` for
elevator ``lift`` on floor 2. Its edges are corridors and elevator rides:

* corridor: mean ``length / (speed * speed_factor) + door_s``; the driving part
  has standard deviation ``drive_cv`` times its mean (people, beds, trolleys),
  doors open at once for a robot and add no variance;
* ride over n floors: mean ``wait_mean_s + 2 * door_s + n * ride_s_per_floor``
  and variance ``wait_sd_s ** 2``. A ride is one edge whatever the number of
  floors, so that the wait counts once.

Robots take the path of least mean time. Its variance is the sum over its edges,
which holds when corridors and waits are independent of each other. Robots drive
no metres inside an elevator.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_array

Matrix = NDArray[np.float64]


class NodeKind(StrEnum):
    """What stands at a node; reports choose colour and symbol by it."""

    WARD = "ward"
    THEATRE = "theatre"
    PHARMACY = "pharmacy"
    LABORATORY = "laboratory"
    STERILE = "sterile"
    KITCHEN = "kitchen"
    LINEN = "linen"
    WASTE = "waste"
    DOCK = "dock"
    CHARGER = "charger"
    JUNCTION = "junction"


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A floor; levels count 0, 1, 2, … from the lowest."""

    level: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Node:
    """A point on a floor plan; corridors join nodes."""

    id: str
    name: str
    kind: NodeKind = NodeKind.JUNCTION
    floor: int = 0
    x_m: float = 0.0
    y_m: float = 0.0

    def __post_init__(self) -> None:
        _require_id("node", self.id)
        _require_finite(f"node {self.id!r}", x_m=self.x_m, y_m=self.y_m)


@dataclass(frozen=True, kw_only=True)
class Corridor:
    """A way between two points of one floor, each a node or a landing.

    Parameters
    ----------
    length_m
        `None`: the straight line between its ends.
    door_s
        Time lost at automatic doors.
    speed_factor
        Robot speed here over the robot's usual speed; below 1 where it is busy.
    one_way
        Only from `start` to `end`, as through a sluice.
    """

    start: str
    end: str
    length_m: float | None = None
    door_s: float = 0.0
    speed_factor: float = 1.0
    one_way: bool = False

    def __post_init__(self) -> None:
        name = f"corridor {self.start!r} to {self.end!r}"
        if self.start == self.end:
            raise ValueError(f"{name}: end: expected another point than start")
        if self.length_m is not None:
            _require_positive(name, length_m=self.length_m)
        _require_positive(name, speed_factor=self.speed_factor)
        _require_non_negative(name, door_s=self.door_s)


@dataclass(frozen=True, kw_only=True)
class Elevator:
    """An elevator that stands at the same point of every floor it serves.

    The time until the car comes has mean `wait_mean_s` and standard deviation
    `wait_sd_s`; `door_s` is lost once when entering and once when leaving. All
    defaults are ours, to be replaced by what is measured on site.
    """

    id: str
    floors: tuple[int, ...]
    x_m: float = 0.0
    y_m: float = 0.0
    ride_s_per_floor: float = 4.0
    door_s: float = 6.0
    wait_mean_s: float = 45.0
    wait_sd_s: float = 45.0

    def __post_init__(self) -> None:
        _require_id("elevator", self.id)
        name = f"elevator {self.id!r}"
        _require_finite(name, x_m=self.x_m, y_m=self.y_m)
        _require_positive(name, ride_s_per_floor=self.ride_s_per_floor)
        _require_non_negative(
            name, door_s=self.door_s, wait_mean_s=self.wait_mean_s, wait_sd_s=self.wait_sd_s
        )
        if len(self.floors) < 2 or len(set(self.floors)) != len(self.floors):
            raise ValueError(
                f"{name}: floors: expected at least 2 different floors, got {list(self.floors)}"
            )

    def landing(self, floor: int) -> str:
        """Id of the point at which robots enter and leave on `floor`."""
        return f"{self.id}@{floor}"

    def ride_s(self, start: int, end: int) -> float:
        """Mean time from standing before the door on `start` to having left on `end`."""
        return self.wait_mean_s + 2 * self.door_s + abs(end - start) * self.ride_s_per_floor


@dataclass(frozen=True, kw_only=True)
class Travel:
    """Travel between places, row = from: mean and variance of the time, and metres driven."""

    travel_s: Matrix = field(repr=False)
    distance_m: Matrix = field(repr=False)
    travel_var_s2: Matrix = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Site:
    """A building in which robots drive.

    Parameters
    ----------
    speed_m_per_s
        Usual speed of a robot; 0.7 m/s is the Open-RMF demo fleet's delivery robot.
    drive_cv
        Standard deviation over mean of the driving time of one corridor; the
        default is ours.

    Raises
    ------
    ValueError
        Naming the object, the field and what was expected.
    """

    name: str
    floors: tuple[Floor, ...]
    nodes: tuple[Node, ...]
    corridors: tuple[Corridor, ...]
    elevators: tuple[Elevator, ...] = ()
    speed_m_per_s: float = 0.7
    drive_cv: float = 0.2

    def __post_init__(self) -> None:
        _require_positive("site", speed_m_per_s=self.speed_m_per_s)
        _require_non_negative("site", drive_cv=self.drive_cv)
        levels = [floor.level for floor in self.floors]
        if not levels or sorted(levels) != list(range(len(levels))):
            raise ValueError(f"site: floors: expected levels 0, 1, 2, …, got {levels}")
        for node in self.nodes:
            if node.floor not in levels:
                raise ValueError(f"node {node.id!r}: floor: no floor has level {node.floor}")
        for elevator in self.elevators:
            for level in elevator.floors:
                if level not in levels:
                    raise ValueError(
                        f"elevator {elevator.id!r}: floors: no floor has level {level}"
                    )
        ids = Counter(node.id for node in self.nodes)
        ids.update(e.landing(level) for e in self.elevators for level in e.floors)
        for point, count in ids.items():
            if count > 1:
                raise ValueError(f"site: id: {point!r} stands {count} times")
        for corridor in self.corridors:
            self._require_sound(corridor)

    @cached_property
    def points(self) -> dict[str, Node]:
        """Nodes and landings by id; landings are junctions named after their elevator."""
        points = {node.id: node for node in self.nodes}
        for lift in self.elevators:
            for level in lift.floors:
                landing = lift.landing(level)
                points[landing] = Node(
                    id=landing, name=lift.id, floor=level, x_m=lift.x_m, y_m=lift.y_m
                )
        return points

    def length_m(self, corridor: Corridor) -> float:
        """Length of a corridor: as given, or the straight line between its ends."""
        if corridor.length_m is not None:
            return corridor.length_m
        start, end = self.points[corridor.start], self.points[corridor.end]
        return math.hypot(start.x_m - end.x_m, start.y_m - end.y_m)

    def travel(self, places: Sequence[str]) -> Travel:
        """Mean, variance and metres of the quickest paths between any two of `places`.

        Parameters
        ----------
        places
            P ids of nodes or landings.

        Returns
        -------
        Travel
            Three matrices of shape (P, P). Means obey the triangle inequality.

        Raises
        ------
        ValueError
            If a place is unknown, or cannot be reached from another one.
        """
        index = [self._index(place) for place in places]
        size = len(places)
        travel_s, distance_m, var_s2 = (np.zeros((size, size)) for _ in range(3))
        for row, origin in enumerate(index):
            best_s, before = self._quickest_from(origin)
            metres, variance = self._sums_along(best_s, before)
            for column, target in enumerate(index):
                if math.isinf(best_s[target]):
                    raise ValueError(_no_way(places[row], places[column]))
            travel_s[row] = best_s[index]
            distance_m[row] = metres[index]
            var_s2[row] = variance[index]
        return Travel(travel_s=travel_s, distance_m=distance_m, travel_var_s2=var_s2)

    def path(self, start: str, end: str) -> tuple[str, ...]:
        """Points passed on the quickest path from `start` to `end`, both included.

        Two landings of one elevator in a row are a ride.

        Raises
        ------
        ValueError
            If a point is unknown, or there is no way.
        """
        origin, target = self._index(start), self._index(end)
        best_s, before = self._quickest_from(origin)
        if math.isinf(best_s[target]):
            raise ValueError(_no_way(start, end))
        ids = list(self.points)
        steps = [target]
        while steps[-1] != origin:
            steps.append(int(before[steps[-1]]))
        return tuple(ids[step] for step in reversed(steps))

    def _require_sound(self, corridor: Corridor) -> None:
        name = f"corridor {corridor.start!r} to {corridor.end!r}"
        for end in (corridor.start, corridor.end):
            if end not in self.points:
                raise ValueError(f"{name}: no node or landing is called {end!r}")
        start_level, end_level = (self.points[p].floor for p in (corridor.start, corridor.end))
        if start_level != end_level:
            raise ValueError(
                f"{name}: expected both ends on one floor, got {start_level} and {end_level}"
            )
        if self.length_m(corridor) <= 0:
            raise ValueError(f"{name}: length_m: expected above 0, but its ends stand at one point")

    def _index(self, point: str) -> int:
        try:
            return self._rows[point]
        except KeyError:
            raise ValueError(f"site: no node or landing is called {point!r}") from None

    @cached_property
    def _rows(self) -> dict[str, int]:
        return {point: row for row, point in enumerate(self.points)}

    @cached_property
    def _edges(self) -> dict[tuple[int, int], tuple[float, float, float]]:
        """Mean, metres and variance of the quickest edge between two rows."""
        edges: dict[tuple[int, int], tuple[float, float, float]] = {}

        def offer(start: str, end: str, edge: tuple[float, float, float]) -> None:
            key = self._rows[start], self._rows[end]
            edges[key] = min(edge, edges.get(key, edge))

        for corridor in self.corridors:
            metres = self.length_m(corridor)
            drive_s = metres / (self.speed_m_per_s * corridor.speed_factor)
            edge = drive_s + corridor.door_s, metres, (self.drive_cv * drive_s) ** 2
            offer(corridor.start, corridor.end, edge)
            if not corridor.one_way:
                offer(corridor.end, corridor.start, edge)
        for lift in self.elevators:
            for start in lift.floors:
                for end in lift.floors:
                    if start != end:
                        edge = lift.ride_s(start, end), 0.0, lift.wait_sd_s**2
                        offer(lift.landing(start), lift.landing(end), edge)
        return edges

    @cached_property
    def _graph(self) -> csr_array:
        from scipy.sparse import csr_array  # slow to import

        size = len(self.points)
        rows = [key[0] for key in self._edges]
        columns = [key[1] for key in self._edges]
        means = [edge[0] for edge in self._edges.values()]
        return csr_array((means, (rows, columns)), shape=(size, size))

    def _quickest_from(self, origin: int) -> tuple[Matrix, NDArray[np.int32]]:
        """Least mean time to every row, and the row before it on the way."""
        from scipy.sparse.csgraph import dijkstra  # slow to import

        best_s, before = dijkstra(self._graph, indices=origin, return_predecessors=True)
        return best_s, before

    def _sums_along(self, best_s: Matrix, before: NDArray[np.int32]) -> tuple[Matrix, Matrix]:
        """Metres and variance along the tree of quickest paths, by rising mean."""
        metres, variance = np.zeros_like(best_s), np.zeros_like(best_s)
        for row in np.argsort(best_s, kind="stable"):
            if before[row] >= 0:
                _, edge_m, edge_var = self._edges[int(before[row]), int(row)]
                metres[row] = metres[before[row]] + edge_m
                variance[row] = variance[before[row]] + edge_var
        return metres, variance


def _no_way(start: str, end: str) -> str:
    return f"site: corridors: no way from {start!r} to {end!r}"


def _require_id(what: str, value: str) -> None:
    if not value or value != value.strip() or not value.isprintable():
        raise ValueError(f"{what}: id: expected printable text without outer spaces, got {value!r}")


def _require_finite(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{owner}: {name}: expected a finite number, got {value}")


def _require_positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{owner}: {name}: expected a finite number above 0, got {value}")


def _require_non_negative(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(
                f"{owner}: {name}: expected a finite number of at least 0, got {value}"
            )
