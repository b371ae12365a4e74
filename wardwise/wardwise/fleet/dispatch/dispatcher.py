"""The dispatcher: one event after the other, each answered at once and journalled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Self

from wardwise.errors import InputError
from wardwise.fleet.dispatch import outlook
from wardwise.fleet.dispatch.border import require_event, require_plan, revealed
from wardwise.fleet.dispatch.breakdown import breakdown, return_to_service
from wardwise.fleet.dispatch.cancel import cancel
from wardwise.fleet.dispatch.case import Case
from wardwise.fleet.dispatch.day import Day
from wardwise.fleet.dispatch.events import (
    Advance,
    Breakdown,
    Cancel,
    Delay,
    Event,
    Reoptimise,
    Return,
    Submit,
    parse_event,
)
from wardwise.fleet.dispatch.policy import Policy
from wardwise.fleet.dispatch.record import Record, header, parse_header
from wardwise.fleet.dispatch.recovery import delay
from wardwise.fleet.dispatch.reoptimise import adopt, better_routes, relocate
from wardwise.fleet.dispatch.rules import decide
from wardwise.fleet.dispatch.state import clock
from wardwise.journal import Journal, format_line, read_lines

if TYPE_CHECKING:
    import os

    from numpy.random import Generator

    from wardwise.fleet.dispatch.decision import Cancellation, Decision, Status
    from wardwise.fleet.dispatch.outlook import Outcome, Step
    from wardwise.fleet.dispatch.reoptimise import Improver
    from wardwise.fleet.plan import Plan, Stop
    from wardwise.fleet.problem import Instance, Request

__all__ = ["Dispatcher"]


class Dispatcher:
    """Answers transport requests of a running day.

    Parameters
    ----------
    instance
        Places, robots and prices. Its requests that the plan names are known from
        the start; all others must be submitted.
    plan
        Plan of the known requests, made in advance.
    policy
        Which rules apply.
    journal
        Where every event is written before it is answered; must be empty. To go on
        with one that is not, use `resume`.

    Attributes
    ----------
    initial_cost
        Cost of the plan made in advance.
    last
        The last event with its answers, `None` before the first.

    Raises
    ------
    ValueError
        If the plan is infeasible or forgets a request that is known from the start,
        or the journal is not empty.
    """

    def __init__(
        self,
        instance: Instance,
        plan: Plan | None = None,
        policy: Policy | None = None,
        journal: Journal | None = None,
    ) -> None:
        policy = policy or Policy()
        if journal is not None and not journal.is_empty:
            raise ValueError(f"journal: expected an empty file, {journal.path} holds a day already")
        self._day = Day(instance, policy)
        if plan is not None:
            require_plan(instance, plan)
            self._day.begin(plan)
        self.initial_cost = self._day.money()
        self.last: Record | None = None
        self._number = 0
        self._journal = journal
        self._is_cut_off = False
        if journal is not None:
            journal.append(header(instance, policy, plan))

    @classmethod
    def replay(cls, path: str | os.PathLike[str], *, until: int | None = None) -> Self:
        """Rebuild a day from its journal, as it was after its last complete line.

        Parameters
        ----------
        path
            The journal; it is only read, and the day is not connected with it.
        until
            Number of the last event to replay; `None` for all.

        Raises
        ------
        InputError
            If the file is no journal, or naming the first line that is corrupt or
            whose event gives another answer today.
        """
        lines = read_lines(path)
        _, _, fields = next(lines, (0, b"", None))
        if fields is None:
            raise InputError(path, "expected a journal, got no complete line", line=1)
        instance, policy, plan = parse_header(fields, path)
        dispatcher = cls(instance, plan, policy)
        for line, text, fields in lines:
            if until is not None and fields["n"] > until:
                break
            try:
                record = dispatcher.handle(parse_event(fields["input"]))
            except ValueError as error:
                raise InputError(path, f"expected a possible event: {error}", line=line) from error
            if format_line(record.document()) != text:
                raise InputError(path, "expected the answer of today, got another", line=line)
        return dispatcher

    @classmethod
    def resume(cls, path: str | os.PathLike[str], *, fsync: str | float = "never") -> Self:
        """Rebuild a day from its journal, and go on writing there.

        An unfinished last line is cut off. See `replay`, `Journal` and `close`.
        """
        next(read_lines(path), None)  # a file that is missing must not become an empty journal
        journal = Journal(path, fsync=fsync)
        try:
            dispatcher = cls.replay(path)
        except BaseException:
            journal.close()
            raise
        dispatcher._journal = journal
        return dispatcher

    def close(self) -> None:
        """Close the journal, if there is one; the day can be resumed from it."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def submit(self, request: Request, now_s: float) -> Decision:
        """Decide about a request that becomes known now.

        Raises
        ------
        ValueError
            If its id is known, a place is unknown or unreachable, no robot is large
            enough, it is released later, or `now_s` lies before the last event.
        """
        return self.handle(Submit(now_s=now_s, request=request)).decisions[0]

    def quote(self, request: Request, now_s: float) -> Decision:
        """Say what `submit` would answer; nothing changes, nothing is journalled.

        Raises
        ------
        ValueError
            As `submit`.
        """
        day, event = self._day, Submit(now_s=now_s, request=request)
        require_event(day, event)
        state, is_soft = day.state, day.state.packed.is_soft
        node = state.add(revealed(request, now_s))
        saved = state.save()
        moment_s = clock(now_s)
        state.commit(moment_s)
        decision = decide(Case(state, day.policy, node, moment_s, is_new=True))[0]
        state.restore(saved)
        state.free(node)
        state.count_lateness(is_soft=is_soft)
        return decision

    def advance(self, now_s: float) -> tuple[Decision, ...]:
        """Let time pass; returns what is decided about pending requests."""
        return self.handle(Advance(now_s=now_s)).decisions

    def cancel(self, request: str, now_s: float) -> Cancellation:
        """Withdraw a request, as far as that is still possible."""
        cancellation = self.handle(Cancel(now_s=now_s, request=request)).cancellation
        assert cancellation is not None
        return cancellation

    def delay(self, robot: str, delay_s: float, now_s: float) -> tuple[Decision, ...]:
        """Hear that a robot is late: under way, at its stop, or at the depot.

        A negative delay says that it is early; the plan is then one of facts, which
        the checker judges with `Timing.EXECUTED`.

        Returns
        -------
        tuple of Decision
            About the requests that the robot can no longer serve in time.
        """
        return self.handle(Delay(now_s=now_s, robot=robot, delay_s=delay_s)).decisions

    def breakdown(self, robot: str, now_s: float, place: str | None = None) -> tuple[Decision, ...]:
        """Hear that a robot broke down; returns what becomes of its requests.

        Parameters
        ----------
        place
            Where the goods on board are picked up; `None`: at the last stop it reached.
        """
        return self.handle(Breakdown(now_s=now_s, robot=robot, place=place)).decisions

    def return_to_service(self, robot: str, now_s: float) -> tuple[Decision, ...]:
        """Hear that a robot that broke down is ready at the depot."""
        return self.handle(Return(now_s=now_s, robot=robot)).decisions

    def reoptimise(
        self,
        now_s: float,
        rng: Generator,
        *,
        max_iterations: int = 1000,
        time_limit_s: float | None = None,
        stability: float = 0.0,
        improver: Improver = relocate,
    ) -> bool:
        """Look for better routes behind what is committed; returns whether they are adopted.

        They are if they save more money than `stability` for every request that
        changes its robot or is served later. The search itself is not journalled,
        its result is.

        Parameters
        ----------
        rng
            Source of all randomness.
        max_iterations, time_limit_s
            When to stop; without a time limit the same state and `rng` give the
            same result.
        improver
            The search, `relocate` or another.
        """
        routes = better_routes(
            self._day, clock(now_s), rng, max_iterations, time_limit_s, stability, improver
        )
        if routes:
            self.handle(Reoptimise(now_s=now_s, routes=routes))
        return bool(routes)

    def handle(self, event: Event) -> Record:
        """Take in one event; the methods named after the events call this.

        Raises
        ------
        ValueError
            If the event cannot be, or names what does not exist; nothing changes.
        OSError
            If the journal cannot be written. The event is then not answered; the day
            goes on from the journal alone.
        """
        if self._is_cut_off:
            raise ValueError("journal: expected a new start from the file, its last write failed")
        day = self._day
        require_event(day, event)
        day.advance(clock(event.now_s))
        before, overdue = day.money(), {*day.overdue}
        decisions, cancellation = self._answer(event)
        decisions += day.retry_pool()
        self._number += 1
        record = Record(
            number=self._number,
            event=event,
            decisions=tuple(decisions),
            cost_delta=day.money() - before,
            cancellation=cancellation,
            overdue={id_: s for id_, s in day.overdue.items() if id_ not in overdue},
        )
        if self._journal is not None:
            self._is_cut_off = True
            self._journal.append(record.document())
            self._is_cut_off = False
        self.last = record
        return record

    def plan(self) -> Plan:
        """All trips with their stops, driven, committed and open; pending counts as denied."""
        return outlook.plan_of(self._day)

    def committed(self) -> dict[str, tuple[Stop, ...]]:
        """Stops of each robot on its way, up to the one it is at or under way to."""
        return outlook.committed_of(self._day)

    def step(self, robot: str, position: int) -> Step | None:
        """What a robot does at one position of its day; `None` where nothing is planned yet.

        Positions count its stops and its returns to the depot; it begins at 0. Whoever
        drives the robot at `position - 1` leaves at `Step.depart_s`, unless an event
        before changes that.
        """
        return outlook.step_of(self._day, self._day.robots[robot], position)

    def instance(self) -> Instance:
        """The instance as known by now: what was revealed and not withdrawn."""
        return outlook.instance_of(self._day)

    def outcome(self) -> Outcome:
        """Numbers of the day so far."""
        return outlook.outcome_of(self._day)

    def decision(self, request: str) -> Decision | None:
        """Last decision about a request; `None` for those of the plan made in advance."""
        return self._day.decisions.get(request)

    def status(self, request: str) -> Status | None:
        """Where a request stands; `None` if it is not known."""
        return self._day.status.get(request)

    def out_of_order(self) -> tuple[str, ...]:
        """Robots that broke down and are not back yet."""
        day = self._day
        return tuple(id_ for id_, k in day.robots.items() if day.state.is_out_of_order(k))

    def next_moment_s(self) -> float:
        """Next moment at which a pending request must find its place or be denied.

        Whoever drives the dispatcher should `advance` to it when nothing else
        happens before; infinite when nothing is pending.
        """
        return min(self._day.pool.values(), default=math.inf)

    def _answer(self, event: Event) -> tuple[list[Decision], Cancellation | None]:
        day = self._day
        match event:
            case Submit():
                node = day.reveal(revealed(event.request, event.now_s))
                return day.place(node, is_new=True), None
            case Cancel():
                cancellation, decisions = cancel(day, event.request)
                return decisions, cancellation
            case Delay():
                return delay(day, day.robots[event.robot], clock(event.delay_s)), None
            case Breakdown():
                return breakdown(day, day.robots[event.robot], event.place), None
            case Return():
                return_to_service(day, day.robots[event.robot])
            case Reoptimise():
                return adopt(day, event.routes), None
            case Advance():
                pass
        return [], None
