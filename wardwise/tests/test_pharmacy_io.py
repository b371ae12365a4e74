"""Days of the dispensing machine in files: exact both ways, refusals that say where."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.io import InputError
from wardwise.io.pharmacy import (
    SERVICE_KINDS,
    format_pharmacy,
    parse_pharmacy,
    read_pharmacy,
    write_pharmacy,
)
from wardwise.io.pharmacy_tables import planned, read_bins, read_orders, write_retrievals
from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.problem import Bin, Line, Order, PharmacyDay, Priority
from wardwise.pharmacy.rack import Arm, Machine, Rack
from wardwise.pharmacy.service_time import Empirical, Fixed, Gamma
from wardwise.pharmacy.timing import simulate

ORDERS = "order_id,drug,qty,priority,release,due,min_expiry\n"
BINS = "bin_id,drug,col,row,lot,expiry,qty\n"

words = st.text("abcXYZ019-/,\"' äµ", min_size=1, max_size=8).map(str.strip).filter(bool)


@st.composite
def days(draw):
    """Any small day: lots, dates, commas and quotes in names, manual lines."""
    rack = Rack(num_columns=4, num_rows=3)
    cells = draw(st.lists(st.integers(0, 11), min_size=1, max_size=6, unique=True))
    bins = tuple(
        Bin(
            id=f"B{cell}{draw(words)}", drug=f"D{number}", cell=cell,
            quantity=draw(st.integers(0, 10**9)), lot=draw(words),
            expiry=draw(st.none() | st.dates(date(2020, 1, 1), date(2040, 1, 1))),
            is_recalled=draw(st.booleans()),
        )
        for number, cell in enumerate(cells)
    )  # fmt: skip
    orders = []
    for number in range(draw(st.integers(1, 4))):
        drugs = draw(st.lists(st.sampled_from([b.drug for b in bins]), min_size=1, unique=True))
        lines = [
            Line(drug=d, quantity=draw(st.integers(1, 9)),
                 min_expiry=draw(st.none() | st.dates(date(2020, 1, 1), date(2040, 1, 1))))
            for d in drugs
        ]  # fmt: skip
        if draw(st.booleans()):
            lines.append(Line(drug="by hand", is_manual=True, manual_s=draw(st.floats(0, 1e6))))
        release_s = draw(st.floats(0, 1e5))
        orders.append(
            Order(
                id=f"{number}{draw(words)}", lines=tuple(lines),
                priority=draw(st.sampled_from(Priority)), release_s=release_s,
                due_s=draw(st.none() | st.floats(release_s + 1, 1e6)), destination=draw(words),
            )
        )  # fmt: skip
    service = draw(st.sampled_from([Fixed(0.1), Gamma(7.7, 0.3), Empirical((1.5, 2.0, 0.0))]))
    machine = Machine(
        rack=rack, arm=Arm(acceleration_x_mps2=0.7), points_m=((0.0, 0.1), (-1.0, 2.0))
    )
    return PharmacyDay(machine=machine, bins=bins, orders=tuple(orders), service=service)


@settings(max_examples=50, deadline=None)
@given(days())
def test_json_reads_back_equal(day):
    """A day that is written as JSON is the same day when it is read."""
    assert parse_pharmacy(format_pharmacy(day), "day.json") == day


@settings(max_examples=30, deadline=None)
@given(day=days())
def test_folder_reads_back_equal(day, tmp_path_factory):
    """Four files in a folder hold the same day, with commas and quotes in names."""
    folder = tmp_path_factory.mktemp("day")
    write_pharmacy(day, folder)
    assert read_pharmacy(folder) == day
    with (folder / "orders.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))  # the standard library reads it too
    assert len(rows) == sum(len(order.lines) for order in day.orders)
    assert sum(int(row["qty"]) for row in rows) == sum(
        line.quantity for order in day.orders for line in order.lines
    )


def test_generated_day_survives_a_file(tmp_path):
    """A whole drawn day of 600 bins is the same after a file, and so is each service time."""
    day = generate_pharmacy(3, num_orders=40, arrivals_per_hour=30.0)
    for kind, of_kind in SERVICE_KINDS.items():
        service = Empirical((1.0, 2.5)) if kind == "empirical" else of_kind()
        day = replace(day, service=service)
        write_pharmacy(day, tmp_path / "day.json")
        assert read_pharmacy(tmp_path / "day.json") == day


def test_folder_needs_orders_and_bins_only(tmp_path):
    """Without layout and service the defaults hold; rows of an order may stand apart."""
    (tmp_path / "bins.csv").write_text(BINS + "B1,aspirin,2,1,L7,2027-05-31,4\nB2,ibu,0,0,,,\n")
    (tmp_path / "orders.csv").write_text(
        ORDERS + "R1,aspirin,2,stat,60,600,2027-01-31\nR2,ibu,1,,,,\nR1,ibu,1,stat,60,600,\n"
    )
    day = read_pharmacy(tmp_path)
    assert day.machine == Machine()
    # Row 1, column 2 of 40 columns.
    assert day.bins[0] == Bin(
        id="B1", drug="aspirin", cell=42, quantity=4, lot="L7", expiry=date(2027, 5, 31)
    )
    assert day.bins[1].expiry is None
    first, second = day.orders
    assert [line.drug for line in first.lines] == ["aspirin", "ibu"]
    assert (first.priority, first.release_s, first.due_s) == (Priority.STAT, 60.0, 600.0)
    assert (second.priority, second.due_s) == (Priority.ROUTINE, None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("R1,aspirin,0,,,,\n", ":2: qty: expected a whole number from 1 to 1000000000, got '0'"),
        ("R1,aspirin,1.5,,,,\n", ":2: qty: expected a whole number"),
        ("R1,aspirin,,,,,\n", ":2: qty: expected a whole number"),
        ("R1,aspirin,1,soon,,,\n", ":2: priority: expected one of stat, urgent, routine"),
        ("R1,aspirin,1,,-1,,\n", ":2: release: expected a number from 0"),
        ("R1,aspirin,1,,nan,,\n", ":2: release: expected a number from 0"),
        ("R1,aspirin,1,,5,4,\n", ":2: order R1: due_s: expected a number above release_s 5.0"),
        ("R1,aspirin,1,,,,31.12.2027\n", ":2: min_expiry: expected YYYY-MM-DD, got '31.12.2027'"),
        ("R1,aspirin,1,,,,2027-06-31\n", ":2: min_expiry: expected YYYY-MM-DD, got '2027-06-31'"),
        ("R1,a,1,,,,\nR1,b,1,stat,,,\n", ":3: priority: expected '' as in line 2, got 'stat'"),
        ("R1,a,1,,,,\nR1,a,1,,,,\n", ":2: order R1: lines: drug 'a' stands 2 times"),
        ("R1,a,1\n", ":2: columns: expected 7 values, got 3"),
        (",a,1,,,,\n", ":2: order: id: expected printable text"),
        ('R1,"a,1,,,,\n', "expected CSV"),
    ],
)  # fmt: skip
def test_wrong_orders_are_refused_with_line_and_column(tmp_path, rows, message):
    """One line tells the file, the line, the column, the range and what stood there."""
    path = tmp_path / "orders.csv"
    path.write_text(ORDERS + rows)
    with pytest.raises(InputError) as info:
        read_orders(path)
    assert str(path) in str(info.value)
    assert message in str(info.value)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("order_id,qty\n", "expected a column drug, got none"),
        ("order_id,drug,qty,colour\n", "expected order_id, line_id"),
        ("order_id,drug,qty,qty\n", "expected each once, got qty again"),
    ],
)
def test_wrong_column_names_are_refused(tmp_path, header, message):
    """Missing, unknown and repeated columns are named."""
    path = tmp_path / "orders.csv"
    path.write_text(header)
    with pytest.raises(InputError, match=message):
        read_orders(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("B1,a,40,0,,,1\n", ":2: col: expected a whole number from 0 to 39, got '40'"),
        ("B1,a,0,15,,,1\n", ":2: row: expected a whole number from 0 to 14, got '15'"),
        ("B1,a,0,0,,,-1\n", ":2: qty: expected a whole number from 0"),
        ("B1,,0,0,,,1\n", ":2: bin B1: drug: id: expected printable text"),
    ],
)
def test_wrong_bins_are_refused_with_line_and_column(tmp_path, row, message):
    """A bin outside of the rack is told with the range of the rack."""
    path = tmp_path / "bins.csv"
    path.write_text(BINS + row)
    with pytest.raises(InputError) as info:
        read_bins(path, Rack())
    assert message in str(info.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": 3}, "bins: expected a valid"),
        ({"colour": 1}, "colour: expected a known field"),
        ({"machine": {"rack": {"num_columns": 0}}}, "machine.rack: "),
        ({"machine": {"speed": 1}}, "machine.speed: expected a known field"),
        ({"service": {"kind": "magic"}}, "service.kind: expected one of fixed, exponential"),
        ({"service": {"kind": "fixed", "cv": 1.0}}, "service.cv: expected mean_s with kind fixed"),
        ({"service": {"kind": "fixed", "mean_s": "5"}}, "service.mean_s: expected a number"),
        ({"service": {"kind": "fixed", "mean_s": -5.0}}, "service: mean_s: expected a finite"),
        ({"service": {"kind": "empirical"}}, "service.samples_s: expected a value, got none"),
        ({"bins": [{"id": "B", "drug": "a", "cell": "0"}]}, "bins[0].cell: expected"),
        ({"bins": [{"id": "B", "drug": "a", "cell": 600}]}, "bin B: cell: expected 0 to 599"),
        ({"orders": [{"id": "R", "lines": [{"drug": "z"}]}]}, "order R: drug: 'z' is in no bin"),
        ({"orders": [{"id": "R", "lines": [{"drug": "a", "quantity": 0}]}]}, "orders[0].lines[0]"),
        ({"orders": [{"id": "R", "lines": [{"drug": "a", "quantity": True}]}]}, "quantity: "),
        ({"schema": "wardwise/pharmacy/2"}, "schema: expected 'wardwise/pharmacy/1'"),
    ],
)
def test_wrong_fields_are_refused_by_their_place(change, message):
    """The refusal starts with the path of the field in the document."""
    document = {
        "schema": "wardwise/pharmacy/1", "bins": [{"id": "B1", "drug": "a", "cell": 0}],
        "orders": [{"id": "R1", "lines": [{"drug": "a"}]}],
    }  # fmt: skip
    assert parse_pharmacy(json.dumps(document), "day.json").bins[0].quantity == 1_000_000
    with pytest.raises(InputError) as info:
        parse_pharmacy(json.dumps({**document, **change}), "day.json")
    assert message in str(info.value), str(info.value)


def test_planned_retrievals_tell_the_simulated_times(tmp_path):
    """The result file has the means of the exact recursion and points in turn."""
    day = replace(
        generate_pharmacy(2, num_orders=5), service=Fixed(12.0),
        machine=Machine(points_m=((0.0, 0.0), (1.0, 0.0))),
    )  # fmt: skip
    sequence = [
        (order.id, day.bins_of[line.drug][0].id) for order in day.orders for line in order.lines
    ]
    cells = np.concatenate([day.cells_of(order) for order in day.orders])
    times = simulate(day.machine, cells, np.full((1, len(cells)), 12.0))
    rows = planned(day, sequence, replications=3)
    assert [row.point for row in rows] == [k % 2 + 1 for k in range(len(rows))]
    np.testing.assert_allclose([row.delivered_s for row in rows], times.delivered_s[0])
    np.testing.assert_allclose([row.sorted_high_s for row in rows], times.sorted_s[0])
    write_retrievals(rows, tmp_path / "plan.csv")
    with (tmp_path / "plan.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["bin"] for row in read] == [name for _, name in sequence]
    assert float(read[-1]["sorted_s"]) == pytest.approx(rows[-1].sorted_s, abs=6e-4)
    with pytest.raises(ValueError, match="bin 'nowhere' is not in the machine"):
        planned(day, [("RX00001", "nowhere")])
    with pytest.raises(ValueError, match="replications: expected at least 1"):
        planned(day, sequence, replications=0)
