"""The compiled loop: shake, improve, and keep by simulated annealing.

Requests may stay unserved; each costs its penalty. To empty a robot, absence counters
tell which requests were hard to place: a result with a smaller sum of counters over
its unserved requests is always kept.
"""

from __future__ import annotations

import numpy as np

from wardwise.fleet.compiled import kernel
from wardwise.fleet.search.insertion import draw
from wardwise.fleet.search.undo import count_absences, evaluate, forget, keep, keep_best
from wardwise.fleet.vns.cyclic import next_kappa, shake
from wardwise.fleet.vns.local import descend
from wardwise.fleet.vns.ruin import add_absent, recreate, ruin, sort
from wardwise.fleet.vns.slots import SKIP, SKIP_DENIED, late_by_queues, next_price
from wardwise.fleet.vns.stations import restation
from wardwise.fleet.vns.undo import take_back

# Descents start from what costs less than so many times the best.
PROMISING = 1.002


@kernel
def anneal(m, s, w, e, placing, state, temperature, is_emptying, moves, is_cyclic, iterations):  # type: ignore[no-untyped-def]
    """Run iterations at one temperature.

    A descent with the set `moves` follows every shake that comes near to the best; with
    `is_cyclic` shakes are cyclic exchanges. Both may be `None`: what is not wanted is then
    not compiled, which takes two minutes. With `is_emptying` shakes take strings out,
    nothing descends, the absence counters decide, and the first result without unserved
    requests ends the run.

    Parameters
    ----------
    state
        Cost, best cost, unserved requests, how many the best may have, price of a second
        by which queues make robots late, and such seconds; changed.

    Returns
    -------
    num_improvements, num_done
        How often the best was improved, its routes stand in `w`; iterations that ran.
    """
    num_improvements = 0
    for done in range(iterations):
        size = shake(m, s, w, e) if is_cyclic is not None and not is_emptying else ruin(m, s, w)
        size = add_absent(m, s, w, size)
        sort(m, w, size)
        skip_denied = SKIP_DENIED if m.has_slots else 0.0
        recreate(m, s, w, placing, size, SKIP if state[5] > 0.0 else 0.0, skip_denied)
        for q in range(w.tally[0]):
            restation(m, s, placing, w.touched[q])
        cost, num_absent, harder = evaluate(s, w, size, state[0])
        if moves is not None and not is_emptying and cost < PROMISING * state[1]:
            descend(m, s, w, e, moves)
            cost, num_absent, harder = evaluate(s, w, size, state[0])
        queued = late_by_queues(m, s, w) if m.has_slots else 0.0
        grown = cost - state[0] + state[4] * (queued - state[5])
        is_kept = grown < -temperature * np.log(1.0 - draw(w.random))
        if is_emptying:
            is_kept = harder < 0.0 or (is_kept and harder == 0.0)
            count_absences(s, w, size)
        if m.has_slots:
            state[4] = next_price(state[4], queued if is_kept else state[5])
        next_kappa(e, is_kept)
        if not is_kept:
            take_back(m, s, w, size)
            continue
        state[0], state[2], state[5] = cost, num_absent, queued
        forget(w)
        if queued > 0.0:
            continue
        if is_emptying and num_absent == 0:
            keep(s, w)
            return 1, done + 1
        if not is_emptying:
            num_improvements += keep_best(s, w, state)
    return num_improvements, iterations
