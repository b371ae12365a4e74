"""A dynamic instance as a day: plan what is known, then dispatch the rest as it appears.

Requests with ``release_s`` 0 are planned in advance by `solve`; all others are
submitted at their release, in the order of `order_events`. With `slices` the day
is cut as in Necula, Breaban and Raschip 2017: a request is heard at the end of the
slice in which it is released. After every moment with events the uncommitted part
may be re-optimised. Robots with batteries charge at the depot whenever they stand there;
the dispatcher does not look at their levels, the checker does.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.chance import certify
from wardwise.fleet.charging import charge_while_idle
from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Dispatcher, Policy, Submit, order_events
from wardwise.fleet.dispatch.improve import improve_open
from wardwise.fleet.solvers import solve

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardwise.fleet.check import Report
    from wardwise.fleet.dispatch import Decision, Journal, Outcome, Record
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
    policy
        The rules that applied.
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
    policy: Policy
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
    slices: int | None = None,
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
    slices
        Number of slices of the day, at least 1; `None`: heard at once.
    on_event
        Called after each request with its number, the number of all, and the record.

    Returns
    -------
    Replay
        The whole day; after Ctrl-C the day so far.

    Raises
    ------
    ValueError
        As `solve` and `Dispatcher`.
    """
    if first_plan is None:
        first_plan = solve(
            known_part(instance), method=method, objective="cost", seed=seed,
            time_limit=time_limit, max_iterations=max_iterations,
        )  # fmt: skip
    dispatcher = Dispatcher(instance, first_plan, policy, journal)
    records: list[Record] = []
    latency_s: list[float] = []
    events = _events(instance, slices)
    rng = np.random.default_rng(seed)
    is_complete = False
    try:
        for now_s, group in groupby(events, key=lambda event: event.now_s):
            _wait_until(dispatcher, now_s, records)
            for event in group:
                latency_s.append(_submit(dispatcher, event, records))
                if on_event is not None:
                    on_event(len(latency_s), len(events), records[-1])
            if reoptimisation is not None:
                _reoptimise(dispatcher, now_s, rng, reoptimisation, records)
        _wait_until(dispatcher, max(robot.end_s for robot in instance.robots), records)
        is_complete = True
    except KeyboardInterrupt:
        pass
    revealed, plan = _driven(dispatcher)
    return Replay(
        instance=revealed,
        policy=policy or Policy(),
        first_plan=first_plan,
        plan=plan,
        report=check(revealed, plan, timing=Timing.DISPATCHED),
        outcome=dispatcher.outcome(),
        records=tuple(records),
        latency_s=tuple(latency_s),
        is_complete=is_complete,
    )


def certify_day(day: Replay, *, seed: int = 0, jobs: int | None = 1) -> Replay:
    """Certify a day as it was dispatched, and the plan made in advance.

    What the charges of the day take is not looked at: they end when a robot departs.

    Parameters
    ----------
    seed, jobs
        As `certify` takes them.

    Returns
    -------
    Replay
        The same, with certificates in its plans.

    Raises
    ------
    ValueError
        As `certify`.
    """
    driven = replace(day.plan, trips=tuple(replace(trip, charges=()) for trip in day.plan.trips))
    certified = certify(day.instance, driven, seed=seed, jobs=jobs, timing=Timing.DISPATCHED)
    first = certify(known_part(day.instance), day.first_plan, seed=seed, jobs=jobs)
    return replace(day, first_plan=first, plan=replace(day.plan, certificate=certified.certificate))


def known_part(instance: Instance) -> Instance:
    """The instance with only the requests that are known from the start."""
    return replace(instance, requests=tuple(r for r in instance.requests if r.release_s <= 0))


def _driven(dispatcher: Dispatcher) -> tuple[Instance, Plan]:
    """What was revealed, and the trips with the charges between them."""
    revealed = dispatcher.instance()
    return revealed, charge_while_idle(revealed, dispatcher.plan())


def _submit(dispatcher: Dispatcher, event: Submit, records: list[Record]) -> float:
    """Ask about one request; returns the seconds until the answer."""
    start = time.perf_counter()
    dispatcher.submit(event.request, event.now_s)
    elapsed_s = time.perf_counter() - start
    _note(dispatcher, records)
    return elapsed_s


def _events(instance: Instance, slices: int | None) -> list[Submit]:
    """Requests that appear during the day, when they are heard and in that order."""
    if slices is not None and slices < 1:
        raise ValueError(f"slices: expected at least 1, got {slices}")
    width_s = max(robot.end_s for robot in instance.robots) / slices if slices else 0.0

    def heard_s(release_s: float) -> float:
        return math.ceil(release_s / width_s) * width_s if slices else release_s

    submits = (
        Submit(now_s=heard_s(r.release_s), request=r) for r in instance.requests if r.release_s > 0
    )
    return [event for event in order_events(submits) if isinstance(event, Submit)]


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
