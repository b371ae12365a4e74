"""The answers of a dispatched day in words and clock times, for the page's feed and tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wardwise.fleet.dispatch import Reoptimise, Rule, Status
from wardwise.report.service import PRIORITIES
from wardwise.report.timeline import DECIMALS

if TYPE_CHECKING:
    from wardwise.fleet.dispatch import Decision, Remedy
    from wardwise.fleet.dispatch.record import Record
    from wardwise.fleet.problem import Request
    from wardwise.fleet.replay import Replay
    from wardwise.report.clock import Clock

RULES = {
    Rule.INSERT: "Insert: the cheapest place on a robot in service, if it costs at most a denial",
    Rule.SPARE: "Spare: one more robot leaves the dock, if enough are left for higher classes",
    Rule.SQUEEZE: "Squeeze: lower classes start later, within their tolerance",
    Rule.EJECT: "Eject: a stat request takes the place of one of a lower class",
    Rule.HOLD: "Hold: no place yet; it is tried again at every event until it would be too late",
    Rule.DENY: "Deny: no rule could serve it",
}
VERDICTS = {
    Status.ACCEPTED: "accepted",
    Status.PENDING: "waiting",
    Status.DENIED: "denied",
    Status.UNSERVABLE: "too late",
}
IMPROVED = "re-planned"
MONEY_DECIMALS = 2


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Another robot that could have served the request."""

    robot: str
    rule: str
    start: str
    cost: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the feed, with what opening it shows; `row` is -1 without a request."""

    time_s: float
    time: str
    row: int
    title: str
    priority: str
    verdict: str
    rule: str
    robot: str
    start: str
    is_late: bool
    cost: str
    sentence: str
    offers: tuple[Offer, ...] = ()
    remedies: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Denial:
    """One request that was not served, and why."""

    time_s: float
    time: str
    row: int
    request: str
    priority: str
    lost: str
    reasons: tuple[str, ...]
    remedies: tuple[str, ...]


def feed_of(replay: Replay, clock: Clock) -> tuple[Entry, ...]:
    """All answers in order, and between them the moments at which routes were improved."""
    requests = replay.instance.request_by_id
    rows = {id_: row for row, id_ in enumerate(requests)}
    entries = []
    for record in replay.records:
        if isinstance(record.event, Reoptimise):
            entries.append(_improvement(record, record.event, clock))
        for decision in record.decisions:
            id_ = decision.request
            entries.append(_entry(decision, requests[id_], rows[id_], clock))
    return tuple(entries)


def denials_of(replay: Replay, clock: Clock) -> tuple[Denial, ...]:
    """All requests that were turned down, those of the plan made in advance first."""
    instance = replay.instance
    rows = {request.id: row for row, request in enumerate(instance.requests)}
    answers: dict[str, list[Decision]] = {}
    displaced: dict[str, str] = {}
    for decision in replay.decisions():
        answers.setdefault(decision.request, []).append(decision)
        displaced |= dict.fromkeys(decision.ejected, decision.request)
    found = []
    for id_ in replay.first_plan.denied:
        request = instance.request_by_id[id_]
        price = instance.costs.per_denial[request.priority - 1]
        reason = "The plan made in advance turned it down: serving it costs more than denying it."
        found.append(
            Denial(
                time_s=0.0,
                time="in advance",
                row=rows[id_],
                request=id_,
                priority=PRIORITIES[request.priority],
                lost=_money(price),
                reasons=(reason,),
                remedies=(),
            )
        )
    last = [history[-1] for history in answers.values()]
    refused = [d for d in last if d.status in (Status.DENIED, Status.UNSERVABLE)]
    for decision in sorted(refused, key=lambda d: d.now_s):
        id_ = decision.request
        request = instance.request_by_id[id_]
        found.append(
            Denial(
                time_s=round(decision.now_s, DECIMALS),
                time=clock.moment(decision.now_s),
                row=rows[id_],
                request=id_,
                priority=PRIORITIES[request.priority],
                lost=_money(decision.cost_delta),
                reasons=tuple(_reasons(answers[id_], displaced.get(id_), clock)),
                remedies=_remedies(decision.remedy, clock),
            )
        )
    return tuple(found)


def _entry(decision: Decision, request: Request, row: int, clock: Clock) -> Entry:
    is_accepted = decision.status is Status.ACCEPTED
    shown = _rounded(decision)
    return Entry(
        time_s=round(decision.now_s, DECIMALS),
        time=clock.moment(decision.now_s),
        row=row,
        title=decision.request,
        priority=PRIORITIES[request.priority],
        verdict=VERDICTS[decision.status],
        rule=str(decision.rule),
        robot=decision.robot or "",
        start="" if decision.eta_s is None else clock.moment(decision.eta_s),
        is_late=decision.lateness_s > 0,
        cost="" if decision.status is Status.PENDING else _change(decision.cost_delta),
        sentence=shown.explain(),
        offers=tuple(
            Offer(
                robot=other.robot,
                rule=str(other.rule),
                start=clock.moment(other.eta_s),
                cost=_change(other.cost_delta),
            )
            for other in decision.alternatives
        ),
        remedies=() if is_accepted else _remedies(decision.remedy, clock),
    )


def _improvement(record: Record, event: Reoptimise, clock: Clock) -> Entry:
    robots = ", ".join(event.routes)
    sentence = f"Better routes were found for {robots}, behind the stops they are under way to."
    placed = [d.request for d in record.decisions if d.status is Status.ACCEPTED]
    if placed:
        sentence += f" There is room now for {', '.join(placed)}."
    # What is decided about pending requests stands in entries of its own.
    change = record.cost_delta - sum(decision.cost_delta for decision in record.decisions)
    return Entry(
        time_s=round(event.now_s, DECIMALS),
        time=clock.moment(event.now_s),
        row=-1,
        title="Routes improved" if change < 0 else "Routes changed",
        priority="",
        verdict=IMPROVED,
        rule="",
        robot=robots,
        start="",
        is_late=False,
        cost=_change(change),
        sentence=sentence,
    )


def _reasons(history: list[Decision], winner: str | None, clock: Clock) -> list[str]:
    """What happened to a request until it was turned down."""
    last = history[-1]
    reasons = []
    if history[0].status is Status.PENDING:
        reasons.append(f"Waited for a place since {clock.moment(history[0].now_s)}.")
    if winner is not None:
        reasons.append(f"Gave way to {winner} (D4).")
    if last.status is Status.UNSERVABLE:
        reasons.append("Came too late: no robot at the depot could have been in time.")
    elif last.alternatives:
        best = last.alternatives[0]
        is_dear = best.cost_delta > last.cost_delta
        why = "more than turning it down" if is_dear else "but it is kept for higher classes"
        place = f"The best place left, on {'spare ' * (best.rule is Rule.SPARE)}{best.robot}"
        reasons.append(f"{place}, costs {_money(best.cost_delta)}, {why}.")
    else:
        reasons.append("No robot had a place left for it in time.")
    return reasons


def _remedies(remedy: Remedy | None, clock: Clock) -> tuple[str, ...]:
    """Each possibility in words, spans of time as people read them."""
    if remedy is None:
        return ()
    remedy = _rounded_remedy(remedy)
    if remedy.window_s is None:
        return tuple(remedy.phrases())
    window = f"a window that closes {clock.span(math.ceil(remedy.window_s))} later"
    return (window, *replace(remedy, window_s=None).phrases())


def _rounded(decision: Decision) -> Decision:
    """The decision as its sentence shows it, without digits that nobody reads."""
    return replace(
        decision,
        eta_s=None if decision.eta_s is None else round(decision.eta_s, DECIMALS),
        due_s=round(decision.due_s, DECIMALS),
        cost_delta=round(decision.cost_delta, MONEY_DECIMALS),
        alternatives=tuple(
            replace(
                other,
                eta_s=round(other.eta_s, DECIMALS),
                cost_delta=round(other.cost_delta, MONEY_DECIMALS),
            )
            for other in decision.alternatives
        ),
        remedy=decision.remedy and _rounded_remedy(decision.remedy),
    )


def _rounded_remedy(remedy: Remedy) -> Remedy:
    """Rounded up: less would not do."""
    return replace(
        remedy,
        window_s=remedy.window_s and _up(remedy.window_s, DECIMALS),
        price=remedy.price and _up(remedy.price, MONEY_DECIMALS),
    )


def _up(value: float, decimals: int) -> float:
    scale = float(10**decimals)
    return math.ceil(value * scale) / scale


def _money(value: float) -> str:
    return f"{value:,.2f}"


def _change(value: float) -> str:
    return f"{round(value, MONEY_DECIMALS) + 0.0:+,.2f}"
