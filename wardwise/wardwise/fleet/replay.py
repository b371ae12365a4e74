"""A dynamic instance as a day: plan what is known, then dispatch the rest as it appears.

Requests with ``release_s`` 0 are planned in advance by `solve`; all others are
submitted at their release, in the order of `order_events`. Between events the
uncommitted part may be re-optimised.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Dispatcher, Submit, order_events
from wardwise.fleet.dispatch.improve import improve_open
from wardwise.fleet.solvers import solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardwise.fleet.check import Report
    from wardwise.fleet.dispatch import Decision, Journal, Outcome, Policy, Record
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


@dataclass(frozen=True, kw_only=True)
class Reoptimisation:
    """How the uncommitted part is improved after each event.

    Parameters
    ----------
    seconds
        Time for each event; 0 looks at `max_iterations` alone.
    max_iterations
        Limit on iterations for each event; alone, it makes days repeatable.
    stability
        Money that a change must save for every request that it moves to another
        robot or to a later start.
    """

    seconds: float = 0.0
    max_iterations: int = 20_000
    stability: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"reoptimise: seconds: expected at least 0, got {self.seconds}")
        if self.max_iterations < 1:
            raise ValueError(
                f"reoptimise: max_iterations: expected at least 1, got {self.max_iterations}"
            )
        if not (math.isfinite(self.stability) and self.stability >= 0):
            raise ValueError(f"reoptimise: stability: expected at least 0, got {self.stability}")


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A dispatched day.

    Attributes
    ----------
    instance
        What was revealed in the end.
    first_plan, plan
        The plan made in advance, and the day as it was driven.
    report
        The checker's verdict on `plan`, with `Timing.DISPATCHED`.
    records
        Every event with its answers.
    latency_s
        Seconds that each `submit` took, journal included.
    is_complete
        False when the day was interrupted.
    """

    instance: Instance
    first_plan: Plan
    plan: Plan
    report: Report
    outcome: Outcome
    records: tuple[Record, ...]
    latency_s: tuple[float, ...]
    is_complete: bool

    def decisions(self) -> tuple[Decision, ...]:
        """All answers in order, one or more an event."""
        return tuple(decision for record in self.records for decision in record.decisions)


def replay_day(
    instance: Instance,
    *,
    policy: Policy | None = None,
    method: str = "ruin",
    time_limit: float = 10.0,
    max_iterations: int | None = None,
    seed: int = 0,
    first_plan: Plan | None = None,
    reoptimisation: Reoptimisation | None = None,
    journal: Journal | None = None,
    on_event: Callable[[int, int, Record], None] | None = None,
) -> Replay:
    """Live through the day of a dynamic instance.

    Parameters
    ----------
    instance
        Requests with ``release_s`` 0 are known from the start.
    method, time_limit, max_iterations, seed
        Of the plan made in advance, as `solve` takes them; the objective is money.
    first_plan
        The plan made in advance, if there is one already.
    reoptimisation
        `None`: answered requests stay where they were put.
    on_event
        Called after each event with its number, the number of all, and the record.

    Returns
    -------
    Replay
        The whole day; after Ctrl-C the day so far.

    Raises
    ------
    ValueError
        As `solve` and `Dispatcher`.
    """
    known = replace(instance, requests=tuple(r for r in instance.requests if r.release_s <= 0))
    if first_plan is None:
        first_plan = solve(
            known,
            method=method,
            objective="cost",
            time_limit=time_limit,
            max_iterations=max_iterations,
            seed=seed,
        )
    events = order_events(
        Submit(now_s=r.release_s, request=r) for r in instance.requests if r.release_s > 0
    )
    dispatcher = Dispatcher(instance, first_plan, policy, journal)
    rng = np.random.default_rng(seed)
    records: list[Record] = []
    latency_s: list[float] = []
    try:
        for number, event in enumerate(events, start=1):
            _wait_until(dispatcher, event.now_s, records)
            start = time.perf_counter()
            dispatcher.submit(event.request, event.now_s)
            latency_s.append(time.perf_counter() - start)
            _note(dispatcher, records)
            if reoptimisation is not None:
                _reoptimise(dispatcher, event.now_s, rng, reoptimisation, records)
            if on_event is not None:
                on_event(number, len(events), records[-1])
        _wait_until(dispatcher, max(robot.end_s for robot in instance.robots), records)
        is_complete = True
    except KeyboardInterrupt:
        is_complete = False
    revealed, plan = dispatcher.instance(), dispatcher.plan()
    return Replay(
        instance=revealed,
        first_plan=first_plan,
        plan=plan,
        report=check(revealed, plan, timing=Timing.DISPATCHED),
        outcome=dispatcher.outcome(),
        records=tuple(records),
        latency_s=tuple(latency_s),
        is_complete=is_complete,
    )


def _wait_until(dispatcher: Dispatcher, now_s: float, records: list[Record]) -> None:
    """Let time pass, with a stop wherever a pending request must be decided."""
    while (moment_s := dispatcher.next_moment_s()) < now_s:
        dispatcher.advance(moment_s)
        _note(dispatcher, records)
    dispatcher.advance(now_s)
    _note(dispatcher, records)


def _reoptimise(
    dispatcher: Dispatcher,
    now_s: float,
    rng: np.random.Generator,
    settings: Reoptimisation,
    records: list[Record],
) -> None:
    is_adopted = dispatcher.reoptimise(
        now_s,
        rng,
        max_iterations=settings.max_iterations,
        time_limit_s=settings.seconds or None,
        stability=settings.stability,
        improver=improve_open,
    )
    if is_adopted:
        _note(dispatcher, records)


def _note(dispatcher: Dispatcher, records: list[Record]) -> None:
    assert dispatcher.last is not None
    records.append(dispatcher.last)
