"""Times of trips with charges: everything as early as possible, departures as late.

Every service and every charge starts as early as it can; then each departure moves to
where the robot arrives at its first stop just in time. Energy falls with metres and time
and rises along the true curve of a charger, so that a charge lasts no longer than the
search took it to. Slots of a station go to the robots in the order in which they are
timed: who finds none free waits.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wardwise.fleet.plan import Charge, Stop, Trip
from wardwise.fleet.vns.model import chargers, slowest_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wardwise.fleet.problem import Instance, Station
    from wardwise.fleet.vns.model import Model


@dataclass(kw_only=True)
class Timer:
    """Times the routes of one plan after the other robot's; knows who charges when."""

    instance: Instance
    model: Model
    taken: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def trips(self, robot: int, row: Sequence[int], charged: Mapping[int, float]) -> list[Trip]:
        """Trips of a robot.

        Parameters
        ----------
        row
            Vertices from depot to depot.
        charged
            Watt-hours at each position with a charger; of full recharge not looked at.
        """
        m, k = self.model, robot
        now, level, trips = float(m.start[k]), float(m.first[k]), []
        ends = [p for p, v in enumerate(row) if v == 0]
        for first, last in itertools.pairwise(ends):
            begin = _Trip(self, k, now, level)
            begin.at_depot(charged.get(first, 0.0), is_start=first == 0)
            begin.wait(max((float(m.available[v]) for v in row[first:last]), default=0.0))
            for p in range(first + 1, last):
                begin.visit(row[p], charged.get(p, 0.0))
            trips.append(begin.close())
            now, level = begin.now, begin.level
        return trips

    def start(self, station: Station, arrive_s: float, lasts_s: float) -> float:
        """First moment from which a slot is free for long enough."""
        taken = self.taken.setdefault(station.id, [])
        start_s = arrive_s
        if station.num_slots is not None:
            moments = sorted(end for _, end in taken if end > arrive_s)
            for moment in (arrive_s, *moments):
                busy = sum(a < moment + lasts_s and moment < b for a, b in taken)
                if busy < station.num_slots:
                    start_s = moment
                    break
        taken.append((start_s, start_s + lasts_s))
        return start_s


class _Trip:
    """A trip under way: `now` the robot is done with the vertex `here`."""

    def __init__(self, timer: Timer, robot: int, now: float, level: float) -> None:
        self.timer, self.robot, self.now, self.level = timer, robot, now, level
        self.here, self.depart_s = 0, now
        self.stops: list[Stop] = []
        self.charges: list[Charge] = []

    def at_depot(self, amount: float, *, is_start: bool) -> None:
        """Reload, and be charged meanwhile."""
        m, k, back_s = self.timer.model, self.robot, self.now
        if m.rate[0] > 0 and m.battery[k] > 0:
            places = self.timer.instance.place_index
            at_depot = [s for s in chargers(self.timer.instance) if places[s.place] == 0]
            station = max(at_depot, key=slowest_rate)
            if (m.is_partial and amount > 0) or (not m.is_partial and self.level < m.battery[k]):
                self._charge(station, amount)
        self.wait(back_s + (0.0 if is_start else m.reload))

    def wait(self, until_s: float) -> None:
        """Stay where the robot is."""
        if until_s > self.now:
            self.level -= float(self.timer.model.base[self.robot]) * (until_s - self.now)
            self.now = until_s

    def visit(self, vertex: int, amount: float) -> None:
        """Drive to a request or a station and do there what is to be done."""
        m = self.timer.model
        out_s = float(m.travel[self.here, vertex])
        is_first = self.here == 0
        ready_s = self.now
        self._drive(vertex)
        arrive_s = self.now
        if vertex > m.num_requests:
            if is_first:
                self.depart_s = ready_s
            self._charge(chargers(self.timer.instance)[vertex - m.num_requests - 1], amount)
            return
        self.wait(float(m.earliest[vertex]))
        start_s = self.now
        if is_first:
            self.depart_s, arrive_s = max(ready_s, start_s - out_s), start_s
        request = self.timer.instance.requests[vertex - 1]
        self.stops.append(Stop(request=request.id, arrive_s=arrive_s, start_s=start_s))
        self.wait(start_s + float(m.service[vertex]))

    def close(self) -> Trip:
        """Drive home."""
        self._drive(0)
        return Trip(
            robot=self.timer.instance.robots[self.robot].id,
            depart_s=self.depart_s,
            stops=tuple(self.stops),
            return_s=self.now,
            charges=tuple(self.charges),
        )

    def _drive(self, vertex: int) -> None:
        m, k = self.timer.model, self.robot
        self.level -= float(m.per_m[k] * m.distance[self.here, vertex])
        self.wait(self.now + float(m.travel[self.here, vertex]))
        self.here = vertex

    def _charge(self, station: Station, amount: float) -> None:
        m, k, arrive_s = self.timer.model, self.robot, self.now
        assert station.charge is not None
        room = float(m.battery[k]) - self.level
        amount = max(min(amount, room), 0.0) if m.is_partial else room
        lasts_s = station.charge.time_s(self.level, self.level + amount)
        if m.base[k] > 0:
            # Who is off the charger early draws energy that the search did not count.
            lasts_s = max(lasts_s, amount / slowest_rate(station))
        start_s = self.timer.start(station, arrive_s, lasts_s)
        self.wait(start_s)
        self.charges.append(
            Charge(
                station=station.id,
                before=len(self.stops),
                arrive_s=arrive_s,
                start_s=start_s,
                end_s=start_s + lasts_s,
                charged_wh=amount,
            )
        )
        self.level += amount
        self.now = start_s + lasts_s
