"""What has to be carried, by whom, and what it costs: the frozen fleet problem.

Times are seconds from the start of the horizon, distances metres, loads slots
(one slot is one cart, tray or tote place), money plain cost units. Instances
from the routing literature keep the literature's unit, in which one unit of
distance takes one unit of time.

Every object is checked when it is built, so whatever holds an `Instance` can
trust it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wardwise.fleet.energy import Battery, ChargeCurve, Range, Recharge
from wardwise.fleet.require import require_finite, require_id, require_non_negative, require_unique

if TYPE_CHECKING:
    from wardwise.fleet.randomness import Promise, Randomness
    from wardwise.site import Site

Matrix = NDArray[np.float64]

NUM_PRIORITIES = 3


class Kind(StrEnum):
    """Which way a load travels: to the depot, from the depot, or between two places."""

    COLLECT = "collect"
    DELIVER = "deliver"
    TRANSFER = "transfer"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A point that robots visit; `floor` counts from 0, the lowest."""

    id: str
    x_m: float = 0.0
    y_m: float = 0.0
    floor: int = 0

    def __post_init__(self) -> None:
        require_id("place", self.id)
        require_finite(f"place {self.id!r}", x_m=self.x_m, y_m=self.y_m)


@dataclass(frozen=True, kw_only=True)
class Request:
    """One transport between the depot, or the `origin` of a transfer, and `place`.

    Service starts in [`ready_s`, `due_s`]; it may start late by at most
    `tolerance_s`, which costs `Costs.lateness_per_s`. `release_s` is the moment
    the request becomes known (0: before the day starts); service starts no
    earlier. `priority` is 1 (stat), 2 (urgent) or 3 (routine). The goods of a delivery
    stand at the depot from `available_s` on, which is known beforehand: the trip that
    carries them departs no earlier.

    A transfer is picked up at `origin` and dropped at `place` by one robot within
    one trip, and `service_s` is spent at each end. Its pickup starts no earlier than
    `ready_s`, its drop no later than `due_s` with the tolerance; lateness is that of
    the drop.
    """

    id: str
    place: str
    origin: str | None = None
    kind: Kind = Kind.COLLECT
    load: float = 0.0
    ready_s: float = 0.0
    due_s: float
    service_s: float = 0.0
    release_s: float = 0.0
    priority: int = 3
    tolerance_s: float = 0.0
    available_s: float = 0.0

    def __post_init__(self) -> None:
        require_id("request", self.id)
        name = f"request {self.id!r}"
        if self.kind not in list(Kind):
            raise ValueError(f"{name}: kind: expected one of {', '.join(Kind)}, got {self.kind!r}")
        object.__setattr__(self, "kind", Kind(self.kind))
        self._require_origin(name)
        require_non_negative(
            name,
            load=self.load,
            ready_s=self.ready_s,
            due_s=self.due_s,
            service_s=self.service_s,
            release_s=self.release_s,
            tolerance_s=self.tolerance_s,
            available_s=self.available_s,
        )
        if self.available_s > 0 and self.kind is not Kind.DELIVER:
            raise ValueError(
                f"{name}: available_s: expected 0 for kind {self.kind}, got {self.available_s:g}"
            )
        if self.due_s < self.ready_s:
            raise ValueError(
                f"{name}: due_s: expected at least ready_s = {self.ready_s:g}, got {self.due_s:g}"
            )
        if self.priority not in range(1, NUM_PRIORITIES + 1):
            raise ValueError(f"{name}: priority: expected 1, 2 or 3, got {self.priority}")

    def _require_origin(self, name: str) -> None:
        if self.kind is not Kind.TRANSFER:
            if self.origin is not None:
                raise ValueError(
                    f"{name}: origin: expected none for kind {self.kind}, got {self.origin!r}"
                )
        elif self.origin is None or self.origin == self.place:
            raise ValueError(
                f"{name}: origin: expected another place than {self.place!r}, got {self.origin!r}"
            )

    @property
    def earliest_s(self) -> float:
        """First moment at which service may start; of a transfer, the pickup."""
        return max(self.ready_s, self.release_s)

    @property
    def latest_s(self) -> float:
        """Last moment at which service may start, tolerance included; of a transfer, the drop."""
        return self.due_s + self.tolerance_s

    def stop_place(self, *, is_pickup: bool) -> str:
        """Where a stop is made: the origin at the pickup of a transfer, else `place`."""
        return self.origin if is_pickup and self.origin is not None else self.place


@dataclass(frozen=True, kw_only=True)
class Robot:
    """A robot that waits loaded at the depot from `start_s` and is back by `end_s`.

    It may return, reload and leave again, in at most `max_trips` trips
    (`None`: any number). Without a `battery` it drives any way.
    """

    id: str
    capacity: float
    start_s: float = 0.0
    end_s: float
    max_trips: int | None = None
    battery: Battery | None = None

    def __post_init__(self) -> None:
        require_id("robot", self.id)
        name = f"robot {self.id!r}"
        require_non_negative(name, capacity=self.capacity, start_s=self.start_s, end_s=self.end_s)
        if self.end_s < self.start_s:
            raise ValueError(
                f"{name}: end_s: expected at least start_s = {self.start_s:g}, got {self.end_s:g}"
            )
        if self.max_trips is not None and self.max_trips < 1:
            raise ValueError(f"{name}: max_trips: expected at least 1, got {self.max_trips}")

    @property
    def kind(self) -> Robot:
        """The same robot without a name of its own: robots that can do the same have one kind."""
        return replace(self, id="any")


@dataclass(frozen=True, kw_only=True)
class Station:
    """A charging station with room for `num_slots` robots at once (`None`: any number).

    It charges along the curve `charge`; without one it is a mark on the map. A robot is
    charged at a station at the depot before it leaves, while it is reloaded.
    """

    id: str
    place: str
    num_slots: int | None = 1
    charge: ChargeCurve | None = None

    def __post_init__(self) -> None:
        require_id("station", self.id)
        if self.num_slots is not None and self.num_slots < 1:
            raise ValueError(
                f"station {self.id!r}: num_slots: expected at least 1, got {self.num_slots}"
            )


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Prices of a day; tuples run over the priorities stat, urgent, routine.

    No published values exist; the defaults are ours: a robot costs more than a
    usual detour and less than a denied stat request.
    """

    per_robot: float = 100.0
    per_metre: float = 1.0
    lateness_per_s: tuple[float, float, float] = (10.0, 3.0, 1.0)
    per_denial: tuple[float, float, float] = (1000.0, 400.0, 150.0)

    def __post_init__(self) -> None:
        require_non_negative("costs", per_robot=self.per_robot, per_metre=self.per_metre)
        for name in ("lateness_per_s", "per_denial"):
            values = getattr(self, name)
            if len(values) != NUM_PRIORITIES:
                raise ValueError(
                    f"costs: {name}: expected {NUM_PRIORITIES} values, got {len(values)}"
                )
            for value in values:
                require_non_negative("costs", **{name: value})


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A fleet planning problem; `places[0]` is the depot.

    Parameters
    ----------
    travel_s, distance_m
        Square matrices over `places`, row = from; they need not be symmetric.
    travel_var_s2
        Variance of each travel time, where it is known.
    reload_s
        Time at the depot between two trips of the same robot.
    site
        The building the matrices were computed from, for maps and reports.
    recharge
        Whether a visit to a station may charge less than the full battery.
    randomness
        How times vary around the means, where that is part of the problem.
    promise
        How often requests may be late and robots back late.

    Raises
    ------
    ValueError
        Naming the object, the field and the accepted range.
    """

    name: str
    places: tuple[Place, ...]
    requests: tuple[Request, ...]
    robots: tuple[Robot, ...]
    travel_s: Matrix = field(repr=False)
    distance_m: Matrix = field(repr=False)
    travel_var_s2: Matrix | None = field(default=None, repr=False)
    stations: tuple[Station, ...] = ()
    reload_s: float = 0.0
    costs: Costs = Costs()
    site: Site | None = field(default=None, repr=False)
    recharge: Recharge = Recharge.PARTIAL
    randomness: Randomness | None = None
    promise: Promise | None = None

    def __post_init__(self) -> None:
        if not self.places:
            raise ValueError("places: expected at least the depot, got none")
        if not self.robots:
            raise ValueError("robots: expected at least one, got none")
        require_non_negative("instance", reload_s=self.reload_s)
        for what in ("place", "request", "robot", "station"):
            require_unique(what, (one.id for one in getattr(self, f"{what}s")))
        for name in ("travel_s", "distance_m", "travel_var_s2"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, self._frozen_matrix(name))
        if self.recharge not in list(Recharge):
            raise ValueError(
                f"recharge: expected one of {', '.join(Recharge)}, got {self.recharge!r}"
            )
        object.__setattr__(self, "recharge", Recharge(self.recharge))
        for station in self.stations:
            self._require_usable(station)
        for request in self.requests:
            self._require_servable(request)
        self._require_in_range()

    def __eq__(self, other: object) -> bool:
        """Equal when every field is; matrices compare by value."""
        if not isinstance(other, Instance):
            return NotImplemented
        return all(
            np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
            for mine, theirs in ((getattr(self, f), getattr(other, f)) for f in _FIELDS)
        )

    __hash__ = None  # type: ignore[assignment]

    @cached_property
    def place_index(self) -> dict[str, int]:
        """Row of each place in the matrices."""
        return {place.id: index for index, place in enumerate(self.places)}

    @cached_property
    def request_by_id(self) -> dict[str, Request]:
        """Requests by id."""
        return {request.id: request for request in self.requests}

    @cached_property
    def robot_by_id(self) -> dict[str, Robot]:
        """Robots by id."""
        return {robot.id: robot for robot in self.robots}

    @cached_property
    def station_by_id(self) -> dict[str, Station]:
        """Stations by id."""
        return {station.id: station for station in self.stations}

    @cached_property
    def batteries(self) -> tuple[Battery, ...]:
        """Batteries of the robots, each kind once."""
        return tuple(dict.fromkeys(r.battery for r in self.robots if r.battery is not None))

    def _frozen_matrix(self, name: str) -> Matrix:
        matrix = np.array(getattr(self, name), dtype=np.float64)
        size = len(self.places)
        if matrix.shape != (size, size):
            raise ValueError(f"{name}: expected shape ({size}, {size}), got {matrix.shape}")
        if np.isnan(matrix).any() or (matrix < 0).any():
            row, column = np.argwhere(np.isnan(matrix) | (matrix < 0))[0]
            raise ValueError(
                f"{name}: row {row}, column {column}: expected a number of at least 0, "
                f"got {matrix[row, column]:g}"
            )
        matrix.setflags(write=False)
        return matrix

    def _require_place(self, what: str, place: str) -> None:
        if place not in self.place_index:
            raise ValueError(f"{what}: no place is called {place!r}")

    def _require_usable(self, station: Station) -> None:
        name = f"station {station.id!r}"
        self._require_place(f"{name}: place", station.place)
        largest_wh = max((battery.capacity_wh for battery in self.batteries), default=0.0)
        if station.charge is not None and station.charge.last_wh < largest_wh:
            raise ValueError(
                f"{name}: charge: expected a curve up to the largest battery, {largest_wh:g} Wh, "
                f"got one up to {station.charge.last_wh:g}"
            )

    def _require_in_range(self) -> None:
        """Refuse what no full battery reaches; a robot without a battery reaches all."""
        if any(robot.battery is None for robot in self.robots):
            return
        chargers = [self.place_index[s.place] for s in self.stations if s.charge is not None]
        ranges = [Range.of(b, chargers, self.distance_m, self.travel_s) for b in self.batteries]
        for request in self.requests:
            visits = [self.place_index[request.place]]
            if request.origin is not None:
                visits.insert(0, self.place_index[request.origin])
            findings = [reach.shortfall(visits, request.service_s) for reach in ranges]
            if None not in findings:
                raise ValueError(f"request {request.id!r}: {findings[0]}")

    def _require_servable(self, request: Request) -> None:
        """Refuse what no robot can ever serve; late releases are the dispatcher's affair."""
        name = f"request {request.id!r}"
        self._require_place(f"{name}: place", request.place)
        places = [request.place]
        if request.origin is not None:
            self._require_place(f"{name}: origin", request.origin)
            places.insert(0, request.origin)
        if request.load > max(robot.capacity for robot in self.robots):
            largest = max(robot.capacity for robot in self.robots)
            raise ValueError(
                f"{name}: load: expected at most the largest capacity {largest:g}, "
                f"got {request.load:g}"
            )
        way = [0, *(self.place_index[place] for place in places), 0]
        out_s, *between_s, back_s = (float(self.travel_s[leg]) for leg in pairwise(way))
        if not all(map(math.isfinite, (out_s, *between_s, back_s))):
            ends = " and ".join(["the depot", *map(repr, places)])
            raise ValueError(f"{name}: unreachable: no way between {ends}")
        if request.release_s > 0:
            return
        # A transfer is served at its origin, too, before the robot drives on.
        before_s = sum(request.service_s + leg_s for leg_s in between_s)
        for robot in self.robots:
            depart_s = max(robot.start_s, request.available_s)
            start_s = max(depart_s + out_s, request.ready_s) + before_s
            end_s = start_s + request.service_s + back_s
            fits = request.load <= robot.capacity
            if fits and start_s <= request.latest_s and end_s <= robot.end_s:
                return
        raise ValueError(
            f"{name}: unreachable: no robot can start service by {request.latest_s:g} "
            f"(travel {out_s + sum(between_s):g}) and be back in its shift"
        )


_FIELDS = tuple(Instance.__dataclass_fields__)
