"""The command that learns laws of times from logs of driven days, and tells broken promises."""

from __future__ import annotations

import json
import warnings
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path  # noqa: TC003, typer reads the types
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import AsJson, out, require_writable, talk
from wardwise.cli.terms import with_terms
from wardwise.cli.twin_plan import interval_text
from wardwise.errors import InputError
from wardwise.fleet.learn import learn
from wardwise.fleet.learn.fit import LEAST_DAYS, LEAST_VALUES
from wardwise.io import read_instance, read_log, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.fleet.facts import DrivenDay
    from wardwise.fleet.learn import DayFactor, Fit, Learnt
    from wardwise.fleet.sizing import Interval
    from wardwise.io import DrivenLog

ALARM = 3
# Means that are off by less are not worth a note.
LEAST_NOTED = 0.02


def learn_command(
    file: Annotated[
        Path, typer.Argument(metavar="LOG", help="Log of driven days, as simulate --log writes.")
    ],
    instance_file: Annotated[
        Path, typer.Option("--instance", metavar="FILE", help="Instance that was driven.")
    ],
    write: Annotated[
        Path | None,
        typer.Option(metavar="NEW", help="Instance with what was learnt to write, as JSON."),
    ] = None,
    promise: Annotated[
        str | None,
        typer.Option(help="Percent on time, as in 95 or stat=99,urgent=95; none: as FILE."),
    ] = None,
    confidence: Annotated[
        float, typer.Option(min=50, max=99.9999, help="Of each test of the promise, in percent.")
    ] = 99.0,
    alarm: Annotated[
        bool, typer.Option("--alarm", help="End with 3 if more is late than was promised.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Fit the randomness of FILE to LOG, and say whether its promise is kept."""
    require_writable(write)
    log = read_log(file)
    driven = read_instance(instance_file)
    if log.instance != driven.name:
        problem = f"expected {driven.name!r} as in {instance_file}, got {log.instance!r}"
        raise InputError(file, problem, line=1, field="instance")
    instance = with_terms(driven, recharge=None, promise=promise, scope=None)
    if alarm and instance.promise is None:
        raise ValueError("--alarm: expected a promise, by --promise or in FILE, got none")
    with _days(log) as days:
        found = learn(instance, days, confidence=confidence / 100)
    if not found.num_days:
        raise InputError(file, "expected at least one day, got none")
    if write is not None:
        write_json(replace(driven, randomness=found.randomness), write)
    if as_json:
        written = {} if write is None else {"instance": str(write)}
        answer = {"instance": instance.name, **asdict(found), "alarms": found.alarms}
        print(json.dumps({**answer, "written": written}, indent=2))
    else:
        _tell(instance.name, found)
        if write is not None:
            print(f"instance: {write}")
    return ALARM if alarm and found.alarms else 0


@contextmanager
def _days(log: DrivenLog) -> Iterator[Iterator[DrivenDay]]:
    """Days of a log with progress; what its reader warns of is told in one line each."""

    def counted() -> Iterator[DrivenDay]:
        for number, day in enumerate(log.days(), start=1):
            bar.update(task, description=f"reading {log.path.name}: {number} days")
            yield day

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with Progress(TextColumn("{task.description}"), console=talk, transient=True) as bar:
            task = bar.add_task(f"reading {log.path.name}")
            yield counted()
    for warning in caught:
        talk.print(f"warning: {warning.message}")


def _tell(name: str, found: Learnt) -> None:
    """Print all that was found as tables and lines."""
    days = f"{found.num_days} day" + ("" if found.num_days == 1 else "s")
    cut_off = f", {found.num_cut_off} of them cut off" if found.num_cut_off else ""
    out.print(_laws(f"{name}: learnt from {days}{cut_off}", found))
    if found.cells:
        out.print(_cells(found))
    out.print(_lateness(found))
    for what, fit in (("legs", found.travel), ("services", found.service)):
        note = _note(what, fit)
        if note:
            print(note)
    for alarm in found.alarms:
        print(f"alarm: {alarm}")


def _note(what: str, fit: Fit) -> str:
    """What to say of means that the instance has wrong."""
    mean = fit.mean
    if mean is None or mean.low <= 1 <= mean.high or abs(mean.mean - 1) < LEAST_NOTED:
        return ""
    return (
        f"note: {what} take {mean.mean:.2f} times what the instance says; "
        "laws vary around its means, which stay as they are"
    )


def _laws(title: str, found: Learnt) -> Table:
    table = Table(title=Text(title), title_justify="left", show_header=False)
    for what, unit, fit in (
        ("travel", "legs", found.travel),
        ("service", "services", found.service),
        ("elevator", "waits", found.elevator),
    ):
        table.add_row(what, _law(unit, fit))
    table.add_row("day", _day(found.day))
    for door in found.doors:
        stated = "" if door.stated_s is None else f", {door.stated_s:,.0f} s in the instance"
        mean = f"{door.mean_s:,.0f} s" if door.interval is None else _interval(door.interval, 0)
        table.add_row(f"{door.elevator} waits", f"{mean}{stated}, {door.count:,} waits")
    for reason, count in found.left_out.items():
        table.add_row("left out", f"{count:,} {reason}")
    return table


def _law(unit: str, fit: Fit) -> str:
    if fit.spread is None or fit.cv is None:
        return f"{fit.count:,} {unit}, fewer than {LEAST_VALUES}: stays as it was"
    law = "certain" if fit.spread.cv == 0 else f"{fit.spread.law}, cv {_interval(fit.cv, 3)}"
    return f"{law}, {fit.count:,} {unit}"


def _day(day: DayFactor) -> str:
    if day.cv is None:
        return (
            f"{day.num_days} days with legs, fewer than {LEAST_DAYS}, or few legs: stays as it was"
        )
    if day.cv == 0:
        return f"days do not differ beyond chance (p = {day.p_value:.2f})"
    return f"cv {day.cv:.3f} of what legs of a day have in common"


def _interval(value: Interval, digits: int) -> str:
    return interval_text(value, 1, digits)


def _cells(found: Learnt) -> Table:
    """Times over those of the instance by floor and hour; the instance keeps pooled laws only."""
    table = Table(title=Text("time over that of the instance"), title_justify="left")
    for name in ("what", "where", "count", "mean and 95 % interval"):
        table.add_column(name, justify="right" if name == "count" else "left")
    for cell in found.cells:
        mean = "fewer than two days" if cell.mean is None else _interval(cell.mean, 2)
        table.add_row(cell.what, cell.where, f"{cell.count:,}", mean)
    return table


def _lateness(found: Learnt) -> Table:
    table = Table(title=Text("late on complete days"), title_justify="left")
    for name in ("what", "count", "late", "at least", "promised", "worst"):
        table.add_column(name, justify="left" if name in ("what", "worst") else "right")
    for each in found.lateness:
        if not each.count:
            continue
        worst = [f"{w.name}: {w.num_late} of {w.count} days" for w in each.worst[:1]]
        table.add_row(
            each.name,
            f"{each.count:,}",
            f"{100 * each.share:.1f} %",
            f"{100 * each.lower:.1f} %",
            "" if each.promised is None else f"{100 * each.promised:g} %",
            *worst,
        )
    return table
