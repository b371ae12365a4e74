"""Commands of a running day: dispatch, lackner, demo."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import (
    AsJson,
    InputFile,
    MaxIterations,
    Protection,
    ReportFile,
    ReportStart,
    Seed,
    SlacksChoice,
    Task,
    TimeLimit,
    compile_first,
    interruptible,
    live,
    out,
    protection_of,
    require_writable,
    search,
    talk,
)
from wardwise.cli.electric import electric_figures
from wardwise.dynamism import degree_of_dynamism, make_dynamic
from wardwise.fleet.check import check
from wardwise.fleet.dispatch import Journal, Policy, Record, Slacks, Status, warm_up
from wardwise.fleet.replay import Reoptimisation, Replay, certify_day, known_part, replay_day
from wardwise.fleet.sizing.result import CLASSES
from wardwise.fleet.solvers import METHODS, Objective, default_method
from wardwise.fleet.solvers import warm_up as warm_up_ruin
from wardwise.generate import generate_hospital
from wardwise.hospital import (
    dispense,
    draw_prescriptions,
    live_days,
    with_deliveries,
    without_medicine,
)
from wardwise.io import (
    Provenance,
    read_instance,
    read_plan,
    write_json,
    write_lackner,
    write_plan,
)
from wardwise.io.pharmacy import write_pharmacy
from wardwise.report import ElectricKpis, summarise
from wardwise.report.live import write_live_report
from wardwise.report.service import service_line

if TYPE_CHECKING:
    from wardwise.fleet.energy import Battery
    from wardwise.fleet.problem import Instance
    from wardwise.hospital import Delivery, Dispensing, HospitalDay
    from wardwise.report import Kpis

# One robot fewer than the day asks for, so that there is something to decide.
DEMO_START_H, DEMO_METHOD, DEMO_ROBOTS = 6.0, "tabu", 8
# Robots come from the night with these parts of their batteries, one after the other; of
# what is promised to all, the dispatcher uses up a third, see `Policy.aim`.
DEMO_LEVELS, DEMO_LATE_SHARE, DEMO_AIM = (0.8, 0.7, 0.6, 0.5), 0.05, 0.3
DEMO_QUANTILE, DEMO_DAYS = 0.9, 50
DEMO_FILES = {
    "instance": "wardwise-hospital.json", "pharmacy": "wardwise-pharmacy.json",
    "plan": "wardwise-hospital.day.json", "journal": "wardwise-hospital.journal.jsonl",
    "report": "wardwise.html",
}  # fmt: skip

KnownPlan = Annotated[
    Path | None, typer.Option("--plan", help="Plan of the known requests; none: made first.")
]
Method = Annotated[
    str | None, typer.Option(help=f"Of that plan: {', '.join(METHODS)}; none: what FILE needs.")
]
Squeeze = Annotated[bool, typer.Option(help="Rule D3: make lower classes late.")]
Eject = Annotated[bool, typer.Option(help="Rule D4: push lower classes out.")]
Hold = Annotated[bool, typer.Option(help="Rule D5: answer 'pending', try again.")]
Seconds = Annotated[float, typer.Option(min=0, help="Seconds of re-optimisation after each event.")]
Stability = Annotated[
    float, typer.Option(min=0, help="Money a change must save for each request it moves.")
]
Slices = Annotated[
    int | None, typer.Option(min=1, help="Cut the day: requests are heard at a slice's end.")
]
JournalFile = Annotated[
    Path | None, typer.Option(help="Journal to write: every event with its answer.")
]
Fsync = Annotated[str, typer.Option(help="never, always, or seconds between.")]
DayFile = Annotated[
    Path | None, typer.Option(help="Day to write; none: FILE's name with .day.json, here.")
]


def dispatch(
    file: InputFile,
    plan_file: KnownPlan = None,
    method: Method = None,
    time_limit: TimeLimit = 10.0,
    max_iterations: MaxIterations = None,
    seed: Seed = 0,
    protection: Protection = "0,0,0",
    squeeze: Squeeze = True,
    eject: Eject = False,
    hold: Hold = False,
    slacks: SlacksChoice = Slacks.QUANTILE,
    reoptimise: Seconds = 0.0,
    stability: Stability = 0.0,
    slices: Slices = None,
    journal: JournalFile = None,
    fsync: Fsync = "never",
    output: DayFile = None,
    report: ReportFile = None,
    start_h: ReportStart = None,
    as_json: AsJson = False,
) -> int:
    """Live through the day of FILE: plan what is known, answer what appears, check the result."""
    target = output or Path(f"{file.stem}.day.json")
    for path in (target, report, journal):
        require_writable(path)
    instance, levels = read_instance(file), protection_of(protection)
    policy = Policy(
        protection=levels, may_squeeze=squeeze, may_eject=eject, may_hold=hold, slacks=slacks
    )
    kept = None if journal is None else Journal(journal, fsync=_fsync(fsync))
    known = known_part(instance)
    task = Task(method or default_method(known), Objective.COST, time_limit, max_iterations, seed)
    first_plan = read_plan(plan_file) if plan_file else search(known, task)
    settings = Reoptimisation(seconds=reoptimise, max_iterations=10**9, stability=stability)
    compile_first(warm_up_ruin, warm_up)
    talk.print(f"dispatching {instance.name}, Ctrl-C keeps the day so far")
    with live(line := DayLine()):
        day = replay_day(
            instance, policy=policy, seed=seed, first_plan=first_plan, slices=slices, journal=kept,
            reoptimisation=settings if reoptimise > 0 else None, on_event=line.update,
        )  # fmt: skip
    day = _certified(day, seed)
    write_plan(day.plan, target)
    written = {"plan": str(target), **({"journal": str(journal)} if journal else {})}
    if report:
        write_live_report(day, report, start_h=start_h)
        written["report"] = str(report)
    return _tell(day, as_json=as_json, written=written)


def lackner(
    file: InputFile,
    degree: Annotated[float, typer.Option(min=0, max=100, help="Dynamic requests, in per cent.")],
    reference: Annotated[
        Path | None, typer.Option(help="Plan to draw the releases from; none: made first.")
    ] = None,
    time_limit: TimeLimit = 10.0,
    max_iterations: MaxIterations = None,
    seed: Seed = 1,
    output: Annotated[
        Path | None, typer.Option(help="CSV to write; none: its name with .csv, here.")
    ] = None,
) -> None:
    """Let a share of the requests of FILE appear during the day, in the style of Lackner."""
    base = read_instance(file)
    plan = (
        read_plan(reference)
        if reference
        else search(base, Task("ruin", Objective.HIERARCHICAL, time_limit, max_iterations, seed))
    )
    dynamic = make_dynamic(base, plan, degree=degree / 100, seed=seed)
    target = output or Path(f"{dynamic.name}.csv")
    require_writable(target)
    cost = check(base, plan).cost.distance_m
    provenance = Provenance(base=base.name, degree=degree / 100, seed=seed, reference_cost=cost)
    write_lackner(dynamic, target, provenance)
    share = 100 * degree_of_dynamism(dynamic)
    out.print(
        f"{target}: {len(dynamic.requests)} requests, {share:.0f} % of them dynamic, "
        f"reference {len(plan.trips)} robots and {cost:,.2f}"
    )


def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("out"),
    time_limit: TimeLimit = 20.0,
    seed: Seed = 1,
) -> int:
    """Live through a hospital's morning, from prescriptions to robots, and write a report."""
    out_dir.mkdir(parents=True, exist_ok=True)
    files = {what: out_dir / name for what, name in DEMO_FILES.items()}
    for path in files.values():
        require_writable(path)
    dispensing, instance, deliveries = _demo_hospital(seed)
    known = known_part(instance)
    num_dynamic = len(instance.requests) - len(known.requests)
    talk.print(
        f"A hospital with 24 wards on 5 floors and {len(instance.robots)} robots, 06:00 to 12:00: "
        f"{len(known.requests)} requests are known, {num_dynamic} will be called in, "
        f"{len(deliveries)} of them prescriptions for the dispensing machine"
    )
    write_json(instance, files["instance"])
    write_pharmacy(dispensing.day, files["pharmacy"])
    files["journal"].unlink(missing_ok=True)
    task = Task(DEMO_METHOD, Objective.COST, time_limit, None, seed)
    day = _demo_day(instance, known, task, files["journal"])
    write_plan(day.plan, files["plan"])
    hospital = live_days(
        dispensing, day.instance, deliveries, day.plan, day.report, quantile=DEMO_QUANTILE,
        num_days=DEMO_DAYS, seed=seed,
    )  # fmt: skip
    write_live_report(day, files["report"], start_h=DEMO_START_H, hospital=hospital)
    code = _tell(day, as_json=False, written={what: str(path) for what, path in files.items()})
    _tell_prescriptions(hospital)
    out.print(f"\nOpen {files['report']} in a browser.")
    out.print("Next: wardwise generate --dynamic --wards 40 --output big.json")
    out.print("      wardwise dispatch big.json --report big.html --start-h 6")
    return code


def _demo_day(instance: Instance, known: Instance, task: Task, journal: Path) -> Replay:
    """Plan what is known, dispatch the rest, and certify the day."""
    # Robots charge whenever they stand at the dock, so charges are nothing to plan here; and
    # without a promise the plan takes no kernels but those of a search that compiles quickly.
    first_plan = search(replace(_with_levels(known, None), promise=None), task)
    compile_first(warm_up_ruin, warm_up)
    policy, line = Policy(protection=(0, 0, 1), may_eject=True, aim=DEMO_AIM), DayLine()
    with live(line):
        day = replay_day(
            instance, policy=policy, seed=task.seed, first_plan=first_plan,
            reoptimisation=Reoptimisation(max_iterations=500, stability=0.05),
            journal=Journal(journal), on_event=line.update,
        )  # fmt: skip
    return _certified(day, task.seed)


def _demo_hospital(seed: int) -> tuple[Dispensing, Instance, tuple[Delivery, ...]]:
    """The machine's day, and the hospital whose medicine comes from it."""
    hospital = without_medicine(
        generate_hospital(
            num_robots=DEMO_ROBOTS, start_h=DEMO_START_H, dynamic=True, transfers=True,
            batteries=True, late_share=DEMO_LATE_SHARE, seed=seed,
        )
    )  # fmt: skip
    hospital = _with_levels(hospital, DEMO_LEVELS)
    dispensing = dispense(draw_prescriptions(hospital, seed=seed), seed=seed)
    parts = with_deliveries(hospital, dispensing, quantile=DEMO_QUANTILE, is_dynamic=True)
    return dispensing, *parts


def _with_levels(hospital: Instance, parts: tuple[float, ...] | None) -> Instance:
    """The hospital with batteries charged to these parts, in turn; `None`: without batteries."""

    def charged(battery: Battery | None, part: float) -> Battery | None:
        if battery is None or parts is None:
            return None
        return replace(battery, start_wh=part * battery.capacity_wh)

    pairs = zip(hospital.robots, cycle(parts or (1.0,)), strict=False)
    robots = (replace(robot, battery=charged(robot.battery, part)) for robot, part in pairs)
    return replace(hospital, robots=tuple(robots))


def _certified(day: Replay, seed: int) -> Replay:
    """Certify a day with a promise; Ctrl-C leaves it as it is."""
    if day.instance.promise is None:
        return day
    talk.print("certifying the day on random days, Ctrl-C leaves it uncertified")
    try:
        with interruptible("stopped: the day is not certified"):
            return certify_day(day, seed=seed, jobs=None)
    except KeyboardInterrupt:
        return day


def _tell_prescriptions(hospital: HospitalDay) -> None:
    found = hospital.figures()
    print(
        f"prescriptions: {found.num_delivered} of {len(hospital.deliveries)} delivered, to the "
        f"bedside in {found.mean_s / 60:.0f} min in the mean, 95 % within "
        f"{found.p95_s / 60:.0f} min; {100 * found.late_share:.0f} % of the orders were late"
    )


@dataclass
class DayLine:
    """One line on a terminal that tells how far the day is."""

    number: int = 0
    total: int = 0
    denied: int = 0
    last: str = ""

    def update(self, number: int, total: int, record: Record) -> None:
        """Remember the newest answer."""
        self.number, self.total = number, total
        self.denied += sum(d.status is Status.DENIED for d in record.decisions)
        if record.decisions:
            self.last = record.decisions[0].explain()

    def __rich__(self) -> Text:
        """Text of the line now."""
        line = f"request {self.number} of {self.total}   {self.denied} denied   {self.last}"
        return Text(line, no_wrap=True, overflow="ellipsis")


def _fsync(text: str) -> str | float:
    """A policy's name, or seconds."""
    return float(text) if text.replace(".", "", 1).isdigit() else text


def _tell(day: Replay, *, as_json: bool, written: dict[str, str]) -> int:
    """Print what came of the day; returns the exit code."""
    kpis = summarise(day.instance, day.plan, day.report)
    latency_ms = 1000 * np.array(day.latency_s or [0.0])
    answer = {
        "p50_ms": float(np.median(latency_ms)),
        "p99_ms": float(np.quantile(latency_ms, 0.99)),
    }
    if as_json:
        document = {
            "instance": day.instance.name,
            "is_complete": day.is_complete,
            **asdict(kpis),
            "outcome": asdict(day.outcome),
            "answers": answer,
            "denied": [
                decision.document()
                for decision in day.decisions()
                if decision.status in (Status.DENIED, Status.UNSERVABLE)
            ],
            "violations": [asdict(violation) for violation in day.report.violations],
            "written": written,
        }
        print(json.dumps(document, indent=2))
        return 0 if day.report.is_feasible else 1
    outcome = day.outcome
    table = Table(title=Text(day.instance.name), title_justify="left", show_header=False)
    found = "feasible" if kpis.is_feasible else f"not feasible, {kpis.num_violations} violations"
    rows = (
        ("verdict of the check", found + ("" if day.is_complete else ", day not complete")),
        ("revealed", f"{outcome.num_revealed} requests, {len(day.latency_s)} during the day"),
        ("denied", _by_class(outcome.denied_by_priority, outcome.revealed_by_priority)),
        ("came too late", f"{outcome.num_unservable}"),
        ("late", f"{kpis.num_late} requests, {kpis.late_min:,.1f} min in all"),
        ("robots used", f"{kpis.robots_used} of {kpis.robots_owned}"),
        ("distance", f"{kpis.distance_m:,.1f}" + (" m" if day.instance.site else "")),
        ("answer time", f"median {answer['p50_ms']:.3f} ms, 99 % within {answer['p99_ms']:.3f} ms"),
        ("cost", f"{kpis.cost:,.2f}"),
    )
    for name, value in rows:
        table.add_row(name, value)
    out.print(table)
    _tell_electric(day.instance, kpis)
    for decision in day.decisions():
        if decision.status in (Status.DENIED, Status.UNSERVABLE):
            print(decision.explain())
    for violation in day.report.violations:
        print(f"{violation.constraint}: {violation.message}")
    for name, path in written.items():
        print(f"{name}: {path}")
    return 0 if kpis.is_feasible else 1


def _tell_electric(instance: Instance, kpis: Kpis) -> None:
    """Print energy and certified service levels, where the day has them."""
    if not isinstance(kpis, ElectricKpis):
        return
    out.print(electric_figures(instance, kpis))
    if kpis.service:
        print(service_line(kpis.service))


def _by_class(denied: tuple[int, ...], revealed: tuple[int, ...]) -> str:
    """Denials of each class, of how many."""
    parts = zip(CLASSES, denied, revealed, strict=True)
    return ", ".join(f"{few} of {many} {name}" for name, few, many in parts)
