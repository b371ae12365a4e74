"""`wardwise layout` with real files, held to figures worked out elsewhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from wardwise.errors import InputError
from wardwise.io.pharmacy import read_pharmacy, write_pharmacy
from wardwise.io.pharmacy_logs import read_service_log
from wardwise.pharmacy.advice import Promise, advise
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.layout import Demand
from wardwise.pharmacy.problem import Line, Order, PharmacyDay
from wardwise.pharmacy.rack import Machine
from wardwise.pharmacy.service_time import Lognormal

if TYPE_CHECKING:
    from pathlib import Path

LAYOUTS = 9  # one point; two and three at one end and at both, with one and two pharmacists


def even_day(mean_s: float = 15.0) -> PharmacyDay:
    """Every drug of the default rack wanted once, in 200 orders of three lines."""
    day = generate_pharmacy(1)
    orders = tuple(
        Order(id=f"o{k}", lines=tuple(Line(drug=bin_.drug) for bin_ in day.bins[3 * k : 3 * k + 3]))
        for k in range(200)
    )
    return PharmacyDay(bins=day.bins, orders=orders, service=Lognormal(mean_s, 0.4))


@pytest.fixture
def even(tmp_path: Path) -> str:
    """The even day as a file."""
    write_pharmacy(even_day(), tmp_path / "even.json")
    return "even.json"


def answer(run, *args: str) -> dict:
    """What `--json` prints."""
    done = run("layout", *args, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.mark.slow
def test_default_rack_is_that_of_the_reference(run, even: str):
    """Cycle of the arm 19.988 s, 34.988 s a bin with one point, 21.056 with two, by enumeration."""
    layouts = answer(run, even)["layouts"]
    assert len(layouts) == LAYOUTS
    assert layouts[0]["arm_s"] == pytest.approx(19.988, abs=5e-4)
    assert layouts[0]["cycle_s"] == pytest.approx(34.988, abs=5e-4)
    assert layouts[1]["cycle_s"] == pytest.approx(21.056, abs=5e-4)
    # The same by drawing pairs of cells, with travel times written out.
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 600, (2, 400_000))
    x_s = (cells % 40 + 0.5) * 0.3 / 1.5
    y_s = (cells // 40 + 0.5) * 0.25 / 0.8
    out_s = np.maximum(x_s, y_s).sum(axis=0)
    between_s = np.maximum(np.abs(np.diff(x_s, axis=0)), np.abs(np.diff(y_s, axis=0)))[0]
    cycle_s = (out_s + between_s + 8)[cells[0] != cells[1]]
    assert layouts[0]["arm_s"] == pytest.approx(cycle_s.mean(), abs=0.03)
    sigma = np.sqrt(np.log(1.16))
    sorting_s = rng.lognormal(np.log(15) - sigma**2 / 2, sigma, len(cycle_s))
    assert layouts[1]["cycle_s"] == pytest.approx(np.maximum(cycle_s, sorting_s).mean(), abs=0.05)


@pytest.mark.parametrize(
    ("mean_s", "saving", "one", "two"),
    [(5, 20.0, 144, 180), (8, 28.5, 129, 180), (15, 39.8, 103, 171), (30, 38.2, 72, 117)],
)
def test_saving_of_a_second_point(
    run, tmp_path: Path, mean_s: float, saving: float, one: int, two: int
):
    """The reference table, as a manager sees it."""
    write_pharmacy(even_day(mean_s), tmp_path / "day.json")
    rows = [line.split() for line in run("layout", "day.json").out.splitlines()]
    first = next(row for row in rows if row[:3] == ["1", "*", "1"])
    second = next(row for row in rows if row[:4] == ["2", "same", "end", "1"])
    assert [int(first[3]), int(second[4])] == [one, two]
    assert float(second[6]) == pytest.approx(saving, abs=0.06)


@pytest.mark.slow
def test_simulation_confirms_the_formulas(run, even: str):
    """Each figure of a layout lies near its interval; without simulated days there is none."""
    found = answer(run, even, "--per-hour", "20", "--simulate", "20")
    for layout in found["layouts"]:
        simulated, flow = layout["simulated"], layout["flow"]
        assert layout["cycle_s"] == pytest.approx(simulated["cycle_s"]["mean"], rel=0.012)
        reach = simulated["flow_s"]["high"] - simulated["flow_s"]["mean"]
        assert flow["flow_s"] == pytest.approx(
            simulated["flow_s"]["mean"], rel=0.055, abs=1.5 * reach
        )
        assert layout["arm_busy"] == pytest.approx(simulated["arm_busy"]["mean"], abs=0.01)
    table = run("layout", even, "--per-hour", "20", "--simulate", "3").out
    assert table.count("  simulated ") == LAYOUTS
    assert table.count("±  ") == LAYOUTS
    assert answer(run, even)["layouts"][0]["simulated"] is None


@pytest.mark.slow
def test_load_is_demand_over_capacity(run, even: str):
    """Orders of three lines at 20 an hour; busy shares follow by hand; an overload has no times."""
    one, two = answer(run, even, "--per-hour", "20")["layouts"][:2]
    assert one["load"] == pytest.approx(60 * 34.988 / 3600, rel=1e-4)
    assert one["arm_busy"] == pytest.approx(60 * 19.988 / 3600, rel=1e-4)
    assert two["people_busy"] == pytest.approx(60 * 15 / 3600, rel=1e-4)
    full = answer(run, even, "--per-hour", "40")["layouts"]
    assert full[0]["flow"] is None
    assert full[0]["load"] > 1
    assert "full" in run("layout", even, "--per-hour", "40").out


@pytest.mark.slow
def test_prices_and_promise_choose(run, even: str):
    """The promise names the cheapest layout that keeps it; one that none keeps ends with 1."""
    args = ("--per-hour", "20", "--cost-point", "3", "--cost-pharmacist", "40")
    easy = answer(run, even, *args, "--target-minutes", "60")
    assert easy["best"] == "1 point, 1 pharmacist"
    hard = answer(run, even, *args, "--target-minutes", "3", "--percentile", "90")
    kept = [
        found["name"] for found in hard["layouts"] if found["flow"]["flow_quantiles_s"][1] <= 180
    ]
    assert hard["best"] == "2 points, same end, 1 pharmacist" == kept[0]
    assert "1 point, 1 pharmacist" not in kept
    # 60 bins an hour save 13.93 s each: 13.9 minutes, worth 9.29 at a wage of 40.
    assert "worth 9.29, and costs 3.00: it pays." in " ".join(hard["advice"])
    done = run("layout", even, *args, "--target-minutes", "0.5")
    assert done.code == 1
    told = " ".join(done.out.split())
    assert "No layout keeps 95 of 100 orders complete within 0.5 min; the quickest, " in told


def test_second_pharmacist_has_a_sentence():
    """Needed where sorting is slow and orders are many, else not, with what it would bring."""
    slow = Lognormal(40.0)
    busy = advise(Machine(), slow, Demand(orders_per_hour=34)).sentences[-1]
    assert busy.startswith("A second pharmacist is needed: one with two points manages ")
    quiet = advise(Machine(), slow, Demand(orders_per_hour=5), wage_per_hour=30).sentences[-1]
    assert quiet.startswith("A second pharmacist is not needed: ")
    assert quiet.endswith(", for 30.00 more an hour.")
    full = advise(Machine(), slow, Demand(orders_per_hour=400)).sentences[-1]
    assert full.startswith("A second pharmacist is not enough: two manage ")


@pytest.mark.slow
def test_speeds_and_dwell_points_are_tried(run, even: str):
    """Each multiplies the layouts, and a faster arm sorts more."""
    found = answer(run, even, "--speeds", "1,2", "--dwell", "6,1.9", "--dwell", "0,0")["layouts"]
    assert len(found) == LAYOUTS * 2 * 3
    assert {layout["speed_x_mps"] for layout in found} == {1.5, 3.0}
    assert [layout["dwell_m"] for layout in found[::LAYOUTS]][:3] == [None, [6.0, 1.9], [0.0, 0.0]]
    assert found[3 * LAYOUTS]["bins_per_hour"] > found[0]["bins_per_hour"]


def test_service_log_replaces_the_day_s_times(run, even: str, tmp_path: Path):
    """A log of two people: its model's mean is that of the times that made it."""
    rng = np.random.default_rng(5)
    packs = rng.integers(1, 4, 3000)
    seconds = (4 + 5 * packs) * np.exp(0.3 * rng.standard_normal(3000))
    rows = [f"{s:.3f},{n},p{k % 2}" for k, (s, n) in enumerate(zip(seconds, packs, strict=True))]
    (tmp_path / "log.csv").write_text("\n".join(["seconds,packs,person", *rows]))
    found = answer(run, even, "--service-log", "log.csv")["layouts"][0]
    # All lines of the day are of one pack: 9 s in the median.
    assert found["service_s"] == pytest.approx(9 * np.exp(0.3**2 / 2), rel=0.02)
    model = read_service_log(tmp_path / "log.csv")
    lines = [Line(drug="x", quantity=int(n)) for n in packs]
    assert model.mixture(lines).mean_s == pytest.approx(seconds.mean(), rel=0.02)
    assert model.mixture(lines).sd_s == pytest.approx(seconds.std(), rel=0.05)


@pytest.mark.slow
def test_figure_has_a_line_for_each_layout(run, tmp_path: Path):
    """Lines end where their layouts are full; the promise and what comes are marked."""
    run("generate-pharmacy", "--orders", "30", "--output", "small.json")
    done = run("layout", "small.json", "--target-minutes", "5", "--figure", "f.svg")
    assert done.code == 0
    root = ET.fromstring((tmp_path / "f.svg").read_text("utf-8"))  # noqa: S314, our own text
    names = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert names == [layout["name"] for layout in answer(run, "small.json")["layouts"]]
    words = {node.text for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"promised 5 min", "30 come", "orders an hour"} <= words
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        assert "nan" not in str(path.get("d"))


@pytest.mark.slow
def test_output_is_what_json_prints(run, even: str, tmp_path: Path):
    """The same document on stdout and in the file, and the same again with the same seed."""
    args = ("layout", even, "--simulate", "2", "--seed", "3")
    printed = json.loads(run(*args, "--json", "--out", "a.json").out)
    assert printed.pop("written") == {"advice": "a.json"}
    assert json.loads((tmp_path / "a.json").read_text()) == printed
    assert printed["schema"] == "wardwise/layout-advice/1"
    run(*args, "--out", "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_demand_is_that_of_the_day(run, tmp_path: Path):
    """Rate and popularity come from the orders; popular drugs near the point would be quicker."""
    run("generate-pharmacy", "--orders", "200", "--per-hour", "30", "--output", "d.json")
    found = answer(run, "d.json")
    day = read_pharmacy(tmp_path / "d.json")
    span_s = day.orders[-1].release_s - day.orders[0].release_s
    assert found["orders_per_hour"] == pytest.approx(3600 * 199 / span_s)
    assert found["num_orders"] == 200


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("layout", "Missing argument 'FILE'"),
        ("layout none.json", "none.json: expected a readable file"),
        ("layout one.json", "one.json: expected orders for two bins or more"),
        ("layout even.json --speeds fast", "--speeds: expected numbers as in 1,1.5, got 'fast'"),
        ("layout even.json --speeds 0", "speeds: expected factors above 0"),
        ("layout even.json --dwell 6", "--dwell: expected two numbers as in 6,1.9, got '6'"),
        ("layout even.json --simulate 1", "--simulate: expected 0, or at least 2 days, got 1"),
        ("layout even.json --percentile 80", "--percentile"),
        ("layout even.json --per-hour 0", "--per-hour"),
        ("layout even.json --cost-point -1", "--cost-point"),
        ("layout even.json --target-minutes 0", "--target-minutes"),
        ("layout even.json --figure none/f.svg", "no folder is called 'none'"),
        ("layout even.json --service-log few.csv", "few.csv: service log: expected at least 3"),
        ("layout even.json --service-log bad.csv", "bad.csv:3: seconds"),
        ("layout even.json --service-log odd.csv", "odd.csv:1: column names"),
    ],
)
def test_bad_input_gets_one_line(run, even: str, tmp_path: Path, args: str, message: str):
    """Exit code 2, a last line that names the trouble, and no new file."""
    day = even_day()
    one = PharmacyDay(bins=day.bins, orders=(Order(id="o", lines=(Line(drug="D0001"),)),))
    write_pharmacy(one, tmp_path / "one.json")
    (tmp_path / "few.csv").write_text("seconds\n12\n13\n")
    (tmp_path / "bad.csv").write_text("seconds\n12\nsoon\n14\n")
    (tmp_path / "odd.csv").write_text("minutes\n12\n")
    before = sorted(tmp_path.iterdir())
    done = run(*args.split())
    assert done.code == 2
    assert done.out == ""
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert sorted(tmp_path.iterdir()) == before


def test_promises_and_logs_are_checked(tmp_path: Path):
    """What is wrong is said with field and range."""
    with pytest.raises(ValueError, match="promise: within_s: expected a finite number above 0"):
        Promise(within_s=0.0)
    with pytest.raises(ValueError, match=r"promise: level: expected one of 0.5, 0.9, 0.95, 0.99"):
        Promise(within_s=1.0, level=0.8)
    (tmp_path / "same.csv").write_text("seconds\n5\n5\n5\n")
    with pytest.raises(InputError, match=r"same.csv: service log: expected times that differ"):
        read_service_log(tmp_path / "same.csv")
