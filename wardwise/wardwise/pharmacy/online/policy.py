"""Which order is next: four rules over classes, waits, due times and work."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wardwise.pharmacy.problem import Priority

if TYPE_CHECKING:
    from wardwise.pharmacy.online.orders import OpenOrder

CLASSES = tuple(Priority)
RULES = ("strict", "ageing", "slack", "weighted")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How orders are ranked at each cycle of the arm.

    Parameters
    ----------
    rule
        ``strict``: by class, then as they came. Less urgent orders may starve.

        ``ageing``: by release plus the allowance of the class. An order is overtaken only by
        orders that come less than the difference of allowances after it; after that it cannot
        starve, whatever comes.

        ``slack``: by due time less work, least first. Late orders come first, whatever their class.

        ``weighted``: by weight over remaining work, most first, which keeps the weighted sum of
        flow times low. Long orders may starve.
    ageing_s
        Allowances of stat, urgent and routine orders, at least 0 and not falling; for orders
        without a due time they are also the due time after release that ``slack`` takes.
    weights
        Weights of the same, above 0.
    horizon
        Orders that the look-ahead sequences together, at least 1.
    max_lines
        Lines of each order that it looks at, 1 to 8.
    max_refill_delay_s
        Expected delay of orders that one refill may cause, at least 0.
    refill_patience_s
        After this wait a refill takes the next gap, whatever it costs; at least 0.
    """

    rule: str = "ageing"
    ageing_s: tuple[float, float, float] = (0.0, 900.0, 3600.0)
    weights: tuple[float, float, float] = (9.0, 3.0, 1.0)
    horizon: int = 2
    max_lines: int = 6
    max_refill_delay_s: float = 2.0
    refill_patience_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"policy: rule: expected one of {', '.join(RULES)}, got {self.rule!r}")
        ages = self.ageing_s
        if len(ages) != 3 or not 0 <= ages[0] <= ages[1] <= ages[2] < math.inf:
            raise ValueError(
                "policy: ageing_s: expected three numbers of at least 0 that do not fall, "
                f"got {ages}"
            )
        if len(self.weights) != 3 or not all(0 < weight < math.inf for weight in self.weights):
            raise ValueError(f"policy: weights: expected three numbers above 0, got {self.weights}")
        for name, low, high in (("horizon", 1, 8), ("max_lines", 1, 8)):
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"policy: {name}: expected {low} to {high}, got {getattr(self, name)}"
                )
        for name in ("max_refill_delay_s", "refill_patience_s"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"policy: {name}: expected at least 0, got {getattr(self, name)}")

    def rank(self, order: OpenOrder) -> tuple[float, float, int]:
        """Sort key of an order: the least is next."""
        asked, level = order.order, CLASSES.index(order.order.priority)
        if self.rule == "strict":
            return level, asked.release_s, order.number
        if self.rule == "ageing":
            return asked.release_s + self.ageing_s[level], level, order.number
        if self.rule == "slack":
            return self._due_s(order) - order.whole_work_s, level, order.number
        return -self.weights[level] / max(order.work_s, 1e-9), level, order.number

    def overtaking_s(self, priority: Priority) -> float:
        """Seconds after an order of a class from which no order that comes goes before it.

        Then it waits at most for the work that came until then: it cannot starve. Infinite where
        the rule gives no such guarantee to the class.
        """
        level = CLASSES.index(priority)
        if self.rule == "ageing":
            return self.ageing_s[level] - self.ageing_s[0]
        return 0.0 if self.rule == "strict" and level == 0 else math.inf

    def reason(self, order: OpenOrder, time_s: float) -> str:
        """Why an order is next, in words."""
        asked = order.order
        waited = f"{asked.priority}, {time_s - asked.release_s:.0f} s since it came"
        if self.rule == "strict":
            return f"{waited}: first of its class"
        if self.rule == "ageing":
            allowed = self.ageing_s[CLASSES.index(asked.priority)]
            return f"{waited}: {allowed:.0f} s allowed, used up first of all"
        if self.rule == "slack":
            slack_s = self._due_s(order) - time_s - order.whole_work_s
            return f"{waited}: least slack, {slack_s:.0f} s"
        return f"{waited}: most weight for its {order.work_s:.0f} s of work"

    def _due_s(self, order: OpenOrder) -> float:
        asked = order.order
        if asked.due_s is not None:
            return asked.due_s
        return asked.release_s + self.ageing_s[CLASSES.index(asked.priority)]
