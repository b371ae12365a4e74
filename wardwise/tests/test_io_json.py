"""JSON instances and plans: exact round trips, and refusals that name the field."""

import json
import math
from dataclasses import fields, replace

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wardwise.fleet.energy import Battery, ChargeCurve, Recharge
from wardwise.fleet.plan import Plan, Stop, Trip
from wardwise.fleet.problem import Costs, Instance, Kind, Place, Request, Robot, Station
from wardwise.fleet.randomness import Promise, Randomness
from wardwise.io import json_schema, read_json, read_plan, write_json, write_plan
from wardwise.site import Corridor, Elevator, Floor, Node, NodeKind, Site

SITE = Site(
    name="Clinic",
    floors=(Floor(level=0, name="Ground"), Floor(level=1, name="First")),
    nodes=(
        Node(id="dock", name="Dock", kind=NodeKind.DOCK),
        Node(id="ward", name="Wärd 1", kind=NodeKind.WARD, floor=1, x_m=20.0),
    ),
    corridors=(
        Corridor(start="dock", end="lift@0", door_s=3.0),
        Corridor(start="lift@1", end="ward", length_m=12.5, speed_factor=0.8),
    ),
    elevators=(Elevator(id="lift", floors=(0, 1), x_m=10.0),),
)

INSTANCE_SCHEMA = jsonschema.Draft202012Validator(json_schema("instance"))
PLAN_SCHEMA = jsonschema.Draft202012Validator(json_schema("plan"))


def in_building():
    """Two places on two floors, joined by an elevator."""
    travel = SITE.travel(["dock", "ward"])
    return Instance(
        name="clinic",
        places=(Place(id="dock"), Place(id="ward", x_m=20.0, floor=1)),
        requests=(Request(id="meals", place="ward", kind=Kind.DELIVER, load=2.0, due_s=900.0),),
        robots=(Robot(id="r1", capacity=4.0, end_s=3600.0),),
        stations=(Station(id="plug", place="dock", num_slots=2),),
        travel_s=travel.travel_s,
        distance_m=travel.distance_m,
        travel_var_s2=travel.travel_var_s2,
        reload_s=90.0,
        site=SITE,
    )


def document():
    """The smallest instance with everything in it that a mistake can be made in."""
    return {
        "schema": "wardwise/instance/1",
        "name": "tiny",
        "places": [{"id": "depot"}, {"id": "A", "x_m": 3, "y_m": 4}],
        "requests": [{"id": "a", "place": "A", "load": 1, "due_s": 60, "priority": 2}],
        "robots": [{"id": "r1", "capacity": 2, "end_s": 100}],
        "travel": {"kind": "matrix", "travel_s": [[0, 5], [6, 0]], "distance_m": [[0, 5], [5, 0]]},
    }


@pytest.fixture
def write(tmp_path):
    """Write a document, or text as it is, to a file and return its path."""

    def write_file(content):
        path = tmp_path / "file.json"
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def test_defaults_are_those_of_the_problem(write):
    """What a file leaves out is what the dataclasses say."""
    travel = np.array([[0, 5], [6, 0]])
    assert read_json(write(document())) == Instance(
        name="tiny",
        places=(Place(id="depot"), Place(id="A", x_m=3, y_m=4)),
        requests=(Request(id="a", place="A", load=1, due_s=60, priority=2),),
        robots=(Robot(id="r1", capacity=2, end_s=100),),
        travel_s=travel,
        distance_m=np.array([[0, 5], [5, 0]]),
    )


def test_euclidean_travel(write):
    """5 m at 0.5 m/s take 10 s."""
    travel = {"kind": "euclidean", "speed_m_per_s": 0.5}
    instance = read_json(write({**document(), "travel": travel}))
    assert instance.distance_m.tolist() == [[0, 5], [5, 0]]
    assert instance.travel_s.tolist() == [[0, 10], [10, 0]]


def test_transfers_and_breakdowns_stand_in_fields_of_their_own(write, tmp_path):
    """They are read where they stand, and written only where they say something."""
    data = document()
    data["places"].append({"id": "B"})
    rows = [[0, 5, 5], [5, 0, 5], [5, 5, 0]]
    data["travel"] = {"kind": "matrix", "travel_s": rows, "distance_m": rows}
    data["requests"].append(
        {"id": "t", "place": "A", "origin": "B", "kind": "transfer", "due_s": 60}
    )
    instance = read_json(write(data))
    assert instance.requests[1] == Request(
        id="t", origin="B", place="A", kind=Kind.TRANSFER, due_s=60
    )
    write_json(instance, tmp_path / "copy.json")
    one, two = json.loads((tmp_path / "copy.json").read_text(encoding="utf-8"))["requests"]
    assert ("origin" in one, two["origin"]) == (False, "B")

    stop = {"request": "t", "arrive_s": 5.0, "start_s": 5.0}
    trip = {"robot": "r1", "depart_s": 0.0, "stops": [{**stop, "is_pickup": True}, stop]}
    trips = [{**trip, "return_s": 9.0, "is_broken_off": True}, {**trip, "return_s": 9.0}]
    plan = {"schema": "wardwise/plan/1", "instance": "tiny", "trips": trips, "denied": []}
    path = write(plan)
    assert [trip.is_broken_off for trip in read_plan(path).trips] == [True, False]
    write_plan(read_plan(path), tmp_path / "copy.json")
    assert json.loads((tmp_path / "copy.json").read_text(encoding="utf-8")) == plan


def test_null_is_no_way(write):
    """Two wards may have no way between them as long as each can be served."""
    data = document()
    data["places"].append({"id": "B"})
    rows = [[0, 5, 5], [5, 0, None], [5, 5, 0]]
    data["travel"] = {"kind": "matrix", "travel_s": rows, "distance_m": rows}
    assert read_json(write(data)).travel_s[1, 2] == math.inf


@pytest.mark.parametrize("speed_m_per_s", [1.0, 0.7, 1 / 3])
def test_straight_lines_are_written_as_such(write, tmp_path, speed_m_per_s):
    """A speed with at most twelve digits is found again; any other keeps the tables."""
    data = document()
    data["places"] += [{"id": "B", "x_m": -7.3}, {"id": "C", "y_m": 11.1}]
    data["travel"] = {"kind": "euclidean", "speed_m_per_s": speed_m_per_s}
    instance = read_json(write(data))
    write_json(instance, tmp_path / "copy.json")
    travel = json.loads((tmp_path / "copy.json").read_text())["travel"]
    if speed_m_per_s == 1 / 3:
        assert travel["kind"] == "matrix"
    else:
        assert travel == {"kind": "euclidean", "speed_m_per_s": speed_m_per_s}
    assert read_json(tmp_path / "copy.json") == instance


def test_building_is_written_without_tables(tmp_path):
    """The reader computes travel from the site, to the last bit, variances included."""
    instance = in_building()
    write_json(instance, tmp_path / "clinic.json")
    data = json.loads((tmp_path / "clinic.json").read_text(encoding="utf-8"))
    assert data["travel"] == {"kind": "site"}
    assert read_json(tmp_path / "clinic.json") == instance
    slower = replace(instance, travel_s=instance.travel_s * 2)
    write_json(slower, tmp_path / "clinic.json")
    assert read_json(tmp_path / "clinic.json") == slower


def test_every_field_is_written(tmp_path):
    """No field of a dataclass is forgotten; a transfer and a late delivery use all of theirs."""
    (meals,) = in_building().requests
    requests = (
        replace(meals, id="blood", kind=Kind.TRANSFER, origin="dock"),
        replace(meals, available_s=60.0),
    )
    battery = Battery(capacity_wh=100.0, wh_per_m=0.1)
    instance = replace(
        in_building(),
        requests=requests,
        robots=(Robot(id="r1", capacity=4.0, end_s=3600.0, battery=battery),),
        stations=(Station(id="plug", place="dock", charge=ChargeCurve.linear(100.0, 20.0)),),
        recharge=Recharge.FULL,
        randomness=Randomness(),
        promise=Promise(),
    )
    write_json(instance, tmp_path / "clinic.json")
    assert read_json(tmp_path / "clinic.json") == instance
    data = json.loads((tmp_path / "clinic.json").read_text(encoding="utf-8"))
    for cls, names in (
        (Place, data["places"][0]),
        (Request, {**data["requests"][0], **data["requests"][1]}),
        (Robot, data["robots"][0]),
        (Battery, data["robots"][0]["battery"]),
        (Station, data["stations"][0]),
        (ChargeCurve, data["stations"][0]["charge"]),
        (Costs, data["costs"]),
        (Site, data["site"]),
        (Corridor, data["site"]["corridors"][0]),
        (Elevator, data["site"]["elevators"][0]),
        (Randomness, data["randomness"]),
        (Promise, data["promise"]),
    ):
        assert list(names) == [field.name for field in fields(cls)]
    travel = {"travel_s", "distance_m", "travel_var_s2"}
    assert {*data} - {"schema", "travel"} == {f.name for f in fields(Instance)} - travel


texts = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=6)
numbers = st.floats(0, 1e12)


@st.composite
def requests_at(draw, id_, places):
    """A request of any kind; one end of a transfer is the depot, which has ways to all places."""
    place = draw(st.sampled_from(places))
    others = [other for other in places if other != place and places[0] in (other, place)]
    origin = draw(st.sampled_from([None, *others]))
    one_way = st.sampled_from([Kind.COLLECT, Kind.DELIVER])
    return Request(
        id=id_,
        place=place,
        origin=origin,
        kind=draw(one_way) if origin is None else Kind.TRANSFER,
        load=draw(st.floats(0, 10)),
        ready_s=draw(st.floats(0, 1e9)),
        due_s=1e12,
        service_s=draw(st.floats(0, 1e9)),
        release_s=draw(numbers),
        priority=draw(st.integers(1, 3)),
        tolerance_s=draw(numbers),
    )


@st.composite
def instances(draw):
    """Anything that the problem accepts and that stays within the reader's range."""
    ids = draw(st.lists(texts, min_size=1, max_size=4, unique=True))
    coordinate = st.floats(-1e12, 1e12)
    places = tuple(
        Place(id=id_, x_m=draw(coordinate), y_m=draw(coordinate), floor=draw(st.integers(0, 9)))
        for id_ in ids
    )
    # The depot is reachable from everywhere; elsewhere a way may be missing.
    way = st.one_of(st.floats(0, 1e9), st.just(math.inf))
    size = len(ids)
    matrices = [
        np.array(
            [
                [draw(st.floats(0, 1e9) if 0 in (i, j) else way) for j in range(size)]
                for i in range(size)
            ]
        )
        for _ in range(3)
    ]
    request_ids = draw(st.lists(texts, max_size=3, unique=True))
    requests = tuple(draw(requests_at(id_, ids)) for id_ in request_ids)
    max_trips = st.one_of(st.none(), st.integers(1, 99))
    robot = Robot(id=draw(texts), capacity=10.0, end_s=1e12, max_trips=draw(max_trips))
    prices = st.tuples(numbers, numbers, numbers)
    return Instance(
        name=draw(texts),
        places=places,
        requests=requests,
        robots=(robot,),
        stations=(Station(id="s", place=ids[-1], num_slots=draw(st.integers(1, 9))),),
        travel_s=matrices[0],
        distance_m=matrices[1],
        travel_var_s2=draw(st.sampled_from([None, matrices[2]])),
        reload_s=draw(numbers),
        costs=Costs(per_robot=draw(numbers), lateness_per_s=draw(prices), per_denial=draw(prices)),
        site=draw(st.sampled_from([None, SITE])),
    )


@pytest.mark.slow
@given(instances())
def test_instance_round_trip_is_exact(tmp_path_factory, instance):
    """Every bit comes back, and the file obeys the exported schema."""
    path = tmp_path_factory.mktemp("json") / "file.json"
    write_json(instance, path)
    assert read_json(path) == instance
    INSTANCE_SCHEMA.validate(json.loads(path.read_text(encoding="utf-8")))


times = st.floats(-1e12, 1e12)
stops = st.builds(Stop, request=texts, arrive_s=times, start_s=times, is_pickup=st.booleans())
trips = st.builds(
    Trip,
    robot=texts,
    depart_s=times,
    stops=st.lists(stops, min_size=1, max_size=3).map(tuple),
    return_s=times,
    is_broken_off=st.booleans(),
)
plans = st.builds(
    Plan,
    instance=texts,
    trips=st.lists(trips, max_size=3).map(tuple),
    denied=st.lists(texts, max_size=3).map(tuple),
)


@given(plans)
def test_plan_round_trip_is_exact(tmp_path_factory, plan):
    """Every bit comes back, feasible or not, and the file obeys the exported schema."""
    path = tmp_path_factory.mktemp("json") / "plan.json"
    write_plan(plan, path)
    assert read_plan(path) == plan
    PLAN_SCHEMA.validate(json.loads(path.read_text(encoding="utf-8")))


def test_schema_of_something_else_is_refused():
    """There are two kinds of files, and their schemas are valid ones."""
    for kind in ("instance", "plan"):
        jsonschema.Draft202012Validator.check_schema(json_schema(kind))
    with pytest.raises(ValueError, match="kind: expected instance or plan, got 'site'"):
        json_schema("site")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_plan_with_times_that_are_none_is_not_written(tmp_path, value):
    """JSON knows no such numbers, and no plan needs them: the field is named."""
    trip = Trip(
        robot="r", depart_s=0, stops=(Stop(request="a", arrive_s=1, start_s=1),), return_s=value
    )
    with pytest.raises(ValueError, match=r"trips\[0\]\.return_s: expected a finite number"):
        write_plan(Plan(instance="x", trips=(trip,)), tmp_path / "never.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"name": "two\nlines"}, {"reload_s": 2e12}])
def test_what_would_not_be_read_is_not_written(tmp_path, change):
    """The writer refuses what the reader refuses."""
    with pytest.raises(ValueError, match=r"never\.json: (name|reload_s): expected"):
        write_json(replace(in_building(), **change), tmp_path / "never.json")
    assert not list(tmp_path.iterdir())
