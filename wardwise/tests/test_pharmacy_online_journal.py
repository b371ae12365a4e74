"""The journal of a running day: a crash at any moment changes no decision."""

from __future__ import annotations

import os
from datetime import date

import pytest

from wardwise.pharmacy.generate import generate_pharmacy
from wardwise.pharmacy.online import (
    Ask,
    Block,
    Event,
    HandDone,
    Policy,
    Recall,
    Refill,
    Scheduler,
    Session,
    Setup,
    Sorted,
    Submit,
)
from wardwise.pharmacy.problem import Bin, Line, Order, Priority
from wardwise.pharmacy.rack import Machine, Rack

DAY = generate_pharmacy(
    1, num_orders=1, max_lines=1, machine=Machine(rack=Rack(num_columns=2, num_rows=2))
)
SETUP = Setup(machine=DAY.machine, bins=DAY.bins[:-1], today=date(2026, 3, 1))
FIRST, SECOND = DAY.bins[0], DAY.bins[1]
ORDER = Order(
    id="Rx ä", priority=Priority.URGENT, due_s=900.0,
    lines=(Line(drug=FIRST.drug, quantity=2), Line(drug="safe", is_manual=True, manual_s=9.5)),
)  # fmt: skip
NEW = Bin(
    id="new", drug=SECOND.drug, cell=DAY.bins[-1].cell, quantity=7, lot="L", expiry=date(2027, 1, 2)
)
EVENTS: tuple[Event, ...] = (
    Submit(time_s=0.0, order=ORDER, single_lot=(FIRST.drug,)),
    Ask(time_s=0.0),
    Refill(time_s=1.5, bin=NEW),
    Recall(time_s=2.0, drug=SECOND.drug, lot="L"),
    Ask(time_s=20.25),
    Sorted(time_s=31.125, point=0, taken=1),
    HandDone(time_s=40.0, order="Rx ä", drug="safe"),
    Block(time_s=41.0, cell=FIRST.cell),
    HandDone(time_s=99.0, order="Rx ä", drug=FIRST.drug),
)


@pytest.mark.slow
def test_killed_at_every_byte_the_day_goes_on_the_same(tmp_path, monkeypatch) -> None:
    """Cut off anywhere, the journal opens, and the rest of the day decides and writes the same."""
    plain = Scheduler(SETUP)
    expected = [plain.handle(event) for event in EVENTS]
    whole = tmp_path / "whole.jsonl"
    with Session(SETUP, whole) as session:
        assert [session.handle(event) for event in EVENTS] == expected
    monkeypatch.setattr(os, "fsync", lambda _: None)  # thousands of them take minutes
    data = whole.read_bytes()
    cut = tmp_path / "cut.jsonl"
    handled = set()
    for size in range(len(data) + 1):
        cut.write_bytes(data[:size])
        with Session(SETUP, cut) as session:
            handled.add(session.num_handled)
            # The sender does not know what arrived and sends all again, under its numbers.
            assert [session.handle(event, k) for k, event in enumerate(EVENTS)] == expected
        assert cut.read_bytes() == data
    assert handled == set(range(len(EVENTS) + 1))


def test_an_answer_is_on_the_disk_before_it_is_given(tmp_path, monkeypatch) -> None:
    """Each event forces its whole line to the disk, and only then is there an answer."""
    sizes = []
    path = tmp_path / "j"
    monkeypatch.setattr(os, "fsync", lambda file: sizes.append(os.fstat(file).st_size))
    with Session(SETUP, path) as session:
        for number, event in enumerate(EVENTS, start=1):
            session.handle(event)
            assert len(sizes) == number + 1
            assert path.read_bytes()[: sizes[-1]].count(b"\n") == number + 1


def test_an_order_runs_through_to_its_end() -> None:
    """The events above really end the order: missing packs by hand, nothing left open."""
    plain = Scheduler(SETUP)
    kinds = [[decision.kind.value for decision in plain.handle(event)] for event in EVENTS]
    assert kinds == [
        ["accept", "hand"], ["fetch"], ["note"], ["note"], ["wait"], ["short", "hand"], ["note"],
        ["note"], ["done"],
    ]  # fmt: skip


def test_events_are_answered_once(tmp_path) -> None:
    """Numbers left out and other events under a known number are refused and change nothing."""
    with Session(SETUP, tmp_path / "j") as session:
        answer = session.handle(EVENTS[0], 0)
        assert session.handle(EVENTS[0], 0) == answer
        size = (tmp_path / "j").stat().st_size
        with pytest.raises(ValueError, match="event 0: expected the one that was sent before"):
            session.handle(EVENTS[1], 0)
        with pytest.raises(ValueError, match="event 5: expected number 1"):
            session.handle(EVENTS[1], 5)
        with pytest.raises(ValueError, match="order Rx ä: id: it has come already"):
            session.handle(EVENTS[0])
        assert (tmp_path / "j").stat().st_size == size
        assert session.num_handled == 1


def test_damage_is_told_from_an_unfinished_line(tmp_path) -> None:
    """A changed byte, a lost line, another day or another policy: file and line are named."""
    path = tmp_path / "j"
    with Session(SETUP, path) as session:
        for event in EVENTS:
            session.handle(event)
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    for broken, message in (
        (data.replace(b'"taken":1', b'"taken":2'), r"j:7: expected a line with a valid checksum"),
        (b"".join(lines[:3] + lines[4:]), r"j:4: expected number 3, got 4"),
        (b"no journal\n", r"j:1: expected a line with a valid checksum"),
    ):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=message):
            Session(SETUP, path)
        assert path.read_bytes() == broken
    path.write_bytes(data)
    other = Setup(machine=DAY.machine, bins=SETUP.bins, policy=Policy(rule="strict"))
    with pytest.raises(ValueError, match=r"j:1: the journal belongs to another day"):
        Session(other, path)


def test_decisions_that_changed_are_noticed(tmp_path, monkeypatch) -> None:
    """A scheduler that decides otherwise than the journal does not go on as if nothing were."""
    path = tmp_path / "j"
    with Session(SETUP, path) as session:
        session.handle(EVENTS[0])
        session.handle(EVENTS[1])
    monkeypatch.setattr(Policy, "reason", lambda *_: "because")
    with pytest.raises(ValueError, match=r"j:3: the scheduler decides otherwise now"):
        Session(SETUP, path)


def test_a_full_disk_stops_the_session(tmp_path, monkeypatch) -> None:
    """If a line cannot be written no decision is handed out, and a restart decides it again."""
    path = tmp_path / "j"
    session = Session(SETUP, path)
    answer = session.handle(EVENTS[0])

    def full(_file: int, _data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left"):
            session.handle(EVENTS[1])
    with pytest.raises(OSError, match="open it anew"):
        session.handle(EVENTS[1])
    session.close()
    with Session(SETUP, path) as again:
        assert again.handle(EVENTS[0], 0) == answer
        assert again.handle(EVENTS[1]) == answers(EVENTS[:2])[-1]


def answers(events: tuple[Event, ...]) -> list:
    """Answers of a scheduler without a journal."""
    plain = Scheduler(SETUP)
    return [plain.handle(event) for event in events]
