"""One function for all ways to sequence the retrievals of a day.

A method gets pair costs and packed orders and gives candidates in sequence. Orders are served in
the sequence of the day, their lines in the sequence that the method finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wardwise.pharmacy import baselines, windows
from wardwise.pharmacy.chain import MAX_TABLE, best_chain, pack, table_sizes
from wardwise.pharmacy.costs import costs_of
from wardwise.pharmacy.local_search import improve
from wardwise.pharmacy.programs import solve_program
from wardwise.pharmacy.timing import Timeline, arm_times, recur

if TYPE_CHECKING:
    from wardwise.pharmacy.chain import Ints, Packed
    from wardwise.pharmacy.costs import Costs
    from wardwise.pharmacy.problem import Bin, Line, PharmacyDay
    from wardwise.pharmacy.rack import Floats

QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True, kw_only=True)
class Options:
    """What methods may be told; see `sequence`."""

    window: int
    time_limit: float
    rng: np.random.Generator


Method = Callable[["Costs", "Packed", Options], "Ints"]


def _chain(costs: Costs, packed: Packed, options: Options) -> Ints:
    if _is_small(costs, packed):
        return best_chain(costs, packed)[0]
    return improve(costs, packed, rng=options.rng)


def _local(costs: Costs, packed: Packed, options: Options) -> Ints:
    return improve(costs, packed, rng=options.rng)


def _rolling(costs: Costs, packed: Packed, options: Options) -> Ints:
    return windows.rolling(costs, packed, options.window)


METHODS: dict[str, Method] = {
    "chain": _chain,
    "rolling": _rolling,
    "disjoint": lambda costs, packed, options: windows.disjoint(costs, packed, options.window),
    "conditioned": lambda costs, packed, _: windows.rolling(costs, packed, 1),
    "isolated": lambda costs, packed, _: windows.isolated(costs, packed),
    "local": _local,
    "nearest": lambda costs, packed, _: baselines.greedy(costs, packed, "nearest"),
    "shortest-leg": lambda costs, packed, _: baselines.greedy(costs, packed, "shortest-leg"),
    "farthest-first": lambda costs, packed, _: baselines.greedy(costs, packed, "farthest-first"),
    "random": lambda _, packed, options: baselines.at_random(packed, options.rng),
    "first-come": lambda _, packed, __: baselines.first_come(packed),
    "single-command": lambda _, packed, __: baselines.first_come(packed),
    "highs": lambda costs, packed, options: (
        solve_program(costs, packed, solver="highs", time_limit=options.time_limit).sequence
    ),
    "cp-sat": lambda costs, packed, options: (
        solve_program(costs, packed, solver="cp-sat", time_limit=options.time_limit).sequence
    ),
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One retrieval.

    Parameters
    ----------
    order, drug, bin, cell
        Ids of the order, the drug and the bin, and where the bin belongs.
    point
        Number of the I/O point, from 0.
    arm_s, service_s
        Seconds of the arm's cycle that brings the bin, and of the pharmacist in the mean.
    delivered_s, sorted_s
        Expected times when the bin stands at its point, and when the pharmacist is done with it.
    sorted_quantiles_s
        The same in good luck, middling and bad luck: 5, 50 and 95 %.
    """

    order: str
    drug: str
    bin: str
    cell: int
    point: int
    arm_s: float
    service_s: float
    delivered_s: float
    sorted_s: float
    sorted_quantiles_s: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """When all lines that the machine gives of an order are sorted.

    Parameters
    ----------
    order
        Its id.
    completed_s, completed_quantiles_s
        Mean in simulation, and 5, 50 and 95 %.
    """

    order: str
    completed_s: float
    completed_quantiles_s: tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A sequence of retrievals with its times.

    Parameters
    ----------
    method
        How it was made.
    steps
        Retrievals in sequence.
    orders
        Orders that the machine serves, in sequence.
    objective_s
        Expected seconds until the last line is sorted by the sum of pair costs, see
        `wardwise.pharmacy.costs`.
    is_expectation
        Whether that is the expectation exactly; a bound otherwise.
    makespan_s, makespan_quantiles_s
        Seconds until the last line is sorted in simulation: mean, and 5, 50 and 95 %.
    seconds_per_order
        Mean makespan over the orders that the machine serves: the average picking time.
    """

    method: str
    steps: tuple[Step, ...]
    orders: tuple[Completion, ...]
    objective_s: float
    is_expectation: bool
    makespan_s: float
    makespan_quantiles_s: tuple[float, float, float]
    seconds_per_order: float

    @property
    def cells(self) -> tuple[int, ...]:
        """Cells in the sequence of retrieval, as `wardwise.pharmacy.timing.simulate` takes them."""
        return tuple(step.cell for step in self.steps)


def sequence(
    day: PharmacyDay,
    *,
    method: str = "chain",
    window: int = 2,
    choose_bins: bool = True,
    keep_bins: bool = False,
    replications: int = 200,
    time_limit: float = 60.0,
    seed: int = 0,
) -> Plan:
    """Decide in which sequence the arm fetches the bins of a day.

    Parameters
    ----------
    day
        Orders, all known from the start, served one after the other.
    method
        ``chain``: exact over the whole day for one and two points and orders of up to 17 and 13
        lines, local search on the others; ``rolling``, ``disjoint``: exact on windows of orders;
        ``conditioned``, ``isolated``: exact on each order, knowing what stands at the points or
        not; ``local``: the engine of large orders; ``nearest``, ``shortest-leg``,
        ``farthest-first``, ``random``, ``first-come``: simple rules inside each order;
        ``single-command``: first-come, the arm goes home between storing and fetching; ``highs``,
        ``cp-sat``: 0-1 programs (extra ``exact``), as referees on small days.
    window
        Orders seen at once by ``rolling`` and ``disjoint``, at least 1.
    choose_bins
        Of several bins that will do for a line take the one that suits the sequence; otherwise,
        and by the simple rules, the first.
    keep_bins
        With one point: a bin that is wanted again by the next line stays there.
    replications
        Days of drawn service times for the expected times and quantiles, at least 1.
    time_limit
        Seconds for ``highs`` and ``cp-sat``.
    seed
        Of random sequences, kicks of the local search, and service times.

    Returns
    -------
    Plan
        Lines taken by hand are in no step.

    Raises
    ------
    ValueError
        On an unknown method, a parameter out of range, a missing extra, or a line for which no bin
        will do.
    """
    if method not in METHODS:
        raise ValueError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if replications < 1:
        raise ValueError(f"replications: expected at least 1, got {replications}")
    if seed < 0:
        raise ValueError(f"seed: expected at least 0, got {seed}")
    served, bins, packed, costs = _pack_day(day, choose_bins=choose_bins, keep_bins=keep_bins)
    rng, luck = (np.random.default_rng([seed, stream]) for stream in range(2))
    options = Options(window=window, time_limit=time_limit, rng=rng)
    found = METHODS[method](costs, packed, options)
    service_s = day.service.sample((replications, len(found)), luck)
    arm_s = _arm_times(costs, packed.node[found], goes_home=method == "single-command")
    timeline = _simulate(day, arm_s, service_s)
    m = day.machine.num_points
    makespan_s = timeline.makespan_s if len(found) else np.zeros(1)
    return Plan(
        method=method,
        steps=_steps(served, bins, packed, found, arm_s[0], service_s.mean(axis=0), timeline, m),
        orders=_completions(served, packed, timeline),
        objective_s=_objective_s(costs, arm_s),
        is_expectation=costs.is_exact,
        makespan_s=float(makespan_s.mean()),
        makespan_quantiles_s=_quantiles(makespan_s)[0],
        seconds_per_order=float(makespan_s.mean()) / max(1, len(packed.size)),
    )


def usable_bins(day: PharmacyDay, line: Line) -> tuple[Bin, ...]:
    """Bins that will do for a line: enough packs, not recalled, expiring late enough.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = tuple(
        bin_
        for bin_ in day.bins_of[line.drug]
        if bin_.quantity >= line.quantity
        and not bin_.is_recalled
        and (line.min_expiry is None or (bin_.expiry and bin_.expiry >= line.min_expiry))
    )
    if not found:
        raise ValueError(
            f"line {line.drug}: expected a bin with {line.quantity} packs, not recalled"
            + (f", expiring on {line.min_expiry} or later" if line.min_expiry else "")
        )
    return found


def _pack_day(
    day: PharmacyDay, *, choose_bins: bool, keep_bins: bool
) -> tuple[list[str], list[Bin], Packed, Costs]:
    """Ids of the orders with lines for the machine, the bin of each candidate, and arrays."""
    served, orders = [], []
    for order in day.orders:
        lines = []
        for line in order.lines:
            if not line.is_manual:
                usable = usable_bins(day, line)
                lines.append(usable if choose_bins else usable[:1])
        if lines:
            served.append(order.id)
            orders.append(lines)
    bins = [bin_ for lines in orders for line in lines for bin_ in line]
    cells = np.array([bin_.cell for bin_ in bins], dtype=np.int64)
    costs = costs_of(day.machine, day.service, cells, keeps_bins=keep_bins)
    packed = pack([[[bin_.cell for bin_ in line] for line in lines] for lines in orders])
    return served, bins, packed._replace(node=costs.nodes_of(packed.node)), costs


def _is_small(costs: Costs, packed: Packed) -> bool:
    m = costs.num_points
    return m <= 2 and bool((table_sizes(packed, m) <= MAX_TABLE).all())


def _arm_times(costs: Costs, nodes: Ints, *, goes_home: bool) -> tuple[Floats, Floats]:
    """Cycles and moves of the arm, as `arm_times`, with kept bins or single commands."""
    machine, m = costs.machine, costs.num_points
    cells = costs.cells[nodes]
    cycle_s, shift_s = arm_times(machine, cells)
    if goes_home:
        out_s = 2 * machine.reach_s[np.arange(len(cells)) % m, cells]
        handling_s = 2 * machine.arm.handling_s
        cycle_s[m:] = out_s[m:] + out_s[: max(0, len(cells) - m)] + 2 * handling_s
    elif costs.keeps_bins:
        cycle_s[1:][cells[1:] == cells[:-1]] = 0.0
    return cycle_s, shift_s


def _objective_s(costs: Costs, arm_s: tuple[Floats, Floats]) -> float:
    """Expected makespan by the sum of pair costs, see `wardwise.pharmacy.costs`."""
    cycle_s, shift_s = arm_s
    if not len(cycle_s):
        return 0.0
    if costs.num_points == 1:
        return float(cycle_s.sum() + len(cycle_s) * costs.service.mean_s)
    later_s = costs.service.expected_max_s(cycle_s[1:] + shift_s[1:])
    return float(cycle_s[0] + later_s.sum() + costs.service.mean_s)


def _simulate(day: PharmacyDay, arm_s: tuple[Floats, Floats], service_s: Floats) -> Timeline:
    delivered_s, sorted_s = np.empty_like(service_s), np.empty_like(service_s)
    machine = day.machine
    recur(*arm_s, service_s, machine.num_points, machine.num_pharmacists, delivered_s, sorted_s)
    return Timeline(delivered_s=delivered_s, sorted_s=sorted_s)


def _quantiles(times_s: Floats) -> list[tuple[float, float, float]]:
    """Of each column of an array of shape (replications, n), or of one of shape (replications,)."""
    columns = np.ascontiguousarray(np.atleast_2d(times_s.T))
    found = np.quantile(columns, QUANTILES, axis=1).T.tolist()
    return [(low, middle, high) for low, middle, high in found]


def _steps(
    served: list[str],
    bins: list[Bin],
    packed: Packed,
    found: Ints,
    arm_s: Floats,
    service_s: Floats,
    timeline: Timeline,
    m: int,
) -> tuple[Step, ...]:
    order = np.repeat(np.arange(len(packed.size)), packed.size)
    delivered_s = timeline.delivered_s.mean(axis=0).tolist()
    sorted_s = timeline.sorted_s.mean(axis=0).tolist()
    lucky = _quantiles(timeline.sorted_s)
    return tuple(
        Step(
            order=served[order[k]], drug=bins[c].drug, bin=bins[c].id, cell=bins[c].cell,
            point=k % m, arm_s=float(arm_s[k]), service_s=float(service_s[k]),
            delivered_s=delivered_s[k], sorted_s=sorted_s[k], sorted_quantiles_s=lucky[k],
        )
        for k, c in enumerate(found.tolist())
    )  # fmt: skip


def _completions(served: list[str], packed: Packed, timeline: Timeline) -> tuple[Completion, ...]:
    if not served:
        return ()
    completed_s = timeline.completed_s(packed.size)
    means, lucky = completed_s.mean(axis=0).tolist(), _quantiles(completed_s)
    return tuple(
        Completion(order=order, completed_s=means[k], completed_quantiles_s=lucky[k])
        for k, order in enumerate(served)
    )
