"""Ruin and recreate behind what is committed: the improver of a running day."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.dispatch.kernels import open_requests
from wardwise.fleet.search.chains import set_chain
from wardwise.fleet.search.insertion import plan_weights
from wardwise.fleet.search.ruin import make_work
from wardwise.fleet.search.ruin_kernels import Strings, anneal
from wardwise.fleet.search.undo import keep

if TYPE_CHECKING:
    from numpy.random import Generator

    from wardwise.fleet.dispatch.reoptimise import Freedom
    from wardwise.fleet.search.chains import Chains
    from wardwise.fleet.search.packed import Packed

# Temperatures at start and end, in mean prices of an open request; a day has little time.
START, END, STEPS = 0.3, 0.01, 20
# Nobody who was accepted may be dropped.
NEVER = 1e12


def improve_open(
    packed: Packed, chains: Chains, rng: Generator, iterations: int, freedom: Freedom
) -> None:
    """Take out and put back the requests that are still open, with those that are pending."""
    accepted = np.flatnonzero((chains.owner >= 0) & ~packed.is_pickup)
    pending = freedom.pending
    requests = np.concatenate([open_requests(packed, chains), pending])
    if len(requests) < 2:
        return
    work = make_work(packed, chains, rng, requests)
    work.is_closed[:] = chains.length == 2
    work.is_closed[freedom.spares] = False
    work.penalty[:] = NEVER
    work.penalty[pending] = packed.denial_price[pending]
    cost = float(chains.price.sum() + work.penalty[pending].sum())
    state = np.array([cost, cost, len(pending), len(pending)], dtype=np.float64)
    keep(chains, work)
    scale = packed.metre_price * float(chains.leg.sum()) / max(1, len(accepted))
    for step, count in enumerate(np.diff(np.linspace(0, iterations, STEPS + 1).astype(int))):
        temperature = scale * START * (END / START) ** (step / STEPS)
        anneal(
            packed, chains, plan_weights(packed), work, Strings(), state, temperature, False, count
        )
    for robot, length in enumerate(work.best_length):
        set_chain(packed, chains, robot, work.best_node[robot, :length], length)
