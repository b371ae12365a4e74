"""Execution of a proposed move, and what the search remembers of it."""

from __future__ import annotations

from wardwise.fleet.compiled import inlined, kernel
from wardwise.fleet.search import chains as kernels
from wardwise.fleet.search.tabu_memory import (
    BEHIND,
    CLOCK,
    FROM,
    GIVER,
    IS_BACKWARD,
    KIND,
    MERGE,
    SHIFT,
    SIZE,
    SPLIT,
    SWAP,
    TAILS,
    TAKER,
    TENURE,
    moved,
)
from wardwise.fleet.search.tabu_routes import add_up


@kernel
def execute(packed, chains, sums, memory):  # type: ignore[no-untyped-def]
    """Make the proposed move and forbid its return."""
    move = memory.proposal
    a, b = move[GIVER], move[TAKER]
    low_a, high_a, low_b, high_b = moved(chains.length, move)
    until = memory.tally[CLOCK] + memory.tally[TENURE]
    _remember(chains.node, memory.tabu_until, memory.frequency, a, low_a, high_a, b, until)
    _remember(chains.node, memory.tabu_until, memory.frequency, b, low_b, high_b, a, until)
    if a == b:
        size_a, size_b = _build_inside(chains.node, memory.row, chains.length[a], move), 0
    else:
        size_a, size_b = _build(chains.node, memory.row, chains.length[a], chains.length[b], move)
    # Where heads are exchanged instead of tails, each robot gets the other one's chain.
    is_crossed = move[KIND] == TAILS and low_a < move[FROM]
    for step in range(1 if a == b else 2):
        robot = a if step == 0 else b
        row = 1 - step if is_crossed else step
        size = _without_empty_trips(memory.row, row, size_b if row else size_a)
        is_feasible = kernels.set_chain(packed, chains, robot, memory.row[row], size)
        memory.is_feasible[robot], memory.is_dirty[robot] = is_feasible, True
        add_up(packed, chains, sums, robot)


@inlined
def _remember(node, tabu_until, frequency, robot, low, high, target, until):  # type: ignore[no-untyped-def]
    """Forbid stops of a run to come back to the robot they leave."""
    for k in range(low, high):
        tabu_until[node[robot, k], robot] = until
        frequency[node[robot, k], target] += 1.0


@inlined
def _without_empty_trips(rows, row, length):  # type: ignore[no-untyped-def]
    """Drop depots behind depots from a row; returns its new length."""
    size = 1
    for k in range(1, length):
        if rows[row, k] != 0 or rows[row, size - 1] != 0:
            rows[row, size] = rows[row, k]
            size += 1
    if size > 1:
        return size
    rows[row, 1] = 0
    return 2


@inlined
def _build(node, rows, length_a, length_b, move):  # type: ignore[no-untyped-def]
    """Build the chains of a move between two robots; returns their lengths."""
    kind, a, i, size = move[KIND], move[GIVER], move[FROM], move[SIZE]
    b, p = move[TAKER], move[BEHIND]
    if kind == SWAP:
        _copy(node, a, 0, length_a, rows, 0, 0)
        _copy(node, b, 0, length_b, rows, 1, 0)
        rows[0, i], rows[1, p] = node[b, p], node[a, i]
        return length_a, length_b
    made_a = _copy(node, a, 0, i, rows, 0, 0)
    made_b = _copy(node, b, 0, p + 1, rows, 1, 0)
    if kind == TAILS:
        made_a = _copy(node, b, p + 1, length_b, rows, 0, made_a)
        return made_a, _copy(node, a, i, length_a, rows, 1, made_b)
    made_a = _copy(node, a, i + size, length_a, rows, 0, made_a)
    made_b = _copy_piece(node, a, i, size, move[IS_BACKWARD], rows, 1, made_b)
    return made_a, _copy(node, b, p + 1, length_b, rows, 1, made_b)


@inlined
def _build_inside(node, rows, length, move):  # type: ignore[no-untyped-def]
    """Build the chain of a move within one robot; returns its length."""
    kind, a, i, size, p = move[KIND], move[GIVER], move[FROM], move[SIZE], move[BEHIND]
    if kind == SPLIT:
        made = _copy(node, a, 0, i + 1, rows, 0, 0)
        rows[0, made] = 0
        return _copy(node, a, i + 1, length, rows, 0, made + 1)
    if kind == MERGE:
        made = _copy(node, a, 0, i, rows, 0, 0)
        return _copy(node, a, i + 1, length, rows, 0, made)
    # Whatever stands between the piece and its gap moves up: where that is empty, it turns round.
    is_earlier = kind == SHIFT and p < i
    made = _copy(node, a, 0, p + 1 if is_earlier else i, rows, 0, 0)
    if kind == SHIFT and not is_earlier:
        made = _copy(node, a, i + size, p + 1, rows, 0, made)
    made = _copy_piece(node, a, i, size, move[IS_BACKWARD], rows, 0, made)
    if is_earlier:
        made = _copy(node, a, p + 1, i, rows, 0, made)
    rest = p + 1 if kind == SHIFT and not is_earlier else i + size
    return _copy(node, a, rest, length, rows, 0, made)


@inlined
def _copy(node, robot, low, high, rows, row, size):  # type: ignore[no-untyped-def]
    """Add a run of a chain to a row; returns its new length."""
    for k in range(low, high):
        rows[row, size] = node[robot, k]
        size += 1
    return size


@inlined
def _copy_piece(node, robot, low, count, is_backward, rows, row, size):  # type: ignore[no-untyped-def]
    """Add a piece in the direction it is driven; returns the new length."""
    for k in range(count):
        rows[row, size + k] = node[robot, low + (count - 1 - k if is_backward else k)]
    return size + count
