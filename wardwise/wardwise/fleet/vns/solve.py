"""The search as one call from an instance to a timed plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.fleet.bounds import least_fleet
from wardwise.fleet.plan import Plan
from wardwise.fleet.problem import Kind
from wardwise.fleet.schedule import ScheduleError
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.vns.clock import Clock
from wardwise.fleet.vns.model import model as make_model
from wardwise.fleet.vns.moves import NONE, Move
from wardwise.fleet.vns.promises import Judge
from wardwise.fleet.vns.routes import to_plan
from wardwise.fleet.vns.run import Found, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardwise.fleet.problem import Instance
    from wardwise.fleet.vns.model import Model

SHAKES = ("strings", "cyclic")


def vns(
    instance: Instance,
    *,
    objective: Objective = Objective.HIERARCHICAL,
    time_limit: float = 10.0,
    max_iterations: int | None = None,
    seed: int = 0,
    local_search: Move = NONE,
    shake: str = "strings",
    on_plan: Callable[[Callable[[], Plan], float, int], None] | None = None,
) -> Plan:
    """Plan a day of robots with batteries, several trips and goods that come later.

    Parameters
    ----------
    objective
        As of `wardwise.fleet.solvers.solve`.
    time_limit
        Seconds; compilation counts unless `warm_up` was called before.
    max_iterations
        Limit on the iterations of each thread; without an effective time limit the same
        seed then gives the same plan, bit for bit.
    local_search
        Moves of the descent that follows shakes which come near to the best plan (see
        `local`). Without any the search is reduced to shakes, the better one in equal time:
        after 8 s of one core (one seed, six robots each) a generated hospital day with
        several trips is 8 % longer with all moves; c101, r105 and rc205 differ by less
        than 1 % either way.
    shake
        ``strings``: strings of stops are taken out and put back (`ruin`); ``cyclic``: segments
        of two to four routes change places (`cyclic`), 2 % longer plans on that day and on
        r105, 0.2 % shorter ones on rc205. Robots are emptied by strings only.
    on_plan
        Called with every plan that beats all before it (a function that times it), elapsed
        seconds and iteration.

    Returns
    -------
    Plan
        The best plan found; also after Ctrl-C, once there is one. Where the instance has a
        promise, the best of those that keep it on random days (see `promises`), or the
        last that does not if there is none. Requests that find no slot are denied.

    Raises
    ------
    ValueError
        On transfers.
    KeyboardInterrupt
        On Ctrl-C before there is a plan.
    """
    for request in instance.requests:
        if request.kind is Kind.TRANSFER:
            raise ValueError(
                f"request {request.id!r}: kind: expected collect or deliver for method vns, "
                f"got {request.kind}"
            )
    model = make_model(instance, objective)

    judge = Judge(instance, model) if model.has_promise else None
    answer = _Answer(instance, model, judge, on_plan)
    run = Run(
        model,
        Clock(time_limit=time_limit, max_iterations=max_iterations),
        seed,
        answer.accept,
        is_judged=judge is not None and not judge.is_idle,
        least_robots=least_fleet(instance).robots,
        moves=local_search,
        is_cyclic=shake == "cyclic",
    )
    try:
        run.solve()
    except KeyboardInterrupt:
        if not answer.is_there:
            raise
    return answer.plan()


class _Answer:
    """The best plan that is accepted, and the last one that is not."""

    def __init__(
        self,
        instance: Instance,
        model: Model,
        judge: Judge | None,
        on_plan: Callable[[Callable[[], Plan], float, int], None] | None,
    ) -> None:
        self._instance, self._model, self._judge = instance, model, judge
        self._on_plan = on_plan
        self._accepted: Plan | None = None
        self._refused: Plan | Found | None = None

    def accept(self, found: Found, elapsed_s: float, iteration: int) -> bool:
        """Time and judge a plan; returns whether it can be driven and keeps its promise."""
        try:
            plan = to_plan(self._instance, self._model, found.rows, found.denied)
        except ScheduleError:
            self._refused = found
            return False
        if self._judge is not None and not self._judge.accepts(plan):
            self._refused = plan
            return False
        self._accepted = plan
        if self._on_plan is not None:
            self._on_plan(lambda: plan, elapsed_s, iteration)
        return True

    @property
    def is_there(self) -> bool:
        """Whether any plan was found so far."""
        return self._accepted is not None or self._refused is not None

    def plan(self) -> Plan:
        """The best accepted plan, else what can be made of the last one."""
        if self._accepted is not None:
            return self._accepted
        plan = self._refused
        assert plan is not None
        if not isinstance(plan, Plan):
            plan = _without_late_robots(self._instance, self._model, plan)
        if self._on_plan is not None:
            last = plan
            self._on_plan(lambda: last, 0.0, 0)
        return plan


def _without_late_robots(instance: Instance, model: Model, found: Found) -> Plan:
    """Time routes; where queues for slots make a robot late, it stays at home."""
    rows = dict(found.rows)
    robots = {robot.id: k for k, robot in enumerate(instance.robots)}
    while True:
        served = {v for row in rows.values() for v in row}
        denied = [v for v in range(1, model.num_requests + 1) if v not in served]
        try:
            return to_plan(instance, model, rows, denied)
        except ScheduleError as error:
            del rows[robots[error.robot]]
