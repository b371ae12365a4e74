"""Commands of a dispensing machine: sequence, generate-pharmacy."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import AsJson, Seed, out, require_writable, talk
from wardwise.io.documents import layout
from wardwise.io.files import write_text
from wardwise.io.pharmacy import read_pharmacy, write_pharmacy
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.sequence import METHODS, sequence
from wardwise.report.machine import draw_machine, tasks_of_plan

if TYPE_CHECKING:
    from typing import Any

    from wardwise.pharmacy.problem import PharmacyDay
    from wardwise.pharmacy.sequence import Plan

PLAN_SCHEMA = "wardwise/pharmacy-plan/1"
FIRST_COME = "first-come"
SLOW = ("highs", "cp-sat")

DayPath = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="Day: JSON, or a folder with orders.csv and bins.csv."),
]
ServiceLog = Annotated[
    Path | None,
    typer.Option(help="CSV of sorting times to learn from: seconds, drug, person, packs, scanned."),
]
Method = Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")]
Window = Annotated[int, typer.Option(min=1, help="Orders seen at once by rolling and disjoint.")]
ChooseBins = Annotated[bool, typer.Option(help="Of several bins take the one that suits best.")]
KeepBins = Annotated[bool, typer.Option(help="A bin that is wanted next stays (one point).")]
Replications = Annotated[int, typer.Option(min=1, help="Days of drawn service times.")]
ProgramLimit = Annotated[float, typer.Option(min=0, help="Seconds for highs and cp-sat.")]
Compare = Annotated[bool, typer.Option("--compare", help="All quick methods in one table.")]
PlanFile = Annotated[Path | None, typer.Option("--output", "--out", help="Plan to write: JSON.")]
FigureFile = Annotated[
    Path | None, typer.Option(help="Gantt chart of arm and pharmacists to write: SVG.")
]


def sequence_command(
    file: DayPath,
    method: Method = "chain",
    window: Window = 2,
    choose_bins: ChooseBins = True,
    keep_bins: KeepBins = False,
    replications: Replications = 200,
    time_limit: ProgramLimit = 60.0,
    seed: Seed = 0,
    compare: Compare = False,
    output: PlanFile = None,
    figure: FigureFile = None,
    as_json: AsJson = False,
) -> int:
    """Decide in which sequence the machine of FILE fetches the drugs of its orders."""
    if method not in METHODS:
        raise ValueError(f"--method: expected one of {', '.join(METHODS)}, got {method!r}")
    for path in (output, figure):
        require_writable(path)
    day = read_pharmacy(file)
    settings: dict[str, Any] = {
        "window": window, "choose_bins": choose_bins, "keep_bins": keep_bins,
        "replications": replications, "time_limit": time_limit, "seed": seed,
    }  # fmt: skip
    talk.print(f"sequencing {len(day.orders)} orders with {method}")
    try:
        found = sequence(day, method=method, **settings)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    others = _others(day, found, settings) if compare else {}
    written = {}
    if output:
        write_text(output, layout({"schema": PLAN_SCHEMA, **asdict(found)}) + "\n")
        written["plan"] = str(output)
    if figure:
        write_text(figure, draw_machine(tasks_of_plan(found, day.machine), found.orders) + "\n")
        written["figure"] = str(figure)
    if as_json:
        print(json.dumps(_document(file, found, others, written), indent=2))
        return 0
    out.print(_orders(file, found))
    if others:
        out.print(_comparison(others))
    _tell_whole(found)
    for name, target in written.items():
        print(f"{name}: {target}")
    return 0


def generate_command(
    orders: Annotated[int, typer.Option(min=1, max=100_000, help="Prescriptions.")] = 100,
    lines: Annotated[int, typer.Option(min=1, max=600, help="Most drugs of one.")] = 5,
    points: Annotated[
        Literal["1", "2", "2-opposite"], typer.Option(help="I/O points; two stand at one end.")
    ] = "1",
    pharmacists: Annotated[int, typer.Option(min=1, max=99, help="People at the points.")] = 1,
    zipf: Annotated[
        float, typer.Option(min=0, max=9, help="Exponent of demand by rank; 0: all drugs alike.")
    ] = 0.0,
    packs: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Packs of each bin; none: plenty.")
    ] = None,
    per_hour: Annotated[
        float | None, typer.Option(min=0.01, max=99_999, help="Orders come in; none: all known.")
    ] = None,
    seed: Seed = 1,
    output: Annotated[
        Path | None,
        typer.Option(help="JSON or folder to write; none: pharmacy-ORDERS-seedSEED.json, here."),
    ] = None,
) -> None:
    """Fill a dispensing machine and draw a day of prescriptions for it."""
    target = output or Path(f"pharmacy-{orders}-seed{seed}.json")
    if not target.is_dir():
        require_writable(target)
    rack = Machine().rack
    ends_m = {"1": (0.0,), "2": (0.0, 0.0), "2-opposite": (0.0, rack.width_m)}[points]
    machine = Machine(points_m=tuple((x_m, 0.0) for x_m in ends_m), num_pharmacists=pharmacists)
    day = generate_pharmacy(
        seed, num_orders=orders, max_lines=lines, machine=machine, zipf=zipf,
        packs_per_bin=packs, arrivals_per_hour=per_hour,
    )  # fmt: skip
    write_pharmacy(day, target)
    num_lines = sum(len(order.lines) for order in day.orders)
    out.print(f"{target}: {orders} orders, {num_lines} lines, {len(day.bins)} bins")


def _others(day: PharmacyDay, found: Plan, settings: dict[str, Any]) -> dict[str, Plan | str]:
    """Plan of every quick method, or why there is none."""
    plans: dict[str, Plan | str] = {}
    for method in METHODS:
        if method == found.method:
            plans[method] = found
        elif method not in SLOW:
            try:
                plans[method] = sequence(day, method=method, **settings)
            except ValueError as error:
                plans[method] = str(error)
    return plans


def _orders(file: Path, found: Plan) -> Table:
    table = Table(title=Text(f"{file}: seconds until an order is complete"), title_justify="left")
    for name in ("order", "lines", "mean", "5 %", "50 %", "95 %"):
        table.add_column(name, justify="left" if name == "order" else "right", no_wrap=True)
    count = Counter(step.order for step in found.steps)
    for done in found.orders:
        times_s = (done.completed_s, *done.completed_quantiles_s)
        table.add_row(
            Text(done.order), f"{count[done.order]}", *(f"{time_s:,.0f}" for time_s in times_s)
        )
    return table


def _comparison(plans: dict[str, Plan | str]) -> Table:
    table = Table(title="Methods", title_justify="left")
    for name in ("method", "seconds per order", f"to {FIRST_COME}"):
        table.add_column(name, justify="left" if name == "method" else "right")
    base = plans[FIRST_COME]
    for method, plan in plans.items():
        if isinstance(plan, str) or isinstance(base, str):
            table.add_row(method, "–", f"{plan}")
            continue
        change = _change(plan, base)
        table.add_row(method, f"{plan.seconds_per_order:.1f}", f"{100 * change:+.1f} %")
    return table


def _change(plan: Plan, base: Plan) -> float:
    """Relative change of the mean makespan."""
    return plan.makespan_s / base.makespan_s - 1 if base.makespan_s else 0.0


def _tell_whole(found: Plan) -> None:
    low_s, _, high_s = found.makespan_quantiles_s
    print(
        f"{found.method}: {found.seconds_per_order:.1f} seconds per order; all "
        f"{len(found.steps)} lines sorted after {found.makespan_s:,.0f} s "
        f"(5 to 95 %: {low_s:,.0f} to {high_s:,.0f} s)"
    )


def _document(
    file: Path, found: Plan, plans: dict[str, Plan | str], written: dict[str, str]
) -> dict[str, Any]:
    fields = asdict(found)
    del fields["steps"]
    return {
        "day": str(file),
        "num_lines": len(found.steps),
        **fields,
        "compare": {
            method: {"refused": plan}
            if isinstance(plan, str)
            else {"seconds_per_order": plan.seconds_per_order, "makespan_s": plan.makespan_s}
            for method, plan in plans.items()
        },
        "written": written,
    }
