"""What the page of a day shows of the pharmacy: the machine's lanes, one way, and figures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from wardwise.pharmacy.problem import Priority
from wardwise.report.machine import Task
from wardwise.report.way import Way, draw_way

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wardwise.fleet.problem import Instance
    from wardwise.hospital import Brought, Delivery, Figures, HospitalDay
    from wardwise.report.axis import Axis
    from wardwise.report.clock import Clock
    from wardwise.report.view import Row

SHOWN = 0  # of the lived days


@dataclass(frozen=True, kw_only=True)
class MachineBar:
    """Work on one order: where in the lane, its row in the table, and when its round opened."""

    left: float
    width: float
    kind: str
    row: int
    known_s: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """One moment of a prescription's way."""

    time: str
    title: str
    note: str


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Figures of one class as the table shows them."""

    name: str
    cells: tuple[str, ...]


COLUMNS = (
    "Delivered",
    "To the bedside",
    "95 % within",
    "Machine",
    "Pickup",
    "Ride",
    "Late orders",
    "By due time",
)


@dataclass(frozen=True, kw_only=True)
class PharmacyView:
    """The pharmacy's part of a page; `title` and `steps` tell the way that `drawing` shows."""

    lanes: tuple[tuple[str, tuple[MachineBar, ...]], ...]
    order: str
    row: int
    steps: tuple[Step, ...]
    drawing: str
    columns: tuple[str, ...]
    classes: tuple[ClassRow, ...]
    notes: Mapping[str, str]
    summary: str


def build_pharmacy(
    day: HospitalDay, instance: Instance, rows: tuple[Row, ...], axis: Axis, clock: Clock
) -> PharmacyView:
    """Lay out the pharmacy of a day.

    Parameters
    ----------
    day
        Machine and deliveries, lived through at least once.
    instance, rows, axis, clock
        Of the page.
    """
    tasks = tasks_of_day(day, SHOWN)
    row_of = {row.id: row.index for row in rows}
    lived = day.days[SHOWN]
    shown = _shown(day)
    drawing, steps = "", tuple[Step, ...]()
    if shown is not None:
        delivery, brought = shown
        way = Way(delivery=delivery, brought=brought, tasks=tasks, plan=lived.plan)
        drawing, steps = draw_way(way, instance, clock), _steps(way, rows, clock)
    return PharmacyView(
        lanes=_lanes(day, tasks, row_of, axis, clock),
        order=shown[0].order.id if shown else "",
        row=row_of.get(shown[0].order.id, -1) if shown else -1,
        steps=steps,
        drawing=drawing,
        columns=COLUMNS,
        classes=_classes(day),
        notes={d.order.id: _note(d, clock) for d in day.deliveries},
        summary=_summary(day),
    )


def tasks_of_day(day: HospitalDay, replication: int) -> list[Task]:
    """Work of the machine on one of the lived days."""
    run, machine = day.run, day.dispensing.day.machine
    m, q = machine.num_points, machine.num_pharmacists
    tasks = []
    for k, one in enumerate(day.dispensing.rounds):
        start_s = float(run.starts_s[replication, k])
        delivered_s = (start_s + run.timelines[k].delivered_s[replication]).tolist()
        sorted_s = (start_s + run.timelines[k].sorted_s[replication]).tolist()
        for n, step in enumerate(one.plan.steps):
            free_s = sorted_s[n - q] if n >= q else start_s
            tasks.append(
                Task(
                    order=step.order, drug=step.drug, point=n % m, pharmacist=n % q,
                    arm_s=(delivered_s[n] - step.arm_s, delivered_s[n]),
                    sort_s=(max(delivered_s[n], free_s), sorted_s[n]),
                )
            )  # fmt: skip
    return tasks


def _lanes(
    day: HospitalDay, tasks: list[Task], row_of: dict[str, int], axis: Axis, clock: Clock
) -> tuple[tuple[str, tuple[MachineBar, ...]], ...]:
    """One bar an order in the lane of the arm and of each pharmacist."""
    opens_s = day.dispensing.opens_s()
    found: dict[str, list[MachineBar]] = {}
    for order, group in groupby(tasks, key=lambda task: task.order):
        spans: dict[str, list[tuple[float, float]]] = {}
        for task in group:
            for name, span, _ in task.lanes():
                spans.setdefault(name, []).append(span)
        for name, parts in spans.items():
            bar = axis.bar("", parts[0][0], parts[-1][1])
            times = " to ".join(clock.moment(s) for s in (parts[0][0], parts[-1][1]))
            drugs = f"{len(parts)} bin{'' if len(parts) == 1 else 's'}"
            found.setdefault(name, []).append(
                MachineBar(
                    left=bar.left, width=bar.width, kind="arm" if name == "Arm" else "sorting",
                    row=row_of.get(order, -1), known_s=opens_s[order],
                    label=f"{name}, {order}, {drugs}, {times}",
                )
            )  # fmt: skip
    if len(found) == 2:  # nobody else to tell this pharmacist from
        found = {name.removesuffix(" 1"): bars for name, bars in found.items()}
    return tuple((name, tuple(bars)) for name, bars in sorted(found.items()))


def _shown(day: HospitalDay) -> tuple[Delivery, Brought] | None:
    """An urgent prescription with many drugs, if there is one; else any that was brought."""
    of = {d.order.id: d for d in day.deliveries}
    brought = [(of[b.order], b) for b in day.days[SHOWN].brought]
    urgency = {Priority.URGENT: 0, Priority.STAT: 1, Priority.ROUTINE: 2}
    return min(
        brought,
        key=lambda pair: (urgency[pair[0].order.priority], -len(pair[0].order.lines)),
        default=None,
    )


def _steps(way: Way, rows: tuple[Row, ...], clock: Clock) -> tuple[Step, ...]:
    delivery, brought = way.delivery, way.brought
    order = delivery.order
    place = next((row.place for row in rows if row.id == order.id), order.destination)
    num = len(order.lines)
    late_s = brought.completed_s - delivery.ready_s
    against = "later" if late_s > 0 else "earlier"

    def step(time_s: float, title: str, note: str) -> Step:
        return Step(time=clock.moment(time_s, with_seconds=True), title=title, note=note)

    return (
        step(order.release_s, "Written", f"{order.priority}, {num} drug{'' if num == 1 else 's'}"),
        step(delivery.opens_s, "Sequenced", "for the machine's next round"),
        step(
            brought.completed_s, "Complete", f"{clock.span(abs(late_s))} {against} than released"
        ),
        step(brought.picked_s, "Picked up", f"by {brought.robot}"),
        step(
            brought.bedside_s, "At the bedside",
            f"{place.split(' → ')[-1]}, {clock.span(brought.bedside_s - order.release_s)} in all",
        ),
    )  # fmt: skip


def _classes(day: HospitalDay) -> tuple[ClassRow, ...]:
    named = [("all", day.figures()), *((str(p), day.figures(p)) for p in Priority)]
    return tuple(
        ClassRow(name=name, cells=_cells(found)) for name, found in named if found.num_delivered
    )


def _cells(found: Figures) -> tuple[str, ...]:
    times_s = (found.mean_s, found.p95_s, found.machine_s, found.pickup_s, found.ride_s)
    shares = (found.late_share, found.on_promise_share)
    return (
        f"{found.num_delivered}",
        *(f"{time_s / 60:.1f} min" for time_s in times_s),
        *(f"{100 * share:.1f} %" for share in shares),
    )


def _note(delivery: Delivery, clock: Clock) -> str:
    order = delivery.order
    return (
        f"written {clock.moment(order.release_s)}, {len(order.lines)} drugs, "
        f"released {clock.moment(delivery.ready_s)}"
    )


def _summary(day: HospitalDay) -> str:
    found, num_days = day.figures(), len(day.days)
    left = len(day.deliveries) - found.num_delivered
    return (
        f"{len(day.deliveries)} prescriptions in {len(day.dispensing.rounds)} rounds, "
        f"{found.num_delivered} delivered by robots and {left} not. Orders are released for "
        f"pickup when they are complete with {100 * day.quantile:.0f} % certainty. On {num_days} "
        f"days with drawn service times {100 * found.late_share:.1f} % of them were late, and "
        f"robots waited {found.wait_s:,.0f} s a day for them."
    )
