"""`wardwise size --confidence`: what promises of one day cost in robots and metres."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import compile_first, interruptible, out, talk
from wardwise.cli.shortcomings import reasons_of, shortcomings
from wardwise.cli.terms import late_share
from wardwise.fleet.randomness import Promise
from wardwise.fleet.sizing.confidence import size_for_promises
from wardwise.fleet.sizing.levels import MEAN_TIMES, on_time
from wardwise.fleet.solvers import warm_up
from wardwise.report.confidence import late_span, write_confidence_report

if TYPE_CHECKING:
    from pathlib import Path

    from wardwise.cli.common import Task
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.sizing.levels import Confidence, Level
    from wardwise.fleet.solvers import Progress as Found

NUM_CLASSES = 3


def size_for_confidence(
    instance: Instance,
    text: str,
    task: Task,
    *,
    max_robots: int | None,
    report: Path | None,
    as_json: bool,
) -> int:
    """Plan for each confidence, tell what it costs, and write the report; returns the exit code."""
    promises = _promises(text, instance.promise or Promise())
    if max_robots is not None and max_robots < 1:
        raise ValueError(f"--max-robots: expected at least 1, got {max_robots}")
    found = _sized(instance, promises, task, max_robots)
    if found.num_left_out:
        one = found.num_left_out == 1
        those = "request that comes" if one else "requests that come"
        talk.print(f"left out: {found.num_left_out} {those} in during the day")
    reasons = _reasons(found)
    written = {}
    if report:
        write_confidence_report(found, report, reasons)
        written["report"] = str(report)
    if as_json:
        document = {**found.document(), "shortcomings": reasons, "written": written}
        print(json.dumps(document, indent=2))
    else:
        out.print(_table(found))
        for line in found.advice():
            print(line)
        for name, path in written.items():
            print(f"{name}: {path}")
    return 0 if found.is_met else 1


def _promises(text: str, given: Promise) -> list[Promise]:
    """One promise for each confidence; what FILE says of scope and returns stays."""
    promises = []
    for word in text.split(","):
        shares = [late_share("--confidence", part.strip()) for part in word.split("/")]
        if len(shares) not in (1, NUM_CLASSES):
            raise ValueError(
                "--confidence: expected one number or stat/urgent/routine, as in 99/95/90, "
                f"got {word.strip()!r}"
            )
        stat, urgent, routine = shares * (NUM_CLASSES // len(shares))
        promises.append(replace(given, late_share=(stat, urgent, routine)))
    return promises


def _sized(
    instance: Instance, promises: list[Promise], task: Task, max_robots: int | None
) -> Confidence:
    """Search with a progress bar; Ctrl-C ends the search under way and begins no other."""
    compile_first(lambda: warm_up(task.method))
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
    )  # fmt: skip
    stopped = "stopped: the search under way counts as it is, what was not begun is left out"
    with (
        interruptible(stopped) as is_stopped,
        Progress(*columns, console=talk, transient=True) as bar,
    ):
        row = bar.add_task("planning", total=1 + len(dict.fromkeys(promises)))

        def update(num_done: int, promise: Promise | None, best: Found | None) -> None:
            name = MEAN_TIMES if promise is None else f"{on_time(promise)} % on time"
            so_far = f": {best.num_robots} robots, {best.distance_m:,.0f} m" if best else ""
            bar.update(row, completed=num_done, description=f"planning for {name}{so_far}")

        return size_for_promises(
            instance,
            promises,
            max_robots=max_robots,
            time_limit=task.time_limit,
            max_iterations=task.max_iterations,
            seed=task.seed,
            is_stopped=is_stopped,
            on_progress=update,
        )


def _reasons(found: Confidence) -> dict[str, str]:
    """Which requests stand in the way of each promise that is not kept, told on stderr, too."""
    reasons = {}
    for level in found.promised:
        if level.is_kept:
            continue
        promised = replace(found.instance, promise=level.promise)
        denials = reasons_of(promised, level.plan)
        reasons[level.name] = shortcomings(promised, level.plan, denials) or ""
        talk.print(f"infeasible: {level.name}: {reasons[level.name]}")
    return reasons


def _table(found: Confidence) -> Table:
    days = f"{found.num_scenarios:,} random days, bounds with {100 * found.bound_confidence:g} %"
    title = f"{found.instance.name}: {len(found.instance.requests)} requests, {days}"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("on time", "robots", "metres" if found.instance.site else "distance"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("largest\nlate %", "at most\n%", "mean\nlate %", "lateness\na day", "kept"):
        table.add_column(name, justify="right", no_wrap=True)
    for level in found.levels:
        table.add_row(*_cells(found, level))
    return table


def _cells(found: Confidence, level: Level) -> tuple[str, ...]:
    return (
        level.name,
        f"{level.num_robots}",
        f"{level.distance_m:,.0f}",
        f"{100 * level.largest_late_share:.2f}",
        f"{100 * level.largest_upper:.2f}",
        f"{100 * level.mean_late_share:.2f}",
        late_span(found, level),
        {None: "–", True: "yes", False: "no"}[level.is_kept],
    )
