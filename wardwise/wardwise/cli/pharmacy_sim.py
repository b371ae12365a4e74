"""The command that lives days of a dispensing machine with the online scheduler."""

from __future__ import annotations

import json
import math
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from wardwise.cli.common import AsJson, Seed, interruptible, out, require_writable, talk
from wardwise.cli.pharmacy import DayPath, ServiceLog  # noqa: TC001, typer reads the types
from wardwise.io.documents import layout as text_of
from wardwise.io.files import write_text
from wardwise.io.pharmacy import read_pharmacy
from wardwise.io.pharmacy_logs import read_refills, read_service_log
from wardwise.pharmacy.many_days import LEVELS, live_many
from wardwise.pharmacy.online import Policy, Recall, Session, Setup, StockRules
from wardwise.pharmacy.online.policy import RULES
from wardwise.pharmacy.problem import Priority
from wardwise.pharmacy.running_day import live_day
from wardwise.pharmacy.staff import HOUR_S, Staff
from wardwise.pharmacy.twin import Disturbances
from wardwise.report.machine import draw_day

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wardwise.pharmacy.many_days import ManyDays
    from wardwise.pharmacy.online import Decision, Event, Refill
    from wardwise.pharmacy.problem import Order
    from wardwise.pharmacy.running_day import RunningDay
    from wardwise.pharmacy.stats import Interval

SCHEMA = "wardwise/pharmacy-days/1"
NEVER = math.inf

Rule = Annotated[str, typer.Option("--policy", help=f"Who is next: {', '.join(RULES)}.")]
Ageing = Annotated[
    str, typer.Option(help="Minutes that stat, urgent, routine orders may be overtaken for.")
]
NumDays = Annotated[int, typer.Option("--days", min=1, help="Days to live, each with other luck.")]
Compare = Annotated[bool, typer.Option("--compare", help="All policies with the same luck.")]
Mtbf = Annotated[float, typer.Option(min=0.01, help="Hours of the arm's work between failures.")]
Mttr = Annotated[float, typer.Option(min=0.01, help="Mean minutes of a repair.")]
Missing = Annotated[float, typer.Option(min=0, max=100, help="Bins that turn out empty, per cent.")]
Refills = Annotated[
    Path | None, typer.Option(help="CSV of new packs: time and the columns of bins.csv.")
]
Recalls = Annotated[
    list[str] | None, typer.Option("--recall", help="DRUG,LOT,MINUTES of a recall; repeatable.")
]
Restock = Annotated[
    float | None, typer.Option(min=0, help="Minutes until an empty bin is replaced; none: never.")
]
Hands = Annotated[int, typer.Option(min=1, max=99, help="People who fetch what is not inside.")]
Persons = Annotated[str, typer.Option(help="Pharmacists' names in --service-log, as in p1,p2.")]
Fatigue = Annotated[
    float, typer.Option(min=0, max=1000, help="Sorting gets slower by so many per cent an hour.")
]
PauseEvery = Annotated[float, typer.Option(min=1, help="Minutes between two pauses.")]
Pause = Annotated[float, typer.Option(min=0, help="Minutes of a pause.")]
Today = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d"], help="Date of the day; none: expiry is not looked at."),
]
Tolerance = Annotated[
    int, typer.Option("--fefo-tolerance", min=0, help="Days by which expiry may yield to the way.")
]
MinDays = Annotated[int, typer.Option(min=0, help="Days that packs must still be good for.")]
Journal = Annotated[
    Path | None, typer.Option(help="Events and decisions of the first day; goes on if it exists.")
]
DaysFile = Annotated[
    Path | None, typer.Option("--output", "--out", help="What --json prints, as a file.")
]
Figure = Annotated[Path | None, typer.Option(help="Gantt chart of the first day to write: SVG.")]


def simulate_command(
    file: DayPath,
    policy: Rule = "ageing",
    ageing: Ageing = "0,15,60",
    compare: Compare = False,
    days: NumDays = 20,
    mtbf: Mtbf = NEVER,
    mttr: Mttr = 10.0,
    missing: Missing = 0.0,
    refills: Refills = None,
    restock: Restock = None,
    recall: Recalls = None,
    hands: Hands = 1,
    service_log: ServiceLog = None,
    persons: Persons = "",
    fatigue: Fatigue = 0.0,
    pause_every: PauseEvery = NEVER,
    pause: Pause = 15.0,
    today: Today = None,
    fefo_tolerance: Tolerance = 0,
    min_days: MinDays = 0,
    journal: Journal = None,
    seed: Seed = 0,
    output: DaysFile = None,
    figure: Figure = None,
    as_json: AsJson = False,
) -> int:
    """Live days of FILE as its orders come in: priorities, breakdowns, missing packs, refills."""
    for path in (journal, output, figure):
        require_writable(path)
    day = read_pharmacy(file)
    setup = Setup(
        machine=day.machine, bins=day.bins, service=day.service, policy=_policy(policy, ageing),
        rules=StockRules(tolerance_days=fefo_tolerance, min_remaining_days=min_days),
        today=today.date() if today else None,
        model=read_service_log(service_log) if service_log else None,
    )  # fmt: skip
    world = _World(
        setup=setup, orders=day.orders, staff=_staff(persons, fatigue, pause_every, pause),
        trouble=Disturbances(mtbf_s=mtbf * HOUR_S, mttr_s=60 * mttr, missing=missing / 100),
        refills=read_refills(refills, day.machine.rack) if refills else (),
        recalls=tuple(map(_recall, recall or ())), num_hand=hands,
        restock_s=None if restock is None else 60 * restock,
    )  # fmt: skip
    rules = [policy, *(rule for rule in RULES if rule != policy)] if compare else [policy]
    found = _live(world, rules=rules, days=days, seed=seed, journal=journal)
    if found:
        targets = {name: path for name, path in (("days", output), ("figure", figure)) if path}
        _tell(file, world, found, targets, as_json=as_json)
    return 0 if found else 1


@dataclass(frozen=True, kw_only=True, eq=False)
class _World:
    """All that a day is made of but its luck and its policy."""

    setup: Setup
    orders: tuple[Order, ...]
    refills: tuple[Refill, ...]
    recalls: tuple[Recall, ...]
    trouble: Disturbances
    staff: Staff
    num_hand: int
    restock_s: float | None

    def days(
        self, rule: str, handle: Callable[[Event], tuple[Decision, ...]] | None
    ) -> Callable[[int, int], RunningDay]:
        """Days under a policy; `handle` decides on the first."""

        def live(number: int, seed: int) -> RunningDay:
            return live_day(
                self.under(rule), self.orders, refills=self.refills, recalls=self.recalls,
                disturbances=self.trouble, staff=self.staff, num_hand=self.num_hand,
                restock_s=self.restock_s, seed=seed, handle=handle if number == 0 else None,
            )  # fmt: skip

        return live

    def under(self, rule: str) -> Setup:
        """The morning, with another policy."""
        return replace(self.setup, policy=replace(self.setup.policy, rule=rule))


def _recall(text: str) -> Recall:
    """From drug, lot and minutes."""
    words = text.split(",")
    try:
        drug, lot, minutes = words
        return Recall(time_s=60 * float(minutes), drug=drug, lot=lot)
    except ValueError:
        expected = "DRUG,LOT,MINUTES as in D0001,L7,90"
        raise ValueError(f"--recall: expected {expected}, got {text!r}") from None


def _staff(persons: str, fatigue: float, pause_every: float, pause: float) -> Staff:
    """From per cents an hour and minutes."""
    return Staff(
        persons=tuple(persons.split(",")) if persons else (), slower_per_h=fatigue / 100,
        pause_every_s=60 * pause_every, pause_s=60 * pause,
    )  # fmt: skip


def _policy(rule: str, ageing: str) -> Policy:
    if rule not in RULES:
        raise ValueError(f"--policy: expected one of {', '.join(RULES)}, got {rule!r}")
    try:
        stat, urgent, routine = (60 * float(word) for word in ageing.split(","))
    except ValueError:
        expected = "three numbers of minutes as in 0,15,60"
        raise ValueError(f"--ageing: expected {expected}, got {ageing!r}") from None
    return Policy(rule=rule, ageing_s=(stat, urgent, routine))


def _live(
    world: _World, *, rules: Sequence[str], days: int, seed: int, journal: Path | None
) -> dict[str, tuple[ManyDays, RunningDay]]:
    """Live the days under each policy; Ctrl-C keeps what is done."""
    columns = (
        TextColumn("living days"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    found: dict[str, tuple[ManyDays, RunningDay]] = {}
    with interruptible("stopped"), Progress(*columns, console=talk, transient=True) as bar:
        task = bar.add_task("days", total=days * len(rules))
        for rule in rules:
            kept = journal if rule == rules[0] else None
            try:
                with _journal(kept, world.under(rule)) as handle:
                    found[rule] = live_many(
                        world.days(rule, handle), days, seed=seed,
                        on_day=lambda _: bar.advance(task),
                    )  # fmt: skip
            except KeyboardInterrupt:
                if not found:
                    talk.print("no day was lived to its end")
                if kept:
                    talk.print(f"{kept}: holds what happened so far; the same command goes on")
            if rule not in found or found[rule][0].num_days < days:
                break
    return found


@contextmanager
def _journal(
    path: Path | None, setup: Setup
) -> Iterator[Callable[[Event], tuple[Decision, ...]] | None]:
    """A session whose events are numbered, so that a day that was cut off goes on."""
    if path is None:
        yield None
        return
    numbers = count()
    with Session(setup, path) as session:
        if session.num_handled:
            talk.print(f"{path}: goes on after {session.num_handled} events")
        try:
            yield lambda event: session.handle(event, next(numbers))
        except ValueError as error:
            problem = f"{error}; the journal belongs to another seed or other options"
            raise ValueError(f"{path}: {problem}") from error


def _tell(
    file: Path,
    world: _World,
    found: dict[str, tuple[ManyDays, RunningDay]],
    targets: dict[str, Path],
    *,
    as_json: bool,
) -> None:
    """Print figures and write files."""
    rule = next(iter(found))
    days, first = found[rule]
    document = {
        "schema": SCHEMA,
        "day": str(file),
        "policy": rule,
        "guarantee_s": {
            priority.value: _finite(world.under(rule).policy.overtaking_s(priority))
            for priority in Priority
        },
        "levels": LEVELS,
        "policies": {name: asdict(figures) for name, (figures, _) in found.items()},
    }
    if "days" in targets:
        write_text(targets["days"], text_of(document) + "\n")
    if "figure" in targets:
        write_text(targets["figure"], draw_day(first) + "\n")
    written = {name: str(path) for name, path in targets.items()}
    if as_json:
        print(json.dumps({**document, "written": written}, indent=2))
        return
    out.print(_table(file, rule, days))
    shares = (
        f"Arm busy {_percent(days.arm_busy)}, under repair {_percent(days.down)}; pharmacists busy "
        f"{_percent(days.people_busy)}; {days.repairs.mean:.1f} repairs and "
        f"{days.refills.mean:.1f} refills a day."
    )
    for sentence in (shares, _guarantee(world.under(rule).policy)):
        out.print(sentence, soft_wrap=False)
    if len(found) > 1:
        out.print(_comparison({name: figures for name, (figures, _) in found.items()}))
    for name, target in written.items():
        print(f"{name}: {target}")


def _table(file: Path, rule: str, days: ManyDays) -> Table:
    several = f"{days.num_days} days" if days.num_days > 1 else "1 day"
    title = f"{file}: {several}, {rule}\nMinutes until begun and until complete"
    if days.num_days > 1:
        title += ", ± half of the 95 % interval"
    table = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True
    )
    table.add_column("class", no_wrap=True)
    for name in (
        "orders", "begun", "mean", *(f"{100 * level:.0f} %" for level in LEVELS), "late %",
        "incomplete %",
    ):  # fmt: skip
        table.add_column(name, justify="right", no_wrap=True)
    for own in days.classes:
        times = (own.wait_s, own.flow_s, *own.flow_quantiles_s)
        shares = (own.late, own.incomplete)
        table.add_row(
            own.name, f"{own.num_orders}", *(f"{time.mean / 60:.1f}" for time in times),
            *(f"{100 * share.mean:.1f}" if share else "–" for share in shares),
        )  # fmt: skip
        if days.num_days > 1:
            table.add_row(
                "  ±", "", *(f"{_half(time) / 60:.1f}" for time in times),
                *(f"{100 * _half(share):.1f}" if share else "" for share in shares), style="dim",
            )  # fmt: skip
    return table


def _comparison(policies: dict[str, ManyDays]) -> Table:
    """Mean, 95 % and late share of each class under each policy."""
    title = "Policies, with the same luck: minutes until complete, mean/95 %, /% late"
    table = Table(
        title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True
    )
    table.add_column("policy", no_wrap=True)
    for own in next(iter(policies.values())).classes:
        table.add_column(own.name, justify="right", no_wrap=True)
    for rule, days in policies.items():
        cells = []
        for own in days.classes:
            mean, high = own.flow_s.mean / 60, own.flow_quantiles_s[-1].mean / 60
            late = f"{100 * own.late.mean:.1f}" if own.late else "–"
            cells.append(f"{mean:.1f}/{high:.1f}/{late}")
        table.add_row(rule, *cells)
    return table


def _guarantee(policy: Policy) -> str:
    """Whether anybody may wait without end, in words."""
    urgent_min, routine_min = (policy.overtaking_s(p) / 60 for p in list(Priority)[1:])
    if policy.rule == "strict":
        return "Strict: while more urgent orders come, routine ones wait without limit."
    if policy.rule == "slack":
        return "Slack: least time to spare is first, whatever the class; late orders add up."
    if policy.rule == "weighted":
        return "Weighted: while short orders come, long ones wait without limit."
    return (
        f"Ageing: what comes {routine_min:g} minutes after a routine order does not go before it, "
        f"nor {urgent_min:g} minutes after an urgent one."
    )


def _finite(value: float) -> float | None:
    """JSON knows no infinity: what is not promised is null there."""
    return None if math.isinf(value) else value


def _half(value: Interval) -> float:
    return (value.high - value.low) / 2


def _percent(value: Interval) -> str:
    return f"{100 * value.mean:.0f} %"
