"""What would have made a denied request possible: rules D1 and D2 under other facts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.dispatch.decision import Remedy
from wardwise.fleet.search.packed import BILLIONTHS

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.case import Case

# Far above any price of a day, and small enough to leave a millionth of money exact.
OUTWEIGHS = 2.0**20


def find_remedy(case: Case) -> Remedy:
    """Each change that alone would have let rule D1 or D2 serve the request."""
    state = case.state
    usable = case.num_usable_spares()
    prices = state.scan(case.node).prices
    cheapest = float(np.where(state.in_service() | (usable > 0), prices, np.inf).min())
    is_robot_worth = case.is_worth(_price_from_depot(case), opens_spare=True)
    is_protected = usable <= 0 < state.num_spares(case.now_s)
    slots, robot = _missing_slots(case)
    return Remedy(
        window_s=_missing_window_s(case),
        slots=slots,
        slots_robot=robot,
        more_robots=1 - usable if is_robot_worth and usable <= 0 and not is_protected else None,
        less_protection=1 - usable if is_robot_worth and is_protected else None,
        price=cheapest if case.loss < cheapest < np.inf else None,
    )


def _price_from_depot(case: Case) -> float:
    """Price of one more robot at the depot, if it could serve as surely as promised."""
    latest, node = case.state.packed.latest, case.node
    closes = latest[node]
    latest[node] -= case.state.margin_from_depot_s(node)
    price = case.price_from_depot()
    latest[node] = closes
    return price


def _missing_window_s(case: Case) -> float | None:
    """Seconds by which the window closes too early for every robot that may be used.

    A window that closes later makes a start possible, and less late.
    """
    state, packed, node = case.state, case.state.packed, case.node
    both = [node] if packed.partner[node] < 0 else [node, int(packed.partner[node])]
    closes, hard = packed.latest[both].copy(), state.hard[both].copy()
    late_price = float(packed.late_price[node])
    packed.latest[both] = state.hard[both] = state.end.max()
    packed.late_price[node] = OUTWEIGHS  # find the earliest start on every robot
    state.packed = packed._replace(is_soft=True)
    offers = state.scan(node)
    robots = np.flatnonzero(np.isfinite(offers.prices))
    begins, promised = state.starts(node, robots, offers)
    packed.latest[both], packed.late_price[node] = closes, late_price
    state.hard[both] = hard
    state.packed = packed
    prices = np.full(len(offers.prices), np.inf)
    prices[robots] = offers.prices[robots] - OUTWEIGHS * np.maximum(0, begins - packed.due[node])
    is_allowed = case.allowed(prices)[robots]
    missing_s = (begins if promised is None else promised) - closes[0]
    if late_price > 0:
        affordable_s = np.maximum(0.0, case.loss - prices[robots]) / late_price
        missing_s = np.maximum(missing_s, begins - packed.due[node] - affordable_s)
    missing_s = missing_s[is_allowed]
    return float(missing_s.min()) if missing_s.size and missing_s.min() > 0 else None


def _missing_slots(case: Case) -> tuple[float | None, str | None]:
    """Slots that are lacking at the cheapest place that is in time, and on which robot."""
    state, packed, node = case.state, case.state.packed, case.node
    load = packed.load[node]
    packed.load[node] = 0.0
    offers = state.scan(node)
    packed.load[node] = load
    prices = np.where(case.allowed(offers.prices), offers.prices, np.inf)
    robot = int(prices.argmin())
    if prices[robot] == np.inf:
        return None, None
    position, drop = int(offers.positions[robot]), int(offers.drops[robot])
    chains, on_board = state.chains, 0.0
    if not offers.opens[robot]:
        is_deliver = packed.at_depot[node] > 0
        peak = chains.peak_before if is_deliver else chains.peak_after
        on_board = peak[robot, position]
        if drop >= 0:
            on_board = chains.on_board[robot, position : drop + 1].max()
    missing = np.floor(on_board) + load - np.floor(packed.capacity[robot])
    if missing <= 0:
        return None, None
    return float(missing) / BILLIONTHS, state.instance.robots[robot].id
