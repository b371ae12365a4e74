"""The commands of a dispensing machine with real files."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from wardwise.io.pharmacy import read_pharmacy, write_pharmacy
from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.sequence import METHODS, sequence
from wardwise.pharmacy.service_time import Fixed
from wardwise.report.machine import draw_machine, tasks_of_plan

if TYPE_CHECKING:
    from pathlib import Path

# Cells 0 and 1 of the default rack; the point in the corner is 0.15 and 0.45 m away along the
# rack and 0.125 m up, of which the climb, 0.125 / 0.8 = 0.15625 s, is longer for the near one.
NEAR_S, FAR_S = 0.125 / 0.8, 0.45 / 1.5
SMALL = PharmacyDay(
    bins=(Bin(id="near", drug="A", cell=0), Bin(id="far", drug="B", cell=1)),
    orders=(
        Order(id="one", lines=(Line(drug="A"), Line(drug="B"))),
        Order(id="two", lines=(Line(drug="A"),)),
        Order(id="by hand", lines=(Line(drug="C", is_manual=True, manual_s=30.0),)),
    ),
    service=Fixed(10.0),
)


@pytest.fixture
def day(run, tmp_path: Path) -> Path:
    """Twelve orders for a machine with two points."""
    assert run("generate-pharmacy", "--orders", "12", "--points", "2", "--seed", "4").code == 0
    return tmp_path / "pharmacy-12-seed4.json"


def test_generated_day_reads_back(run, day: Path, tmp_path: Path):
    """Options reach the file: points, people, arrivals."""
    found = read_pharmacy(day)
    assert len(found.orders) == 12
    assert found.machine.points_m == ((0.0, 0.0), (0.0, 0.0))
    args = ("--orders", "5", "--lines", "2", "--points", "2-opposite", "--pharmacists", "2",
            "--zipf", "0.8", "--per-hour", "20", "--output", "other.json")  # fmt: skip
    done = run("generate-pharmacy", *args)
    assert done.out.startswith("other.json: 5 orders, ")
    other = read_pharmacy(tmp_path / "other.json")
    assert other.machine.points_m == ((0.0, 0.0), (12.0, 0.0))
    assert other.machine.num_pharmacists == 2
    assert all(order.release_s > 0 and len(order.lines) <= 2 for order in other.orders)


def test_times_of_a_small_day(run, tmp_path: Path):
    """Three bins at one point: cycles and sorting worked out by hand, orders in their sequence."""
    write_pharmacy(SMALL, tmp_path / "small.json")
    answer = json.loads(run("sequence", "small.json", "--json").out)
    # Fetch the far bin, sort it; store it and fetch the near one, sort it; the same bin again for
    # the second order: back and out and in, four moves by hand. The other way round, near before
    # far, the second order's cycle would be the longer one.
    between_s = 0.3 / 1.5
    first_s = 2 * FAR_S + 4 + 10
    second_s = first_s + FAR_S + between_s + NEAR_S + 8 + 10
    third_s = second_s + 2 * NEAR_S + 8 + 10
    completed = [order["completed_s"] for order in answer["orders"]]
    assert [order["order"] for order in answer["orders"]] == ["one", "two"]
    assert completed == pytest.approx([second_s, third_s], abs=1e-9)
    assert answer["makespan_s"] == pytest.approx(third_s)
    assert answer["seconds_per_order"] == pytest.approx(third_s / 2)


@pytest.mark.parametrize("pharmacists", ["1", "2"])
def test_completions_are_those_of_an_event_loop(run, tmp_path: Path, pharmacists: str):
    """Mean and quantiles of each order again from the bins, one after the other."""
    run("generate-pharmacy", "--orders", "6", "--points", "2", "--pharmacists", pharmacists,
        "--output", "d.json")  # fmt: skip
    day = read_pharmacy(tmp_path / "d.json")
    plan = sequence(day, replications=50, seed=3)
    luck = np.random.default_rng([3, 1])
    service = day.service.sample((50, len(plan.steps)), luck)
    machine, m, q = day.machine, 2, day.machine.num_pharmacists
    done: dict[str, list[float]] = {order.order: [] for order in plan.orders}
    for times in service:
        arm_s, sorted_s, last = 0.0, [], {}
        for k, step in enumerate(plan.steps):
            if k >= m:  # the bin before it on this point is sorted and goes back
                stored = plan.steps[k - m].cell
                way_s = machine.reach_s[k % m, stored] + machine.between_s[stored, step.cell] + 8
                arm_s = max(arm_s, sorted_s[k - m])
            else:
                way_s = machine.reach_s[0, step.cell] + 4
            arm_s += float(way_s + machine.reach_s[k % m, step.cell])
            free_s = sorted_s[k - q] if k >= q else 0.0
            sorted_s.append(max(arm_s, free_s) + times[k])
            last[step.order] = max(last.get(step.order, 0.0), sorted_s[-1])
        for order, time_s in last.items():
            done[order].append(time_s)
    for order in plan.orders:
        assert order.completed_s == pytest.approx(np.mean(done[order.order]))
        quantiles = np.quantile(done[order.order], (0.05, 0.5, 0.95))
        assert order.completed_quantiles_s == pytest.approx(quantiles)


def test_plan_file_holds_every_line_once(run, day: Path, tmp_path: Path):
    """What is written is the plan of the library, and the same again with the same seed."""
    for name in ("a.json", "b.json"):
        assert run("sequence", day.name, "--seed", "2", "--out", name).code == 0
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    written = json.loads((tmp_path / "a.json").read_text())
    pharmacy = read_pharmacy(day)
    wanted = {(order.id, line.drug) for order in pharmacy.orders for line in order.lines}
    steps = [(step["order"], step["drug"]) for step in written["steps"]]
    assert len(steps) == len(wanted)
    assert set(steps) == wanted
    assert written["makespan_s"] == sequence(pharmacy, seed=2).makespan_s


def test_comparison_holds_all_quick_methods(run, day: Path):
    """Each with its change to first-come; the exact one is ahead in what it minimises."""
    done = run("sequence", day.name, "--compare", "--json")
    methods = json.loads(done.out)["compare"]
    assert set(methods) == set(METHODS) - {"highs", "cp-sat"}
    pharmacy = read_pharmacy(day)
    best = sequence(pharmacy).objective_s
    assert all(best <= sequence(pharmacy, method=name).objective_s + 1e-9 for name in methods)
    table = run("sequence", day.name, "--compare").out
    first_come = next(line for line in table.splitlines() if "first-come" in line and "%" in line)
    assert "+0.0 %" in first_come or "to first-come" in first_come
    assert f"{methods['chain']['seconds_per_order']:.1f} seconds per order" in table


def test_figure_shows_every_bin_where_it_is(run, day: Path, tmp_path: Path):
    """Two bars a bin, the arm's and the pharmacist's, split where a row of time ends."""
    assert run("sequence", day.name, "--figure", "f.svg").code == 0
    text = (tmp_path / "f.svg").read_text("utf-8")
    root = ET.fromstring(text)  # noqa: S314, our own text
    tips = [node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}title")]
    plan = sequence(read_pharmacy(day))
    for step in plan.steps:
        told = f"{step.drug} of {step.order} "
        assert sum(tip.startswith(f"Arm, {told}") for tip in tips) >= 1
        assert sum(tip.startswith(f"Pharmacist 1, {told}") for tip in tips) >= 1
    assert sum("complete at" in tip for tip in tips) == len(plan.orders)


def test_figure_of_nothing_and_of_strange_names():
    """No orders give an empty chart; marks in names are text, not tags."""
    ET.fromstring(draw_machine([]))  # noqa: S314
    name = "<script>&'\""
    day = PharmacyDay(
        bins=(Bin(id="b", drug=name, cell=0),), orders=(Order(id=name, lines=(Line(drug=name),)),)
    )
    plan = sequence(day, replications=3)
    text = draw_machine(tasks_of_plan(plan, day.machine), plan.orders)
    assert "<script>" not in text
    found = ET.fromstring(text)  # noqa: S314
    assert name in {node.text for node in found.iter()}


def test_arm_and_pharmacist_do_one_thing_at_a_time():
    """Bars of one lane follow each other, and nobody sorts a bin before it stands there."""
    day = PharmacyDay(
        machine=Machine(points_m=((0.0, 0.0), (12.0, 0.0))),
        bins=tuple(Bin(id=f"b{k}", drug=f"d{k}", cell=50 * k) for k in range(9)),
        orders=tuple(Order(id=f"o{k}", lines=(Line(drug=f"d{k}"),)) for k in range(9)),
    )
    tasks = tasks_of_plan(sequence(day), day.machine)
    for task in tasks:
        assert task.arm_s[0] <= task.arm_s[1] <= task.sort_s[0] + 1e-9
    for before, after in pairwise(tasks):
        assert before.arm_s[1] <= after.arm_s[0] + 1e-9
        assert before.sort_s[1] <= after.sort_s[0] + 1e-9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("sequence", "Missing argument 'FILE'"),
        ("sequence none.json", "none.json: expected a readable file"),
        ("sequence small.txt", "small.txt"),
        ("sequence few.json", "few.json: line A: expected a bin with 5 packs"),
        ("sequence few.json --method magic", "--method: expected one of chain, rolling"),
        ("sequence few.json --window 0", "--window"),
        ("sequence few.json --replications 0", "--replications"),
        ("sequence few.json --seed -1", "--seed"),
        ("sequence few.json --output none/p.json", "no folder is called 'none'"),
        ("sequence few.json --figure none/f.svg", "no folder is called 'none'"),
        ("generate-pharmacy --orders 0", "--orders"),
        ("generate-pharmacy --points 3", "--points"),
        ("generate-pharmacy --output none/d.json", "no folder is called 'none'"),
    ],
)
def test_bad_input_gets_one_line(run, tmp_path: Path, args: str, message: str):
    """Exit code 2, a last line that names the trouble, and no new file."""
    few = PharmacyDay(
        bins=(Bin(id="b", drug="A", cell=0, quantity=1),),
        orders=(Order(id="o", lines=(Line(drug="A", quantity=5),)),),
    )
    write_pharmacy(few, tmp_path / "few.json")
    before = sorted(tmp_path.iterdir())
    done = run(*args.split())
    assert done.code == 2
    assert done.out == ""
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert sorted(tmp_path.iterdir()) == before
