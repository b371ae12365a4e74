"""Compiled loop of the tabu search.

Each iteration takes the best allowed move of all neighbourhoods, worse or not;
plans that break windows or loads are allowed at a price. The weight of a kind of
violation is raised by a factor after an iteration that ends with one, and lowered
after every other. Whether a plan is feasible, and its price with all lateness,
the kernels of `chains` say.
"""

from __future__ import annotations

from typing import NamedTuple

from numba import njit

from wardwise.fleet.compiled import expanded, kernel
from wardwise.fleet.search.tabu_inside import scan_inside
from wardwise.fleet.search.tabu_memory import (
    BEST,
    CLOCK,
    EPSILON,
    IS_DESCENT,
    LAST_GAIN,
    MOVE,
    PENALISED,
    PER_LOAD,
    PER_SECOND,
    PRICE,
    SHIFT,
    TOO_MUCH,
    note,
)
from wardwise.fleet.search.tabu_moves import list_fronts, scan_request
from wardwise.fleet.search.tabu_routes import OVERLOAD, TIME_WARP
from wardwise.fleet.search.tabu_steps import execute
from wardwise.fleet.search.undo import keep


class Rule(NamedTuple):
    """Factor by which weights change, and their bounds."""

    factor: float
    least_per_load: float
    most_per_load: float
    least_per_second: float
    most_per_second: float


@kernel
def search(packed, chains, sums, memory, rule, iterations, patience):  # type: ignore[no-untyped-def]
    """Run iterations until nothing better was found for `patience` of them.

    Returns
    -------
    done, num_gains
        Iterations made, and how often the best feasible plan was improved; it
        stands in `memory`.
    """
    num_gains = 0
    tally = memory.tally
    for done in range(iterations):
        if tally[CLOCK] - tally[LAST_GAIN] >= patience:
            return done, num_gains
        tally[CLOCK] += 1
        is_found = best_move(packed, chains, sums, memory) < TOO_MUCH
        if is_found:
            execute(packed, chains, sums, memory)
        if not tally[IS_DESCENT]:
            _adapt(sums, memory, rule)
        elif is_found:
            continue
        # Each new best plan is the start of a descent.
        is_gain = _keep_if_best(chains, memory)
        if is_gain or tally[IS_DESCENT]:
            memory.is_dirty[:] = True
        num_gains += is_gain
        tally[IS_DESCENT] = is_gain
    return iterations, num_gains


@kernel
def best_move(packed, chains, sums, memory):  # type: ignore[no-untyped-def]
    """Propose the best move there is; returns its cost, or `TOO_MUCH` if there is none."""
    level = memory.level
    level[PRICE] = level[PENALISED] = 0.0
    for robot in range(len(chains.length)):
        penalty = level[PER_LOAD] * sums.total[robot, OVERLOAD]
        penalty += level[PER_SECOND] * sums.total[robot, TIME_WARP]
        memory.penalty[robot] = penalty
        level[PRICE] += chains.price[robot]
        level[PENALISED] += chains.price[robot] + penalty
    num_fronts = list_fronts(packed, chains, memory)
    best = TOO_MUCH
    for robot in range(len(chains.length)):
        if memory.is_dirty[robot]:
            best = scan_inside(packed, chains, sums, memory, robot, best)
    for robot in range(len(chains.length)):
        for k in range(1, chains.length[robot] - 1):
            if chains.node[robot, k] != 0:
                best = scan_request(packed, chains, sums, memory, num_fronts, robot, k, best)
    return best


@expanded
def _adapt(sums, memory, rule):  # type: ignore[no-untyped-def]
    """Raise the weights of what is violated, lower the others."""
    over, is_feasible = 0.0, True
    for robot in range(len(sums.total)):
        over += sums.total[robot, OVERLOAD]
        is_feasible &= memory.is_feasible[robot] or sums.total[robot, OVERLOAD] > 0.0
    level = memory.level
    level[PER_LOAD] *= rule.factor if over > 0.0 else 1.0 / rule.factor
    level[PER_SECOND] *= 1.0 / rule.factor if is_feasible else rule.factor
    level[PER_LOAD] = min(max(level[PER_LOAD], rule.least_per_load), rule.most_per_load)
    level[PER_SECOND] = min(max(level[PER_SECOND], rule.least_per_second), rule.most_per_second)


@expanded
def _keep_if_best(chains, memory):  # type: ignore[no-untyped-def]
    """Keep a feasible plan if it is the best, and remember its price with all its attributes."""
    price = 0.0
    for robot in range(len(chains.length)):
        if not memory.is_feasible[robot]:
            return False
        price += chains.price[robot]
    for node in range(1, len(chains.owner)):
        robot = chains.owner[node]
        if robot >= 0:
            memory.aspiration[node, robot] = min(memory.aspiration[node, robot], price)
    if price >= memory.level[BEST] - EPSILON:
        return False
    memory.level[BEST] = price
    memory.tally[LAST_GAIN] = memory.tally[CLOCK]
    keep(chains, memory)
    return True


@njit(cache=True)
def move_behind(packed, chains, sums, memory, u, v):  # type: ignore[no-untyped-def]
    """Move a request right behind another one that is served, allowed or not."""
    a, b = chains.owner[u], chains.owner[v]
    i, p = sums.position[u], sums.position[v]
    if a != b:
        note(memory.proposal, MOVE, a, i, 1, 0, b, p)
        execute(packed, chains, sums, memory)
    elif i != p + 1:
        note(memory.proposal, SHIFT, a, i, 1, 0, a, p)
        execute(packed, chains, sums, memory)
