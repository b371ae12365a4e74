"""Compilation before the day begins, so that no answer waits for it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from wardwise.fleet.dispatch.dispatcher import Dispatcher
from wardwise.fleet.dispatch.policy import Policy
from wardwise.fleet.problem import Instance, Kind, Place, Request, Robot
from wardwise.fleet.randomness import Promise, Randomness


@cache
def warm_up() -> None:
    """Compile the kernels, or load them from disk; a minute the first time, then none.

    A tiny day goes through every rule and every event, by mean slacks and by quantiles.
    """
    metres = np.ones((3, 3)) - np.eye(3)
    instance = Instance(
        name="tiny",
        places=(Place(id="depot"), Place(id="a"), Place(id="b")),
        requests=(),
        robots=(Robot(id="1", capacity=9.0, end_s=99.0),),
        travel_s=metres,
        distance_m=metres,
    )
    _live_through(instance)
    _live_through(replace(instance, randomness=Randomness(), promise=Promise()))


def _live_through(instance: Instance) -> None:
    dispatcher = Dispatcher(instance, None, Policy(may_eject=True, may_hold=True))
    stat = Request(id="stat", place="a", load=1.0, ready_s=20.0, due_s=20.0, priority=1)
    dispatcher.quote(stat, 0.0)
    dispatcher.submit(stat, 0.0)
    routine = replace(stat, id="routine", priority=3, ready_s=30.0, due_s=30.0, tolerance_s=1.0)
    dispatcher.submit(routine, 0.0)
    # From b the robot is at a 1 s later: 0.5 s late first, then too late.
    urgent = replace(stat, id="urgent", place="b", priority=2, ready_s=29.5, due_s=29.5)
    dispatcher.submit(urgent, 0.0)
    dispatcher.submit(replace(urgent, id="eject", priority=1, ready_s=31.0, due_s=31.0), 0.0)
    transfer = replace(
        routine, id="transfer", kind=Kind.TRANSFER, origin="b", ready_s=40.0, due_s=60.0
    )
    dispatcher.submit(transfer, 0.0)
    dispatcher.reoptimise(0.0, np.random.default_rng(0), max_iterations=1)
    dispatcher.cancel("transfer", 1.0)
    dispatcher.delay("1", 1.0, 1.0)
    dispatcher.breakdown("1", 21.0)
    dispatcher.return_to_service("1", 22.0)
    dispatcher.plan()
