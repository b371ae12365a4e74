"""Commands of plans made in advance: plan, check, generate, schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    interruptible,
    out,
    require_writable,
    search,
    talk,
    tell,
)
from wardwise.cli.electric import electric_figures
from wardwise.cli.plan_files import read_plan_file, require_plan_fits, write_plan_file
from wardwise.cli.shortcomings import Reason, reasons_of, shortcomings
from wardwise.cli.terms import with_terms
from wardwise.fleet.chance import certify
from wardwise.fleet.chance.certify import CONFIDENCE
from wardwise.fleet.check import check
from wardwise.fleet.energy import Recharge
from wardwise.fleet.randomness import Scope
from wardwise.fleet.schedule import ScheduleError
from wardwise.fleet.solvers import METHODS, SHAKES, Objective, default_method
from wardwise.generate import generate_hospital
from wardwise.io import json_schema, read_instance, write_json
from wardwise.report import ElectricKpis, summarise, write_report

if TYPE_CHECKING:
    from wardwise.fleet.check import Report
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

RechargeTerm = Annotated[
    Recharge | None, typer.Option(help="Whether each charge fills the battery; none: as FILE.")
]
PromiseTerm = Annotated[
    str | None,
    typer.Option(help="Percent on time, as in 95 or stat=99,urgent=95; none: as FILE."),
]
ScopeTerm = Annotated[
    Scope | None, typer.Option(help="What the promise is for, one by one; none: as FILE.")
]


def plan(
    file: InputFile,
    method: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(METHODS)}; none: vns where it is needed, else ruin."),
    ] = None,
    objective: Annotated[
        Objective, typer.Option(help="What counts first.")
    ] = Objective.HIERARCHICAL,
    time_limit: TimeLimit = 10.0,
    max_iterations: MaxIterations = None,
    seed: Seed = 0,
    recharge: RechargeTerm = None,
    promise: PromiseTerm = None,
    local_search: Annotated[
        bool,
        typer.Option("--local-search/--reduced", help="Of vns: descents after shakes, or none."),
    ] = False,
    shake: Annotated[str, typer.Option(help="Of vns: strings or cyclic.")] = SHAKES[0],
    scope: ScopeTerm = None,
    output: Annotated[
        Path | None,
        typer.Option(help="Plan to write, .json or .sol; none: FILE's name with .plan.json, here."),
    ] = None,
    report: ReportFile = None,
    start_h: ReportStart = None,
    as_json: AsJson = False,
) -> int:
    """Plan the day of FILE, check the plan independently, and write it."""
    if method is not None and method not in METHODS:
        raise ValueError(f"--method: expected one of {', '.join(METHODS)}, got {method!r}")
    target = output or Path(f"{file.stem}.plan.json")
    for path in (target, report):
        require_writable(path)
    instance = with_terms(read_instance(file), recharge=recharge, promise=promise, scope=scope)
    require_plan_fits(instance, target)
    task = Task(
        method=method or default_method(instance),
        objective=objective,
        time_limit=time_limit,
        max_iterations=max_iterations,
        seed=seed,
        local_search=local_search,
        shake=shake,
    )
    return _plan_and_tell(instance, task, target, report, start_h=start_h, as_json=as_json)


def _plan_and_tell(
    instance: Instance,
    task: Task,
    target: Path,
    report: Path | None,
    *,
    start_h: float | None,
    as_json: bool,
) -> int:
    found = search(instance, task)
    if instance.promise is not None:
        found = _certified(instance, found, task.seed)
    verdict = check(instance, found)
    write_plan_file(found, verdict.cost.distance_m, target)
    if report:
        write_report(instance, found, verdict, report, start_h=start_h)
    written = {"plan": str(target), **({"report": str(report)} if report else {})}
    takes_vns = default_method(instance) == "vns"
    denials: tuple[Reason, ...] = ()
    if task.objective is not Objective.COST and (takes_vns or as_json):
        denials = _reasons(instance, found)
    code = _tell_all(instance, found, verdict, denials, as_json=as_json, written=written)
    return (_tell_shortcomings(instance, found, denials) if takes_vns else 0) or code


def _reasons(instance: Instance, found: Plan) -> tuple[Reason, ...]:
    """Why each denied request is; looking for it takes a while."""
    if found.denied:
        talk.print("looking for what stands in the way of requests that are denied …")
    return reasons_of(instance, found)


def _tell_shortcomings(instance: Instance, found: Plan, denials: tuple[Reason, ...]) -> int:
    """Print what a plan does not serve or keep; 1 if anything."""
    missing = shortcomings(instance, found, denials)
    if missing:
        talk.print(f"infeasible: {missing}")
    return int(bool(missing))


def _certified(instance: Instance, found: Plan, seed: int) -> Plan:
    """Certify a plan; Ctrl-C leaves it as it is."""
    talk.print("certifying the plan on random days, Ctrl-C leaves it uncertified")
    try:
        with interruptible("stopped: the plan is not certified"):
            return certify(instance, found, seed=seed, confidence=CONFIDENCE, jobs=None)
    except KeyboardInterrupt:
        return found


def _tell_all(
    instance: Instance,
    found: Plan,
    verdict: Report,
    denials: tuple[Reason, ...],
    *,
    as_json: bool,
    written: dict[str, str],
) -> int:
    """Print what `tell` does, then energy and certified service levels; JSON has them anyhow."""
    kpis = summarise(instance, found, verdict)
    if as_json or not isinstance(kpis, ElectricKpis):
        return tell(instance, found, verdict, as_json=as_json, written=written, denials=denials)
    code = tell(instance, found, verdict, as_json=False, written={})
    out.print(electric_figures(instance, kpis))
    for name, path in written.items():
        print(f"{name}: {path}")
    return code


def check_command(
    file: InputFile,
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan to check: JSON or .sol.")],
    as_json: AsJson = False,
) -> int:
    """Check PLAN against FILE with a checker that shares no code with the solvers."""
    instance = read_instance(file)
    try:
        found = read_plan_file(instance, plan_file)
    except ScheduleError as problem:
        talk.print(f"infeasible: {problem}")
        return 1
    verdict = check(instance, found)
    denials = _reasons(instance, found) if as_json else ()
    return _tell_all(instance, found, verdict, denials, as_json=as_json, written={})


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
