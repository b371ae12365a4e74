"""Gantt chart of a dispensing machine, as SVG written by hand: the arm and the pharmacists.

Time runs from left to right and, where a day is long, on in the next row. Bars of one order have
one colour; where the arm stands still it waits for a free point, where a pharmacist has none, for
a bin. Of a lived day refills and pauses are grey, repairs red, and so is where a late order ends.
The drawing brings its own colours, light and dark.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from wardwise.pharmacy.rack import Machine
    from wardwise.pharmacy.running_day import RunningDay
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
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #cc79a7; --c4: #b8860b; --c5: #56b4e9;
  --bad: #c0232c; }
@media (prefers-color-scheme: dark) { .machine { --ink: #e8edf2; --muted: #9eabb7;
  --line: #303c48; --paper: #19222b; --c0: #3d9bd4; --c1: #ff8a3c; --c2: #2fb98d;
  --c3: #dc94bc; --c4: #e0b13c; --c5: #8fd0f2; --bad: #ff5d64; } }
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


@dataclass(frozen=True, kw_only=True)
class Bar:
    """From when to when somebody works on something; for no order it has its own colour."""

    who: str
    order: str
    what: str
    from_s: float
    to_s: float
    colour: str = "--muted"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """When an order is complete, in luck and bad luck, and what that tells."""

    order: str
    time_s: float
    reach_s: tuple[float, float]
    words: str
    is_late: bool = False


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
    marks = []
    for done in orders:
        low_s, _, high_s = done.completed_quantiles_s
        words = (
            f"{done.order} complete at {minutes(done.completed_s)}, 5 to 95 %: "
            f"{minutes(low_s)} to {minutes(high_s)}"
        )
        reach_s = (low_s, high_s)
        marks.append(Mark(order=done.order, time_s=done.completed_s, reach_s=reach_s, words=words))
    label = f"Work of arm and pharmacists on {len(tasks)} bins"
    bars = [
        Bar(who=who, order=task.order, what=what, from_s=from_s, to_s=to_s)
        for task in tasks
        for who, (from_s, to_s), what in task.lanes()
    ]
    return _draw(bars, marks, label)


def draw_day(day: RunningDay) -> str:
    """SVG of a day as it was lived, with refills, repairs, pauses and late orders."""
    bars = []
    for done in sorted(day.log, key=lambda done: done.what == "repair"):  # on top of the rest
        where = "" if done.point is None else f" at point {done.point + 1}"
        what = f"{done.drug} of {done.order}{where}" if done.order else f"{done.what} {done.drug}"
        who = "Arm" if done.who is None else f"Pharmacist {done.who + 1}"
        colour = "--bad" if done.what == "repair" else "--muted"
        bars.append(
            Bar(who=who, order=done.order, what=what.strip(), from_s=done.from_s, to_s=done.to_s,
                colour=colour)
        )  # fmt: skip
    marks = []
    for order in sorted(day.orders, key=lambda order: day.done_s[order.id]):
        done_s = day.done_s[order.id]
        is_late = order.due_s is not None and done_s > order.due_s
        words = (
            f"{order.id}, {order.priority}, complete at {minutes(done_s)}, "
            f"{minutes(done_s - order.release_s)} after it came" + (", late" if is_late else "")
        )
        reach_s = (done_s, done_s)
        marks.append(
            Mark(order=order.id, time_s=done_s, reach_s=reach_s, words=words, is_late=is_late)
        )
    return _draw(bars, marks, f"A day of the machine with {len(marks)} orders")


def _draw(bars: Sequence[Bar], marks: Sequence[Mark], about: str) -> str:
    """SVG of bars, with marks below them."""
    end_s = max((bar.to_s for bar in bars), default=1.0)
    row_s = next((s for s in ROW_S if end_s <= ROWS * s), ROW_S[-1])
    people = sorted({bar.who for bar in bars} - {"Arm"}, key=lambda name: (len(name), name))
    who = ["Arm", *people]
    height = AXIS + len(who) * (LANE + GAP) + FOOT
    num_rows = max(1, -int(-end_s // row_s))
    box = f"0 0 {WIDTH} {num_rows * (height + BETWEEN)}"
    label = f'role="img" aria-label="{escape(about)}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="machine" viewBox="{box}" {label}>',
        f"<style>{STYLE}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
    ]
    orders = [bar.order for bar in bars if bar.order] + [mark.order for mark in marks]
    number = {name: k for k, name in enumerate(dict.fromkeys(orders))}
    for row in range(num_rows):
        scale = _Row(start_s=row * row_s, length_s=row_s, top=row * (height + BETWEEN), who=who)
        parts += scale.frame()
        for bar in bars:
            colour = f"--c{number[bar.order] % NUM_COLOURS}" if bar.order else bar.colour
            parts += scale.bar(bar, f"fill:var({colour})")
        parts += scale.marks(marks, number)
    return "\n".join([*parts, "</svg>"])


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One row of the chart: a stretch of time, with a lane for each who works."""

    start_s: float
    length_s: float
    top: float
    who: Sequence[str]

    def x(self, time_s: float) -> float:
        """Where a moment stands, in the drawing's units."""
        share = (time_s - self.start_s) / self.length_s
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

    def bar(self, bar: Bar, style: str) -> list[str]:
        """Bar of a lane, or nothing where it lies in another row."""
        if bar.to_s <= self.start_s or bar.from_s >= self.start_s + self.length_s:
            return []
        left, right = self.x(bar.from_s), self.x(bar.to_s)
        tip = f"{bar.who}, {bar.what}: {minutes(bar.from_s)} to {minutes(bar.to_s)}"
        width = max(right - left - 0.8, 0.6)
        box = f'x="{left:.1f}" y="{self.y(bar.who)}" width="{width:.1f}" height="{LANE}" rx="2"'
        return [f'<rect {box} style="{style}"><title>{escape(tip)}</title></rect>']

    def marks(self, marks: Iterable[Mark], number: Mapping[str, int]) -> list[str]:
        """Completions with their reach, named where there is room."""
        parts, free = [], 0.0
        for mark in marks:
            if not self.start_s < mark.time_s <= self.start_s + self.length_s:
                continue
            low_s, high_s = mark.reach_s
            colour = "--bad" if mark.is_late else f"--c{number[mark.order] % NUM_COLOURS}"
            at, y = self.x(mark.time_s), self.foot + 4 + 4 * (number[mark.order] % 2)
            tip = f"<title>{escape(mark.words)}</title>"
            parts.append(
                f'<path class="reach" d="M{self.x(low_s):.1f} {y}H{self.x(high_s):.1f}M{at:.1f} '
                f'{y - 4}v8" style="stroke:var({colour})">{tip}</path>'
            )
            place = min(at, WIDTH - LABEL_PX / 2)
            if place - LABEL_PX / 2 >= free:
                parts.append(text(place, self.foot + 25, mark.order))
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
