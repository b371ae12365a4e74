"""The robot chart: one lane a robot, with trips, stops and charges.

Widths and positions are percent of the time axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.fleet.check.visits import depot_charges
from wardwise.fleet.plan import Charge
from wardwise.report.axis import Axis, Bar
from wardwise.report.energy import level_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from wardwise.fleet.plan import Stop, Trip
    from wardwise.fleet.problem import Instance
    from wardwise.report.clock import Clock
    from wardwise.report.energy import Level
    from wardwise.report.view import Row


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stop in the robot chart: the way there, the wait and the service, in one target."""

    row: int
    left: float
    width: float
    bars: tuple[Bar, ...]
    label: str
    is_late: bool


@dataclass(frozen=True, kw_only=True)
class Strip:
    """Level of a battery below its robot's trips: a line, and where the reserve lies.

    Both in percent of axis and capacity, y downwards from the full battery.
    """

    line: str
    reserve: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Lane:
    """One robot of the chart: its trips as frames, its stops, and everything else as bars."""

    robot: str
    frames: tuple[Bar, ...]
    blocks: tuple[Block, ...]
    bars: tuple[Bar, ...]
    strip: Strip | None = None


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What all lanes share."""

    instance: Instance
    rows: Mapping[str, Row]
    axis: Axis
    clock: Clock

    def lane(self, robot: str, trips: tuple[Trip, ...]) -> Lane:
        """Lane of one robot; stops of requests that the instance does not know are left out."""
        level = level_of(self.instance, robot, trips)
        spans = iter(level.spans) if level else iter(())
        frames, bars, blocks = [], [], []
        for number, trip in enumerate(trips, start=1):
            frames.append(self._frame(number, trip))
            if number > 1 and not trips[number - 2].is_broken_off:
                # Drawn right after the return; the robot may then still wait to leave.
                back_s = trips[number - 2].return_s
                reloaded_s = back_s + self.instance.reload_s
                bars.append(self.axis.bar("reload", back_s, reloaded_s, "Reload"))
            left_s = trip.depart_s
            num_before = len(depot_charges(self.instance, trip))
            bars += [self._charge(c, next(spans, None)) for c in trip.charges[:num_before]]
            for visit in list(trip.visits())[num_before:]:
                if isinstance(visit, Charge):
                    bars += self._detour(visit, left_s)
                    bars.append(self._charge(visit, next(spans, None)))
                    left_s = visit.end_s
                elif visit.request in self.rows:
                    blocks.append(self._stop(trip, visit, left_s))
                    left_s = self._end_s(trip, visit)
            bars += self._end(trip, left_s)
        return Lane(
            robot=robot,
            frames=tuple(frames),
            blocks=tuple(blocks),
            bars=tuple(bars),
            strip=self._strip(robot, level) if level else None,
        )

    def _frame(self, number: int, trip: Trip) -> Bar:
        span = f"{self.clock.moment(trip.depart_s)} to {self.clock.moment(trip.return_s)}"
        label = f"Trip {number}, {span}" + (", broken off" if trip.is_broken_off else "")
        return self.axis.bar("trip", trip.depart_s, trip.return_s, label)

    def _stop(self, trip: Trip, stop: Stop, left_s: float) -> Block:
        row, end_s = self.rows[stop.request], self._end_s(trip, stop)
        return _block(row, stop, left_s, end_s, self.axis, self.clock)

    def _end_s(self, trip: Trip, stop: Stop) -> float:
        end_s = stop.start_s + self.instance.request_by_id[stop.request].service_s
        return min(end_s, trip.return_s) if trip.is_broken_off else end_s

    def _end(self, trip: Trip, left_s: float) -> Iterator[Bar]:
        """Way home, or until the breakdown."""
        way = "Way until the breakdown" if trip.is_broken_off else "Way home"
        yield self.axis.bar("drive", left_s, trip.return_s, way)
        if trip.is_broken_off:
            label = f"Breaks down at {self.clock.moment(trip.return_s)}"
            yield self.axis.bar("breakdown", trip.return_s, trip.return_s, label)

    def _detour(self, charge: Charge, left_s: float) -> Iterator[Bar]:
        """Way to a station, and the wait for a slot."""
        way = f"Way to station {charge.station}"
        yield self.axis.bar("drive", left_s, charge.arrive_s, way)
        if charge.start_s > charge.arrive_s:
            wait = f"Waits for a slot of station {charge.station}"
            yield self.axis.bar("wait", charge.arrive_s, charge.start_s, wait)

    def _charge(self, charge: Charge, span: tuple[float, float] | None) -> Bar:
        when = f"{self.clock.moment(charge.start_s)} to {self.clock.moment(charge.end_s)}"
        label = f"Charges at station {charge.station}, {when}, {self._energy(charge.charged_wh)}"
        if span is not None:
            label += f", from {self._energy(span[0])} to {self._energy(span[1])}"
        return self.axis.bar("charge", charge.start_s, charge.end_s, label)

    def _strip(self, robot: str, level: Level) -> Strip:
        points = [
            (self.axis.at(time_s), round(100 - level.pct(level_wh), 2))
            for time_s, level_wh in level.points
        ]
        lowest_s, lowest_wh = level.lowest
        return Strip(
            line=" ".join(f"{x:g},{y:g}" for x, y in _without_repeats(points)),
            reserve=round(100 - level.pct(level.battery.reserve_wh), 2),
            label=f"Battery of {robot}: {self._energy(level.points[0][1])} at the start, lowest "
            f"{level.pct(lowest_wh):.0f} % at {self.clock.moment(lowest_s)}, "
            f"{self._energy(level.points[-1][1])} at the end",
        )

    def _energy(self, wh: float) -> str:
        """Watt-hours; literature instances have no unit of energy."""
        return f"{wh:,.1f}" + ("" if self.clock.is_plain else " Wh")


def _without_repeats(points: Sequence[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    for number, point in enumerate(points):
        if not number or point != points[number - 1]:
            yield point


def _block(row: Row, stop: Stop, left_s: float, end_s: float, axis: Axis, clock: Clock) -> Block:
    whole = axis.bar("stop", left_s, end_s)
    is_late = row.status == "late" and not stop.is_pickup
    service = "pickup" if stop.is_pickup else "service"

    def part(kind: str, start_s: float, stop_s: float) -> Bar:
        share = 100 / max(whole.width, 1e-6)
        bar = axis.bar(kind, start_s, stop_s)
        left, width = (bar.left - whole.left) * share, bar.width * share
        return Bar(kind=kind, left=round(left, 1), width=round(width, 1))

    return Block(
        row=row.index,
        left=whole.left,
        width=whole.width,
        bars=(
            part("drive", left_s, stop.arrive_s),
            part("wait", stop.arrive_s, stop.start_s),
            part("late" if is_late else "service", stop.start_s, end_s),
        ),
        label=f"{row.id}, {row.place}, window {row.window}, "
        f"{service} {clock.moment(stop.start_s)}, {row.status}",
        is_late=is_late,
    )
