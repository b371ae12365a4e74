"""Solomon and VRPLIB text: read, refused with line and field, written and read again."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot
from wardwise.io import (
    InputError,
    read_instance,
    read_solomon,
    read_vrplib,
    write_solomon,
    write_vrplib,
)

SOLOMON = """tiny

VEHICLE
NUMBER     CAPACITY
  2         10

CUSTOMER
CUST NO.  XCOORD.  YCOORD.  DEMAND  READY TIME  DUE DATE  SERVICE TIME

0   0    0   0    0  100  0
1   3    4   5   10   50  2
7  -6  8.5   5.5  0   60  2
"""

VRPLIB = """NAME : tiny
COMMENT : made up: by hand
TYPE : VRPTW
DIMENSION : 3
VEHICLES : 2
CAPACITY : 10
EDGE_WEIGHT_TYPE : EXPLICIT
EDGE_WEIGHT_FORMAT : FULL_MATRIX
EDGE_WEIGHT_SECTION
0 5 9
6 0 4
8 3 0
NODE_COORD_SECTION
1 0 0
2 3 4
3 -6 8
DEMAND_SECTION
1 0
2 5
3 6
DEPOT_SECTION
1
-1
SERVICE_TIME_SECTION
1 0
2 2
3 2
TIME_WINDOW_SECTION
1 0 100
2 10 50
3 0 60
EOF
"""

PLAIN_CVRP = """NAME: plain
TYPE: CVRP
DIMENSION: 3
CAPACITY: 10
EDGE_WEIGHT_TYPE: EUC_2D
NODE_COORD_SECTION
1 0 0
2 3 4
3 0 8
DEMAND_SECTION
1 0
2 5
3 6
DEPOT_SECTION
1
-1
EOF
"""


@pytest.fixture
def write(tmp_path):
    """Write text or bytes to a file and return its path."""

    def write_file(content, name="file.txt"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def test_one_service_time_for_all_customers(write):
    """The keyword SERVICE_TIME stands for a section with the same number in every row."""
    section = "SERVICE_TIME_SECTION\n1 0\n2 2\n3 2\n"
    short = VRPLIB.replace(section, "").replace("CAPACITY : 10", "CAPACITY : 10\nSERVICE_TIME : 2")
    assert read_vrplib(write(short)) == read_vrplib(write(VRPLIB, "other.txt"))
    both = VRPLIB.replace("CAPACITY : 10", "CAPACITY : 10\nSERVICE_TIME : 2")
    with pytest.raises(InputError, match="expected none with SERVICE_TIME"):
        read_vrplib(write(both))


def test_solomon_text_is_read(write):
    """Row 0 is the depot and the day; customer numbers become ids; lengths are Euclidean."""
    instance = read_solomon(write(SOLOMON))
    robots = [Robot(id=k, capacity=10, end_s=100, max_trips=1) for k in ("1", "2")]
    assert instance.name == "tiny"
    assert instance.robots == tuple(robots)
    assert instance.requests == (
        Request(id="1", place="1", load=5, ready_s=10, due_s=50, service_s=2),
        Request(id="7", place="7", load=5.5, due_s=60, service_s=2),
    )
    assert instance.requests[0].kind is Kind.COLLECT
    assert instance.places[2] == Place(id="7", x_m=-6, y_m=8.5)
    assert instance.travel_s[0, 1] == instance.distance_m[1, 0] == 5  # 3-4-5 triangle
    assert instance.travel_s[1, 2] == np.hypot(9, 4.5)
    assert instance.costs == Costs()


@pytest.mark.parametrize(
    "change", [("\n", "\r\n"), ("\n", " \n\n"), ("  ", "\t"), ("tiny", "\ufefftiny")]
)
def test_layout_of_solomon_text_does_not_matter(write, change):
    """Line ends of Windows, blank lines, tabs and a byte order mark."""
    assert read_solomon(write(SOLOMON.replace(*change))) == read_solomon(write(SOLOMON))


def test_vrplib_text_is_read(write):
    """Node n is customer n - 1; the matrix may be asymmetric and is distance and time."""
    instance = read_vrplib(write(VRPLIB))
    assert instance.name == "tiny"
    assert [place.id for place in instance.places] == ["0", "1", "2"]
    assert instance.requests[1] == Request(id="2", place="2", load=6, due_s=60, service_s=2)
    assert instance.travel_s.tolist() == [[0, 5, 9], [6, 0, 4], [8, 3, 0]]
    assert np.array_equal(instance.distance_m, instance.travel_s)
    assert [robot.id for robot in instance.robots] == ["1", "2"]
    assert instance.robots[0].end_s == 100


def test_rows_of_vrplib_text_may_stand_in_any_order(write):
    """Nodes are known by their number, and a matrix may break its lines anywhere."""
    shuffled = VRPLIB.replace("2 5\n3 6\n", "3 6\n2 5\n").replace("0 5 9\n6", "0 5\n9 6")
    assert read_vrplib(write(shuffled)) == read_vrplib(write(VRPLIB))


def test_cvrp_without_windows_is_never_bound_by_time(write):
    """A robot a customer; the day lasts 8 + 5 + 8 for the longest ways, rounded up, and 1."""
    instance = read_vrplib(write(PLAIN_CVRP))
    assert len(instance.robots) == 2
    assert instance.travel_s[1, 2] == 5
    assert {r.due_s for r in instance.requests} == {22.0} == {instance.robots[0].end_s}


def test_euclidean_file_needs_coordinates(write):
    """Lengths cannot be made up."""
    start, end = PLAIN_CVRP.index("NODE"), PLAIN_CVRP.index("DEMAND")
    with pytest.raises(InputError, match="NODE_COORD_SECTION: expected this section, got none"):
        read_vrplib(write(PLAIN_CVRP[:start] + PLAIN_CVRP[end:]))


SOLOMON_REFUSALS = {
    "no vehicles heading": ("VEHICLE\n", "", "3: VEHICLE: expected this heading, got 'NUMBER"),
    "cut after the name": (SOLOMON[5:], "", "expected the line 'VEHICLE', got the end"),
    "cut after the fleet": (SOLOMON[48:], "", "expected the line 'CUSTOMER', got the end"),
    "cut in a row": ("  60  2\n", "", "12: customer: expected 7 values, got 5"),
    "no depot": ("0   0    0   0    0  100  0\n", "", "CUST NO. of the depot: expected a whole"),
    "no customers": (SOLOMON[SOLOMON.index("1   3") :], "", "CUSTOMER: expected at least one"),
    "extra value": ("50  2\n", "50  2 9\n", "11: customer: expected 7 values, got 8"),
    "other columns": ("DUE DATE", "DATE", "8: column names: expected 'CUST NO. XCOORD."),
    "no robots": ("  2         10", "  0         10", "5: NUMBER: expected a whole number from 1"),
    "many robots": ("  2         10", "  99999999 10", "5: NUMBER: expected a whole number from 1"),
    "half a robot": ("  2         10", "  1.5       10", "5: NUMBER: expected a whole number"),
    "capacity below 0": ("  2         10", "  2        -10", "5: CAPACITY: expected a number from"),
    "no capacity": ("  2         10", "  2", "5: NUMBER CAPACITY: expected 2 values, got 1"),
    "demand below 0": ("4   5 ", "4  -5 ", "11: DEMAND: expected a number from 0 to 10, got '-5'"),
    "demand above": ("4   5 ", "4  11 ", "11: DEMAND: expected a number from 0 to 10, got '11'"),
    "not a number": ("4   5 ", "4 nan ", "11: DEMAND: expected a number from 0 to 10, got 'nan'"),
    "infinite": ("  10   50", "  10  inf", "11: DUE DATE: expected a number from 0 to 1e+12"),
    "hexadecimal": ("  10   50", "  10 0x50", "11: DUE DATE: expected a number"),
    "underscore": ("  10   50", "  10  5_0", "11: DUE DATE: expected a number"),
    "other digits": ("  10   50", "  10  ٥٠", "11: DUE DATE: expected a number"),
    "huge": ("  10   50", "  10  1e13", "11: DUE DATE: expected a number from 0 to 1e+12"),
    "beyond doubles": ("  10   50", "  10  1e999", "11: DUE DATE: expected a number"),
    "many digits": ("  10   50", "  10  " + "9" * 5000, "11: DUE DATE: expected a number"),
    "glued": ("  10   50", "  10   50x", "11: DUE DATE: expected a number from 0 to 1e+12, got"),
    "comma": ("8.5", "8,5", "12: YCOORD.: expected a number from -1e+12 to 1e+12, got '8,5'"),
    "due first": ("  10   50", "  50   10", "DUE DATE: expected at least READY TIME = 50, got 10"),
    "service below 0": ("50  2", "50 -2", "11: SERVICE TIME: expected a number from 0"),
    "twice": ("7  -6", "1  -6", "12: CUST NO.: expected each number once, got 1 again"),
    "depot again": ("7  -6", "0  -6", "12: CUST NO.: expected each number once, got 0 again"),
    "depot demand": ("0   0    0   0 ", "0   0    0   3 ", "10: DEMAND of the depot: expected"),
    "out of reach": ("  10   50", "   1    4", "11: request '1': unreachable: no robot can start"),
    "no way back": ("0  100  0", "0   10  0", "request '1': unreachable: no robot can start"),
}


@pytest.mark.parametrize(("old", "new", "message"), SOLOMON_REFUSALS.values(), ids=SOLOMON_REFUSALS)
def test_bad_solomon_text_is_refused(write, old, new, message):
    """One line names file, line, column and what was expected."""
    assert SOLOMON.count(old) == 1
    path = write(SOLOMON.replace(old, new))
    with pytest.raises(InputError) as error:
        read_solomon(path)
    assert message in str(error.value)
    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)


VRPLIB_REFUSALS = {
    "no name": ("NAME : tiny\n", "", "NAME: expected this keyword, got none"),
    "empty name": ("NAME : tiny", "NAME :", "1: NAME: expected a name, got none"),
    "unknown type": ("VRPTW", "HCVRP", "3: TYPE: expected CVRP or VRPTW or CVRPTW or MTVRPTW or"),
    "unknown keyword": ("VEHICLES : 2", "DISTANCE : 9", "5: expected a known keyword or section"),
    "unknown section": ("SERVICE_TIME_S", "BACKHAUL_S", "24: expected a known keyword or section"),
    "keyword after section": ("EOF", "CAPACITY : 9\nEOF", "32: CAPACITY: expected once, got it"),
    "section twice": (
        "EOF",
        "DEPOT_SECTION\nEOF",
        "32: DEPOT_SECTION: expected once, got it again",
    ),
    "no end": ("EOF\n", "", "EOF: expected this line at the end, got none"),
    "after the end": ("EOF\n", "EOF\n1 2\n", "33: EOF: expected nothing more, got '1 2'"),
    "dimension too large": (
        "DIMENSION : 3",
        "DIMENSION : 4",
        "13: NODE_COORD_SECTION: expected 4 rows as in DIMENSION",
    ),
    "absurd dimension": (
        "DIMENSION : 3",
        "DIMENSION : 999999999",
        "4: DIMENSION: expected a whole",
    ),
    "dimension 1": ("DIMENSION : 3", "DIMENSION : 1", "DIMENSION: expected a whole number from 2"),
    "two dimensions": (
        "DIMENSION : 3",
        "DIMENSION : 3 3",
        "4: DIMENSION: expected 1 values, got 2",
    ),
    "no capacity": ("CAPACITY : 10\n", "", "CAPACITY: expected this keyword, got none"),
    "capacity": ("CAPACITY : 10", "CAPACITY : ten", "6: CAPACITY: expected a number from 0"),
    "vehicles": ("VEHICLES : 2", "VEHICLES : -2", "5: VEHICLES: expected a whole number from 1"),
    "weight type": (
        "EXPLICIT",
        "GEO",
        "7: EDGE_WEIGHT_TYPE: expected EXPLICIT or EUC_2D, got 'GEO'",
    ),
    "weight format": ("FULL_MATRIX", "LOWER_ROW", "8: EDGE_WEIGHT_FORMAT: expected FULL_MATRIX"),
    "matrix too small": (
        "8 3 0\n",
        "",
        "9: EDGE_WEIGHT_SECTION: expected 3 x 3 = 9 numbers, got 6",
    ),
    "weight below 0": ("6 0 4", "6 0 -4", "11: EDGE_WEIGHT_SECTION: expected a number from 0"),
    "matrix and coordinates": (
        "EXPLICIT",
        "EUC_2D",
        "9: EDGE_WEIGHT_SECTION: expected none with EUC_2D",
    ),
    "demand missing": ("3 6\n", "", "17: DEMAND_SECTION: expected 3 rows as in DIMENSION, got 2"),
    "demand twice": ("3 6\n", "2 6\n", "20: DEMAND_SECTION node: expected each once, got 2 again"),
    "demand of nobody": ("3 6\n", "4 6\n", "20: DEMAND_SECTION node: expected a whole number from"),
    "demand above": (
        "3 6\n",
        "3 16\n",
        "20: DEMAND_SECTION: expected a number from 0 to 10, got '16'",
    ),
    "demand of two": ("3 6\n", "3 6 6\n", "20: DEMAND_SECTION: expected 2 values, got 3"),
    "depot demand": ("SECTION\n1 0\n2 5", "SECTION\n1 1\n2 5", "18: DEMAND_SECTION of the depot:"),
    "two depots": ("1\n-1", "1\n2\n-1", "21: DEPOT_SECTION: expected the one depot 1, then -1"),
    "no windows": (
        "TIME_WINDOW_SECTION\n1 0 100\n2 10 50\n3 0 60\n",
        "",
        "TIME_WINDOW_SECTION: exp",
    ),
    "window": ("2 10 50", "2 50 10", "30: TIME_WINDOW_SECTION due: expected at least the ready"),
    "out of reach": ("2 10 50", "2 1 4", "19: request '1': unreachable: no robot can start"),
}


@pytest.mark.parametrize(("old", "new", "message"), VRPLIB_REFUSALS.values(), ids=VRPLIB_REFUSALS)
def test_bad_vrplib_text_is_refused(write, old, new, message):
    """One line names file, line, keyword or section, and what was expected."""
    assert VRPLIB.count(old) == 1
    path = write(VRPLIB.replace(old, new))
    with pytest.raises(InputError) as error:
        read_vrplib(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


numbers = st.floats(0, 1e6).map(lambda value: value + 0.0)


@st.composite
def literature_instances(draw):
    """What the text formats can hold: Euclidean, collected, hard windows, one trip a robot."""
    count = draw(st.integers(1, 4))
    coordinate = st.floats(-1e3, 1e3).map(lambda value: value + 0.0)
    places = tuple(
        Place(id=str(k), x_m=draw(coordinate), y_m=draw(coordinate)) for k in range(count + 1)
    )
    capacity, day_s = draw(numbers), 1e7
    requests = tuple(
        Request(
            id=str(k),
            place=str(k),
            load=draw(st.floats(0, capacity)),
            ready_s=(ready_s := draw(numbers)),
            due_s=ready_s + 1e4,
            service_s=draw(numbers),
        )
        for k in range(1, count + 1)
    )
    robots = tuple(
        Robot(id=str(k), capacity=capacity, end_s=day_s, max_trips=1)
        for k in range(1, draw(st.integers(1, 3)) + 1)
    )
    x_m, y_m = (np.array([getattr(place, name) for place in places]) for name in ("x_m", "y_m"))
    travel = np.hypot(np.subtract.outer(x_m, x_m), np.subtract.outer(y_m, y_m))
    return Instance(
        name=draw(st.sampled_from(["a", "r1_2_1", "zwei Worte", "Ω-3"])),
        places=places,
        requests=requests,
        robots=robots,
        travel_s=travel,
        distance_m=travel,
    )


@pytest.mark.slow
@given(literature_instances(), st.booleans(), st.floats(1, 1.5))
def test_text_round_trip_is_exact(tmp_path_factory, instance, is_released, stretch):
    """Every bit comes back, with release times in Solomon text and matrices in VRPLIB text."""
    path = tmp_path_factory.mktemp("text") / "file.txt"
    released = tuple(replace(r, release_s=7.25 * is_released) for r in instance.requests)
    dynamic = replace(instance, requests=released)
    write_solomon(dynamic, path)
    assert read_instance(path) == dynamic
    longer = instance.travel_s * stretch
    explicit = replace(instance, travel_s=longer, distance_m=longer)
    write_vrplib(explicit, path)
    assert read_instance(path) == explicit


# The file's customers, but the second is carried from the first's place to its own.
TRANSFERS = (
    Request(id="1", place="1", load=5, ready_s=10, due_s=50, service_s=2),
    Request(id="2", place="2", origin="1", kind=Kind.TRANSFER, load=5.5, due_s=60, service_s=2),
)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"reload_s": 5.0}, "reload_s"),
        ({"costs": Costs(per_robot=1.0)}, "costs"),
        ({"name": "two\nlines"}, "name|instance"),
        ({"travel_s": np.full((3, 3), 5.0)}, "travel_s"),
        ({"robots": (Robot(id="R2-D2", capacity=10, end_s=100, max_trips=1),)}, "robots"),
        ({"robots": (Robot(id="1", capacity=10, end_s=100),)}, "robots"),
        ({"requests": TRANSFERS}, "requests"),
    ],
)
def test_what_text_cannot_hold_is_not_written(write, tmp_path, change, field):
    """Rather no file than one that leaves something out."""
    instance = replace(read_solomon(write(SOLOMON.replace("7 ", "2 "))), **change)
    for write_text in (write_solomon, write_vrplib):
        with pytest.raises(ValueError, match=f"^({field}).*: expected "):
            write_text(instance, tmp_path / "never.txt")
    assert not (tmp_path / "never.txt").exists()
