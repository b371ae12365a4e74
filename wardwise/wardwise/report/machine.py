"""Gantt chart of a dispensing machine, as SVG written by hand: the arm and the pharmacists.

Time runs from left to right and, where a day is long, on in the next row. Bars of one order have
one colour; where the arm stands still it waits for a free point, where a pharmacist has none, for
a bin. The drawing brings its own colours, light and dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wardwise.pharmacy.rack import Machine
    from wardwise.pharmacy.sequence import Completion, Plan

LEFT, RIGHT, WIDTH = 104, 22, 1080
LANE, GAP = 22, 5
AXIS, FOOT, BETWEEN = 24, 30, 12
ROWS = 14  # at most, if rows of an hour suffice
ROW_S = (120, 300, 600, 900, 1200, 1800, 3600)
NUM_COLOURS = 6
LABEL_PX = 62  # what the name of an order takes

STYLE = """
.machine { --ink: #16202a; --muted: #5a6773; --line: #d9dfe5; --paper: #ffffff;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #b8860b; --c5: #56b4e9; }
@media (prefers-color-scheme: dark) { .machine { --ink: #e8edf2; --muted: #9eabb7;
  --line: #303c48; --paper: #19222b; --c0: #3d9bd4; --c1: #ff8a3c; --c2: #2fb98d;
  --c3: #dc94bc; --c4: #e0b13c; --c5: #8fd0f2; } }
.machine .paper { fill: var(--paper); }
.machine text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  fill: var(--ink); }
.machine .tick { fill: var(--muted); } .machine .grid { stroke: var(--line); fill: none; }
.machine .lane { fill: var(--line); opacity: .35; }
.machine .reach { stroke-width: 2.5; fill: none; }
"""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work on one bin: from when to when the arm brings it and a pharmacist takes its packs."""

    order: str
    drug: str
    point: int
    pharmacist: int
    arm_s: tuple[float, float]
    sort_s: tuple[float, float]

    def lanes(self) -> tuple[tuple[str, tuple[float, float], str], ...]:
        """Who works, when, and what on."""
        what = f"{self.drug} of {self.order}"
        who = f"Pharmacist {self.pharmacist + 1}"
        return (
            ("Arm", self.arm_s, f"{what} to point {self.point + 1}"),
            (who, self.sort_s, f"{what} at point {self.point + 1}"),
        )


def tasks_of_plan(plan: Plan, machine: Machine) -> list[Task]:
    """Work of a planned sequence at its expected times."""
    return [
        Task(
            order=step.order, drug=step.drug, point=step.point,
            pharmacist=k % machine.num_pharmacists,
            arm_s=(step.delivered_s - step.arm_s, step.delivered_s),
            sort_s=(step.sorted_s - step.service_s, step.sorted_s),
        )
        for k, step in enumerate(plan.steps)
    ]  # fmt: skip


def draw_machine(tasks: Sequence[Task], orders: Iterable[Completion] = ()) -> str:
    """SVG of the work of a sequence.

    Parameters
    ----------
    tasks
        In sequence.
    orders
        When they are complete, with quantiles; shown below the bars.
    """
    end_s = max((task.sort_s[1] for task in tasks), default=1.0)
    row_s = next((s for s in ROW_S if end_s <= ROWS * s), ROW_S[-1])
    who = [
        "Arm",
        *sorted({task.lanes()[1][0] for task in tasks}, key=lambda name: (len(name), name)),
    ]
    height = AXIS + len(who) * (LANE + GAP) + FOOT
    num_rows = max(1, -int(-end_s // row_s))
    box = f"0 0 {WIDTH} {num_rows * (height + BETWEEN)}"
    label = f'role="img" aria-label="Work of arm and pharmacists on {len(tasks)} bins"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="machine" viewBox="{box}" {label}>',
        f"<style>{STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    number = {name: k for k, name in enumerate(dict.fromkeys(task.order for task in tasks))}
    orders = tuple(orders)
    for row in range(num_rows):
        scale = _Row(start_s=row * row_s, length_s=row_s, top=row * (height + BETWEEN), who=who)
        parts += scale.frame()
        for task in tasks:
            colour = f"fill:var(--c{number[task.order] % NUM_COLOURS})"
            for name, (from_s, to_s), what in task.lanes():
                parts += scale.bar(name, from_s, to_s, what, colour)
        parts += scale.completions(orders, number)
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row of the chart: a stretch of time, with a lane for each who works."""

    start_s: float
    length_s: float
    top: float
    who: Sequence[str]

    def x(self, time_s: float) -> float:
        share = (time_s - self.start_s) / self.length_s
        """Where a moment stands, in the drawing's units."""
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def y(self, name: str) -> float:
        """Top of a lane."""
        return self.top + AXIS + self.who.index(name) * (LANE + GAP)

    @property
    def foot(self) -> float:
        """Below the last lane."""
        return self.top + AXIS + len(self.who) * (LANE + GAP)

    def frame(self) -> list[str]:
        """Names, lanes and time axis."""
        parts = []
        for name in self.who:
            y = self.y(name)
            parts.append(text(LEFT - 8, y + 15, name, anchor="end"))
            parts.append(
                f'<rect class="lane" x="{LEFT}" y="{y}" width="{WIDTH - LEFT - RIGHT}" '
                f'height="{LANE}"/>'
            )
        for k in range(11):
            time_s = self.start_s + self.length_s * k / 10
            parts.append(
                f'<path class="grid" d="M{self.x(time_s):.1f} {self.top + AXIS - 4}V{self.foot}"/>'
            )
            parts.append(text(self.x(time_s), self.top + 15, minutes(time_s), kind="tick"))
        return parts

    def bar(self, name: str, from_s: float, to_s: float, what: str, style: str) -> list[str]:
        """Bar of a lane, or nothing where it lies in another row."""
        if to_s <= self.start_s or from_s >= self.start_s + self.length_s:
            return []
        left, right = self.x(from_s), self.x(to_s)
        tip = f"{name}, {what}: {minutes(from_s)} to {minutes(to_s)}"
        width = max(right - left - 0.8, 0.6)
        box = f'x="{left:.1f}" y="{self.y(name)}" width="{width:.1f}" height="{LANE}" rx="2"'
        return [f'<rect {box} style="{style}"><title>{escape(tip)}</title></rect>']

    def completions(self, orders: Iterable[Completion], number: Mapping[str, int]) -> list[str]:
        """Where orders are complete: mean, 5 to 95 %, and the name if there is room for it."""
        parts, free = [], 0.0
        for done in orders:
            if not self.start_s < done.completed_s <= self.start_s + self.length_s:
                continue
            low_s, _, high_s = done.completed_quantiles_s
            colour = number[done.order] % NUM_COLOURS
            at, y = self.x(done.completed_s), self.foot + 4 + 4 * (number[done.order] % 2)
            tip = (
                f"{done.order} complete at {minutes(done.completed_s)}, 5 to 95 %: "
                f"{minutes(low_s)} to {minutes(high_s)}"
            )
            parts.append(
                f'<path class="reach" d="M{self.x(low_s):.1f} {y}H{self.x(high_s):.1f}M{at:.1f} '
                f'{y - 4}v8" style="stroke:var(--c{colour})"><title>{escape(tip)}</title></path>'
            )
            place = min(at, WIDTH - LABEL_PX / 2)
            if place - LABEL_PX / 2 >= free:
                parts.append(text(place, self.foot + 25, done.order))
                free = place + LABEL_PX / 2
        return parts


def text(x: float, y: float, words: str, *, anchor: str = "middle", kind: str = "") -> str:
    """Element of a text; what users wrote is escaped."""
    css = f' class="{kind}"' if kind else ""
    return f'<text{css} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


def minutes(time_s: float) -> str:
    """Minutes and seconds, from an hour on hours too."""
    whole = round(time_s)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
