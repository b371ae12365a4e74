"""Commands of plans made in advance: plan, check, generate, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from wardwise.cli.common import (
    AsJson,
    InputFile,
    MaxIterations,
    ReportFile,
    ReportStart,
    Seed,
    StartHour,
    Task,
    TimeLimit,
    out,
    require_writable,
    search,
    tell,
)
from wardwise.fleet.check import check
from wardwise.fleet.solvers import METHODS, Objective
from wardwise.generate import generate_hospital
from wardwise.io import json_schema, read_instance, read_plan, write_json, write_plan
from wardwise.report import write_report


def plan(
    file: InputFile,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "ruin",
    objective: Annotated[
        Objective, typer.Option(help="What counts first.")
    ] = Objective.HIERARCHICAL,
    time_limit: TimeLimit = 10.0,
    max_iterations: MaxIterations = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Plan to write; none: FILE's name with .plan.json, here.")
    ] = None,
    report: ReportFile = None,
    start_h: ReportStart = None,
    as_json: AsJson = False,
) -> int:
    """Plan the day of FILE, check the plan independently, and write it."""
    if method not in METHODS:
        raise ValueError(f"--method: expected one of {', '.join(METHODS)}, got {method!r}")
    target = output or Path(f"{file.stem}.plan.json")
    for path in (target, report):
        require_writable(path)
    instance = read_instance(file)
    task = Task(method, objective, time_limit, max_iterations, seed)
    found = search(instance, task)
    verdict = check(instance, found)
    write_plan(found, target)
    if report:
        write_report(instance, found, verdict, report, start_h=start_h)
    written = {"plan": str(target), **({"report": str(report)} if report else {})}
    return tell(instance, found, verdict, as_json=as_json, written=written)


def check_command(
    file: InputFile,
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan to check: JSON.")],
    as_json: AsJson = False,
) -> int:
    """Check PLAN against FILE with a checker that shares no code with the solvers."""
    instance, found = read_instance(file), read_plan(plan_file)
    return tell(instance, found, check(instance, found), as_json=as_json, written={})


def generate(
    floors: Annotated[int, typer.Option(min=2, max=12, help="The logistics floor included.")] = 5,
    wards: Annotated[int, typer.Option(min=10, max=80, help="Places to serve.")] = 24,
    robots: Annotated[
        int | None, typer.Option(min=1, max=200, help="None: 5 for every 12 wards.")
    ] = None,
    start_h: StartHour = 6.0,
    hours: Annotated[float, typer.Option(min=1, max=24, help="Length of the horizon.")] = 6.0,
    dynamic: Annotated[bool, typer.Option(help="Requests are called in during the day.")] = False,
    transfers: Annotated[bool, typer.Option(help="Loads from ward to ward, too.")] = False,
    batteries: Annotated[
        bool, typer.Option(help="Robots with batteries, chargers, random times.")
    ] = False,
    late_share: Annotated[
        float | None, typer.Option(min=1e-6, max=0.5, help="Promised at most; none: no promise.")
    ] = None,
    seed: Seed = 1,
    output: Annotated[
        Path | None, typer.Option(help="Instance to write; none: its name with .json, here.")
    ] = None,
) -> None:
    """Draw a hospital with its building and its requests."""
    instance = generate_hospital(
        num_floors=floors,
        num_wards=wards,
        num_robots=robots,
        start_h=start_h,
        hours=hours,
        seed=seed,
        dynamic=dynamic,
        transfers=transfers,
        batteries=batteries,
        late_share=late_share,
    )
    target = output or Path(f"{instance.name}.json")
    require_writable(target)
    write_json(instance, target)
    out.print(
        f"{target}: {floors} floors, {wards} wards, {len(instance.robots)} robots, "
        f"{len(instance.requests)} requests"
    )


def schema(
    kind: Annotated[
        Literal["instance", "plan"], typer.Argument(metavar="KIND", help="instance or plan.")
    ],
) -> None:
    """Print the JSON schema of instance or plan files."""
    print(json.dumps(json_schema(kind), indent=2))
