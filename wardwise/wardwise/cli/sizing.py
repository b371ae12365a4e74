"""The command that sizes a fleet."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import (
    AsJson,
    InputFile,
    MaxIterations,
    ReportFile,
    Seed,
    SlacksChoice,
    Task,
    TimeLimit,
    compile_first,
    interruptible,
    out,
    require_writable,
    talk,
)
from wardwise.cli.confidence import size_for_confidence
from wardwise.fleet.dispatch import Slacks
from wardwise.fleet.sizing import days_of, size
from wardwise.fleet.sizing.result import CLASSES
from wardwise.fleet.sizing.size import PROTECTION, SPARES
from wardwise.fleet.solvers import Objective, warm_up
from wardwise.io import read_instance
from wardwise.report.sizing import write_sizing_report

if TYPE_CHECKING:
    from wardwise.fleet.sizing import Interval, Outcome, Sizing

Days = Annotated[int, typer.Option(min=2, help="Days to simulate.")]
Spares = Annotated[str, typer.Option(help="Numbers of spare robots to try.")]
Levels = Annotated[
    str, typer.Option(help="Spares kept back from urgent:routine requests, pairs to try.")
]
Degree = Annotated[
    float | None, typer.Option(min=0, max=100, help="Draw releases anew at this per cent dynamic.")
]
MaxDenial = Annotated[
    str | None, typer.Option(help="Service level: most denials of a class, as in stat=1,urgent=5.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes; none: one a core.")]
RayAddress = Annotated[str | None, typer.Option("--ray", help="Ray cluster, or local.")]
Confidence = Annotated[
    str | None,
    typer.Option(help="Plan one day instead, for per cents on time: 90,95 or stat/urgent/routine."),
]
MaxRobots = Annotated[
    int | None, typer.Option(min=1, help="Most robots, with --confidence; none: twice FILE's.")
]
OF_DAYS = ("days", "spares", "protection", "degree", "max_denial", "slacks", "jobs", "ray_address")
OF_CONFIDENCE = ("max_robots", "time_limit", "max_iterations")
SPARES_TEXT = ",".join(map(str, SPARES))
PROTECTION_TEXT = ",".join(f"{urgent}:{routine}" for urgent, routine in PROTECTION)


def size_command(
    context: typer.Context,
    file: InputFile,
    days: Days = 200,
    spares: Spares = SPARES_TEXT,
    protection: Levels = PROTECTION_TEXT,
    degree: Degree = None,
    max_denial: MaxDenial = None,
    slacks: SlacksChoice = Slacks.QUANTILE,
    seed: Seed = 0,
    jobs: Jobs = None,
    ray_address: RayAddress = None,
    confidence: Confidence = None,
    max_robots: MaxRobots = None,
    time_limit: TimeLimit = 10.0,
    max_iterations: MaxIterations = None,
    report: ReportFile = None,
    as_json: AsJson = False,
) -> int:
    """Say how many robots to own for days like FILE, and how many to keep back as spares."""
    require_writable(report)
    _require_one_way(context, confidence)
    if confidence is not None:
        search = Task("vns", Objective.HIERARCHICAL, time_limit, max_iterations, seed)
        return size_for_confidence(
            read_instance(file), confidence, search,
            max_robots=max_robots, report=report, as_json=as_json,
        )  # fmt: skip
    counts = [_whole("--spares", word) for word in spares.split(",")]
    levels = [_pair(word) for word in protection.split(",")]
    limits = _limits(max_denial)
    instance = read_instance(file)
    compile_first(warm_up)
    source = days_of(instance, degree=None if degree is None else degree / 100, seed=seed)
    columns = (
        TextColumn("simulating days"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with interruptible(), Progress(*columns, console=talk, transient=True) as bar:
        task = bar.add_task("days", total=days)
        found = size(
            source, days=days, seed=seed, spares=counts, protection=levels, max_denial=limits,
            slacks=slacks, jobs=jobs, ray_address=ray_address,
            on_progress=lambda done, _: bar.update(task, completed=done),
        )  # fmt: skip
    written = {}
    if report:
        write_sizing_report(found, report)
        written["report"] = str(report)
    _tell(found, written, as_json=as_json)
    return 0 if found.is_met else 1


def _require_one_way(context: typer.Context, confidence: str | None) -> None:
    """Refuse options that only the other way of sizing knows."""
    refused = OF_CONFIDENCE if confidence is None else OF_DAYS
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in refused and source is not None and source.name == "COMMANDLINE":
            word = "only with" if confidence is None else "none with"
            raise ValueError(f"{parameter.opts[0]}: expected {word} --confidence")


def _tell(found: Sizing, written: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        document = {**asdict(found), "advice": found.advice(), "written": written}
        print(json.dumps(document, indent=2))
        return
    out.print(_table(found))
    for line in found.advice():
        print(line)
    for name, path in written.items():
        print(f"{name}: {path}")


def _table(found: Sizing) -> Table:
    title = f"{found.name}: {found.num_days} days; cost and denials, mean and 95 % interval"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("robots", "spare", "kept\nback", "cost a day", "stat %", "urgent %", "routine %"):
        table.add_column(name, justify="right", no_wrap=True)
    for index, outcome in enumerate(found.outcomes):
        style = "bold" if index == found.recommended else ""
        table.add_row(*_cells(outcome), style=style)
    return table


def _cells(outcome: Outcome) -> tuple[str, ...]:
    _, urgent, routine = outcome.protection
    return (
        f"{outcome.num_robots}",
        f"{outcome.num_spares}",
        f"{urgent}, {routine}",
        f"{outcome.cost_owned.mean:,.0f} ± {_half(outcome.cost_owned):,.0f}",
        *(f"{100 * share.mean:.1f} ± {100 * _half(share):.1f}" for share in outcome.denied),
    )


def _half(interval: Interval) -> float:
    return (interval.high - interval.low) / 2


def _whole(option: str, word: str) -> int:
    if not word.strip().isdigit():
        raise ValueError(f"{option}: expected whole numbers as in 0,1,2, got {word!r}")
    return int(word)


def _pair(word: str) -> tuple[int, int]:
    urgent, colon, routine = word.partition(":")
    if not colon:
        raise ValueError(f"--protection: expected pairs as in 0:0,0:1,1:2, got {word!r}")
    return _whole("--protection", urgent), _whole("--protection", routine)


def _limits(text: str | None) -> dict[int, float]:
    """Largest shares of denials by class, from per cents."""
    limits = {}
    for word in text.split(",") if text else ():
        name, _, percent = word.partition("=")
        if name.strip() not in CLASSES or not percent.replace(".", "", 1).isdigit():
            raise ValueError(
                f"--max-denial: expected per cents as in stat=1,urgent=5, got {word!r}"
            )
        limits[1 + CLASSES.index(name.strip())] = float(percent) / 100
    return limits
