"""What a plan costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from wardwise.fleet.check.energy import draws
from wardwise.fleet.check.verdict import finite
from wardwise.fleet.check.visits import DEPOT, is_pickup, metres, visits
from wardwise.fleet.plan import CostBreakdown, Stop

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


def cost_of(instance: Instance, plan: Plan, tolerance_s: float) -> CostBreakdown:
    """Price robots, metres, lateness and denials; each denied request counts once."""
    costs = instance.costs
    robots = {trip.robot for trip in plan.trips}
    driven_m: list[float] = []
    late_s: list[float] = []
    late_cost: list[float] = []
    for trip in plan.trips:
        place: int | None = DEPOT
        for visit in visits(instance, trip):
            driven_m.append(metres(instance, place, visit.place))
            place = visit.place
            if visit.request is None or not isinstance(visit.event, Stop):
                continue
            delay_s = finite(visit.event.start_s) - visit.request.due_s
            if delay_s > tolerance_s and not is_pickup(visit.request, visit.event):
                late_s.append(delay_s)
                late_cost.append(delay_s * costs.lateness_per_s[visit.request.priority - 1])
        # How far a robot came on the leg on which it broke down, no plan states.
        if not trip.is_broken_off:
            driven_m.append(metres(instance, place, DEPOT))
    charges = [charge for trip in plan.trips for charge in trip.charges]
    denied = [r for r in (instance.request_by_id.get(id_) for id_ in set(plan.denied)) if r]
    distance_m = math.fsum(driven_m)
    return CostBreakdown(
        num_robots=len(robots),
        distance_m=distance_m,
        num_late=len(late_s),
        lateness_s=math.fsum(late_s),
        num_denied=len(denied),
        robot_cost=len(robots) * costs.per_robot,
        distance_cost=distance_m * costs.per_metre,
        lateness_cost=math.fsum(late_cost),
        denial_cost=math.fsum(costs.per_denial[request.priority - 1] for request in denied),
        energy_wh=math.fsum(
            draw.taken_wh
            for robot, trips in plan.trips_by_robot().items()
            for draw in draws(instance, robot, trips)
        ),
        charged_wh=math.fsum(c.charged_wh for c in charges if math.isfinite(c.charged_wh)),
        num_charges=len(charges),
    )
