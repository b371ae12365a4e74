"""What a tabu search remembers, and whether it takes a proposed move.

A move changes attributes (request, robot). A request that has left a robot may
not come back for a while, unless the plan would be feasible and cheaper than any
feasible plan with that attribute so far. Requests moved within a robot may not be
moved within it again for as long. Sources: Cordeau, Laporte, Mercier 2001, Journal
of the Operational Research Society 52(8).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from wardwise.fleet.compiled import expanded, kernel
from wardwise.fleet.search.insertion import draw
from wardwise.fleet.search.tabu_routes import OVERLOAD, TIME_WARP

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Bools, Floats, Ints

# What is done: a piece goes to another chain, two stops change places, two chains change tails;
# within a chain a piece goes elsewhere or is driven backward, a trip is split, two are merged.
MOVE, SWAP, TAILS, SHIFT, REVERSE, SPLIT, MERGE = range(7)
# A proposal: the piece starts at position `FROM` of chain `GIVER`; `TAKER` takes it behind
# position `BEHIND`, exchanges it with the stop there, or gives all that follows it.
KIND, GIVER, FROM, SIZE, IS_BACKWARD, TAKER, BEHIND = range(7)
# The gap of a piece.
ROBOT, POSITION, BEFORE, AFTER = range(4)
LENGTH, SPARE = range(2)
# The effect of a move.
METRES, OVER, LATE, USED = range(4)
# Weights of a unit of overload and of time warp, and of a frequent attribute; price of the
# plan, penalties included and not, and of the best feasible one.
PER_LOAD, PER_SECOND, PER_FREQUENCY, PENALISED, PRICE, BEST = range(6)
CLOCK, EVALUATED, WEIGHED, TIES, LAST_GAIN, TENURE, IS_DESCENT = range(7)

# More than any plan costs, below infinity: a leg without a way is never proposed.
TOO_MUCH = 1e300
# Below the price of any difference that matters, above the rounding of sums.
EPSILON = 1e-7


class Memory(NamedTuple):
    """State of a search.

    Parameters
    ----------
    near_before, near_after
        For each node the requests that are best visited right before and right after it.
    tabu_until
        Until which iteration a request may not enter a robot; over nodes and robots.
    aspiration
        Price of the cheapest feasible plan in which the robot served the request.
    frequency
        How often the request has entered the robot.
    kind
        Robots of equal numbers are alike.
    is_closed
        Robots that stay at home.
    is_dirty
        Chains within which something better may be found.
    is_feasible
        Chains that keep windows, tolerance included, shifts and loads.
    penalty
        Weighted overload and time warp of each chain.
    level, tally
        Numbers of the search: see `PER_LOAD` and `CLOCK`.
    trial, proposal, effect
        The move that is being looked at, the one to be made if nothing better comes,
        and its effect.
    random
        State of `draw`.
    gap, gap_value
        Gaps into which a piece may go, over the two sides of a request: chain, position
        and the places around, then the leg, and what may at best be saved there.
    front
        Chain and position of gaps behind the depot.
    row
        The chains of a move while they are built.
    run
        A row of sums that grows along a chain.
    best_node, best_length
        Chains of the best feasible plan.
    """

    near_before: Ints
    near_after: Ints
    tabu_until: Ints
    aspiration: Floats
    frequency: Floats
    kind: Ints
    is_closed: Bools
    is_dirty: Bools
    is_feasible: Bools
    penalty: Floats
    level: Floats
    tally: Ints
    trial: Ints
    proposal: Ints
    effect: Floats
    random: Ints
    gap: Ints
    gap_value: Floats
    front: Ints
    row: Ints
    run: Floats
    best_node: Ints
    best_length: Ints


@expanded
def note(move, kind, a, i, size, is_backward, b, p):  # type: ignore[no-untyped-def]
    """Write a move down."""
    move[KIND], move[GIVER], move[FROM], move[SIZE] = kind, a, i, size
    move[IS_BACKWARD], move[TAKER], move[BEHIND] = is_backward, b, p


@kernel
def consider(packed, chains, sums, memory, best, cost, metres, over, late, used):  # type: ignore[no-untyped-def]
    """Propose the move that was noted, if it beats `best`; returns the cost to beat.

    A descent takes only what makes the plan cheaper and no less feasible.
    """
    if not _is_sensible(packed, chains, memory):
        return best
    if memory.tally[IS_DESCENT]:
        if over > 0.0 or late > 0.0 or cost > -EPSILON:
            return best
    else:
        price = packed.metre_price * metres + packed.robot_price * used
        is_free, frequency = _recall(chains, sums, memory, price, over, late)
        if not is_free:
            return best
        if cost > -EPSILON:
            cost += memory.level[PER_FREQUENCY] * memory.level[PENALISED] * frequency
    if cost > best:
        return best
    # Of equals each is kept with the same chance.
    memory.tally[TIES] = memory.tally[TIES] + 1 if cost == best else 1
    if cost == best and draw(memory.random) * memory.tally[TIES] >= 1.0:
        return best
    for field in range(len(memory.trial)):
        memory.proposal[field] = memory.trial[field]
    memory.effect[METRES], memory.effect[OVER] = metres, over
    memory.effect[LATE], memory.effect[USED] = late, used
    return cost


@expanded
def _is_sensible(packed, chains, memory):  # type: ignore[no-untyped-def]
    """Whether the trips are not too many, and the move is more than another name for a robot."""
    kind, a, i = memory.trial[KIND], memory.trial[GIVER], memory.trial[FROM]
    b, p = memory.trial[TAKER], memory.trial[BEHIND]
    if kind == MOVE:
        is_all = i == 1 and i + memory.trial[SIZE] == chains.length[a] - 1
        return not (is_all and chains.length[b] == 2 and memory.kind[a] == memory.kind[b])
    if kind != TAILS:
        return True
    if i == 1 and p == 0:
        return False
    most = packed.max_trips[a]
    if most == 1:
        return True
    depots_a, depots_b = _depots(chains.node, a, i), _depots(chains.node, b, p + 1)
    all_a = _depots(chains.node, a, chains.length[a])
    all_b = _depots(chains.node, b, chains.length[b])
    trips_a, trips_b = depots_a + all_b - depots_b - 1, depots_b + all_a - depots_a - 1
    if chains.node[a, i - 1] == 0 and chains.node[b, p + 1] == 0:
        trips_a -= 1  # the one in between has no stops
    return max(trips_a, trips_b) <= most


@expanded
def _depots(node, robot, end):  # type: ignore[no-untyped-def]
    """Depots in a chain before a position."""
    count = 0
    for k in range(end):
        count += node[robot, k] == 0
    return count


@expanded
def moved(length, move):  # type: ignore[no-untyped-def]
    """Which stops get another robot: a run of the giver that goes over, and a run that comes back.

    Chains of equal robots that change tails may as well change heads; those with
    fewer stops go. Runs are half open.
    """
    kind, a, i = move[KIND], move[GIVER], move[FROM]
    b, p = move[TAKER], move[BEHIND]
    if kind == TAILS:
        rest_a, rest_b = length[a] - 1 - i, length[b] - 2 - p
        if i - 1 + p < rest_a + rest_b:
            return 1, i, 1, p + 1
        return i, length[a] - 1, p + 1, length[b] - 1
    if kind == SWAP:
        return i, i + 1, p, p + 1
    if kind == MERGE:
        return i - 1, i, 0, 0
    return i, i + move[SIZE], 0, 0


@expanded
def _recall(chains, sums, memory, price, over, late):  # type: ignore[no-untyped-def]
    """Whether the noted move is allowed, and how frequent what it does has been."""
    a, b = memory.trial[GIVER], memory.trial[TAKER]
    low_a, high_a, low_b, high_b = moved(chains.length, memory.trial)
    price += memory.level[PRICE]
    is_tabu_a, is_wanted_a, often_a = _recall_run(chains, memory, a, low_a, high_a, b, price)
    is_tabu_b, is_wanted_b, often_b = _recall_run(chains, memory, b, low_b, high_b, a, price)
    if is_tabu_a or is_tabu_b:
        if not (is_wanted_a and is_wanted_b):
            return False, 0.0
        for robot in range(len(chains.length)):
            over += sums.total[robot, OVERLOAD]
            late += sums.total[robot, TIME_WARP]
        if over > 0.0 or late > 0.0:
            return False, 0.0
    return True, (often_a + often_b) / memory.tally[CLOCK]


@expanded
def _recall_run(chains, memory, robot, low, high, target, price):  # type: ignore[no-untyped-def]
    """Stops of a run that go to `target`: is any tabu, is each welcome at the price, how often."""
    is_tabu, is_wanted, often = False, True, 0.0
    for k in range(low, high):
        node = chains.node[robot, k]
        if node == 0:
            continue
        often += memory.frequency[node, target]
        if memory.tabu_until[node, target] >= memory.tally[CLOCK]:
            is_tabu = True
            is_wanted &= price < memory.aspiration[node, target] - EPSILON
    return is_tabu, is_wanted, often
