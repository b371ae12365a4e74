"""The decision rules D1 to D6, from the request to the answer.

Each rule looks at one request that stands in the arrays but on no chain. It either
serves it, and returns what that changed, or leaves everything as it was. The first
rule that serves it decides.

The paper has rules of this kind; their wording and order are ours. Prices are those of `Costs`. A
price at which serving costs as much as denying still serves (D1, D2).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.dispatch import kernels
from wardwise.fleet.dispatch.case import ROUTINE, STAT, URGENT, Case
from wardwise.fleet.dispatch.decision import Alternative, Decision, Rule, Status
from wardwise.fleet.dispatch.remedy import find_remedy
from wardwise.fleet.search.chains import UNSERVED

if TYPE_CHECKING:
    from wardwise.fleet.dispatch.state import Offers
    from wardwise.fleet.search.packed import Floats

NUM_ALTERNATIVES = 3


@dataclass(frozen=True, kw_only=True)
class Placed:
    """What a rule changed: money, requests made late, and nodes pushed out."""

    rule: Rule
    cost_delta: float
    moved: tuple[str, ...] = ()
    ejected: tuple[int, ...] = ()


def decide(case: Case) -> tuple[Decision, ...]:
    """Decide about a request by the rules, and serve it if they say so.

    Returns
    -------
    tuple of Decision
        That of the request, then one for each request that it pushed out.
    """
    offers = case.state.scan(case.node)
    others = _alternatives(case, offers)
    placed = _insert(case, offers) or _open_spare(case, offers) or _squeeze(case) or _eject(case)
    if placed is None:
        return (_turn_down(case, others),)
    ejected = [case._replace(node=node, is_new=False) for node in placed.ejected]
    return (_accepted(case, placed, others), *map(_place_ejected, ejected))


def last_moment_s(case: Case) -> float:
    """Last moment at which serving the request may still become possible."""
    return float(kernels.last_departure(case.state.packed, case.state.chains, case.node))


def _insert(case: Case, offers: Offers) -> Placed | None:
    """D1: the cheapest place on a robot in service, if it costs no more than a denial."""
    robot, price = _cheapest(np.where(case.state.in_service(), offers.prices, np.inf))
    if not case.is_worth(price, opens_spare=False):
        return None
    return Placed(rule=Rule.INSERT, cost_delta=_put(case, offers, robot))


def _open_spare(case: Case, offers: Offers) -> Placed | None:
    """D2: a spare, if enough others are left; a stat request may have it at any price."""
    robot, price = _cheapest(np.where(case.state.in_service(), np.inf, offers.prices))
    if case.num_usable_spares() <= 0 or not case.is_worth(price, opens_spare=True):
        return None
    return Placed(rule=Rule.SPARE, cost_delta=_put(case, offers, robot))


def _squeeze(case: Case) -> Placed | None:
    """D3: as D1 at less than the price of a denial, while lower classes may use their tolerance."""
    state, packed = case.state, case.state.packed
    if not case.policy.may_squeeze or case.priority > URGENT:
        return None
    promised = packed.latest.copy()
    may_slip = (state.priority > case.priority) & (state.chains.owner != UNSERVED)
    relaxed = np.where(may_slip, np.maximum(promised, state.hard), promised)
    if np.array_equal(relaxed, promised):
        return None
    packed.latest[:] = relaxed
    kernels.refresh_used(packed, state.chains)
    offers = state.scan(case.node)
    robot, price = _cheapest(np.where(state.in_service(), offers.prices, np.inf))
    placed = None
    if price < case.loss:
        cost_delta = _put(case, offers, robot)  # its new starts become promises
        open_part = state.row(robot)[state.chains.first[robot] :]
        slipped = [n for n in open_part if n != case.node and packed.latest[n] > promised[n]]
        moved = tuple(state.requests[n].id for n in slipped)
        promised[open_part] = packed.latest[open_part]
        placed = Placed(rule=Rule.SQUEEZE, cost_delta=cost_delta, moved=moved)
    packed.latest[:] = promised
    kernels.refresh_used(packed, state.chains)
    return placed


def _eject(case: Case) -> Placed | None:
    """D4: a stat request takes the place of an open routine request, or else an urgent one."""
    state, packed = case.state, case.state.packed
    if not case.policy.may_eject or case.priority != STAT:
        return None
    row = np.empty(state.chains.node.shape[1], dtype=np.int64)
    for wanted in (ROUTINE, URGENT):
        _, other, robot, position, drop, opens = kernels.best_ejection(
            packed, state.chains, state.weights, state.chances(), case.node, state.priority,
            wanted, row,
        )  # fmt: skip
        if robot >= 0:
            before = float(state.chains.price[robot])
            state.remove(other)
            state.put(case.node, robot, position, drop, opens)
            cost_delta = float(state.chains.price[robot]) - before
            return Placed(rule=Rule.EJECT, cost_delta=cost_delta, ejected=(int(other),))
    return None


def _place_ejected(case: Case) -> Decision:
    """Serve a request that was pushed out by rule D1 or D2, or else deny it."""
    offers = case.state.scan(case.node)
    others = _alternatives(case, offers)
    placed = _insert(case, offers) or _open_spare(case, offers)
    return _denied(case, others) if placed is None else _accepted(case, placed, others)


def _turn_down(case: Case, others: list[Alternative]) -> Decision:
    """D5 where something may still change, else D6."""
    if case.policy.may_hold and case.now_s < last_moment_s(case):
        return _refusal(case, Status.PENDING, Rule.HOLD, others)
    if case.is_new and case.price_from_depot() == np.inf:
        return _refusal(case, Status.UNSERVABLE, Rule.DENY, others)
    return _denied(case, others)


def _denied(case: Case, others: list[Alternative]) -> Decision:
    return replace(_refusal(case, Status.DENIED, Rule.DENY, others), remedy=find_remedy(case))


def _refusal(case: Case, status: Status, rule: Rule, others: list[Alternative]) -> Decision:
    request = case.state.requests[case.node]
    return Decision(
        request=request.id,
        status=status,
        rule=rule,
        now_s=case.now_s,
        due_s=float(request.due_s),
        cost_delta=0.0 if status is Status.PENDING else case.loss,
        alternatives=tuple(others[:NUM_ALTERNATIVES]),
    )


def _accepted(case: Case, placed: Placed, others: list[Alternative]) -> Decision:
    state, request = case.state, case.state.requests[case.node]
    robot = state.instance.robots[state.chains.owner[case.node]].id
    return Decision(
        request=request.id,
        status=Status.ACCEPTED,
        rule=placed.rule,
        now_s=case.now_s,
        due_s=float(request.due_s),
        cost_delta=placed.cost_delta,
        robot=robot,
        eta_s=state.eta(case.node),
        by_s=state.promised_s(case.node),
        alternatives=tuple([o for o in others if o.robot != robot][:NUM_ALTERNATIVES]),
        moved=placed.moved,
        ejected=tuple(state.requests[node].id for node in placed.ejected),
    )


def _cheapest(prices: Floats) -> tuple[int, float]:
    robot = int(prices.argmin())
    return robot, float(prices[robot])


def _put(case: Case, offers: Offers, robot: int) -> float:
    """Insert the request at the best place on a robot; returns the change of the price."""
    return case.state.put(
        case.node,
        robot,
        int(offers.positions[robot]),
        int(offers.drops[robot]),
        bool(offers.opens[robot]),
    )


def _alternatives(case: Case, offers: Offers) -> list[Alternative]:
    """Best robots as things stand, one more than an answer shows: it may be the chosen one."""
    state, prices = case.state, offers.prices
    count = min(NUM_ALTERNATIVES + 1, len(prices))
    robots = np.argpartition(prices, count - 1)[:count]
    robots = robots[np.isfinite(prices[robots])]
    robots = robots[np.lexsort((robots, prices[robots]))]
    etas, promised = state.starts(case.node, robots, offers)
    return [
        Alternative(
            robot=state.instance.robots[robot].id,
            eta_s=eta_s,
            cost_delta=price,
            rule=Rule.INSERT if length > 2 else Rule.SPARE,
            by_s=by_s,
        )
        for robot, eta_s, price, length, by_s in zip(
            robots.tolist(),
            etas.tolist(),
            prices[robots].tolist(),
            state.chains.length[robots].tolist(),
            [None] * len(robots) if promised is None else promised.tolist(),
            strict=True,
        )
    ]
