"""Plans of the search before the judge: what random days find late, the chain learns.

The normal chain that the search believes in errs where times are skewed or windows narrow
(`punctual`). So its plans are driven on random days, and where a stop is late too often the
standard deviations ``z`` by which it must be in time are set anew, from what its plan had::

    z = (latest - mean) / deviation + z_of(promised) - z_of(seen)

A stop that is late less often than it may, though close to it, gets half of that back,
unless it failed before. So the margins settle where the plans need them.

These days are not those of the certificate: a plan that was chosen because it does well
on some days must prove itself on others. The share of days that a stop may be late here is
so much smaller that a certificate of `NUM_SCENARIOS` days holds for it almost surely.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import betaincinv

from wardwise.fleet.chance.certify import CONFIDENCE, least_scenarios, upper_bounds
from wardwise.fleet.chance.chain import forecast
from wardwise.fleet.chance.normal import z_of
from wardwise.fleet.chance.scenarios import evaluate
from wardwise.fleet.randomness import MOST_SHARE, Scope
from wardwise.fleet.schedule import ScheduleError
from wardwise.fleet.vns.charges import drive
from wardwise.fleet.vns.labels import TOLERANCE
from wardwise.fleet.vns.routes import to_plan

if TYPE_CHECKING:
    from wardwise.fleet.chance.scenarios import Outcome
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance
    from wardwise.fleet.search.packed import Floats
    from wardwise.fleet.vns.model import Model

# Days of the judge, and the most: a promise that takes more is left to the chain.
NUM_SCENARIOS, MOST_SCENARIOS = 20_000, 200_000
DAYS_SEED = 104_729
# Probability that a certificate fails a stop that is late as often as the judge allows.
RISK = 1e-4
# A stop late on fewer of the allowed days says little about its margin.
TELLING = 0.25
# Least rise of z of a stop that fails, doubled with every failure.
LEAST_RISE = 0.01


class Judge:
    """Drives plans on random days, and teaches the model where its chain errs.

    Parameters
    ----------
    model
        Its `z` and `share` are changed.

    Attributes
    ----------
    is_idle
        Whether all plans are accepted: nothing is random, or too many days are needed.
    """

    def __init__(self, instance: Instance, model: Model) -> None:
        assert instance.promise is not None
        self._instance, self._model, self._promise = instance, model, instance.promise
        self._num = max(NUM_SCENARIOS, least_scenarios(instance.promise, CONFIDENCE))
        self._vertex = {request.id: v for v, request in enumerate(instance.requests, start=1)}
        share = model.share
        self._allowed = np.array([allowed_share(float(s), self._num) for s in share])
        self._failures = np.zeros(len(share), dtype=np.int64)
        is_certain = not (model.travel_var.any() or model.service_var.any())
        self.is_idle = is_certain or self._num > MOST_SCENARIOS
        if not self.is_idle:
            self._most_z = self._alone()
            np.minimum(model.z, self._most_z, out=model.z)

    def accepts(self, plan: Plan) -> bool:
        """Whether a plan keeps the promise on the days of the judge; the model learns from it."""
        if self.is_idle:
            return True
        outcome = evaluate(self._instance, plan, num_scenarios=self._num, seed=DAYS_SEED, jobs=None)
        if self._promise.scope is Scope.TRIP:
            is_kept = self._learn_trips(plan, outcome)
        else:
            is_kept = self._learn_requests(plan, outcome)
        return self._learn_returns(plan, outcome) and is_kept

    def _learn_requests(self, plan: Plan, outcome: Outcome) -> bool:
        chain = forecast(self._instance, plan).requests
        is_kept = True
        for name, num_late in outcome.late.items():
            v, stop = self._vertex[name], chain[name]
            latest = float(self._model.latest[v])
            if latest < np.inf:
                margin = _margin(latest, stop.arrival_s, stop.deviation_s)
                is_kept &= self._learn(v, num_late / self._num, margin)
        return is_kept

    def _learn_returns(self, plan: Plan, outcome: Outcome) -> bool:
        chain = forecast(self._instance, plan).returns
        end = {robot.id: robot.end_s for robot in self._instance.robots}
        late = sorted(outcome.late_returns.items(), key=lambda item: -item[1])
        # The depot has one margin for all robots: the worst return decides.
        for name, num_late in late[:1]:
            stop = chain[name]
            margin = _margin(end[name], stop.arrival_s, stop.deviation_s)
            return self._learn(0, num_late / self._num, margin)
        return True

    def _learn(self, v: int, seen: float, margin: float) -> bool:
        """Set the margin of a stop anew; returns whether it is late on few enough days."""
        z, allowed = self._model.z, float(self._allowed[v])
        is_kept = seen <= allowed
        if is_kept and (self._failures[v] or seen < TELLING * allowed):
            return True
        needed = margin + z_of(allowed) - _z_seen(seen, self._num)
        if is_kept:
            z[v] += 0.5 * min(needed - z[v], 0.0)
            return True
        self._failures[v] += 1
        rise = LEAST_RISE * 2.0 ** float(self._failures[v] - 1)
        z[v] = max(needed, z[v]) + rise
        if v > 0:
            z[v] = min(z[v], self._most_z[v])
        return False

    def _learn_trips(self, plan: Plan, outcome: Outcome) -> bool:
        """Shares over which the late probabilities of a trip's stops are summed."""
        model, n = self._model, self._num
        chain = forecast(self._instance, plan).requests
        are_kept = True
        for trip, num_late in zip(plan.trips, outcome.late_trips, strict=True):
            stops = np.array([self._vertex[stop.request] for stop in trip.stops])
            allowed = float(self._allowed[stops].min())
            believed = sum(chain[stop.request].late_share for stop in trip.stops)
            seen = num_late / n
            is_kept = seen <= allowed
            are_kept &= is_kept
            if is_kept and (self._failures[stops].any() or seen < TELLING * allowed):
                continue
            needed = believed * allowed / max(seen, 1.0 / n)
            if is_kept:
                model.share[stops] += 0.5 * np.maximum(needed - model.share[stops], 0.0)
            else:
                self._failures[stops] += 1
                model.share[stops] = 0.95 * np.minimum(needed, model.share[stops])
        return are_kept

    def _alone(self) -> Floats:
        """Largest margins that let each request be served by a robot that does nothing else.

        Only where that keeps the promise on the days of the judge; elsewhere unbounded.
        """
        instance, model = self._instance, self._model
        most_z = np.full(len(model.z), np.inf)
        robot = int(np.argmin(model.start))
        direct = []
        for v in range(1, model.num_requests + 1):
            way = drive(model, robot, (0, v, 0))
            if way.late_s <= TOLERANCE and way.short_wh <= TOLERANCE and model.latest[v] < np.inf:
                direct.append(v)
        rest = [v for v in range(1, model.num_requests + 1) if v not in set(direct)]
        if not direct:
            return most_z
        kind = instance.robots[robot]
        robots = tuple(replace(kind, id=str(v)) for v in direct)
        crowd = replace(instance, robots=robots)
        alone = _crowd_of(model, robot, len(direct))
        try:
            plan = to_plan(crowd, alone, {k: [0, v, 0] for k, v in enumerate(direct)}, rest)
        except ScheduleError:
            return most_z
        outcome = evaluate(crowd, plan, num_scenarios=self._num, seed=DAYS_SEED, jobs=None)
        chain = forecast(crowd, plan).requests
        for v in direct:
            name = instance.requests[v - 1].id
            if outcome.late[name] <= self._allowed[v] * self._num:
                stop = chain[name]
                most_z[v] = _margin(float(model.latest[v]), stop.arrival_s, stop.deviation_s)
        return most_z


@cache
def allowed_share(promised: float, num_scenarios: int) -> float:
    """Share of days late with which a certificate of so many days almost surely holds.

    The largest ``p`` for which at most `RISK` of all certificates find more late days than
    the bound of Clopper and Pearson forgives.
    """
    least, most = -1, num_scenarios
    while most - least > 1:
        middle = (least + most) // 2
        bound = float(upper_bounds(np.array([middle]), num_scenarios, CONFIDENCE)[0])
        least, most = (middle, most) if bound <= promised else (least, middle)
    if least < 0:
        return 0.0
    return float(betaincinv(least + 1, num_scenarios - least, RISK))


def _crowd_of(model: Model, robot: int, count: int) -> Model:
    """A model of so many robots like one of a model."""
    robots: dict[str, Any] = {
        name: np.repeat(getattr(model, name)[robot], count)
        for name in (
            *("capacity", "start", "end", "max_trips", "twin"),
            *("battery", "reserve", "first", "per_m", "base"),
        )
    }
    return model._replace(**robots)


def _margin(latest: float, mean: float, deviation: float) -> float:
    """Standard deviations by which a mean arrival is in time."""
    return (latest - mean) / deviation if deviation > 0 else np.inf


def _z_seen(seen: float, num_scenarios: int) -> float:
    """Standard deviations of a normal time that is late so often."""
    return z_of(min(max(seen, 0.5 / num_scenarios), MOST_SHARE))
