"""`wardwise pharmacy-sim` with real files: figures, policies, journal, trouble."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from wardwise.io.pharmacy import read_pharmacy, write_pharmacy
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.many_days import live_many
from wardwise.pharmacy.online import Policy, Setup
from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay, Priority
from wardwise.pharmacy.running_day import live_day
from wardwise.pharmacy.service_time import Fixed
from wardwise.pharmacy.twin import Disturbances

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ["all", "stat", "urgent", "routine"]


@pytest.fixture
def day(run) -> str:
    """Sixty orders at 30 an hour with few packs in each bin."""
    args = ("--orders", "60", "--per-hour", "30", "--zipf", "0.8", "--packs", "6", "--seed", "3")
    assert run("generate-pharmacy", *args, "--output", "day.json").code == 0
    return "day.json"


def answer(run, *args: str) -> dict:
    """What `--json` prints."""
    done = run("pharmacy-sim", *args, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_times_of_a_small_day_by_hand(run, tmp_path: Path):
    """Two orders for one bin each at the corner: cycles and sorting added up, one by hand."""
    small = PharmacyDay(
        bins=(Bin(id="near", drug="A", cell=0), Bin(id="far", drug="B", cell=1)),
        orders=(
            Order(id="one", lines=(Line(drug="B"),), due_s=14.0),
            Order(id="two", lines=(Line(drug="A"),), release_s=1.0, priority=Priority.STAT,
                  due_s=90.0),
            Order(id="hand", lines=(Line(drug="C", is_manual=True, manual_s=90.0),)),
        ),
        service=Fixed(10.0),
    )  # fmt: skip
    write_pharmacy(small, tmp_path / "small.json")
    found = answer(run, "small.json", "--days", "2")["policies"]["ageing"]
    near_s, far_s = 0.125 / 0.8, 0.45 / 1.5
    first_s = 2 * far_s + 4 + 10
    second_s = first_s + far_s + 0.3 / 1.5 + near_s + 8 + 10
    flows_s = {"stat": second_s - 1, "routine": (first_s + 90) / 2}
    by_name = {own["name"]: own for own in found["classes"]}
    for name, flow_s in flows_s.items():
        assert by_name[name]["flow_s"]["mean"] == pytest.approx(flow_s)
        assert by_name[name]["flow_s"]["low"] == pytest.approx(flow_s)
    # "one" is due at 14 s and takes 14.6; "hand" promises nothing; what is manual is not missing.
    assert by_name["routine"]["late"]["mean"] == 1.0
    assert by_name["stat"]["late"]["mean"] == 0.0
    assert by_name["all"]["incomplete"]["mean"] == 0.0
    assert by_name["stat"]["wait_s"]["mean"] == pytest.approx(first_s - 1)
    assert found["people_busy"]["mean"] == pytest.approx(20 / 90)


@pytest.mark.slow
def test_figures_are_those_of_the_days(run, day: str, tmp_path: Path):
    """Means, quantiles, late and incomplete shares again from days lived one by one."""
    args = ("--days", "3", "--seed", "7", "--mtbf", "1", "--mttr", "5", "--missing", "10")
    found = answer(run, day, *args)["policies"]["ageing"]
    pharmacy = read_pharmacy(tmp_path / day)
    setup = Setup(machine=pharmacy.machine, bins=pharmacy.bins, service=pharmacy.service)
    trouble = Disturbances(mtbf_s=3600.0, mttr_s=300.0, missing=0.1)
    flows, late, incomplete, repairs = [], [], [], []
    for number in range(3):
        luck = int(np.random.SeedSequence([7, number]).generate_state(1)[0])
        lived = live_day(setup, pharmacy.orders, disturbances=trouble, seed=luck)
        flows.append([lived.done_s[o.id] - o.release_s for o in pharmacy.orders])
        late.append(np.mean([lived.done_s[o.id] > o.due_s for o in pharmacy.orders]))
        by_hand = {d.order for d in lived.decisions if d.kind.value == "hand"}
        incomplete.append(len(by_hand) / 60)
        repairs.append(sum(done.what == "repair" for done in lived.log))
    everybody = found["classes"][0]
    assert everybody["num_orders"] == 60
    assert everybody["flow_s"]["mean"] == pytest.approx(np.mean(flows))
    quantiles = np.quantile(flows, (0.5, 0.9, 0.95), axis=1).mean(axis=1)
    assert [q["mean"] for q in everybody["flow_quantiles_s"]] == pytest.approx(quantiles)
    assert everybody["late"]["mean"] == pytest.approx(np.mean(late))
    assert everybody["incomplete"]["mean"] == pytest.approx(np.mean(incomplete)) != 0
    assert found["repairs"]["mean"] == pytest.approx(np.mean(repairs)) != 0
    reach = 4.303 * np.std(np.mean(flows, axis=1), ddof=1) / np.sqrt(3)  # t with 2 degrees
    assert everybody["flow_s"]["high"] - np.mean(flows) == pytest.approx(reach, rel=1e-3)


def test_table_shows_the_figures(run, day: str):
    """A row for each class, its half interval below, and what is promised."""
    done = run("pharmacy-sim", day, "--days", "2")
    found = answer(run, day, "--days", "2")
    rows = [line.split() for line in done.out.splitlines()]
    for own in found["policies"]["ageing"]["classes"]:
        row = next(row for row in rows if row[:1] == [own["name"]])
        assert row[1] == str(own["num_orders"])
        assert row[3] == f"{own['flow_s']['mean'] / 60:.1f}"
    assert [own["name"] for own in found["policies"]["ageing"]["classes"]] == CLASSES
    assert done.out.count("±  ") == len(CLASSES)
    assert "60 minutes after a routine order does not go before it" in " ".join(done.out.split())
    assert found["guarantee_s"] == {"stat": 0.0, "urgent": 900.0, "routine": 3600.0}
    assert all(len(line) <= 80 for line in done.out.splitlines())


@pytest.mark.slow
def test_policies_meet_the_same_luck(run, day: str):
    """Compared policies are those that are lived alone; strict serves stat orders no later."""
    both = answer(run, day, "--days", "2", "--compare", "--seed", "1")["policies"]
    assert list(both) == ["ageing", "strict", "slack", "weighted"]
    for rule in both:
        alone = answer(run, day, "--days", "2", "--policy", rule, "--seed", "1")
        assert alone["policies"][rule] == both[rule]
    assert answer(run, day, "--days", "1", "--policy", "strict")["guarantee_s"]["routine"] is None
    table = run("pharmacy-sim", day, "--days", "1", "--compare").out
    assert "minutes until complete, mean/95 %, /% late" in table
    assert "…" not in table
    assert sum(line.split()[:1] in ([rule] for rule in both) for line in table.splitlines()) == 4


@pytest.mark.slow
def test_trouble_shows(run, day: str):
    """Repairs, tired people, pauses and missing packs each make orders slower than none."""
    calm = answer(run, day, "--days", "4")["policies"]["ageing"]
    for args in (
        ("--mtbf", "0.5", "--mttr", "10"), ("--fatigue", "60"),
        ("--pause-every", "20", "--pause", "10"), ("--missing", "20"),
    ):  # fmt: skip
        found = answer(run, day, "--days", "4", *args)["policies"]["ageing"]
        slower = found["classes"][0]["flow_s"]["mean"] / calm["classes"][0]["flow_s"]["mean"]
        assert slower > (1.0 if args[0] == "--missing" else 1.03), args
    assert found["classes"][0]["incomplete"]["mean"] > calm["classes"][0]["incomplete"]["mean"]
    assert calm["down"]["mean"] == 0.0


@pytest.mark.slow
def test_new_packs_spare_the_walk(run, day: str, tmp_path: Path):
    """Restocked bins, or a delivery in a file, leave fewer orders incomplete."""
    empty = answer(run, day, "--days", "2")["policies"]["ageing"]
    restocked = answer(run, day, "--days", "2", "--restock", "5")["policies"]["ageing"]
    assert empty["refills"]["mean"] == 0
    assert restocked["refills"]["mean"] > 3
    before, after = (own["classes"][0]["incomplete"]["mean"] for own in (empty, restocked))
    assert after < before
    pharmacy = read_pharmacy(tmp_path / day)
    first = replace(pharmacy.bins[0], quantity=0)
    small = replace(pharmacy, bins=(first, *pharmacy.bins[1:]))
    write_pharmacy(small, tmp_path / "small.json")
    row, column = divmod(pharmacy.bins[0].cell, 40)
    text = f"time,bin_id,drug,col,row,qty\n60,new,D0001,{column},{row},50\n"
    (tmp_path / "new.csv").write_text(text)
    without = answer(run, "small.json", "--days", "1")["policies"]["ageing"]
    with_new = answer(run, "small.json", "--days", "1", "--refills", "new.csv")["policies"]
    assert with_new["ageing"]["refills"]["mean"] == 1
    assert (
        with_new["ageing"]["classes"][0]["incomplete"]["mean"]
        < without["classes"][0]["incomplete"]["mean"]
    )


def test_expired_packs_are_left_in(run, tmp_path: Path):
    """With a date, an expired bin is no bin: its order is served by hand."""
    day = generate_pharmacy(2, num_orders=3)
    old = replace(day, bins=tuple(replace(b, lot="L", expiry=date(2026, 3, 1)) for b in day.bins))
    write_pharmacy(old, tmp_path / "old.json")
    for today, share in (("2026-03-01", 0.0), ("2026-03-02", 1.0)):
        found = answer(run, "old.json", "--days", "1", "--today", today)["policies"]["ageing"]
        assert found["classes"][0]["incomplete"]["mean"] == share
    drugs = {line.drug for order in day.orders for line in order.lines}
    recalls = [word for drug in drugs for word in ("--recall", f"{drug},L,0")]
    recalled = answer(run, "old.json", "--days", "1", *recalls)["policies"]["ageing"]
    assert recalled["classes"][0]["incomplete"]["mean"] == 1.0
    strict = answer(run, "old.json", "--days", "1", "--today", "2026-03-01", "--min-days", "1")
    assert strict["policies"]["ageing"]["classes"][0]["incomplete"]["mean"] == 1.0


@pytest.mark.slow
def test_interrupted_day_goes_on_from_its_journal(
    start, run, day: str, tmp_path: Path, monkeypatch
):
    """Ctrl-C in the first day leaves a journal; the same command ends as if nothing had been."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # here; not in the process that is killed
    args = ["pharmacy-sim", day, "--days", "1", "--journal", "j.jsonl", "--mtbf", "1", "--json"]
    whole = run(*[word if word != "j.jsonl" else "whole.jsonl" for word in args])
    process = start("-m", "wardwise", *args)
    journal = tmp_path / "j.jsonl"
    deadline = time.monotonic() + 60
    while not journal.exists() or journal.read_bytes().count(b"\n") < 40:
        assert process.poll() is None, process.err
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert (process.wait(60), process.out) == (1, "")
    assert "j.jsonl: holds what happened so far; the same command goes on" in process.err
    assert journal.read_bytes().count(b"\n") < (tmp_path / "whole.jsonl").read_bytes().count(b"\n")
    again = run(*args)
    assert "goes on after" in again.err
    assert again.out == whole.out
    assert journal.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    other = run("pharmacy-sim", day, "--days", "1", "--journal", "j.jsonl", "--seed", "5")
    assert other.code == 2
    assert "belongs to another seed or other options" in other.err.splitlines()[-1]


def test_interrupted_days_give_those_that_are_done():
    """Figures of two days after Ctrl-C in the third; none at all in the first."""
    pharmacy = generate_pharmacy(1, num_orders=5, arrivals_per_hour=30)
    setup = Setup(machine=pharmacy.machine, bins=pharmacy.bins)

    def live(number: int, seed: int):
        if number == 2:
            raise KeyboardInterrupt
        return live_day(setup, pharmacy.orders, seed=seed)

    found, _ = live_many(live, 5)
    assert found.num_days == 2
    assert found == live_many(live, 2)[0]
    with pytest.raises(KeyboardInterrupt):
        live_many(lambda number, seed: live(number + 2, seed), 5)


def test_same_seed_same_output(run, day: str, tmp_path: Path):
    """Files are equal byte by byte, and other luck gives other figures."""
    for name in ("a", "b"):
        args = ("--days", "2", "--seed", "4", "--out", f"{name}.json", "--figure", f"{name}.svg")
        assert run("pharmacy-sim", day, *args, "--mtbf", "1").code == 0
    for end in ("json", "svg"):
        assert (tmp_path / f"a.{end}").read_bytes() == (tmp_path / f"b.{end}").read_bytes()
    written = json.loads((tmp_path / "a.json").read_text())
    assert written["schema"] == "wardwise/pharmacy-days/1"
    assert written != answer(run, day, "--days", "2", "--seed", "5", "--mtbf", "1")


def test_figure_shows_the_first_day(run, day: str, tmp_path: Path):
    """Every fetch and sort, the repairs in red, and each order where it is complete."""
    args = ("--days", "1", "--mtbf", "0.3", "--pause-every", "60", "--figure", "f.svg")
    assert run("pharmacy-sim", day, *args).code == 0
    root = ET.fromstring((tmp_path / "f.svg").read_text("utf-8"))  # noqa: S314, our own text
    bars = [
        (node.get("style"), title.text)
        for node in root.iter("{http://www.w3.org/2000/svg}rect")
        for title in node
    ]
    tips = [text for _, text in bars]
    assert all("--bad" in style for style, text in bars if text.startswith("Arm, repair"))
    assert any(text.startswith("Arm, repair") for text in tips)
    assert any(text.startswith("Pharmacist 1, pause") for text in tips)
    marks = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert sum(" complete at " in text for text in marks) == 60


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("pharmacy-sim", "Missing argument 'FILE'"),
        ("pharmacy-sim none.json", "none.json: expected a readable file"),
        ("pharmacy-sim day.json --policy fair", "--policy: expected one of strict, ageing, slack"),
        ("pharmacy-sim day.json --ageing 1,2", "--ageing: expected three numbers of minutes"),
        ("pharmacy-sim day.json --ageing 9,2,1", "policy: ageing_s: expected three numbers"),
        ("pharmacy-sim day.json --recall D0001", "--recall: expected DRUG,LOT,MINUTES"),
        ("pharmacy-sim day.json --recall D0001,L,-1", "--recall: expected DRUG,LOT,MINUTES"),
        ("pharmacy-sim day.json --days 0", "--days"),
        ("pharmacy-sim day.json --mtbf 0", "--mtbf"),
        ("pharmacy-sim day.json --missing 101", "--missing"),
        ("pharmacy-sim day.json --today soon", "--today"),
        ("pharmacy-sim day.json --refills bad.csv", "bad.csv:2: col"),
        ("pharmacy-sim day.json --refills none.csv", "none.csv: expected a readable file"),
        ("pharmacy-sim day.json --journal none/j", "no folder is called 'none'"),
        ("pharmacy-sim day.json --journal bad.csv", "bad.csv:1: expected a line with a valid"),
        ("pharmacy-sim day.json --figure none/f.svg", "no folder is called 'none'"),
        ("generate-pharmacy --packs 0", "--packs"),
    ],
)
def test_bad_input_gets_one_line(run, day: str, tmp_path: Path, args: str, message: str):
    """Exit code 2, a last line that names the trouble, and no new file."""
    (tmp_path / "bad.csv").write_text("time,bin_id,drug,col,row\n60,x,D0001,99,0\n")
    before = sorted(tmp_path.iterdir())
    done = run(*args.split())
    assert done.code == 2
    assert done.out == ""
    last = done.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert sorted(tmp_path.iterdir()) == before


def test_a_day_may_be_a_folder_of_tables(run, day: str, tmp_path: Path):
    """Written into a folder that exists, it is lived as its JSON is."""
    (tmp_path / "tables").mkdir()
    args = ("--orders", "60", "--per-hour", "30", "--zipf", "0.8", "--packs", "6", "--seed", "3")
    assert run("generate-pharmacy", *args, "--output", "tables").code == 0
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        "orders.csv", "bins.csv", "layout.json", "service.json",
    }  # fmt: skip
    one, other = (answer(run, name, "--days", "1") for name in (day, "tables"))
    assert one["policies"] == other["policies"]


def test_guarantees_of_the_policies():
    """Only ageing promises something to every class; strict does to stat orders."""
    urgent, routine = Priority.URGENT, Priority.ROUTINE
    ageing = Policy(ageing_s=(60.0, 600.0, 1800.0))
    assert [ageing.overtaking_s(p) for p in Priority] == [0.0, 540.0, 1740.0]
    assert Policy(rule="strict").overtaking_s(Priority.STAT) == 0.0
    for rule in ("strict", "slack", "weighted"):
        assert {Policy(rule=rule).overtaking_s(p) for p in (urgent, routine)} == {np.inf}
