"""No leg fuller than the robot."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wardwise.fleet.check.verdict import Constraint, Violation
from wardwise.fleet.check.visits import is_drop
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.fleet.plan import Trip
    from wardwise.fleet.problem import Instance

# Sums of loads such as 0.1 + 0.2 may exceed a full robot by rounding only.
LOAD_TOLERANCE = 1e-9


def load_violations(instance: Instance, trip: Trip) -> Iterator[Violation]:
    """Legs fuller than the robot; named is the stop before which or at which the load grew.

    What is delivered is on board from departure to its stop, what is collected
    from its stop to the return, what is transferred between its stops. A leg that
    starts with a hand-over is never fuller than the one before it, so that overfull
    legs are reported where they begin. Goods that were never handed over, because the
    trip was broken off, have no stop on it: they are unknown here and weigh nothing.
    """
    robot = instance.robot_by_id.get(trip.robot)
    if robot is None:
        return
    visits = [(instance.request_by_id.get(stop.request), stop) for stop in trip.stops]
    known = [(request, stop) for request, stop in visits if request is not None]
    load = math.fsum(request.load for request, _ in known if request.kind == Kind.DELIVER)
    legs = [("leaves the depot towards", trip.stops[0].request, load)]
    for request, stop in known:
        if request.kind == Kind.DELIVER or is_drop(request, stop):
            load -= request.load
        else:
            load += request.load
            legs.append(("leaves", request.id, load))
    most = robot.capacity + LOAD_TOLERANCE * max(1.0, robot.capacity)
    for leaves, request_id, load in legs:
        if load > most:
            yield Violation(
                constraint=Constraint.CAPACITY,
                request=request_id,
                robot=robot.id,
                message=f"robot {robot.id!r} {leaves} request {request_id!r} with load "
                f"{load:.10g}, its capacity is {robot.capacity:.10g}",
            )
