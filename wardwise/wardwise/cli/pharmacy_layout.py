"""The command that judges layouts of a dispensing machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import AsJson, Seed, interruptible, out, require_writable, talk
from wardwise.cli.pharmacy import DayPath, ServiceLog  # noqa: TC001, typer reads the types
from wardwise.io.documents import layout as text_of
from wardwise.io.files import write_text
from wardwise.io.pharmacy import read_pharmacy
from wardwise.io.pharmacy_logs import read_service_log
from wardwise.pharmacy.advice import Promise, advise, flow_curve
from wardwise.pharmacy.layout import LEVELS, Demand, Layout
from wardwise.report.layouts import FlowCurve, draw_flow

if TYPE_CHECKING:
    from typing import Any

    from wardwise.pharmacy.advice import Advice
    from wardwise.pharmacy.layout import LayoutFigures
    from wardwise.pharmacy.layout_check import SimulatedFigures
    from wardwise.pharmacy.problem import PharmacyDay
    from wardwise.pharmacy.rack import Machine
    from wardwise.pharmacy.service_time import ServiceTime
    from wardwise.pharmacy.stats import Interval

SCHEMA = "wardwise/layout-advice/1"
OWN = "*"  # the row of the machine as it is

PerHour = Annotated[
    float | None, typer.Option(min=0.01, max=99_999, help="Orders an hour; none: as in FILE.")
]
Speeds = Annotated[str, typer.Option(help="Factors on the arm's speeds to try, as in 1,1.5.")]
Dwell = Annotated[
    list[str] | None, typer.Option(help="Where the idle arm may wait, X,Y in metres; repeatable.")
]
CostPoint = Annotated[
    float | None, typer.Option(min=0, help="What one more point costs in an hour of work.")
]
CostPharmacist = Annotated[
    float | None, typer.Option(min=0, help="What a pharmacist costs in an hour of work.")
]
TargetMinutes = Annotated[
    float | None, typer.Option(min=0.01, help="Promise: an order is complete within so long.")
]
Percentile = Annotated[
    Literal["50", "90", "95", "99"], typer.Option(help="Of 100 orders so many keep the promise.")
]
Simulate = Annotated[
    int, typer.Option(min=0, help="Confirm by so many days, at least 2; 0: formulas alone.")
]
AdviceFile = Annotated[
    Path | None, typer.Option("--output", "--out", help="What --json prints, as a file.")
]
Figure = Annotated[Path | None, typer.Option(help="Curves of all layouts to write: SVG.")]


def layout_command(
    file: DayPath,
    per_hour: PerHour = None,
    service_log: ServiceLog = None,
    speeds: Speeds = "1",
    dwell: Dwell = None,
    cost_point: CostPoint = None,
    cost_pharmacist: CostPharmacist = None,
    target_minutes: TargetMinutes = None,
    percentile: Percentile = "95",
    simulate: Simulate = 0,
    seed: Seed = 0,
    output: AdviceFile = None,
    figure: Figure = None,
    as_json: AsJson = False,
) -> int:
    """Say whether the machine of FILE should have a second point, or a second pharmacist."""
    for path in (output, figure):
        require_writable(path)
    if simulate == 1:
        raise ValueError("--simulate: expected 0, or at least 2 days, got 1")
    factors = tuple(_number("--speeds", word) for word in speeds.split(","))
    dwells_m = (None, *(_place(word) for word in dwell or ()))
    promise = None
    if target_minutes is not None:
        promise = Promise(within_s=60 * target_minutes, level=int(percentile) / 100)
    day = read_pharmacy(file)
    service, demand = _service(day, service_log), _demand(file, day, per_hour)
    with interruptible():
        found = advise(
            day.machine, service, demand, speeds=factors, dwells_m=dwells_m,
            cost_per_hour=cost_point, wage_per_hour=cost_pharmacist, promise=promise,
            replications=simulate, seed=seed,
        )  # fmt: skip
    document = _document(file, day, found, promise)
    written = {}
    if output:
        write_text(output, text_of(document) + "\n")
        written["advice"] = str(output)
    if figure:
        talk.print("drawing the curves")
        write_text(figure, _figure(found, service, demand, promise) + "\n")
        written["figure"] = str(figure)
    if as_json:
        print(json.dumps({**document, "written": written}, indent=2))
    else:
        out.print(_table(file, found, day.machine))
        for sentence in found.sentences:
            out.print(sentence, soft_wrap=False)
        print_written(written)
    return 1 if promise and found.best is None else 0


def print_written(written: dict[str, str]) -> None:
    """One line for each file."""
    for name, target in written.items():
        print(f"{name}: {target}")


def _service(day: PharmacyDay, log: Path | None) -> ServiceTime:
    """The day's distribution, or that of its lines by the log."""
    if log is None:
        return day.service
    lines = [line for order in day.orders for line in order.lines if not line.is_manual]
    return read_service_log(log).mixture(lines)


def _demand(file: Path, day: PharmacyDay, per_hour: float | None) -> Demand:
    try:
        return Demand.of_day(day, per_hour)
    except ValueError as error:
        raise ValueError(f"{file}: expected orders for two bins or more ({error})") from error


def _table(file: Path, found: Advice, own: Machine) -> Table:
    title = (
        f"{file}: {found.orders_per_hour:.1f} orders and {found.bins_per_hour:.0f} bins an hour\n"
        "Capacity, saving a bin, % of the time busy, and minutes until an order is complete"
    )
    if any(figures.layout.machine == own for figures in found.figures):
        title += f"\n{OWN} as in the file"
    if found.simulated:
        title += "\nBelow each the same from simulated days, ± half of the 95 % interval"
    table = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True
    )
    table.add_column("points")  # the only one that may wrap
    for name in (
        "staff", "bins\nan h", "orders\nan h", "sav-\ning %", "arm\n%", "staff\n%", "mean",
        *(f"{100 * level:.0f} %" for level in LEVELS[:3]),
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    one = found.figures[0]
    for number, figures in enumerate(found.figures):
        style = "bold" if number == found.best else ""
        table.add_row(*_cells(figures, one, own), style=style)
        if found.simulated:
            for row in _simulated(found.simulated[number], figures, found.simulated[0]):
                table.add_row(*row, style="dim")
    return table


def _cells(figures: LayoutFigures, one: LayoutFigures, own: Machine) -> tuple[str, ...]:
    """One layout by formula."""
    times = ["full"] + 3 * ["–"]
    if figures.flow:
        seconds = (figures.flow.flow_s, *figures.flow.flow_quantiles_s[:3])
        times = [f"{value / 60:.1f}" for value in seconds]
    return (
        _points(figures.layout, own),
        f"{figures.layout.machine.num_pharmacists}",
        f"{figures.bins_per_hour:.0f}",
        f"{figures.orders_per_hour:.0f}",
        f"{100 * (1 - figures.cycle_s / one.cycle_s):.1f}",
        f"{100 * figures.arm_busy:.0f}",
        f"{100 * figures.people_busy:.0f}",
        *times,
    )


def _points(layout: Layout, own: Machine) -> str:
    """A layout in few words."""
    machine = layout.machine
    words = str(machine.num_points)
    if machine.num_points > 1:
        words += " opposite" if len(set(machine.points_m)) > 1 else " same end"
    factor = machine.arm.speed_x_mps / own.arm.speed_x_mps
    if abs(factor - 1) > 1e-9:
        words += f", {factor:g} x"
    if layout.dwell_m:
        words += ", dwell {:g},{:g}".format(*layout.dwell_m)
    return f"{words} {OWN}" if machine == own and layout.dwell_m is None else words


def _simulated(
    found: SimulatedFigures, figures: LayoutFigures, one: SimulatedFigures
) -> list[tuple[str, ...]]:
    """Means of the simulation, and half of their intervals, below the formulas' figures."""
    lines = figures.bins_per_hour / figures.orders_per_hour
    bins = 3600 / found.cycle_s.mean
    reach = bins * _half(found.cycle_s) / found.cycle_s.mean
    times = (found.flow_s, *found.flow_quantiles_s[:3])
    shares = (found.arm_busy, found.people_busy)
    is_steady = figures.flow is not None
    saving = 1 - found.cycle_s.mean / one.cycle_s.mean
    return [
        (
            "  simulated", "", f"{bins:.0f}", f"{bins / lines:.0f}", f"{100 * saving:.1f}",
            *(f"{100 * share.mean:.0f}" for share in shares),
            *(f"{time.mean / 60:.1f}" if is_steady else "–" for time in times),
        ),
        (
            "  ±", "", f"{reach:.1f}", f"{reach / lines:.1f}", "",
            *(f"{100 * _half(share):.1f}" for share in shares),
            *(f"{_half(time) / 60:.1f}" if is_steady else "–" for time in times),
        ),
    ]  # fmt: skip


def _half(value: Interval) -> float:
    return (value.high - value.low) / 2


def _document(
    file: Path, day: PharmacyDay, found: Advice, promise: Promise | None
) -> dict[str, Any]:
    """All figures, for programs."""
    return {
        "schema": SCHEMA,
        "day": str(file),
        "orders_per_hour": found.orders_per_hour,
        "bins_per_hour": found.bins_per_hour,
        "levels": LEVELS,
        "layouts": [_entry(found, number) for number in range(len(found.figures))],
        "promise": asdict(promise) if promise else None,
        "best": None if found.best is None else found.figures[found.best].layout.name,
        "advice": found.sentences,
        "num_orders": len(day.orders),
    }


def _entry(found: Advice, number: int) -> dict[str, Any]:
    """One layout."""
    figures = found.figures[number]
    fields = {
        name: value for name, value in vars(figures).items() if name not in ("layout", "flow")
    }
    machine = figures.layout.machine
    return {
        "name": figures.layout.name,
        "points_m": machine.points_m,
        "num_pharmacists": machine.num_pharmacists,
        "speed_x_mps": machine.arm.speed_x_mps,
        "speed_y_mps": machine.arm.speed_y_mps,
        "dwell_m": figures.layout.dwell_m,
        **fields,
        "saving": 1 - figures.cycle_s / found.figures[0].cycle_s,
        "flow": asdict(figures.flow) if figures.flow else None,
        "simulated": asdict(found.simulated[number]) if found.simulated else None,
    }


def _figure(found: Advice, service: ServiceTime, demand: Demand, promise: Promise | None) -> str:
    """Curves of the layouts at the machine's own speed, without dwell points."""
    level = promise.level if promise else 0.95
    own = found.figures[0].layout.machine.arm
    shown = [
        figures
        for figures in found.figures
        if figures.layout.machine.arm == own and figures.layout.dwell_m is None
    ]
    places = list(dict.fromkeys(figures.layout.machine.points_m for figures in shown))
    curves = [
        FlowCurve(
            name=figures.layout.name,
            place=places.index(figures.layout.machine.points_m),
            num_pharmacists=figures.layout.machine.num_pharmacists,
            points=tuple(
                (rate, seconds / 60)
                for rate, seconds in flow_curve(figures, service, demand, level)
            ),
        )
        for figures in shown
    ]
    return draw_flow(
        curves,
        title=f"{100 * level:.0f} of 100 orders are complete within",
        orders_per_hour=found.orders_per_hour,
        promise_min=promise.within_s / 60 if promise else None,
    )


def _number(option: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise ValueError(f"{option}: expected numbers as in 1,1.5, got {word!r}") from None


def _place(word: str) -> tuple[float, float]:
    """Metres along and up the rack."""
    words = word.split(",")
    if len(words) != 2:
        raise ValueError(f"--dwell: expected two numbers as in 6,1.9, got {word!r}")
    x_m, y_m = (_number("--dwell", part) for part in words)
    return x_m, y_m
