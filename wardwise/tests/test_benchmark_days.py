"""Days of the dynamic benchmark: what peers are shown is the day as it stands."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from wardwise.dynamism import make_dynamic
from wardwise.fleet.check import check
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.replay import known_part
from wardwise.fleet.solvers import solve

pytest.importorskip("pyvrp")
pytest.importorskip("vroom")
pytest.importorskip("ortools")

from benchmarks.peers import draw, latency
from benchmarks.peers.committed import price
from benchmarks.peers.driven import drive
from benchmarks.peers.open_day import committed_state, open_day
from benchmarks.peers.resolve import resolve_pyvrp


def dynamic(seed: int, degree: float) -> tuple[Instance, Instance]:
    """Twenty collections on a square, and the same with a share of them dynamic."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(0, 50, (21, 2))
    metres = np.hypot(*(xy[:, None] - xy[None, :]).transpose(2, 0, 1))
    ready = rng.uniform(60, 250, 20)
    base = Instance(
        name="square",
        places=tuple(Place(id=str(i)) for i in range(21)),
        requests=tuple(
            Request(id=f"q{i}", place=str(i + 1), load=1, ready_s=r, due_s=r + 40, service_s=5)
            for i, r in enumerate(ready)
        ),
        robots=tuple(Robot(id=f"r{k}", capacity=6.0, end_s=400.0, max_trips=1) for k in range(12)),
        travel_s=metres,
        distance_m=metres,
    )
    reference = solve(base, method="insertion")
    return base, make_dynamic(base, reference, degree=degree, seed=seed)


def test_a_day_without_acceptances_is_the_first_plan():
    """Who turns everything down drives what was planned: same robots, same metres."""
    _, instance = dynamic(1, 0.5)
    first = solve(known_part(instance), method="insertion", objective="cost")
    planned = check(known_part(instance), first).cost

    def refuse(state):
        return price(state, [list(route) for route in state.plan], 0.0)

    driven = drive(instance, first, refuse)
    assert driven.report.is_feasible, driven.report.violations
    assert driven.num_unused == 0
    assert driven.report.cost.num_denied == len(instance.requests) - len(
        known_part(instance).requests
    )
    assert driven.report.cost.distance_m == pytest.approx(planned.distance_m)
    assert driven.report.cost.num_robots == planned.num_robots


def test_a_day_of_resolves_keeps_its_promises():
    """The referee finds every accepted request served, and nobody left before the call."""
    _, instance = dynamic(2, 0.6)
    first = solve(known_part(instance), method="insertion", objective="cost")
    driven = drive(instance, first, partial(resolve_pyvrp, budget_s=0.02, seed=1))
    assert driven.report.is_feasible, driven.report.violations
    assert {*driven.plan.denied} <= {r.id for r in instance.requests if r.release_s > 0}
    assert driven.num_unused == 0


@pytest.mark.skipif("WARDWISE_DATA" not in os.environ, reason="needs WARDWISE_DATA")
def test_committed_state_is_the_day_at_its_moment():
    """Metres behind the committed stops and metres ahead make the distance of the whole plan."""
    path = Path(os.environ["WARDWISE_DATA"]) / "gehring_homberger" / "r1_2_1.txt"
    day = open_day(path, num_open=40, num_new=2, seed=1)
    state = committed_state(day, replace(day.new[0], release_s=day.now_s))
    ahead = price(state, [list(route) for route in state.plan], 0.0)
    assert ahead.is_feasible
    assert ahead.denied == (day.new[0].id,)
    dispatcher = day.dispatcher()
    index, requests = day.instance.place_index, day.instance.request_by_id
    behind = 0.0
    for stops in dispatcher.committed().values():
        places = [0, *(index[requests[stop.request].place] for stop in stops)]
        behind += sum(float(day.instance.distance_m[leg]) for leg in pairwise(places))
    assert behind > 0
    assert behind + ahead.distance_m == pytest.approx(
        check(dispatcher.instance(), dispatcher.plan()).cost.distance_m
    )
    assert sum(len(route) for route in state.plan) == len(state.requests) - 1


@pytest.mark.skipif("WARDWISE_DATA" not in os.environ, reason="needs WARDWISE_DATA")
def test_latency_counts_every_submit():
    """Two repetitions over one state with five requests are ten submits; VROOM is slower."""
    path = Path(os.environ["WARDWISE_DATA"]) / "gehring_homberger" / "r1_2_1.txt"
    day = open_day(path, num_open=20, num_new=5, seed=1)
    rows = {row["name"]: row for row in latency.submit_rows({20: [day]}, 2)}
    assert rows["insertion_20_p99"]["detail"]["submits"] == 10
    assert sum(rows["insertion_20_p99"]["detail"]["answers"].values()) == 10
    assert rows["insertion_20_p50"]["value"] <= rows["insertion_20_p99"]["value"]
    faster = {row["name"]: row for row in latency.resolve_rows([day], 1)}
    assert len(faster) == len(latency.RESOLVERS)
    assert all(row["detail"]["peer_feasible"] == 1 for row in faster.values())
    assert faster["insertion_times_faster_than_vroom"]["value"] > 1


def test_figure_on_a_plain_axis_has_its_label(tmp_path):
    """Spares begin at nought, which no log axis shows."""
    lines = {"R = 0": {0.0: 40.0, 1.0: 20.0, 2.0: 15.0}}
    panel = draw.Panel("Denied", " %", lines, False, "spare robots", False)
    draw.write_figure(tmp_path / "a.svg", [panel])
    text = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "spare robots" in text
    assert text.count("<circle") == 3
