"""What all commands share: talking, progress, Ctrl-C, and files that can be written."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from wardwise.fleet.dispatch import Slacks
from wardwise.fleet.solvers import SHAKES, Objective, Progress, solve, warm_up
from wardwise.report import Kpis, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from rich.console import RenderableType

    from wardwise.cli.shortcomings import Reason
    from wardwise.fleet.check import Report
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

out = Console(highlight=False, soft_wrap=True, markup=False)
talk = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)

InputFile = Annotated[
    Path,
    typer.Argument(metavar="FILE", help="JSON, Solomon, E-VRPTW, VRPLIB or Lackner CSV."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine output alone on stdout.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all randomness.")]
TimeLimit = Annotated[float, typer.Option(min=0, help="Seconds of search; compiling not counted.")]
MaxIterations = Annotated[
    int | None, typer.Option(min=1, help="Iterations of the search; none: no limit.")
]
StartHour = Annotated[float, typer.Option(min=0, max=23, help="Hour of the day at second 0.")]
ReportFile = Annotated[Path | None, typer.Option(help="HTML report to write.")]
ReportStart = Annotated[
    float | None, typer.Option(min=0, max=23, help="Hour of the day at second 0, for --report.")
]

SlacksChoice = Annotated[
    Slacks,
    typer.Option("--slacks", help="What later stops keep: mean times, or FILE's promise."),
]
Protection = Annotated[
    str, typer.Option(help="Spares that stat, urgent, routine requests may not use.")
]


@dataclass(frozen=True)
class Task:
    """What the search is asked to do."""

    method: str
    objective: Objective
    time_limit: float
    max_iterations: int | None
    seed: int
    local_search: bool = False
    shake: str = SHAKES[0]


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


@contextmanager
def interruptible(
    told: str = "stopped: this is the best plan so far",
) -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into `KeyboardInterrupt` here; a second one ends the command.

    Gives a function that says whether the first one came.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt

    def is_stopped() -> bool:
        return signal.getsignal(signal.SIGINT) is signal.default_int_handler

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield is_stopped
    finally:
        if is_stopped():
            talk.print(told)
        signal.signal(signal.SIGINT, before)


@contextmanager
def live(line: RenderableType) -> Iterator[None]:
    """Show a line on the terminal while work goes on; it vanishes afterwards."""
    with interruptible(), Live(line, console=talk, refresh_per_second=4, transient=True):
        yield


def compile_first(*warm_ups: Callable[[], object]) -> None:
    """Compile kernels, saying so."""
    talk.print("compiling, or loading what was compiled before …")
    for warm_up_one in warm_ups:
        warm_up_one()


def search(instance: Instance, task: Task) -> Plan:
    """Search with a progress line; Ctrl-C ends the search, not the command."""
    compile_first(partial(warm_up, task.method))
    talk.print(f"planning {instance.name} with {task.method}, Ctrl-C keeps the best plan so far")
    line = ProgressLine(task.time_limit)
    with live(line):
        return solve(
            instance,
            method=task.method,
            objective=task.objective,
            time_limit=task.time_limit,
            seed=task.seed,
            max_iterations=task.max_iterations,
            local_search=task.local_search,
            shake=task.shake,
            on_progress=line.update,
        )


def tell(
    instance: Instance,
    found: Plan,
    verdict: Report,
    *,
    as_json: bool,
    written: dict[str, str],
    denials: Sequence[Reason] = (),
) -> int:
    """Print verdict, figures and files, in JSON also why what is denied; returns the exit code."""
    kpis = summarise(instance, found, verdict)
    if as_json:
        answer = {
            "instance": instance.name,
            **asdict(kpis),
            "denied": list(found.denied),
            "reasons": [asdict(denial) for denial in denials],
            "violations": [asdict(violation) for violation in verdict.violations],
            "written": written,
        }
        print(json.dumps(answer, indent=2))
    else:
        out.print(figures(instance, kpis))
        for violation in verdict.violations:
            print(f"{violation.constraint}: {violation.message}")
        for name, path in written.items():
            print(f"{name}: {path}")
    return 0 if verdict.is_feasible else 1


def figures(instance: Instance, kpis: Kpis) -> Table:
    """Table of a plan's figures."""
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


def require_writable(path: Path | None) -> None:
    """Refuse a target before the work, not after it."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path}: expected a file to write, got a folder")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no folder is called {str(path.parent)!r}")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path}: the folder cannot be written to")


def protection_of(text: str) -> tuple[int, int, int]:
    """Three whole numbers from an option."""
    words = text.split(",")
    if len(words) != 3 or not all(word.strip().isdigit() for word in words):
        raise ValueError(f"--protection: expected three whole numbers as in 0,1,2, got {text!r}")
    stat, urgent, routine = (int(word) for word in words)
    return stat, urgent, routine
