"""Every request served once and in a sound way, or denied once."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from wardwise.fleet.check.verdict import Constraint, Violation, violation
from wardwise.fleet.problem import Kind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance, Request


def coverage_violations(instance: Instance, plan: Plan) -> Iterator[Violation]:
    """Plan of another instance; requests not served, in a sound way, or denied exactly once."""
    if plan.instance != instance.name:
        yield Violation(
            constraint=Constraint.INSTANCE,
            message=f"the plan is for instance {plan.instance!r}, not {instance.name!r}",
        )
    # Of every request the number of the trip and whether it is a pickup, stop by stop.
    stops: dict[str, list[tuple[int, bool]]] = {}
    for number, trip in enumerate(plan.trips):
        for stop in trip.stops:
            stops.setdefault(stop.request, []).append((number, stop.is_pickup))
    denied = Counter(plan.denied)
    for id_ in dict.fromkeys([*stops, *denied]):
        request, visits, times = instance.request_by_id.get(id_), stops.get(id_, []), denied[id_]
        is_transfer = request is not None and request.kind == Kind.TRANSFER
        num_served = sum(not (is_transfer and is_pickup) for _, is_pickup in visits)
        findings = (
            (Constraint.UNKNOWN_REQUEST, request is None, "does not exist"),
            (Constraint.SERVED_TWICE, num_served > 1, f"is served {num_served} times"),
            (Constraint.DENIED_TWICE, times > 1, f"is denied {times} times"),
            (Constraint.SERVED_AND_DENIED, visits and times, "is both served and denied"),
            (
                Constraint.PAIRING,
                request is not None and not _is_paired(request, visits),
                "is not picked up and then dropped on one trip"
                if is_transfer
                else "is picked up, but is no transfer",
            ),
        )
        robot = plan.trips[visits[-1][0]].robot if visits else None
        for constraint, is_violated, finding in findings:
            if is_violated:
                yield violation(constraint, robot, id_, finding)
    for id_ in instance.request_by_id:
        if id_ not in stops and id_ not in denied:
            yield violation(Constraint.UNSERVED, None, id_, "is neither served nor denied")


def _is_paired(request: Request, visits: Sequence[tuple[int, bool]]) -> bool:
    """Whether each pickup of a transfer is followed by a drop on its trip; no other is allowed."""
    if request.kind != Kind.TRANSFER:
        return not any(is_pickup for _, is_pickup in visits)
    pickups, drops = visits[::2], visits[1::2]
    return all(is_pickup for _, is_pickup in pickups) and list(drops) == [
        (trip, False) for trip, _ in pickups
    ]
