"""The journal: what is answered is written, and what is written can be lived again."""

import json

import numpy as np
import pytest

from wardwise.fleet.dispatch import (
    Advance,
    Breakdown,
    Cancel,
    Delay,
    Dispatcher,
    Journal,
    Policy,
    Return,
    Submit,
)
from wardwise.fleet.problem import Instance, Place, Request, Robot
from wardwise.fleet.schedule import schedule
from wardwise.io import InputError
from wardwise.journal import format_line, read_lines

METRES = np.array([[0.0, 10.0, 20.0], [10.0, 0.0, 10.0], [20.0, 10.0, 0.0]])


def request(id_, place="a", **fields):
    """A request that is due at 90."""
    return Request(id=id_, place=place, due_s=90, load=1, **fields)


INSTANCE = Instance(
    name="corridor",
    places=tuple(Place(id=name) for name in ("depot", "a", "b")),
    requests=(request("known", ready_s=5.1),),
    robots=(Robot(id="1", capacity=2, end_s=200), Robot(id="2", capacity=2, end_s=200)),
    travel_s=METRES,
    distance_m=METRES,
)
PLAN = schedule(INSTANCE, {"1": [["known"]]})
POLICY = Policy(protection=(0, 0, 1), may_hold=True)

EVENTS = (
    Submit(now_s=0.0, request=request("é", "b", kind="deliver", priority=1)),
    Submit(now_s=1.3, request=request("t", "b", kind="transfer", origin="a")),
    Delay(now_s=4, robot="1", delay_s=2.7),
    Submit(now_s=5, request=request("x", "b", priority=2)),
    Cancel(now_s=6, request="x"),
    Breakdown(now_s=15, robot="1"),
    Return(now_s=40, robot="1"),
    Submit(now_s=41, request=request("y")),
    Advance(now_s=90.5),
)


def write_day(path, events=EVENTS, fsync="never"):
    """Journal of a day; returns the dispatcher and its state after each event."""
    with Journal(path, fsync=fsync) as journal:
        dispatcher = Dispatcher(INSTANCE, PLAN, POLICY, journal)
        states = [state_of(dispatcher)]
        for event in events:
            dispatcher.handle(event)
            states.append(state_of(dispatcher))
    return states


def state_of(dispatcher):
    """All that a day shows."""
    last = dispatcher.last
    return (
        dispatcher.plan(),
        dispatcher.committed(),
        dispatcher.instance(),
        dispatcher.outcome(),
        last and last.document(),
    )


def test_replay_rebuilds_every_state(tmp_path):
    """After all lines, and after each number of them."""
    path = tmp_path / "day.jsonl"
    states = write_day(path)
    for number, state in enumerate(states):
        assert state_of(Dispatcher.replay(path, until=number)) == state
    assert state_of(Dispatcher.replay(path)) == states[-1]


def test_same_events_give_the_same_bytes(tmp_path):
    """The decision log of a day is the same, whoever writes it, and however often it is synced."""
    for name, fsync in (("a", "never"), ("b", "always"), ("c", 0.001)):
        write_day(tmp_path / name, fsync=fsync)
    first = (tmp_path / "a").read_bytes()
    assert first == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_lines_are_json_with_number_and_checksum(tmp_path):
    """Any program can read the journal."""
    path = tmp_path / "day.jsonl"
    write_day(path)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["n"] for line in lines] == list(range(len(EVENTS) + 1))
    assert lines[0]["schema"] == "wardwise/journal/1"
    assert lines[1]["input"]["request"]["id"] == "é"
    decision = lines[1]["decisions"][0]
    assert (decision["rule"], decision["status"], decision["robot"]) == ("D1", "accepted", "1")
    assert all(len(line["crc"]) == 8 for line in lines)


@pytest.mark.slow
def test_a_crash_at_any_byte_loses_the_unfinished_line_alone(tmp_path):
    """Cut after every byte: the day is as after the last whole line, and goes on as it did."""
    events = EVENTS[:3]
    whole, path = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    states = write_day(whole, events)
    data = whole.read_bytes()
    start = data.index(b"\n") + 1
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        if size < start:  # not even the first line: the day has not begun
            with pytest.raises(InputError, match="expected a journal, got no complete line"):
                Dispatcher.replay(path)
            with Journal(path) as journal:
                assert journal.is_empty
            assert path.read_bytes() == b""
            continue
        number = data[:size].count(b"\n") - 1
        dispatcher = Dispatcher.resume(path)
        assert state_of(dispatcher) == states[number]
        for event in events[number:]:
            dispatcher.handle(event)
        assert state_of(dispatcher) == states[-1]
        assert path.read_bytes() == data
        dispatcher.close()


def test_two_writers_are_one_too_many(tmp_path):
    """A journal that is open for writing is refused to others, and free again once it is closed."""
    path = tmp_path / "day.jsonl"
    write_day(path)
    dispatcher = Dispatcher.resume(path)
    with pytest.raises(InputError, match="it is in use"):
        Dispatcher.resume(path)
    dispatcher.close()
    Dispatcher.resume(path).close()


@pytest.mark.parametrize("text", ["a diary", "one line\nand another", '{"m":1}'])
def test_a_file_that_is_no_journal_keeps_its_last_line(tmp_path, text):
    """A file that is named by mistake is refused before anything is cut off."""
    path = tmp_path / "diary.txt"
    path.write_text(text)
    with pytest.raises(InputError, match="expected a journal, got a last line that is not of one"):
        Journal(path)
    assert path.read_text() == text


@pytest.mark.slow
def test_a_killed_process_loses_nothing_that_was_answered(start, tmp_path):
    """Without any sync, every answer given before the kill is in the journal."""
    path = tmp_path / "day.jsonl"
    script = """
import os, sys
sys.path.insert(0, sys.argv[2])
from test_journal import EVENTS, INSTANCE, PLAN, POLICY, Dispatcher, Journal
dispatcher = Dispatcher(INSTANCE, PLAN, POLICY, Journal(sys.argv[1]))
for event in EVENTS:
    print(dispatcher.handle(event).number, flush=True)
os.kill(os.getpid(), 9)
"""
    folder = __file__.rpartition("/")[0]
    program = tmp_path / "program.py"
    program.write_text(script)
    run = start(program, path, folder)
    assert run.wait() == -9, run.err
    assert run.out.split()[-1] == str(len(EVENTS))
    assert Dispatcher.replay(path).last.number == len(EVENTS)


def test_a_journal_that_holds_a_day_is_not_started_again(tmp_path):
    """`resume` goes on with it; nothing is overwritten."""
    path = tmp_path / "day.jsonl"
    write_day(path)
    data = path.read_bytes()
    with (
        Journal(path) as journal,
        pytest.raises(ValueError, match="journal: expected an empty file"),
    ):
        Dispatcher(INSTANCE, PLAN, POLICY, journal)
    assert path.read_bytes() == data
    resumed = Dispatcher.resume(path, fsync="always")
    resumed.advance(100.0)
    resumed.close()
    assert Dispatcher.replay(path).last.number == len(EVENTS) + 1


@pytest.mark.parametrize("line", range(1, len(EVENTS) + 2))
def test_a_flipped_bit_is_found_with_its_line(tmp_path, line):
    """In the header and in every event, the last one included."""
    path = tmp_path / "day.jsonl"
    write_day(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for offset in (5, len(lines[line - 1]) // 2, len(lines[line - 1]) - 4):
        damaged = bytearray(lines[line - 1])
        damaged[offset] ^= 1
        path.write_bytes(b"".join([*lines[: line - 1], bytes(damaged), *lines[line:]]))
        with pytest.raises(InputError, match=f":{line}: expected a line with a valid checksum"):
            Dispatcher.replay(path)


def test_a_missing_line_is_found(tmp_path):
    """The numbers have a gap."""
    path = tmp_path / "day.jsonl"
    write_day(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    with pytest.raises(InputError, match=":3: expected number 2, got 3: lines are missing"):
        Dispatcher.replay(path)


def rewritten(path, line, change):
    """Change the content of a line, and give it a valid checksum."""
    lines = path.read_bytes().splitlines(keepends=True)
    document = [content for _, _, content in read_lines(path)][line - 1]
    change(document)
    lines[line - 1] = format_line(document)
    path.write_bytes(b"".join(lines))


def test_another_answer_than_todays_is_refused(tmp_path):
    """Somebody changed an answer, or the rules have changed since."""
    path = tmp_path / "day.jsonl"
    write_day(path)
    rewritten(path, 3, lambda document: document["decisions"][0].update(robot="2"))
    with pytest.raises(InputError, match=":3: expected the answer of today, got another"):
        Dispatcher.replay(path)


def test_an_impossible_event_is_refused(tmp_path):
    """A cancellation of a request that nobody submitted."""
    path = tmp_path / "day.jsonl"
    write_day(path)
    rewritten(path, 6, lambda document: document["input"].update(request="nobody"))
    with pytest.raises(InputError, match=":6: expected a possible event: request 'nobody'"):
        Dispatcher.replay(path)


def test_other_files_are_refused(tmp_path):
    """Text, another schema, no file at all."""
    path = tmp_path / "day.jsonl"
    path.write_bytes(b"hello\n")
    with pytest.raises(InputError, match=":1: expected a line with a valid checksum"):
        Dispatcher.replay(path)
    path.write_bytes(format_line({"n": 0, "schema": "other/1"}))
    with pytest.raises(InputError, match=":1: expected a journal with schema wardwise/journal/1"):
        Dispatcher.replay(path)
    with pytest.raises(InputError, match="expected a readable file"):
        Dispatcher.replay(tmp_path / "none.jsonl")


def test_after_a_failed_write_nothing_is_answered(tmp_path):
    """The file cannot be written any more: the day goes on from the journal alone."""
    path = tmp_path / "day.jsonl"
    journal = Journal(path)
    dispatcher = Dispatcher(INSTANCE, PLAN, POLICY, journal)
    dispatcher.advance(1.0)
    journal.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        dispatcher.advance(2.0)
    with pytest.raises(ValueError, match="its last write failed"):
        dispatcher.advance(3.0)
    assert Dispatcher.resume(path).last.event == Advance(now_s=1.0)


@pytest.mark.parametrize("fsync", ["sometimes", -1, float("nan")])
def test_fsync_is_never_always_or_seconds(tmp_path, fsync):
    """Anything else is refused before a file is made."""
    with pytest.raises(ValueError, match="fsync: expected never, always or seconds"):
        Journal(tmp_path / "day.jsonl", fsync=fsync)
    assert list(tmp_path.iterdir()) == []


def test_reoptimised_routes_are_replayed_without_searching(tmp_path):
    """The search saves 100 for a robot and 20 m; the journal holds what it found."""
    path = tmp_path / "day.jsonl"
    known = (request("p", ready_s=40), request("q", "b", ready_s=20))
    instance = Instance(
        name="two",
        places=INSTANCE.places,
        requests=known,
        robots=INSTANCE.robots,
        travel_s=METRES,
        distance_m=METRES,
    )
    plan = schedule(instance, {"1": [["p"]], "2": [["q"]]})
    dispatcher = Dispatcher(instance, plan, None, Journal(path))
    assert dispatcher.reoptimise(0.0, np.random.default_rng(1), max_iterations=20)
    (_, _, document) = list(read_lines(path))[1]
    assert document["cost_delta"] == -120.0
    assert document["input"]["event"] == "reoptimise"
    assert sorted(document["input"]["routes"]) == ["1", "2"]
    assert state_of(Dispatcher.replay(path)) == state_of(dispatcher)
