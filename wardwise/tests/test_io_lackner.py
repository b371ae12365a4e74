"""Lackner-style CSV: read, refused with line and column, written and read again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.io import (
    InputError,
    Provenance,
    read_instance,
    read_lackner,
    read_provenance,
    write_lackner,
)

TEXT = """# drawn for the tests
# name: tiny-dod50-seed3
# robots: 2
# capacity: 10
# base: tiny
# degree of dynamism: 0.5
# seed: 3
# reference cost: 31.5
id,x,y,demand,ready,due,service,release,priority,kind
0,0,0,0,0,100,0,0,0,depot
1,3,4,5,10,50,2,0,1,collect
7,-6,8.5,5.5,20,60,2,12.25,3,deliver
"""
PROVENANCE = Provenance(base="tiny", degree=0.5, seed=3, reference_cost=31.5)


@pytest.fixture
def write(tmp_path):
    """Write text to a file and return its path."""

    def write_file(content, name="file.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode())
        return path

    return write_file


def test_lackner_text_is_read(write):
    """Row 0 is the depot and the day; numbers become ids; lengths are Euclidean."""
    instance = read_lackner(write(TEXT))
    assert instance.name == "tiny-dod50-seed3"
    assert instance.robots == tuple(
        Robot(id=k, capacity=10, end_s=100, max_trips=1) for k in ("1", "2")
    )
    second = Request(
        id="7", place="7", kind=Kind.DELIVER, load=5.5, ready_s=20, due_s=60, service_s=2,
        release_s=12.25, priority=3,
    )  # fmt: skip
    first = Request(id="1", place="1", load=5, ready_s=10, due_s=50, service_s=2, priority=1)
    assert instance.requests == (first, second)
    assert instance.places[2] == Place(id="7", x_m=-6, y_m=8.5)
    assert instance.travel_s[0, 1] == instance.distance_m[1, 0] == 5  # 3-4-5 triangle
    assert instance.costs == Costs()


def test_tolerance_is_an_optional_column(write):
    """Without it all windows are hard."""
    head, rows = TEXT.split("\n")[:8], TEXT.split("\n")[8:12]
    ends = ("tolerance", "0", "2.5", "0")
    wider = [f"{row},{end}" for row, end in zip(rows, ends, strict=True)]
    instance = read_lackner(write("\n".join([*head, *wider])))
    assert [request.tolerance_s for request in instance.requests] == [2.5, 0.0]
    assert [request.tolerance_s for request in read_lackner(write(TEXT)).requests] == [0.0, 0.0]


@pytest.mark.parametrize("name", ["file.csv", "file.CSV", "file.txt", "file"])
def test_read_instance_knows_the_format(write, name):
    """By the extension .csv, else by the column names."""
    assert read_instance(write(TEXT, name)) == read_lackner(write(TEXT, "other"))


@pytest.mark.parametrize(
    "change",
    [("\n", "\r\n"), ("\n", "\n\n"), (",", " ,\t"), ("# drawn", "\ufeff#\n# drawn"), (": ", ":")],
)
def test_layout_does_not_matter(write, change):
    """Line ends of Windows, blank lines, blanks at commas and a byte order mark."""
    assert read_instance(write(TEXT.replace(*change), "a.txt")) == read_lackner(write(TEXT))


def test_provenance_is_read(write):
    """All four lines or none; they change nothing in the instance."""
    lines = TEXT.split("\n")
    bare = write("\n".join([*lines[:4], *lines[8:]]), "bare.csv")
    assert read_provenance(write(TEXT)) == PROVENANCE
    assert read_provenance(bare) is None
    assert read_lackner(bare) == read_lackner(write(TEXT))


REFUSALS = {
    "no name": ("# name: tiny-dod50-seed3\n", "", "name: expected a line '# name: ...', got none"),
    "empty name": ("# name: tiny-dod50-seed3", "# name:", "2: name: expected a printable value"),
    "bad name": ("tiny-dod50", "tiny\x07", "2: name: expected a printable value, got"),
    "no robots": ("# robots: 2\n", "", "robots: expected a line '# robots: ...', got none"),
    "zero robots": ("robots: 2", "robots: 0", "3: robots: expected a whole number from 1 to 10000"),
    "no capacity": ("# capacity: 10\n", "", "capacity: expected a line '# capacity: ...', got"),
    "capacity": ("capacity: 10", "capacity: ten", "4: capacity: expected a number from 0 to 1e+12"),
    "capacity twice": ("# base", "# capacity: 1\n# base", "5: capacity: expected once, got it"),
    "unknown key": ("# base", "# bass", "5: comment: expected one of name, robots, capacity, base"),
    "seed alone": ("# base: tiny\n", "", "base: expected it beside degree of dynamism, got none"),
    "degree": (": 0.5", ": 50", "6: degree of dynamism: expected a number from 0 to 1, got '50'"),
    "seed": ("seed: 3", "seed: x", "7: seed: expected a whole number from 0 to 999999999999999"),
    "reference": ("31.5", "-1", "8: reference cost: expected a number from 0 to 1e+12, got '-1'"),
    "no rows": (TEXT[TEXT.index("id,") :], "", "id: expected the column names, got the end of the"),
    "other columns": ("id,x,y", "id,y,x", "9: column names: expected id,x,y,demand,ready,due"),
    "no columns": (TEXT[TEXT.index("id,") : TEXT.index("0,0,0")], "", "9: column names: expected"),
    "no depot row": (TEXT[TEXT.index("0,0,0") :], "", "id: expected the depot, got the end"),
    "no depot": ("0,0,0,0,0,100,0,0,0,depot\n", "", "10: id of the depot: expected a whole number"),
    "depot demand": (
        "0,0,0,0,0,100",
        "0,0,0,3,0,100",
        "10: demand of the depot: expected a number",
    ),
    "depot priority": ("0,0,0,depot", "0,0,1,depot", "10: priority of the depot: expected a numbe"),
    "depot kind": ("0,0,0,depot", "0,0,0,", "10: kind: expected depot, got ''"),
    "no requests": (TEXT[TEXT.index("1,3,4") :], "", "id: expected 1 to 10000 requests, got 0"),
    "missing cell": ("10,50,2,0,1", "10,50,0,1", "11: request: expected 10 values, got 9"),
    "extra cell": ("10,50,2,0,1", "10,50,2,0,1,1", "11: request: expected 10 values, got 11"),
    "semicolons": ("7,-6,8.5,5.5,", "7;-6;8.5;5.5;", "12: request: expected 10 values, got 6"),
    "id": ("7,-6", "ward,-6", "12: id: expected a whole number from 0 to 10000, got 'ward'"),
    "late comment": ("7,-6", "# 7,-6", "12: request: expected 10 values, got 1"),
    "twice": ("7,-6", "1,-6", "12: id: expected each number once, got 1 again"),
    "depot again": ("7,-6", "0,-6", "12: id: expected each number once, got 0 again"),
    "x": ("7,-6", "7,1e13", "12: x: expected a number from -1e+12 to 1e+12, got '1e13'"),
    "y": ("8.5", "nan", "12: y: expected a number from -1e+12 to 1e+12, got 'nan'"),
    "demand": ("8.5,5.5", "8.5,11", "12: demand: expected a number from 0 to 10, got '11'"),
    "ready": ("20,60", "-1,60", "12: ready: expected a number from 0 to 1e+12, got '-1'"),
    "due": ("20,60", "20,19", "12: due: expected a number from 20 to 1e+12, got '19'"),
    "service": ("60,2,12", "60,,12", "12: service: expected a number from 0 to 1e+12, got ''"),
    "release": ("12.25", "inf", "12: release: expected a number from 0 to 1e+12, got 'inf'"),
    "priority": (",3,deliver", ",4,deliver", "12: priority: expected a whole number from 1 to 3"),
    "kind": ("deliver", "transfer", "12: kind: expected collect or deliver, got 'transfer'"),
    "out of reach": ("10,50,2,0,1", "1,4,2,0,1", "11: request '1': unreachable: no robot can"),
}


@pytest.mark.parametrize(("old", "new", "message"), REFUSALS.values(), ids=REFUSALS)
def test_bad_text_is_refused(write, old, new, message):
    """One line names file, line, column and what was expected."""
    assert TEXT.count(old) == 1
    path = write(TEXT.replace(old, new))
    with pytest.raises(InputError) as error:
        read_instance(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


coordinates = st.floats(-1e3, 1e3).map(lambda value: value + 0.0)
numbers = st.floats(0, 1e6).map(lambda value: value + 0.0)
sentences = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8)


@st.composite
def dynamic_instances(draw):
    """What the format can hold: collected or delivered, releases, priorities, tolerances."""
    capacity = draw(numbers)
    requests = tuple(
        Request(
            id=str(k),
            place=str(k),
            kind=draw(st.sampled_from([Kind.COLLECT, Kind.DELIVER])),
            load=draw(st.floats(0, capacity)),
            ready_s=(ready_s := draw(numbers)),
            due_s=ready_s + 1e4,
            service_s=draw(numbers),
            release_s=draw(numbers),
            priority=draw(st.integers(1, 3)),
            tolerance_s=draw(st.sampled_from([0.0, 0.1])),
        )
        for k in range(1, draw(st.integers(1, 4)) + 1)
    )
    places = tuple(
        Place(id=str(k), x_m=draw(coordinates), y_m=draw(coordinates))
        for k in range(len(requests) + 1)
    )
    robots = tuple(
        Robot(id=str(k), capacity=capacity, end_s=1e7, max_trips=1)
        for k in range(1, draw(st.integers(1, 3)) + 1)
    )
    x_m, y_m = (np.array([getattr(place, name) for place in places]) for name in ("x_m", "y_m"))
    travel = np.hypot(np.subtract.outer(x_m, x_m), np.subtract.outer(y_m, y_m))
    return Instance(
        name=draw(sentences),
        places=places,
        requests=requests,
        robots=robots,
        travel_s=travel,
        distance_m=travel,
    )


@given(
    instance=dynamic_instances(),
    provenance=st.none()
    | st.builds(
        Provenance,
        base=sentences,
        degree=st.floats(0, 1),
        seed=st.integers(0, 10**15 - 1),
        reference_cost=numbers,
    ),
)
def test_round_trip_is_exact(tmp_path_factory, instance, provenance):
    """Every bit comes back, whatever the name and the base are called."""
    path = tmp_path_factory.mktemp("csv") / "file.csv"
    write_lackner(instance, path, provenance)
    assert read_instance(path) == instance
    assert read_provenance(path) == provenance


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reload_s": 5.0}, "reload_s"),
        ({"costs": Costs(per_robot=1.0)}, "costs"),
        ({"name": "two\nlines"}, "instance"),
        ({"name": " blank"}, "name"),
        ({"travel_s": np.full((3, 3), 5.0)}, "travel_s"),
        ({"robots": (Robot(id="R2-D2", capacity=10, end_s=100, max_trips=1),)}, "robots"),
        (
            {"requests": (Request(id="1", place="7", origin="1", kind="transfer", due_s=90),)},
            "instance",
        ),
        ({"requests": (Request(id="sample-1", place="1", due_s=90),)}, "instance"),
    ],
)
def test_what_the_format_cannot_hold_is_not_written(write, tmp_path, change, field):
    """Rather no file than one that leaves something out."""
    instance = replace(read_lackner(write(TEXT)), **change)
    with pytest.raises(ValueError, match=f"^{field}.*: expected "):
        write_lackner(instance, tmp_path / "never.csv")
    assert not (tmp_path / "never.csv").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base": "two\nlines"}, "provenance: base: expected printable text"),
        ({"base": ""}, "provenance: base: expected printable text"),
        ({"degree": 50}, "provenance: degree: expected 0 to 1, got 50"),
        ({"seed": -1}, "provenance: seed: expected 0 to 999999999999999, got -1"),
        ({"reference_cost": float("nan")}, "provenance: reference_cost: expected 0 to 1e.12, got"),
    ],
)
def test_provenance_out_of_range_is_named(change, message):
    """The message names the field and its range."""
    with pytest.raises(ValueError, match=message):
        replace(PROVENANCE, **change)
