"""From completed orders to transports: what the robots are asked to carry, and from when on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from wardwise.fleet.problem import Kind, Request
from wardwise.flows import TOLERANCE_S
from wardwise.hospital.prescriptions import PHARMACY
from wardwise.pharmacy.problem import Priority

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.hospital.dispensing import Dispensing
    from wardwise.pharmacy.problem import Order

RANK = {Priority.STAT: 1, Priority.URGENT: 2, Priority.ROUTINE: 3}
# From the release to the ward, as the flows of `wardwise.flows` have it: the window of a
# prescription whose own due time the pharmacy has used up; else no robot is later than this.
WINDOW_S = {Priority.STAT: 900.0, Priority.URGENT: 1800.0, Priority.ROUTINE: 2700.0}
SERVICE_S = 60.0  # at either end
LOAD_SLOTS = 1.0


class Status(StrEnum):
    """What became of a prescription.

    ``delivered``: a robot brings it. ``denied``: the planner found no robot. ``held-over``: it is
    complete too late for any robot to bring it before the shifts end.
    """

    DELIVERED = "delivered"
    DENIED = "denied"
    HELD_OVER = "held-over"


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """The transport of one prescription.

    Parameters
    ----------
    order
        The prescription; its request in the fleet has the same id.
    opens_s
        Cut-off of its round.
    ready_s
        Release: the quantile of its completion.
    request
        What the robots are asked; None if it is held over.
    """

    order: Order
    opens_s: float
    ready_s: float
    request: Request | None

    def status(self, plan: Plan) -> Status:
        """What a plan makes of it; whatever is not served in the plan counts as denied."""
        if self.request is None:
            return Status.HELD_OVER
        served = {stop.request for trip in plan.trips for stop in trip.stops}
        return Status.DELIVERED if self.request.id in served else Status.DENIED


def with_deliveries(
    hospital: Instance,
    dispensing: Dispensing,
    *,
    quantile: float = 0.9,
    pharmacy: str = PHARMACY,
    is_dynamic: bool = False,
) -> tuple[Instance, tuple[Delivery, ...]]:
    """Add one transfer from the pharmacy to its ward for every prescription.

    Parameters
    ----------
    hospital
        What else has to be carried.
    dispensing
        The machine's day; orders name their wards as destinations.
    quantile
        Probability with which an order is complete at its release, between 0 and 1.
    pharmacy
        Place where robots pick up.
    is_dynamic
        Whether a request becomes known when its round opens; else it is known in advance.

    Returns
    -------
    The instance with the transports, and all prescriptions in the sequence of the day.

    Raises
    ------
    ValueError
        If a place is unknown, ids clash with those of the hospital, or `quantile` is out of range.
    """
    if pharmacy not in hospital.place_index:
        raise ValueError(f"hospital: places: expected one called {pharmacy!r}, got none")
    ready_s, opens_s = dispensing.ready_s(quantile), dispensing.opens_s()
    deliveries = tuple(
        Delivery(
            order=order, opens_s=opens_s[order.id], ready_s=ready_s[order.id],
            request=_request(
                hospital, order, pharmacy, ready_s=ready_s[order.id],
                release_s=opens_s[order.id] if is_dynamic else 0.0,
            ),
        )
        for order in dispensing.day.orders
    )  # fmt: skip
    asked = tuple(d.request for d in deliveries if d.request is not None)
    return replace(hospital, requests=(*hospital.requests, *asked)), deliveries


def _request(
    hospital: Instance, order: Order, pharmacy: str, *, ready_s: float, release_s: float
) -> Request | None:
    """The transport of an order, or none if no robot can make it before its shift ends."""
    ward = order.destination
    if ward not in hospital.place_index or ward == pharmacy:
        raise ValueError(f"order {order.id}: destination: expected a ward, got {ward!r}")
    here, there = hospital.place_index[pharmacy], hospital.place_index[ward]
    out_s, way_s, back_s = (
        float(hospital.travel_s[leg]) for leg in ((0, here), (here, there), (there, 0))
    )
    robots = [robot for robot in hospital.robots if robot.capacity >= LOAD_SLOTS]
    latest_s = max((robot.end_s for robot in robots), default=0.0) - SERVICE_S - back_s
    first_s = min((max(robot.start_s + out_s, ready_s) for robot in robots), default=ready_s)
    first_s += SERVICE_S + way_s
    if first_s > latest_s:
        return None
    # The ward has it when the hand-over ends. What cannot be kept is no deadline.
    promised_s = latest_s if order.due_s is None else order.due_s - SERVICE_S
    usual_s = max(ready_s + WINDOW_S[order.priority], first_s)
    due_s = min(promised_s if first_s <= promised_s else usual_s, latest_s)
    rank = RANK[order.priority]
    tolerance_s = min(max(TOLERANCE_S[rank - 1], usual_s - due_s), latest_s - due_s)
    return Request(
        id=order.id, place=ward, origin=pharmacy, kind=Kind.TRANSFER, load=LOAD_SLOTS,
        ready_s=ready_s, due_s=due_s, service_s=SERVICE_S, release_s=release_s,
        priority=rank, tolerance_s=tolerance_s,
    )  # fmt: skip
