"""The command that simulates days with random travel, breakdowns and cancellations."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import (
    AsJson,
    InputFile,
    Protection,
    Seed,
    SlacksChoice,
    compile_first,
    out,
    protection_of,
    require_writable,
)
from wardwise.cli.twin_plan import (
    carry_out_days,
    day_bar,
    interval_text,
    logging_to,
    require_defaults,
)
from wardwise.fleet.dispatch import Policy, Slacks, warm_up
from wardwise.fleet.simulate import Disturbances, Law, simulate_days
from wardwise.fleet.sizing.result import CLASSES
from wardwise.fleet.solvers import warm_up as warm_up_ruin
from wardwise.io import read_instance, read_plan

if TYPE_CHECKING:
    from wardwise.fleet.simulate import Days

HOUR_S = 3600.0

NumDays = Annotated[int, typer.Option("--days", min=2, help="Days to simulate.")]
LawName = Annotated[
    Law, typer.Option(help="Distribution of travel and service times: gamma or lognormal.")
]
TravelCv = Annotated[
    float | None, typer.Option(min=0, max=10, help="Deviation of travel over mean; none: FILE's.")
]
ServiceCv = Annotated[float, typer.Option(min=0, max=10, help="The same for service times.")]
Elevators = Annotated[
    bool, typer.Option("--elevators", help="Drive through the building and queue for elevators.")
]
FailureHours = Annotated[
    float | None, typer.Option(min=0.01, help="Driving hours between breakdowns; none: never.")
]
RepairMinutes = Annotated[float, typer.Option(min=1, help="Mean minutes until a robot is back.")]
Cancelled = Annotated[
    float, typer.Option(min=0, help="Share of requests withdrawn in an hour of waiting, per cent.")
]
PlanFile = Annotated[
    Path | None,
    typer.Option(metavar="PLAN", help="Carry out this plan instead, with FILE's randomness."),
]
LogFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Log to write: what was measured on the days.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes; none: one a core.")]


def simulate_command(
    file: InputFile,
    plan: PlanFile = None,
    days: NumDays = 20,
    law: LawName = Law.GAMMA,
    travel_cv: TravelCv = None,
    service_cv: ServiceCv = 0.3,
    elevators: Elevators = False,
    failure_h: FailureHours = None,
    repair_min: RepairMinutes = 30.0,
    cancelled: Cancelled = 0.0,
    protection: Protection = "0,0,0",
    slacks: SlacksChoice = Slacks.QUANTILE,
    seed: Seed = 0,
    jobs: Jobs = None,
    log: LogFile = None,
    as_json: AsJson = False,
) -> int:
    """Live through days of FILE with late robots, breakdowns and requests that are withdrawn."""
    require_writable(log)
    instance = read_instance(file)
    if plan is not None:
        require_defaults(
            law, travel_cv, service_cv, failure_h, repair_min, cancelled, protection, slacks
        )
        return carry_out_days(
            instance, read_plan(plan), num_days=days, seed=seed, uses_building=elevators, jobs=jobs,
            log=log, as_json=as_json,
        )  # fmt: skip
    policy = Policy(protection=protection_of(protection), slacks=slacks)
    # Without variances in FILE there is nothing to take from it.
    has_own = instance.travel_var_s2 is not None or elevators
    disturbances = Disturbances(
        law=law,
        travel_cv=0.2 if travel_cv is None and not has_own else travel_cv,
        service_cv=service_cv,
        uses_elevators=elevators,
        driving_s_per_failure=math.inf if failure_h is None else failure_h * HOUR_S,
        repair_s=60 * repair_min,
        cancels_per_s=-math.log1p(-min(cancelled, 99.9) / 100) / HOUR_S,
    )
    compile_first(warm_up_ruin, warm_up)
    with logging_to(log, instance.name) as on_day, day_bar(days) as on_progress:
        found = simulate_days(
            instance, num_days=days, policy=policy, disturbances=disturbances, seed=seed, jobs=jobs,
            on_progress=on_progress, on_day=on_day,
        )  # fmt: skip
    _tell(found, has_site=instance.site is not None, as_json=as_json)
    return 0


def _tell(found: Days, *, has_site: bool, as_json: bool) -> None:
    if as_json:
        document = {**asdict(found), "disturbances": _finite(asdict(found.disturbances))}
        print(json.dumps(document, indent=2))
    else:
        out.print(_table(found, has_site=has_site))


def _finite(fields: dict[str, object]) -> dict[str, object]:
    """JSON knows no infinity: robots that never fail have null there."""
    return {k: None if v == math.inf else v for k, v in fields.items()}


def _table(found: Days, *, has_site: bool) -> Table:
    title = f"{found.name}: {len(found.days)} days, mean and 95 % interval"
    table = Table(title=Text(title), title_justify="left", show_header=False)
    for verdict, shares in (("on time", found.on_time), ("denied", found.denied)):
        for index, (name, share) in enumerate(zip(CLASSES, shares, strict=True)):
            is_empty = not any(day.classes[index].num_requests for day in found.days)
            text = "no requests" if is_empty else f"{interval_text(share, 100, 1)} %"
            table.add_row(f"{name} {verdict}", text)
    table.add_row("robots used", interval_text(found.num_robots, 1, 1))
    table.add_row("distance", interval_text(found.distance_m, 1, 0) + (" m" if has_site else ""))
    table.add_row("late", f"{interval_text(found.lateness_s, 1 / 60, 1)} min in all")
    table.add_row("breakdowns", interval_text(found.num_breakdowns, 1, 1))
    table.add_row("robots busy", f"{interval_text(found.utilisation, 100, 0)} %")
    for door in found.elevators:
        place = f"{door.elevator}, floor {door.floor}"
        queue = interval_text(door.queue_s, 1, 0)
        table.add_row(
            place, f"waits {interval_text(door.wait_s, 1, 0)} s, {queue} s of it for robots"
        )
    table.add_row("cost", interval_text(found.cost, 1, 1))
    return table
