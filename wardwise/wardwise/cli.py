"""The command line: plan, check, generate, demo, schema.

What a program may read goes to stdout; progress, notes and errors go to stderr.
Exit codes: 0 done, 1 the plan breaks a rule, 2 wrong usage or bad input. An error
is one line, and no file is ever left half-written.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from typer.exceptions import TyperException

from wardwise import __version__
from wardwise.fleet.check import Report, check
from wardwise.fleet.solvers import METHODS, Objective, Progress, solve, warm_up
from wardwise.generate import generate_hospital
from wardwise.io import json_schema, read_instance, read_plan, write_json, write_plan
from wardwise.report import Kpis, summarise, write_report

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

DEMO_START_H = 6.0

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
out = Console(highlight=False, soft_wrap=True, markup=False)
talk = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

InputFile = Annotated[Path, typer.Argument(metavar="FILE", help="Instance: JSON, Solomon, VRPLIB.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine output alone on stdout.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness.")]
TimeLimit = Annotated[float, typer.Option(min=0, help="Seconds of search; compiling not counted.")]
StartHour = Annotated[float, typer.Option(min=0, max=23, help="Hour of the day at second 0.")]


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    try:
        code = app(standalone_mode=False) or 0
    except TyperException as problem:
        _fail(f"{problem.format_message().rstrip('.')} (see wardwise --help)")
    except OSError as problem:
        _fail(f"{problem.filename}: {problem.strerror}" if problem.filename else f"{problem}")
    except ValueError as problem:
        _fail(f"{problem}")
    except (KeyboardInterrupt, typer.Abort):
        print("stopped before there was a plan; nothing was written", file=sys.stderr)
        code = 1
    sys.exit(code)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"wardwise {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Plan a hospital's delivery robots with fewer robots, metres and late deliveries."""


def plan(
    file: InputFile,
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "descent",
    objective: Annotated[
        Objective, typer.Option(help="What counts first.")
    ] = Objective.HIERARCHICAL,
    time_limit: TimeLimit = 10.0,
    max_iterations: Annotated[
        int | None, typer.Option(min=1, help="Iterations of the search; none: no limit.")
    ] = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option(help="Plan to write; none: FILE's name with .plan.json, here.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="HTML report to write.")] = None,
    start_h: Annotated[
        float | None, typer.Option(min=0, max=23, help="Hour of the day at second 0, for --report.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Plan the day of FILE, check the plan independently, and write it."""
    if method not in METHODS:
        raise ValueError(f"--method: expected one of {', '.join(METHODS)}, got {method!r}")
    target = output or Path(f"{file.stem}.plan.json")
    for path in (target, report):
        _require_writable(path)
    instance = read_instance(file)
    task = Task(method, objective, time_limit, max_iterations, seed)
    found = _solve(instance, task)
    verdict = check(instance, found)
    write_plan(found, target)
    if report:
        write_report(instance, found, verdict, report, start_h=start_h)
    written = {"plan": str(target), **({"report": str(report)} if report else {})}
    return _tell(instance, found, verdict, as_json=as_json, written=written)


def check_command(
    file: InputFile,
    plan_file: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan to check: JSON.")],
    as_json: AsJson = False,
) -> int:
    """Check PLAN against FILE with a checker that shares no code with the solvers."""
    instance, found = read_instance(file), read_plan(plan_file)
    return _tell(instance, found, check(instance, found), as_json=as_json, written={})


def generate(
    floors: Annotated[int, typer.Option(min=2, max=12, help="The logistics floor included.")] = 5,
    wards: Annotated[int, typer.Option(min=10, max=80, help="Places to serve.")] = 24,
    robots: Annotated[
        int | None, typer.Option(min=1, max=200, help="None: 5 for every 12 wards.")
    ] = None,
    start_h: StartHour = DEMO_START_H,
    hours: Annotated[float, typer.Option(min=1, max=24, help="Length of the horizon.")] = 6.0,
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
    )
    target = output or Path(f"{instance.name}.json")
    _require_writable(target)
    write_json(instance, target)
    out.print(
        f"{target}: {floors} floors, {wards} wards, {len(instance.robots)} robots, "
        f"{len(instance.requests)} requests"
    )


def demo(
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the files.")] = Path("out"),
    time_limit: TimeLimit = 20.0,
    seed: Seed = 1,
) -> int:
    """Generate a hospital, plan its morning, check the plan, and write a report."""
    out_dir.mkdir(parents=True, exist_ok=True)
    files = {
        "instance": out_dir / "wardwise-hospital.json",
        "plan": out_dir / "wardwise-hospital.plan.json",
        "report": out_dir / "wardwise.html",
    }
    for path in files.values():
        _require_writable(path)
    instance = generate_hospital(start_h=DEMO_START_H, seed=seed)
    talk.print(
        f"A hospital with 24 wards on 5 floors, {len(instance.robots)} robots and "
        f"{len(instance.requests)} requests from 06:00 to 12:00"
    )
    found = _solve(instance, Task("descent", Objective.COST, time_limit, None, seed))
    verdict = check(instance, found)
    write_json(instance, files["instance"])
    write_plan(found, files["plan"])
    write_report(instance, found, verdict, files["report"], start_h=DEMO_START_H)
    written = {name: str(path) for name, path in files.items()}
    code = _tell(instance, found, verdict, as_json=False, written=written)
    out.print(f"\nOpen {files['report']} in a browser.")
    out.print("Next: wardwise generate --wards 40 --output big.json")
    out.print("      wardwise plan big.json --report big.html --start-h 6")
    return code


def schema(
    kind: Annotated[
        Literal["instance", "plan"], typer.Argument(metavar="KIND", help="instance or plan.")
    ],
) -> None:
    """Print the JSON schema of instance or plan files."""
    print(json.dumps(json_schema(kind), indent=2))


COMMANDS: dict[str, Callable[..., int | None]] = {
    "plan": plan,
    "check": check_command,
    "generate": generate,
    "demo": demo,
    "schema": schema,
}
for _name, _function in COMMANDS.items():
    app.command(_name)(_function)


@dataclass(frozen=True)
class Task:
    """What the search is asked to do."""

    method: str
    objective: Objective
    time_limit: float
    max_iterations: int | None
    seed: int


class ProgressLine:
    """One line on a terminal that tells what the search has reached, and the time."""

    def __init__(self, time_limit: float) -> None:
        self._limit_s = time_limit
        self._start = time.perf_counter()
        self._last: Progress | None = None

    def update(self, progress: Progress) -> None:
        """Remember the newest plan."""
        self._last = progress

    def __rich__(self) -> Text:
        """Text of the line now."""
        line = f"planning {time.perf_counter() - self._start:5.1f} of {self._limit_s:g} s"
        if self._last:
            line += (
                f"   {self._last.num_robots} robots   {self._last.distance_m:,.0f} m"
                f"   cost {self._last.cost:,.2f}   iteration {self._last.iteration}"
            )
        return Text(line, no_wrap=True, overflow="ellipsis")


def _solve(instance: Instance, task: Task) -> Plan:
    """Search with a progress line; Ctrl-C ends the search, not the command."""
    is_stopped = False

    def stop(_signal: int, _frame: FrameType | None) -> None:
        nonlocal is_stopped
        is_stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt

    talk.print("compiling, or loading what was compiled before …")
    warm_up()
    talk.print(f"planning {instance.name} with {task.method}, Ctrl-C keeps the best plan so far")
    line = ProgressLine(task.time_limit)
    before = signal.signal(signal.SIGINT, stop)
    try:
        with Live(line, console=talk, refresh_per_second=4, transient=True):
            found = solve(
                instance,
                method=task.method,
                objective=task.objective,
                time_limit=task.time_limit,
                seed=task.seed,
                max_iterations=task.max_iterations,
                on_progress=line.update,
            )
    finally:
        signal.signal(signal.SIGINT, before)
    if is_stopped:
        talk.print("stopped: this is the best plan so far")
    return found


def _tell(
    instance: Instance, found: Plan, verdict: Report, *, as_json: bool, written: dict[str, str]
) -> int:
    """Print verdict, figures and files; returns the exit code."""
    kpis = summarise(instance, found, verdict)
    if as_json:
        answer = {
            "instance": instance.name,
            **asdict(kpis),
            "denied": list(found.denied),
            "violations": [asdict(violation) for violation in verdict.violations],
            "written": written,
        }
        print(json.dumps(answer, indent=2))
    else:
        out.print(_table(instance, kpis))
        for violation in verdict.violations:
            print(f"{violation.constraint}: {violation.message}")
        for name, path in written.items():
            print(f"{name}: {path}")
    return 0 if verdict.is_feasible else 1


def _table(instance: Instance, kpis: Kpis) -> Table:
    table = Table(title=Text(instance.name), title_justify="left", show_header=False)
    found = "1 violation" if kpis.num_violations == 1 else f"{kpis.num_violations} violations"
    rows = (
        ("verdict of the check", "feasible" if kpis.is_feasible else f"not feasible, {found}"),
        ("robots used", f"{kpis.robots_used} of {kpis.robots_owned}"),
        ("distance", f"{kpis.distance_m:,.1f}" + (" m" if instance.site else "")),
        ("on time", f"{kpis.on_time_pct:.1f} % of {kpis.num_requests} requests"),
        ("late", f"{kpis.num_late} requests, {kpis.late_min:,.1f} min in all"),
        ("denied", f"{kpis.num_denied}"),
        ("utilisation", f"{kpis.utilisation_pct:.0f} % of the used robots' shifts"),
        ("trips per robot", f"{kpis.trips_per_robot:.1f}"),
        ("cost", f"{kpis.cost:,.2f}"),
    )
    for name, value in rows:
        table.add_row(name, value)
    return table


def _require_writable(path: Path | None) -> None:
    """Refuse a target before the work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no folder is called {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the folder cannot be written to")


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
