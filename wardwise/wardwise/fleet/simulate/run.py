"""One simulated day, from the instance to its figures."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from wardwise.fleet.check import Timing, check
from wardwise.fleet.dispatch import Policy
from wardwise.fleet.facts import DrivenDay
from wardwise.fleet.simulate.disturbances import Disturbances
from wardwise.fleet.simulate.figures import figures_of, unserved_of
from wardwise.fleet.simulate.world import Scenario, World
from wardwise.fleet.solvers import solve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from wardwise.fleet.check import Report
    from wardwise.fleet.dispatch import Journal, Outcome, Record
    from wardwise.fleet.facts import Fact, Ride
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.replay import Reoptimisation
    from wardwise.fleet.simulate.figures import Figures

# Limited by iterations alone, so that the same seed gives the same plan.
PLAN_ITERATIONS = 2000
FOREVER_S = 1e300


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A simulated day.

    Attributes
    ----------
    instance
        What was revealed in the end, without what was withdrawn.
    first_plan
        The plan made in advance.
    plan
        The day as it was driven, with measured times; of an interrupted day what was
        not driven yet stands as planned.
    report
        The checker's verdict on `plan`, with `Timing.EXECUTED`.
    outcome
        What the dispatcher says.
    records
        Every event of the dispatcher with its answers.
    facts, rides
        What robots did, and their rides in elevators, as they ended.
    unserved
        Requests that were accepted and never served, by their first names.
    latency_s
        Seconds that each answer to a request took, journal included.
    is_complete
        False when the day was interrupted.
    """

    instance: Instance
    policy: Policy
    disturbances: Disturbances
    seed: int
    first_plan: Plan
    plan: Plan
    report: Report
    outcome: Outcome
    figures: Figures
    records: tuple[Record, ...]
    facts: tuple[Fact, ...]
    rides: tuple[Ride, ...]
    unserved: tuple[str, ...]
    latency_s: tuple[float, ...] = field(compare=False)
    is_complete: bool

    def driven(self, day: int = 0) -> DrivenDay:
        """What was measured, under the number of a day, as a log has it."""
        return DrivenDay(
            day=day,
            seed=self.seed,
            facts=self.facts,
            rides=self.rides,
            unserved=self.unserved,
            is_complete=self.is_complete,
        )


def simulate(
    instance: Instance,
    *,
    plan: Plan | None = None,
    policy: Policy | None = None,
    disturbances: Disturbances | None = None,
    reoptimisation: Reoptimisation | None = None,
    seed: int = 0,
    journal: Journal | None = None,
    on_progress: Callable[[Record], None] | None = None,
) -> Simulation:
    """Live through a day with robots that do not keep to the plan.

    Parameters
    ----------
    instance
        Requests that the plan names are known beforehand; all others come in at
        their release.
    plan
        Plan of the known requests; `None`: a short search for the least money, on
        those with ``release_s`` 0.
    policy
        Rules of the dispatcher.
    disturbances
        What may go otherwise than planned; `None`: nothing.
    reoptimisation
        How the uncommitted part is improved after each event; `None`: not at all.
        With a time limit a day can no longer be repeated.
    seed
        Of all randomness, at least 0.
    journal
        Where the dispatcher writes what it hears and answers.
    on_progress
        Called after each event with its record.

    Returns
    -------
    Simulation
        The whole day; after Ctrl-C the day so far.

    Raises
    ------
    ValueError
        If the seed is negative, the instance lacks what the disturbances ask for, or
        as `Dispatcher`.
    """
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    scenario = Scenario(
        policy=policy or Policy(),
        disturbances=disturbances or Disturbances(),
        reoptimisation=reoptimisation,
    )
    if plan is None:
        plan = plan_known(instance, seed)
    world = World(instance, plan, scenario, seed, journal, on_progress)
    with _stopped_by_interrupt(world):
        is_complete = world.run()
    revealed = world.dispatcher.instance()
    executed = world.log.executed(world.dispatcher.plan())
    report = check(revealed, executed, timing=Timing.EXECUTED)
    return Simulation(
        instance=revealed,
        policy=scenario.policy,
        disturbances=scenario.disturbances,
        seed=seed,
        first_plan=plan,
        plan=executed,
        report=report,
        outcome=world.dispatcher.outcome(),
        figures=figures_of(instance, world.dispatcher, world.log, executed, report),
        records=tuple(world.records),
        facts=tuple(world.log.facts),
        rides=tuple(world.log.rides),
        unserved=unserved_of(instance, world.dispatcher, world.log),
        latency_s=tuple(world.latency_s),
        is_complete=is_complete,
    )


def plan_known(instance: Instance, seed: int) -> Plan:
    """Plan what is known from the start, for the least money."""
    known = tuple(request for request in instance.requests if request.release_s == 0)
    return solve(
        replace(instance, requests=known),
        objective="cost",
        time_limit=FOREVER_S,
        max_iterations=PLAN_ITERATIONS,
        seed=seed,
    )


@contextmanager
def _stopped_by_interrupt(world: World) -> Iterator[None]:
    """Let Ctrl-C stop a day between two events, since within one it is in disorder.

    A second one gets through at once.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if world.is_stopped:
            raise KeyboardInterrupt
        world.is_stopped = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
