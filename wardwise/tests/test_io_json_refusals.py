"""Bad JSON is refused in one line that names the field, or line and column."""

import json

import pytest

from wardwise.io import InputError, read_json, read_plan

INSTANCE = {
    "schema": "wardwise/instance/1",
    "name": "tiny",
    "places": [{"id": "depot"}, {"id": "A", "x_m": 3, "y_m": 4}],
    "requests": [{"id": "a", "place": "A", "load": 1, "due_s": 60, "priority": 2}],
    "robots": [{"id": "r1", "capacity": 2, "end_s": 100}],
    "travel": {"kind": "matrix", "travel_s": [[0, 5], [6, 0]], "distance_m": [[0, 5], [5, 0]]},
}
PLAN = {
    "schema": "wardwise/plan/1",
    "instance": "tiny",
    "trips": [
        {
            "robot": "r1",
            "depart_s": 0,
            "stops": [{"request": "a", "arrive_s": 5, "start_s": 5}],
            "return_s": 11,
        }
    ],
}
SITE = {
    "name": "s",
    "floors": [{"level": 0, "name": "G"}],
    "nodes": [{"id": "depot", "name": "D"}, {"id": "A", "name": "A", "x_m": 9}],
    "corridors": [{"start": "depot", "end": "A", "one_way": True}],
}


def text_of(document):
    """Compact JSON, in which each change below finds its place."""
    return json.dumps(document, separators=(",", ":"))


def refusal(reader, path, text):
    """Message of the error that reading raises, without the path."""
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as error:
        reader(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    return message.removeprefix(str(path))


CHANGES = {
    "no text": ('"name":"tiny"', '"name":5', ": name: expected a valid string, got 5"),
    "empty name": ('"tiny"', '""', ": name: expected printable text without outer spaces"),
    "line end in name": ('"tiny"', '"a\\nb"', ": name: expected printable text without outer"),
    "other version": ("instance/1", "instance/2", ": schema: expected 'wardwise/instance/1', got"),
    "unknown field": ('"name"', '"nmae":1,"name"', ": nmae: expected a known field, got this one"),
    "unknown inner": ('"load"', '"laod":1,"load"', ": requests[0].laod: expected a known field"),
    "missing": ('"due_s":60,', "", ": requests[0].due_s: expected a value, got none"),
    "missing list": (
        text_of(INSTANCE["robots"]),
        "[]",
        ": robots: expected at least one, got none",
    ),
    "twice": ('"load":1', '"load":1,"load":2', ": load: expected once, got it again"),
    "text for number": ("60", '"60"', ": requests[0].due_s: expected a valid number, got '60'"),
    "true for number": ("60", "true", ": requests[0].due_s: expected a valid number, got True"),
    "null for number": ("60", "null", ": requests[0].due_s: expected a valid number, got None"),
    "not a number": ("60", "NaN", ": requests[0].due_s: expected a finite number, got nan"),
    "infinite": ("60", "Infinity", ": requests[0].due_s: expected a finite number, got inf"),
    "beyond doubles": ("60", "1e999", ": requests[0].due_s: expected a finite number, got inf"),
    "huge": ("60", "2e12", ": requests[0].due_s: expected a number from -1e+12 to 1e+12, got 200"),
    "many digits": ("60", "9" * 5000, ":1: column"),
    "below 0": ('"load":1', '"load":-1', ": requests[0]: request 'a': load: expected a finite"),
    "due first": ("60,", '60,"ready_s":61,', ": requests[0]: request 'a': due_s: expected at le"),
    "priority": (
        '"priority":2',
        '"priority":4',
        ": requests[0]: request 'a': priority: expected 1",
    ),
    "priority 2.5": ('"priority":2', '"priority":2.5', ": requests[0].priority: expected a valid"),
    "kind": ('"load"', '"kind":"fetch","load"', ": requests[0].kind: expected 'collect', 'deliv"),
    "load": (
        '"load":1',
        '"load":3',
        ": requests[0]: load: expected at most the largest capacity 2",
    ),
    "place": ('"place":"A"', '"place":"B"', ": requests[0]: place: no place is called 'B'"),
    "no origin": (
        '"load":1',
        '"kind":"transfer"',
        ": requests[0]: request 'a': origin: expected another place than 'A', got None",
    ),
    "origin of no transfer": (
        '"load":1',
        '"origin":"depot"',
        ": requests[0]: request 'a': origin: expected none for kind collect, got 'depot'",
    ),
    "origin nowhere": (
        '"load":1',
        '"kind":"transfer","origin":"B"',
        ": requests[0]: origin: no place is called 'B'",
    ),
    "late": ("60", "4", ": requests[0]: unreachable: no robot can start service by 4"),
    "same place": ('"id":"A"', '"id":"depot"', ": places: id: 'depot' stands 2 times"),
    "same request": (
        '[{"id":"a"',
        '[{"id":"a","place":"A","due_s":60},{"id":"a"',
        ": requests: id: 'a' stands 2 times",
    ),
    "shift": ('"end_s":100', '"end_s":100,"start_s":101', ": robots[0]: robot 'r1': end_s: expect"),
    "shape": ("[[0,5],[6,0]]", "[[0,5]]", ": travel.travel_s: expected 2 rows, one a place, got 1"),
    "ragged": ("[[0,5],[6,0]]", "[[0,5],[6]]", ": travel.travel_s[1]: expected 2 numbers, one a"),
    "time below 0": ("[[0,5],[6,0]]", "[[0,5],[-6,0]]", ": travel.travel_s: row 1, column 0: expe"),
    "text in table": (
        "[[0,5],[6,0]]",
        '[[0,"5"],[6,0]]',
        ": travel.travel_s[0][1]: expected a val",
    ),
    "no way": ("[[0,5],[6,0]]", "[[0,null],[6,0]]", ": requests[0]: unreachable: no way between"),
    "travel kind": (
        '"matrix"',
        '"haversine"',
        ": travel: expected kind 'matrix', 'euclidean', 'site', got 'hav",
    ),
    "no kind": ('"kind":"matrix",', "", ": travel: expected a field kind, got none"),
    "no site": (text_of(INSTANCE["travel"]), '{"kind":"site"}', ": site: expected a site, as trav"),
    "speed": (
        text_of(INSTANCE["travel"]),
        '{"kind":"euclidean","speed_m_per_s":0}',
        ": travel.speed_m_per_s: expected greater than 0, got 0",
    ),
    "tiny speed": (
        text_of(INSTANCE["travel"]),
        '{"kind":"euclidean","speed_m_per_s":1e-320}',
        ": requests[0]: unreachable: no way between the depot and 'A'",
    ),
    "prices": (
        '"name"',
        '"costs":{"per_denial":[1,2]},"name"',
        ": costs.per_denial[2]: expected a",
    ),
    "cut": ("}]", "", ":1: column"),
    "comma": ('"tiny",', '"tiny"', ":1: column 46: expected JSON, got: expected `,` or `}`"),
    "half a pair": ('"tiny"', '"\\ud800"', ":1: column"),
}


@pytest.mark.parametrize(("old", "new", "message"), CHANGES.values(), ids=CHANGES)
def test_bad_instance_is_refused(tmp_path, old, new, message):
    """One line names the JSON field, or line and column, and what was expected."""
    text = text_of(INSTANCE)
    assert old in text
    assert refusal(read_json, tmp_path / "x.json", text.replace(old, new, 1)).startswith(message)


@pytest.mark.parametrize("text", ["[]", "5", '"text"', "null", "[" * 100_000, "{", "{}x"])
def test_other_json_is_refused(tmp_path, text):
    """Not an object, not finished, or too deep."""
    assert ": expected" in refusal(read_json, tmp_path / "x.json", text)


def test_straight_lines_do_not_lead_through_ceilings(tmp_path):
    """Coordinates on two floors have no distance."""
    travel = {"kind": "euclidean", "speed_m_per_s": 1}
    places = [{"id": "depot"}, {"id": "A", "floor": 1}]
    text = text_of({**INSTANCE, "travel": travel, "places": places})
    message = ": places: expected all on one floor, as travel.kind is 'euclidean'"
    assert refusal(read_json, tmp_path / "x.json", text) == message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # The one-way corridor leads to A, and nothing leads back.
        ({}, ": travel: site: corridors: no way from 'A' to 'depot'"),
        ({"nodes": SITE["nodes"][:1], "corridors": []}, ": travel: site: no node or landing is c"),
        ({"speed_m_per_s": 0}, ": site: speed_m_per_s: expected a finite number above 0"),
        ({"drive_cv": -1}, ": site: drive_cv: expected a finite number of at least 0"),
        ({"floors": []}, ": site: floors: expected levels 0, 1, 2, "),
        (
            {"nodes": [{"id": "n", "name": "N", "kind": "pub"}]},
            ": site.nodes[0].kind: expected 'wa",
        ),
        ({"corridors": [{"start": "A", "end": "A"}]}, ": site.corridors[0]: corridor 'A' to 'A':"),
        # 9 m at 1e-200 m/s take 9e200 s, whose square no double can hold.
        (
            {"speed_m_per_s": 1e-200, "drive_cv": 1},
            ": site: expected lengths and speeds of usual size",
        ),
    ],
)
def test_bad_site_is_refused(tmp_path, change, message):
    """Whatever the building objects refuse comes with the place in the file."""
    text = text_of({**INSTANCE, "travel": {"kind": "site"}, "site": {**SITE, **change}})
    assert refusal(read_json, tmp_path / "x.json", text).startswith(message)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("plan/1", "instance/1", ": schema: expected 'wardwise/plan/1', got 'wardwise/instance/1'"),
        (
            '"return_s":11',
            '"return_s":null',
            ": trips[0].return_s: expected a valid number, got No",
        ),
        ('"start_s":5', '"start_s":"5"', ": trips[0].stops[0].start_s: expected a valid number"),
        ('"start_s":5', '"start_s":NaN', ": trips[0].stops[0].start_s: expected a finite number"),
        (
            '"start_s":5',
            '"start_s":5,"is_pickup":1',
            ": trips[0].stops[0].is_pickup: expected a valid boolean, got 1",
        ),
        (
            '"return_s":11',
            '"return_s":11,"is_broken_off":null',
            ": trips[0].is_broken_off: expected a valid boolean, got None",
        ),
        ('"request":"a"', '"request":7', ": trips[0].stops[0].request: expected a valid string"),
        (text_of(PLAN["trips"][0]["stops"]), "[]", ": trips[0]: trip of robot 'r1': stops: expect"),
        ('"trips"', '"denied":"a","trips"', ": denied: expected a valid array, got 'a'"),
        ('"trips"', '"routes"', ": trips: expected a value, got none"),
    ],
)
def test_bad_plan_is_refused(tmp_path, old, new, message):
    """One line names the JSON field and what was expected."""
    text = text_of(PLAN)
    assert text.count(old) == 1
    assert refusal(read_plan, tmp_path / "x.json", text.replace(old, new)).startswith(message)


def test_error_can_be_taken_apart(tmp_path):
    """Programs get path, line and field without reading the message."""
    path = tmp_path / "x.json"
    path.write_text('{\n "name": }')
    with pytest.raises(InputError) as error:
        read_json(path)
    assert (error.value.path, error.value.line, error.value.field) == (path, 2, "column 10")
    path.write_text(text_of({**INSTANCE, "reload_s": "x"}))
    with pytest.raises(InputError) as error:
        read_json(path)
    assert (error.value.path, error.value.line, error.value.field) == (path, None, "reload_s")
