"""Moves of the local search: verdicts and prices are those of the new routes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_vns_labels import KINDS, electric
from wardwise.fleet.randomness import Promise, Randomness, Spread
from wardwise.fleet.search.packed import Objective
from wardwise.fleet.search.undo import touch
from wardwise.fleet.vns.edits import (
    append,
    assemble,
    fits,
    is_kept,
    least_change,
    make_edit,
    propose,
    swap,
)
from wardwise.fleet.vns.labels import Routes, empty_routes, refresh
from wardwise.fleet.vns.local import descend
from wardwise.fleet.vns.model import Model, model
from wardwise.fleet.vns.moves import Move
from wardwise.fleet.vns.undo import Work, make_work, take_back


def fill(m: Model, s: Routes, rng: np.random.Generator, *, trips: bool) -> None:
    """Feasible routes of all requests, each stop put behind a random one while that fits."""
    k = 0
    for v in rng.permutation(m.num_requests) + 1:
        reload = [0] if trips and s.length[k] > 2 and rng.random() < 0.3 else []
        station = [int(rng.integers(m.num_requests + 1, len(m.service)))] * (rng.random() < 0.2)
        head = [int(i) for i in s.node[k, : s.length[k] - 1]]
        if not set_row(m, s, k, [*head, *reload, *station, int(v), 0]):
            set_row(m, s, k, [*head, 0])
            k += 1
            assert set_row(m, s, k, [0, int(v), 0]) or set_row(
                m, s, k, [0, len(m.service) - 1, int(v), 0]
            )


def set_row(m: Model, s: Routes, k: int, row: list[int]) -> bool:
    """Make `row` a route; returns whether it is feasible and keeps its promises."""
    s.node[k, : len(row)] = row
    s.length[k] = len(row)
    return bool(refresh(m, s, k)) and bool(is_kept(m, s, k))


def rows_of(s: Routes) -> list[list[int]]:
    """All routes."""
    return [[int(v) for v in s.node[k, : s.length[k]]] for k in range(len(s.length))]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(seed=st.integers(0, 10**6))
def test_proposals_are_judged_as_the_routes_they_become(kind: dict[str, object], seed: int) -> None:
    """Random segments change places: metres and, where exact, feasibility are foretold."""
    m = model(electric(seed, num_requests=9, **kind), Objective.COST)  # type: ignore[arg-type]
    s, rng = empty_routes(m), np.random.default_rng(seed)
    fill(m, s, rng, trips=kind.get("max_trips") != 1)
    e = make_edit(s, 9)
    rows = rows_of(s)
    for _ in range(8):
        ends = [np.sort(rng.integers(0, len(rows[k]) - 1, 2)) for k in (0, 1)]
        e.tally[0] = 0
        for k, (front, last) in enumerate(ends):
            # Either both tails or both segments change places.
            propose(e, k, front, k, last + 1)
            start, end = ends[1 - k][0] + 1, ends[1 - k][1] + 1
            if rng.random() < 0.3:
                append(s, e, 1 - k, end - 1, start - 1)
            else:
                append(s, e, 1 - k, start, end)
        change = least_change(m, s, e)
        verdicts = [bool(fits(m, s, e, k)) for k in (0, 1)]
        if not all(assemble(m, s, e, k) for k in (0, 1)):
            continue
        before = s.price[:2].sum() - sum(late(m, s, k) for k in (0, 1))
        for k in (0, 1):
            swap(s, e, k)
        are_fine = [bool(refresh(m, s, k)) for k in (0, 1)]
        if all(are_fine):
            after = s.price[:2].sum() - sum(late(m, s, k) for k in (0, 1))
            # A route that only visits stations goes, too, which metres do not foretell.
            if s.length[:2].min() > 2:
                assert after - before == pytest.approx(change, abs=1e-6)
        if m.is_exact and not m.has_goods:
            assert verdicts == are_fine
        for k in (0, 1):
            swap(s, e, k)
            refresh(m, s, k)
    assert rows == rows_of(s)


def late(m: Model, s: Routes, k: int) -> float:
    """Money for the delays of a route."""
    return float(s.front[k, s.length[k] - 1, 7])


OPTIONS = (*KINDS, {"at_depot": True, "promise": True})


@pytest.mark.parametrize("move", Move)
@pytest.mark.parametrize("kind", OPTIONS)
def test_descents_save_money_and_can_be_taken_back(kind: dict[str, object], move: Move) -> None:
    """One kind of move alone: all stay served and feasible, the price falls, undo restores."""
    for seed in range(6):
        m, s, w = filled(seed, kind)
        rows, before = rows_of(s), s.price.sum()
        num_moves = descend(m, s, w, make_edit(s, len(Move)), int(move))
        assert s.price.sum() <= before - 1e-6 * num_moves
        for k, row in enumerate(rows_of(s)):
            assert refresh(m, s, k)
            assert is_kept(m, s, k)
            assert all(trip for trip in trips_of(m, row)) or row == [0, 0]
        assert sorted(v for row in rows_of(s) for v in row if 0 < v <= 9) == list(range(1, 10))
        take_back(m, s, w, 0)
        assert rows == rows_of(s)
        assert s.price.sum() == pytest.approx(before)


def trips_of(m: Model, row: list[int]) -> list[list[int]]:
    """Requests of each trip."""
    trips: list[list[int]] = []
    for v in row[:-1]:
        if v == 0:
            trips.append([])
        elif v <= m.num_requests:
            trips[-1].append(v)
    return trips


def filled(seed: int, kind: dict[str, object]) -> tuple[Model, Routes, Work]:
    """Random routes, all of them touched."""
    options = {name: value for name, value in kind.items() if name != "promise"}
    instance = electric(seed, num_requests=9, **options)  # type: ignore[arg-type]
    if "promise" in kind:
        luck = Randomness(travel=Spread(cv=0.1))
        instance = replace(instance, randomness=luck, promise=Promise(late_share=(0.2,) * 3))
    m = model(instance, Objective.COST)
    s = empty_routes(m)
    fill(m, s, np.random.default_rng(seed), trips=kind.get("max_trips") != 1)
    w = make_work(m, s, seed + 1)
    for k in np.flatnonzero(s.length > 2):
        touch(s, w, k)
    return m, s, w
