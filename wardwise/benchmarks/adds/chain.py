"""Exact sequences of orders that are served as they came, alone and against 0-1 programs.

The chain of a day is timed from lists of cells to the sequence: travel times, pair costs and the
search are all computed anew. The programs get the pair costs ready made, as does the chain beside
them; both solvers do adjacent pairs, HiGHS also days (CP-SAT has not proven twenty orders within a
minute).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy.chain import best_chain, pack
from wardwise.pharmacy.costs import costs_of
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.programs import solve_program
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.sequence import sequence
from wardwise.pharmacy.service_time import Lognormal

from .common import LAYOUTS, SEED, cpu_s, draw_orders, medians, peer_of, row

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wardwise.pharmacy.chain import Packed
    from wardwise.pharmacy.costs import Costs
    from wardwise.pharmacy.programs import Solved

    from .common import Row

NUM_ORDERS = 1000
GOALS_S = {"one_point": 0.1, "same_end": 0.25, "opposite_ends": 0.25}
PAIRS = ((2, 3), (5, 5), (7, 7))
DAYS = (20, 100)
DIFFERENCE_S = 1e-6
PROGRAM_LIMIT_S = 120.0
PACKAGES = {"highs": "highspy", "cp-sat": "ortools"}


def day_rows(*, is_quick: bool) -> Iterator[Row]:
    """Thousand orders, exactly, for each layout."""
    rounds = 3 if is_quick else 9
    rng = np.random.default_rng(SEED)
    orders = draw_orders(rng.integers(1, 6, NUM_ORDERS).tolist())
    machines = {name: Machine(points_m=points_m) for name, points_m in LAYOUTS.items()}
    ready = {name: _packed(machine, orders) for name, machine in machines.items()}
    whole = medians(
        {name: lambda at=at: _solve(at, orders) for name, at in LAYOUTS.items()}, rounds
    )
    search = medians({name: lambda it=it: best_chain(*it) for name, it in ready.items()}, rounds)
    for name, seconds in whole.items():
        detail = {
            "orders": NUM_ORDERS, "lines": sum(map(len, orders)), "rounds": rounds,
            "search_alone_s": round(search[name], 6), "time": "CPU, one thread",
        }  # fmt: skip
        yield row(f"chain_1000_orders_{name}", seconds, "s", ("<", GOALS_S[name]), detail=detail)
    days = {
        name: generate_pharmacy(SEED, num_orders=NUM_ORDERS, machine=machine)
        for name, machine in machines.items()
    }
    plans = medians({name: lambda it=it: sequence(it) for name, it in days.items()}, rounds)
    for name, seconds in plans.items():
        detail = {"orders": NUM_ORDERS, "replications": 200}
        yield row(f"plan_1000_orders_{name}", seconds, "s", detail=detail)


def program_rows(*, is_quick: bool) -> Iterator[Row]:
    """Adjacent pairs and a day of twenty orders: equal optima, and how much longer peers take."""
    sizes = {"_".join(map(str, pair)): list(pair) for pair in PAIRS}
    for num in () if is_quick else DAYS:
        sizes[f"{num}_orders"] = np.random.default_rng(SEED).integers(1, 6, num).tolist()
    for m, layout in ((1, "one_point"), (2, "same_end")):
        for name, wanted in sizes.items():
            costs, packed = _packed(Machine(points_m=LAYOUTS[layout]), draw_orders(wanted))
            _ = costs.pair_s
            ours_s = medians({"": lambda it=(costs, packed): best_chain(*it)}, 21)[""]
            _, least_s = best_chain(costs, packed)
            for solver, package in PACKAGES.items():
                if solver == "cp-sat" and len(wanted) > 2:
                    continue
                yield from _against(f"m{m}_{name}", costs, packed, solver, package,
                                    (ours_s, least_s))  # fmt: skip


def _against(
    name: str, costs: Costs, packed: Packed, solver: str, package: str, ours: tuple[float, float]
) -> Iterator[Row]:
    """A program of the same orders: difference of the optima, ratio of the times."""
    ours_s, least_s = ours

    def solve() -> Solved:
        return solve_program(costs, packed, solver=solver, time_limit=PROGRAM_LIMIT_S)

    taken_s, solved = cpu_s(solve)
    if len(packed.size) == 2:
        taken_s = medians({"": solve}, 3)[""]
    detail = {
        "lines": packed.num_lines, "chain_ms": round(1e3 * ours_s, 4),
        "peer_ms": round(1e3 * taken_s, 1), "is_proven": solved.is_optimal,
    }  # fmt: skip
    stem, peer = f"program_{name}_{solver.replace('-', '')}", peer_of(package)
    off_s = abs(solved.cost_s - least_s)
    yield row(f"{stem}_difference", off_s, "s", ("<=", DIFFERENCE_S), peer=peer, detail=detail)
    yield row(f"{stem}_times_longer", taken_s / ours_s, "x", (">=", 1.0), peer=peer, detail=detail)


def _solve(points_m: tuple[tuple[float, float], ...], orders: list[list[list[int]]]) -> float:
    return best_chain(*_packed(Machine(points_m=points_m), orders))[1]


def _packed(machine: Machine, orders: list[list[list[int]]]) -> tuple[Costs, Packed]:
    packed = pack(orders)
    costs = costs_of(machine, Lognormal(), packed.node)
    return costs, packed._replace(node=costs.nodes_of(packed.node))
