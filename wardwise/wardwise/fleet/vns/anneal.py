"""The compiled loop: shake, improve, and keep by simulated annealing.

Requests may stay unserved; each costs its penalty. To empty a robot, absence counters
tell which requests were hard to place: a result with a smaller sum of counters over
its unserved requests is always kept.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.search.insertion import draw
from wardwise.fleet.vns.compiled import inlined, kernel
from wardwise.fleet.vns.local import descend
from wardwise.fleet.vns.ruin import add_absent, recreate, ruin, sort
from wardwise.fleet.vns.stations import restation
from wardwise.fleet.vns.undo import forget, keep, take_back

EPSILON = 1e-7


@kernel
def anneal(m, s, w, placing, state, temperature, is_emptying, descends, iterations):  # type: ignore[no-untyped-def]
    """Run iterations at one temperature.

    With `descends` local search follows every shake. With `is_emptying` the absence
    counters decide, and the first result without unserved requests ends the run.

    Parameters
    ----------
    state
        Cost, best cost, unserved requests, and how many the best may have; changed.

    Returns
    -------
    num_improvements, num_done
        How often the best was improved, its routes stand in `w`; iterations that ran.
    """
    num_improvements = 0
    for done in range(iterations):
        size = ruin(m, s, w)
        size = add_absent(m, s, w, size)
        sort(m, w, size)
        recreate(m, s, w, placing, size)
        if descends and not is_emptying:
            descend(m, s, w)
        for q in range(w.tally[0]):
            restation(m, s, placing, w.touched[q])
        cost, num_absent, harder = _evaluate(s, w, size, state[0])
        is_kept = cost < state[0] - temperature * np.log(1.0 - draw(w.random))
        if is_emptying:
            is_kept = harder < 0.0 or (is_kept and harder == 0.0)
            for q in range(size):
                if s.owner[w.pool[q]] < 0:
                    w.absences[w.pool[q]] += 1.0
        if not is_kept:
            take_back(m, s, w, size)
            continue
        state[0], state[2] = cost, num_absent
        forget(w)
        if is_emptying and num_absent == 0:
            keep(s, w)
            return 1, done + 1
        if not is_emptying and num_absent <= state[3] and cost < state[1] - EPSILON:
            state[1] = cost
            keep(s, w)
            num_improvements += 1
    return num_improvements, iterations


@inlined
def _evaluate(s, w, size, cost):  # type: ignore[no-untyped-def]
    """Judge the iteration.

    Returns
    -------
    cost, num_absent, harder
        Cost after it, unserved requests, and by how much the sum of absence counters
        over the unserved has grown.
    """
    num_absent, harder = 0, 0.0
    for q in range(w.tally[0]):
        k = w.touched[q]
        cost += s.price[k] - w.saved_price[k]
    for q in range(size):
        v = w.pool[q]
        is_absent = s.owner[v] < 0
        num_absent += is_absent
        if is_absent != w.was_absent[q]:
            cost += w.penalty[v] if is_absent else -w.penalty[v]
            harder += w.absences[v] if is_absent else -w.absences[v]
    return cost, num_absent, harder
