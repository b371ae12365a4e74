"""From the routes of a search to a timed plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.fleet.plan import ChargeVisit
from wardwise.fleet.schedule import schedule
from wardwise.fleet.vns.charges import drive
from wardwise.fleet.vns.model import chargers, home_of, slowest_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Station
    from wardwise.fleet.vns.model import Model

Visit = str | ChargeVisit

# Of the battery: a smaller charge at the depot is left out.
LEAST_CHARGE = 1e-9


def to_plan(
    instance: Instance, model: Model, rows: Mapping[int, Sequence[int]], denied: Iterable[int]
) -> Plan:
    """Time the routes of a search.

    Parameters
    ----------
    rows
        Of each robot that leaves home, the vertices of its route.
    denied
        Vertices of requests that are turned down.

    Raises
    ------
    ValueError
        Naming robot and request or station, where the routes cannot be driven for want
        of a free slot at a station.
    """
    routes = {instance.robots[k].id: visits(instance, model, k, row) for k, row in rows.items()}
    return schedule(instance, routes, [instance.requests[v - 1].id for v in denied])


def visits(instance: Instance, model: Model, robot: int, row: Sequence[int]) -> list[list[Visit]]:
    """Trips of one robot with what is charged on them."""
    stations = chargers(instance)
    home = home_of(instance)
    way = drive(model, robot, row)
    charged = way.charged_wh
    if model.is_partial and way.charger >= 0:
        # Nothing is charged that would be left at the end: others may need the slot.
        spare = max(way.e - max(float(model.reserve[robot]), 0.0), 0.0)
        charged[way.charger] = max(charged[way.charger] - spare, 0.0)
    least = LEAST_CHARGE * float(model.battery[robot])
    level = _Level(instance, model, robot)
    # Who is charged at the depot before a trip is charged before waiting for its goods.
    departs_s = 0.0
    trips: list[list[Visit]] = []
    for position, vertex in enumerate(row[:-1]):
        amount = charged.get(position, 0.0)
        station = home if vertex == 0 else None
        if vertex == 0:
            trips.append([])
        elif vertex <= model.num_requests:
            trips[-1].append(instance.requests[vertex - 1].id)
        else:
            station = stations[vertex - model.num_requests - 1]
        begun_s = level.now
        if station is not None and (amount > least or vertex > 0):
            trips[-1].append(level.charge(station, amount))
        if vertex == 0:
            trip = row[position + 1 :][: row[position + 1 :].index(0)]
            goods = max((float(model.available[v]) for v in trip), default=0.0)
            departs_s = max(begun_s + (model.reload if position > 0 else 0.0), goods)
        if not _is_charged_before(instance, model, stations, row[position + 1]):
            level.wait(departs_s)
        level.drive(vertex, row[position + 1])
    return trips


def _is_charged_before(
    instance: Instance, model: Model, stations: Sequence[Station], vertex: int
) -> bool:
    """Whether a vertex is a charger at the depot."""
    number = vertex - model.num_requests - 1
    return number >= 0 and instance.place_index[stations[number].place] == 0


class _Level:
    """Battery of a robot that does everything as early as it can, along the true curves."""

    def __init__(self, instance: Instance, model: Model, robot: int) -> None:
        battery = instance.robots[robot].battery
        self._model, self._robot = model, robot
        self._full = battery.capacity_wh if battery else 0.0
        self._level, self.now = float(model.first[robot]), float(model.start[robot])

    def wait(self, until_s: float) -> None:
        """Draw energy up to a moment."""
        if until_s > self.now:
            self._level -= float(self._model.base[self._robot]) * (until_s - self.now)
            self.now = until_s

    def drive(self, origin: int, target: int) -> None:
        """Serve, drive on, and wait for the window."""
        m = self._model
        self._level -= float(m.per_m[self._robot] * m.distance[origin, target])
        self.wait(self.now + float(m.service[origin] + m.travel[origin, target]))
        self.wait(float(m.earliest[target]))

    def charge(self, station: Station, amount: float) -> ChargeVisit:
        """Charge in no more than the time for which the search counted.

        In what is left of that time a robot that draws energy is charged for it.
        """
        assert station.charge is not None
        amount, level = max(amount, 0.0), self._level
        left_s = amount / slowest_rate(station) - station.charge.time_s(level, level + amount)
        amount += float(self._model.base[self._robot]) * max(left_s, 0.0)
        amount = min(amount, self._full - level) if self._model.is_partial else self._full - level
        self.now += station.charge.time_s(level, level + amount)
        self._level += amount
        return ChargeVisit(
            station=station.id, charged_wh=amount if self._model.is_partial else None
        )
