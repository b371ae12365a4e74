"""The search as one call from an instance to a timed plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wardwise.fleet.bounds import least_fleet
from wardwise.fleet.problem import Kind
from wardwise.fleet.schedule import ScheduleError
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.vns.clock import Clock
from wardwise.fleet.vns.model import model as make_model
from wardwise.fleet.vns.promises import Judge
from wardwise.fleet.vns.routes import to_plan
from wardwise.fleet.vns.run import Found, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance


def vns(
    instance: Instance,
    *,
    objective: Objective = Objective.HIERARCHICAL,
    time_limit: float = 10.0,
    max_iterations: int | None = None,
    seed: int = 0,
    local_search: bool = False,
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
        Whether 2-opt* and relocate descend after every shake (see `local`). Without, the
        search is reduced to shakes: on the electric files of 100 customers it is the
        better one in the same time.
    on_plan
        Called with every plan that beats all before it (a function that times it), elapsed
        seconds and iteration.

    Returns
    -------
    Plan
        The best plan found; also after Ctrl-C, once there is one. Where the instance has a
        promise, the best of those that keep it on random days (see `promises`), or the
        last that does not if there is none.

    Raises
    ------
    ValueError
        On transfers.
    ScheduleError
        If no plan that was found can be driven with the slots of the stations, which the
        search leaves out of account.
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
    timed: Plan | None = None
    refused: Plan | ScheduleError | None = None

    def accept(found: Found, elapsed_s: float, iteration: int) -> bool:
        nonlocal timed, refused
        try:
            plan = to_plan(instance, model, found.rows, found.denied)
        except ScheduleError as error:
            refused = refused or error
            return False
        if judge is not None and not judge.accepts(plan):
            refused = plan
            return False
        timed = plan
        if on_plan is not None:
            on_plan(lambda: plan, elapsed_s, iteration)
        return True

    run = Run(
        model,
        Clock(time_limit=time_limit, max_iterations=max_iterations),
        seed,
        accept,
        is_judged=judge is not None and not judge.is_idle,
        least_robots=least_fleet(instance).robots,
        local_search=local_search,
    )
    try:
        run.solve()
    except KeyboardInterrupt:
        if timed is None:
            raise
    if timed is not None:
        return timed
    assert refused is not None
    if isinstance(refused, ScheduleError):
        raise refused
    if on_plan is not None:
        last = refused
        on_plan(lambda: last, time_limit, 0)
    return refused
