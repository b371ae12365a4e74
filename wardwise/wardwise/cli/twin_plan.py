"""`wardwise simulate --plan`: days of a plan made in advance, beside what it promises."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import interruptible, out, talk
from wardwise.fleet.dispatch import Slacks
from wardwise.fleet.simulate import Law, simulate_plan_days
from wardwise.fleet.sizing.result import CLASSES
from wardwise.io import write_log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wardwise.fleet.facts import DrivenDay
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.simulate import LateShare, PlanDays
    from wardwise.fleet.sizing import Interval

# Options of other luck than that of the instance, and their defaults.
ONLY_WITHOUT_PLAN = {
    "--law": Law.GAMMA,
    "--travel-cv": None,
    "--service-cv": 0.3,
    "--failure-h": None,
    "--repair-min": 30.0,
    "--cancelled": 0.0,
    "--protection": "0,0,0",
    "--slacks": Slacks.QUANTILE,
}


def require_defaults(*values: object) -> None:
    """Refuse options that a plan's days do not heed; values as in `ONLY_WITHOUT_PLAN`."""
    given = zip(ONLY_WITHOUT_PLAN.items(), values, strict=True)
    names = [name for (name, default), value in given if value != default]
    if names:
        raise ValueError(
            f"--plan: expected none of {', '.join(ONLY_WITHOUT_PLAN)}, got {', '.join(names)}"
        )


@contextmanager
def day_bar(num_days: int) -> Iterator[Callable[[int, int], None]]:
    """Progress over days; Ctrl-C ends the days, not the command."""
    columns = (
        TextColumn("simulating days"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with interruptible(), Progress(*columns, console=talk, transient=True) as bar:
        task = bar.add_task("days", total=num_days)
        yield lambda done, _: bar.update(task, completed=done)


@contextmanager
def logging_to(log: Path | None, instance: str) -> Iterator[Callable[[DrivenDay], None] | None]:
    """What takes the days for a log, if there is to be one."""
    if log is None:
        yield None
        return
    with write_log(log, instance) as on_day:
        yield on_day


def carry_out_days(
    instance: Instance,
    plan: Plan,
    *,
    num_days: int,
    seed: int,
    uses_building: bool,
    jobs: int | None,
    log: Path | None,
    as_json: bool,
) -> int:
    """Simulate, print, and return the exit code."""
    with logging_to(log, instance.name) as on_day, day_bar(num_days) as on_progress:
        found = simulate_plan_days(
            instance,
            plan,
            num_days=num_days,
            seed=seed,
            uses_building=uses_building,
            jobs=jobs,
            on_progress=on_progress,
            on_day=on_day,
        )
    if as_json:
        print(json.dumps(asdict(found), indent=2))
    else:
        out.print(_table(found, has_site=instance.site is not None))
    return 0


def interval_text(value: Interval, scale: float, digits: int) -> str:
    """Mean and interval in words."""
    low, high = scale * value.low, scale * value.high
    return f"{scale * value.mean:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def _table(found: PlanDays, *, has_site: bool) -> Table:
    title = f"{found.name}: {len(found.days)} days of the plan, mean and 95 % interval"
    table = Table(title=Text(title), title_justify="left", show_header=False)
    for name, late in zip(CLASSES, found.late, strict=True):
        table.add_row(f"{name} late", _late_text(late, "no requests"))
    table.add_row("robots back late", _late_text(found.late_returns, "no robots"))
    table.add_row("late", f"{interval_text(found.lateness_s, 1 / 60, 1)} min in all")
    table.add_row("distance", interval_text(found.distance_m, 1, 0) + (" m" if has_site else ""))
    table.add_row("energy used", f"{interval_text(found.used_wh, 1, 1)} Wh")
    table.add_row("energy charged", f"{interval_text(found.charged_wh, 1, 1)} Wh")
    table.add_row("charges put in", interval_text(found.num_detours, 1, 2))
    table.add_row("charges left out", interval_text(found.num_skips, 1, 2))
    table.add_row("robots below reserve", interval_text(found.num_below_reserve, 1, 2))
    table.add_row("robots stranded", interval_text(found.num_stranded, 1, 2))
    for each in found.stations:
        text = f"{interval_text(each.queue_s, 1, 0)} s in the queue, longest {each.longest_s:,.0f}"
        table.add_row(f"station {each.station}", text)
    return table


def _late_text(late: LateShare, nothing: str) -> str:
    if not late.count:
        return nothing
    text = f"{interval_text(late.simulated, 100, 1)} %"
    return text if late.certified is None else f"{text}, certified {100 * late.certified:.1f} %"
