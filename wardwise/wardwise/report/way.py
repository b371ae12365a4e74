"""One prescription's way from writing to bedside, as SVG written by hand.

Machine and robots stand on one time axis. What belongs to the prescription is bright, all else
pale, and a line leads from one to the next. The drawing brings its own colours, light and dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from wardwise.report.machine import GAP, LANE, LEFT, RIGHT, WIDTH, Task, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.plan import Plan, Trip
    from wardwise.fleet.problem import Instance
    from wardwise.hospital import Brought, Delivery
    from wardwise.report.clock import Clock

TOP, FOOT = 26, 8
MARGIN_S = 90.0
STEPS_S = (30, 60, 120, 300, 600, 900, 1200, 1800, 3600)
MOST_TICKS = 12

STYLE = """
.journey { --ink: #16202a; --muted: #5a6773; --line: #d9dfe5; --lane: #f1f4f6; --this: #d55e00;
  --arm: #b4bfc9; --sort: #e3c3d6; --drive: #bfe0f4; --serve: #9fd8c6; }
@media (prefers-color-scheme: dark) { .journey { --ink: #e8edf2; --muted: #9eabb7;
  --line: #303c48; --lane: #202b35; --this: #ff8a3c; --arm: #4c5a67; --sort: #6b5263;
  --drive: #2f5a73; --serve: #2a6654; } }
.journey text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  fill: var(--ink); }
.journey .tick { fill: var(--muted); } .journey .grid { stroke: var(--line); fill: none; }
.journey .lane { fill: var(--lane); } .journey .arm { fill: var(--arm); }
.journey .sort { fill: var(--sort); } .journey .drive { fill: var(--drive); }
.journey .serve { fill: var(--serve); } .journey .this { fill: var(--this); }
.journey .thread { stroke: var(--this); stroke-width: 2; stroke-dasharray: 5 3; fill: none; }
.journey .carried { stroke: var(--this); stroke-width: 4; fill: none; }
.journey .release { stroke: var(--ink); stroke-width: 2; fill: none; }
"""


@dataclass(frozen=True, kw_only=True)
class Way:
    """What the drawing shows.

    Parameters
    ----------
    delivery, brought
        The prescription, and what came of it on this day.
    tasks
        Work of the machine on this day.
    plan
        Trips as driven.
    """

    delivery: Delivery
    brought: Brought
    tasks: Sequence[Task]
    plan: Plan


def draw_way(way: Way, instance: Instance, clock: Clock) -> str:
    """SVG of a prescription's way, with whatever else machine and robots do meanwhile."""
    canvas = _Canvas(way, instance, clock)
    order = way.delivery.order
    label = f"Way of {order.id} to {order.destination}"
    box = f'viewBox="0 0 {WIDTH} {canvas.foot + FOOT}" role="img" aria-label="{escape(label)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="journey" {box}>',
        f"<style>{STYLE}</style>",
        *canvas.frame(),
    ]
    for task in way.tasks:
        for (name, (from_s, to_s), what), kind in zip(task.lanes(), ("arm", "sort"), strict=True):
            kind = "this" if task.order == order.id else kind
            parts += canvas.bar(name, kind, from_s, to_s, what)
    for trip in way.plan.trips:
        parts += canvas.trip(trip)
    return "\n".join([*parts, *canvas.thread(), "</svg>"])


class _Canvas:
    """Lanes and axis of the drawing."""

    def __init__(self, way: Way, instance: Instance, clock: Clock) -> None:
        self._way, self._instance, self._clock = way, instance, clock
        self._start_s = way.delivery.order.release_s - MARGIN_S
        self._end_s = way.brought.bedside_s + MARGIN_S
        people = sorted({task.pharmacist for task in way.tasks})
        robots = dict.fromkeys(
            trip.robot
            for trip in sorted(way.plan.trips, key=lambda trip: trip.robot)
            if trip.depart_s < self._end_s and trip.return_s > self._start_s
        )
        machine = ["Arm", *(f"Pharmacist {k + 1}" for k in people)]
        self._lanes = ["Ward", *machine, *robots]

    @property
    def foot(self) -> float:
        """Below the last lane."""
        return TOP + len(self._lanes) * (LANE + GAP)

    def x(self, time_s: float) -> float:
        """Where a moment stands; what lies outside stands at the edge."""
        share = (time_s - self._start_s) / (self._end_s - self._start_s)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, name: str) -> float:
        """Top of a lane."""
        return TOP + self._lanes.index(name) * (LANE + GAP)

    def middle(self, name: str) -> float:
        """Height at which the thread runs through a lane."""
        return self.y(name) + LANE / 2

    def frame(self) -> list[str]:
        """Lanes, their names, and the time axis."""
        parts = []
        for name in self._lanes:
            y = self.y(name)
            parts.append(text(LEFT - 8, y + 15, name, anchor="end"))
            parts.append(
                f'<rect class="lane" x="{LEFT}" y="{y}" width="{WIDTH - LEFT - RIGHT}" '
                f'height="{LANE}"/>'
            )
        span_s = self._end_s - self._start_s
        step_s = next((s for s in STEPS_S if span_s / s <= MOST_TICKS), STEPS_S[-1])
        for k in range(math.ceil(self._start_s / step_s), math.floor(self._end_s / step_s) + 1):
            at = self.x(k * step_s)
            parts.append(f'<path class="grid" d="M{at:.1f} {TOP - 6}V{self.foot}"/>')
            words = self._clock.moment(k * step_s, with_seconds=step_s < 60)
            parts.append(text(at, 14, words, kind="tick"))
        return parts

    def bar(self, name: str, kind: str, from_s: float, to_s: float, what: str) -> list[str]:
        """Bar of a lane, or nothing where it is out of sight."""
        if name not in self._lanes or to_s <= self._start_s or from_s >= self._end_s:
            return []
        left, right = self.x(from_s), self.x(to_s)
        span = " to ".join(self._clock.moment(s, with_seconds=True) for s in (from_s, to_s))
        width = max(right - left - 0.6, 0.8)
        box = f'x="{left:.1f}" y="{self.y(name)}" width="{width:.1f}" height="{LANE}" rx="2"'
        tip = escape(f"{name}, {what}: {span}")
        return [f'<rect class="{kind}" {box}><title>{tip}</title></rect>']

    def trip(self, trip: Trip) -> list[str]:
        """A robot's trip: driving, and service at its stops."""
        if trip.robot not in self._lanes:
            return []
        parts = self.bar(trip.robot, "drive", trip.depart_s, trip.return_s, "on its way")
        for stop in trip.stops:
            request = self._instance.request_by_id[stop.request]
            place = request.stop_place(is_pickup=stop.is_pickup)
            is_this = stop.request == self._way.brought.order
            end_s = stop.start_s + request.service_s
            parts += self.bar(
                trip.robot, "this" if is_this else "serve", stop.start_s, end_s,
                f"{request.id} at {place}",
            )  # fmt: skip
        return parts

    def thread(self) -> list[str]:
        """The line through everything that happens to the prescription."""
        order, brought = self._way.delivery.order, self._way.brought
        own = [task for task in self._way.tasks if task.order == order.id]
        points = [(order.release_s, "Ward")]
        if own:
            last = max(own, key=lambda task: task.sort_s[1])
            points += [(own[0].arm_s[0], "Arm"), (last.sort_s[1], last.lanes()[1][0])]
        points += [(brought.picked_s, brought.robot), (brought.bedside_s, brought.robot)]
        points += [(brought.bedside_s, "Ward")]
        path = f"M{self.x(points[0][0]):.1f} {self.middle(points[0][1]):.1f}"
        for (_, before), (time_s, name) in pairwise(points):
            # Over to the lane first: waiting is seen where it is waited for.
            path += f"V{self.middle(name):.1f}" if name != before else ""
            path += f"H{self.x(time_s):.1f}"
        y, ride = self.middle(brought.robot), (brought.picked_s, brought.bedside_s)
        left, right = (self.x(time_s) for time_s in ride)
        parts = [
            f'<path class="thread" d="{path}"/>',
            f'<path class="carried" d="M{left:.1f} {y}H{right:.1f}"/>',
        ]
        for time_s, anchor, side, what in (
            (order.release_s, "start", 9, f"{order.id} written"),
            (brought.bedside_s, "end", -9, "at the bedside"),
        ):
            at, y = self.x(time_s), self.middle("Ward")
            parts.append(f'<circle class="this" cx="{at:.1f}" cy="{y}" r="6"/>')
            parts.append(text(at + side, y + 4, what, anchor=anchor))
        if own:
            at, name = self.x(self._way.delivery.ready_s), last.lanes()[1][0]
            tip = f"Release: {self._clock.moment(self._way.delivery.ready_s, with_seconds=True)}"
            parts.append(
                f'<path class="release" d="M{at:.1f} {self.y(name) - 3}v{LANE + 6}">'
                f"<title>{escape(tip)}</title></path>"
            )
        return parts
