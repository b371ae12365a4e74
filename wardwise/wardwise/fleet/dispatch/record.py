"""What the journal holds: how the day began, and each event with its answers."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from wardwise.errors import InputError
from wardwise.fleet.dispatch.events import event_document
from wardwise.fleet.dispatch.policy import Policy
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.io.json import format_json, parse_json

if TYPE_CHECKING:
    import os

    from wardwise.fleet.dispatch.decision import Cancellation, Decision
    from wardwise.fleet.dispatch.events import Event
    from wardwise.fleet.problem import Instance

SCHEMA = "wardwise/journal/1"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One event, and all that came of it.

    Attributes
    ----------
    number
        Events count from 1.
    decisions
        In the order in which they were made; the last ones are about pending requests.
    cost_delta
        Change of the day's cost.
    overdue
        Requests that were not too late before and will be now, with goods on board.
    """

    number: int
    event: Event
    decisions: tuple[Decision, ...]
    cost_delta: float
    cancellation: Cancellation | None = None
    overdue: dict[str, float] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Content of its line in the journal."""
        fields: dict[str, Any] = {
            "n": self.number,
            "input": event_document(self.event),
            "decisions": [decision.document() for decision in self.decisions],
            "cost_delta": self.cost_delta,
        }
        if self.cancellation is not None:
            fields["cancellation"] = self.cancellation.document()
        if self.overdue:
            fields["overdue"] = self.overdue
        return fields


def header(instance: Instance, policy: Policy, plan: Plan | None) -> dict[str, Any]:
    """Content of the first line."""
    return {
        "n": 0,
        "schema": SCHEMA,
        "policy": asdict(policy),
        "plan": None if plan is None else asdict(plan),
        "instance": json.loads(format_json(instance)),
    }


def parse_header(
    fields: dict[str, Any], path: str | os.PathLike[str]
) -> tuple[Instance, Policy, Plan | None]:
    """Rebuild what `header` wrote.

    Raises
    ------
    InputError
        If this is another kind of file.
    """
    if fields.get("schema") != SCHEMA:
        problem = f"expected a journal with schema {SCHEMA}, got {fields.get('schema')!r}"
        raise InputError(path, problem, line=1)
    policy = {**fields["policy"], "protection": tuple(fields["policy"]["protection"])}
    instance = parse_json(json.dumps(fields["instance"]), path)
    return instance, Policy(**policy), fields["plan"] and _parse_plan(fields["plan"])


def _parse_plan(fields: dict[str, Any]) -> Plan:
    trips = [
        Trip(**{**trip, "stops": tuple(Stop(**stop) for stop in trip["stops"])})
        for trip in fields["trips"]
    ]
    return Plan(instance=fields["instance"], trips=tuple(trips), denied=tuple(fields["denied"]))
