"""How much to charge where: the label of a route from the front, driven once in plain Python.

The same steps as in `labels.refresh`, and beside them the charger at which each used
second of the label's ``x`` was spent. This is the reference for the compiled labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wardwise.fleet.vns.labels import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wardwise.fleet.vns.model import Model


@dataclass(kw_only=True)
class Drive:
    """A robot under way: label, starts so far, and what is charged at each position.

    `late_s` and `short_wh` sum what was over the windows and under the reserve.
    """

    model: Model
    robot: int
    t: float
    e: float
    x: float = 0.0
    r: float = 1.0
    charger: int = -1
    late_s: float = 0.0
    short_wh: float = 0.0
    charged_wh: dict[int, float] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)

    def leave(self, position: int, vertex: int, goods: float) -> None:
        """Charge in full, or keep the amount open; at the depot reload and wait for goods."""
        m, k = self.model, self.robot
        rest = m.reload if vertex == 0 and position > 0 else 0.0
        rate = float(m.rate[vertex])
        is_charger = rate > 0 and m.battery[k] > 0
        if is_charger:
            self.charger, self.r = position, rate
            gain = min(float(m.battery[k]) - self.e, rate * rest)
            self.charged_wh[position] = gain
            self.e += gain
            self.x = max((float(m.battery[k]) - self.e) / rate, 0.0)
        else:
            self.e -= float(m.base[k]) * rest
        self.t += rest
        if is_charger and not m.is_partial:
            self._charge_longer(self.x)
        if vertex == 0:
            self._wait(goods)

    def arrive(self, origin: int, target: int) -> None:
        """Serve, drive on, wait for the window, and charge what is owed."""
        m, k = self.model, self.robot
        takes = float(m.service[origin] + m.travel[origin, target])
        self.t += takes
        self.e -= float(m.per_m[k] * m.distance[origin, target] + m.base[k] * takes)
        self._wait(float(m.earliest[target]))
        short = float(m.reserve[k]) - self.e
        if short > 0 and self.x > 0:
            self._charge_longer(min(self.x, short / self.r))
            short = float(m.reserve[k]) - self.e
        if short > TOLERANCE:
            self.short_wh += short
            self.e = float(m.reserve[k])
        last, due = float(m.latest[target] if target else m.end[k]), float(m.due[target])
        if self.t > last + TOLERANCE:
            self.late_s += self.t - last
            self.t, self.x = last, 0.0
        else:
            limit = due if m.is_soft and target else last
            self.x = max(min(self.x, limit - self.t), 0.0)
        self.starts.append(self.t)

    def _charge_longer(self, seconds: float) -> None:
        """Postpone everything since the last charger; what fills the reserve comes first."""
        self.t += seconds
        self.x -= seconds
        self.e += seconds * self.r
        if self.charger >= 0:
            self.charged_wh[self.charger] += seconds * self.r

    def _wait(self, until: float) -> None:
        if until > self.t:
            self._charge_longer(min(until - self.t, self.x))
            self.e -= float(self.model.base[self.robot]) * (until - self.t)
            self.t = max(self.t, until)


def drive(model: Model, robot: int, row: Sequence[int]) -> Drive:
    """Drive a route from depot to depot.

    Parameters
    ----------
    row
        Vertices of the route, depots at its ends included.
    """
    way = Drive(model=model, robot=robot, t=float(model.start[robot]), e=float(model.first[robot]))
    way.starts.append(way.t)
    for position, vertex in enumerate(row[:-1]):
        trip = row[position + 1 :][: row[position + 1 :].index(0)]
        goods = max((float(model.available[v]) for v in trip), default=0.0)
        if vertex == 0 or vertex > model.num_requests:
            way.leave(position, vertex, goods)
        way.arrive(vertex, row[position + 1])
    return way
