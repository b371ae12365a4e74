"""A day as a discrete-event simulation: the robots, the building, and what comes in.

The dispatcher is the real one. It hears of nothing but its own events, and only when
they happen; the log alone knows what was measured.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import simpy

from wardwise.fleet.dispatch import Advance, Cancel, Dispatcher, Status, Submit, order_events
from wardwise.fleet.dispatch.improve import improve_open
from wardwise.fleet.dispatch.state import clock
from wardwise.fleet.simulate.disturbances import Luck, Source
from wardwise.fleet.simulate.log import Log
from wardwise.fleet.simulate.robot import RobotTwin
from wardwise.fleet.simulate.ways import Ways

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from wardwise.fleet.dispatch import Event, Journal, Policy, Record
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Request
    from wardwise.fleet.replay import Reoptimisation
    from wardwise.fleet.simulate.disturbances import Disturbances

    Process = Generator[simpy.Event, Any, None]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """How a day is dispatched, and what goes otherwise than planned."""

    policy: Policy
    disturbances: Disturbances
    reoptimisation: Reoptimisation | None


class World:
    """All that happens on one day.

    Attributes
    ----------
    records
        Every event of the dispatcher with its answers.
    latency_s
        Seconds that each answer to a request took.
    is_stopped
        Set it to stop the day after the event that is going on.
    """

    def __init__(
        self,
        instance: Instance,
        plan: Plan,
        scenario: Scenario,
        seed: int,
        journal: Journal | None,
        on_progress: Callable[[Record], None] | None,
    ) -> None:
        self.env = simpy.Environment()
        self.disturbances = scenario.disturbances
        self.luck = Luck(seed, self.disturbances.law)
        self.ways = Ways(instance, self.disturbances)
        self.dispatcher = Dispatcher(instance, plan, scenario.policy, journal)
        self.depot = instance.places[0].id
        self.log = Log()
        self.records: list[Record] = []
        self.latency_s: list[float] = []
        self.is_stopped = False
        elevators = instance.site.elevators if instance.site else ()
        self.cabins = {elevator.id: simpy.Resource(self.env) for elevator in elevators}
        self._end_s = max(clock(robot.end_s) for robot in instance.robots)
        self._moments_s: set[float] = set()
        self._reoptimisation = scenario.reoptimisation
        self._on_progress = on_progress
        known = self.dispatcher.instance().requests
        ids = {request.id for request in known}
        to_come = [request for request in instance.requests if request.id not in ids]
        for request in known:
            self._await_cancel(request)
        self._robots = [RobotTwin(self, robot.id) for robot in instance.robots]
        self.env.process(self._call_in(to_come))
        for robot in self._robots:
            self.env.process(robot.live())

    def run(self) -> bool:
        """Let the day pass until all robots are home and nothing is to come.

        Returns
        -------
        bool
            Whether it came so far.
        """
        while self.env.peek() < math.inf:
            while self.env.peek() < math.inf:
                if self.is_stopped:
                    return False
                self.env.step()
            self.hear(Advance(now_s=max(self.env.now, self._end_s)))
        return True

    def hear(self, event: Event) -> None:
        """Tell the dispatcher of an event, and the robots of what came of it."""
        start = time.perf_counter()
        self.records.append(self.dispatcher.handle(event))
        if isinstance(event, Submit):
            self.latency_s.append(time.perf_counter() - start)
        if self._reoptimisation is not None and not isinstance(event, Advance):
            self._reoptimise(self._reoptimisation)
        for robot in self._robots:
            robot.look()
        self._await_pool()
        if self._on_progress is not None:
            self._on_progress(self.records[-1])

    def _call_in(self, requests: list[Request]) -> Process:
        """Submit each request at its release."""
        for event in order_events(Submit(now_s=r.release_s, request=r) for r in requests):
            yield self.env.timeout(clock(event.now_s) - self.env.now)
            self.hear(event)
            assert isinstance(event, Submit)
            self._await_cancel(event.request)

    def _await_cancel(self, request: Request) -> None:
        """Have a request withdrawn some day, if that day is today."""
        rate = self.disturbances.cancels_per_s
        if rate == 0:
            return
        moment_s = request.release_s + self.luck.exponential(1 / rate, Source.CANCEL, request.id)
        if moment_s < self._end_s:
            self.env.process(self._cancel(request.id, clock(moment_s)))

    def _cancel(self, id_: str, moment_s: float) -> Process:
        """Withdraw a request, unless it is served, refused or lost by then."""
        yield self.env.timeout(moment_s - self.env.now)
        is_open = self.dispatcher.status(id_) in (Status.ACCEPTED, Status.PENDING)
        if is_open and id_ not in self.log.served:
            self.hear(Cancel(now_s=moment_s, request=id_))

    def _await_pool(self) -> None:
        """Have pending requests decided when their last useful moment has come."""
        moment_s = self.dispatcher.next_moment_s()
        if moment_s < self._end_s and moment_s not in self._moments_s:
            self._moments_s.add(moment_s)
            self.env.process(self._retry(moment_s))

    def _retry(self, moment_s: float) -> Process:
        yield self.env.timeout(moment_s - self.env.now)
        if self.dispatcher.next_moment_s() <= moment_s:
            self.hear(Advance(now_s=moment_s))

    def _reoptimise(self, settings: Reoptimisation) -> None:
        last = self.records[-1]
        is_adopted = self.dispatcher.reoptimise(
            self.env.now,
            self.luck.generator(Source.SEARCH, last.number),
            max_iterations=settings.max_iterations,
            time_limit_s=settings.seconds or None,
            stability=settings.stability,
            improver=improve_open,
        )
        if is_adopted:
            assert self.dispatcher.last is not None
            self.records.append(self.dispatcher.last)
