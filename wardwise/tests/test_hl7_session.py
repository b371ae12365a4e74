"""HL7 orders for the scheduler of a running day: lines come and go, lots go back, nothing twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import UTC, date, datetime

import pytest

from wardwise.dispenser.intake import Intake
from wardwise.dispenser.mllp import Listener, Sender
from wardwise.dispenser.prescriptions import Prescriptions
from wardwise.dispenser.sinks import Desk
from wardwise.io.hl7 import answer, parse, read_answer
from wardwise.pharmacy.online import Ask, HandDone, Kind, Recall, Refill, Session, Setup, Sorted
from wardwise.pharmacy.problem import Bin
from wardwise.pharmacy.rack import Machine

MIDNIGHT = datetime(2026, 3, 2, tzinfo=UTC)
DRUGS = tuple(f"D{k}" for k in range(6))
BINS = tuple(
    Bin(id=f"B{cell}", drug=DRUGS[cell % 6], cell=cell, quantity=40, lot=f"L{cell}",
        expiry=date(2027, 1, 1 + cell))
    for cell in range(18)
)  # fmt: skip


def rde(control, *orders):
    """A message with orders (control, placer, group, drug, packs)."""
    lines = [f"MSH|^~\\&|CPOE|HOSP|ROBOT|PHARM|20260302000000||RDE^O11|{control}|P|2.5.1"]
    for action, placer, group, drug, amount in orders:
        lines.append(f"ORC|{action}|{placer}||{group}")
        if action in ("NW", "XO"):
            lines += [f"RXE||{drug}||||||||{amount}|PACK", "TQ1|||||||||R", "RXR|PO"]
    return "\r".join(lines).encode()


class Day:
    """A machine, its people, and a desk that takes orders."""

    def __init__(self, folder):
        self.folder, self.time_s = folder, 0.0
        self.announced = []
        self.open()

    def open(self):
        """Begin, or go on after a restart."""
        session = Session(Setup(machine=Machine(), bins=BINS), self.folder / "day.jsonl")
        self.desk = Desk(session, lambda: self.time_s)
        prescriptions = Prescriptions(self.desk, MIDNIGHT, manual_s=5)
        self.intake = Intake(self.desk, prescriptions, journal=self.folder / "intake.jsonl")

    def close(self):
        """Stop."""
        self.intake.close()
        self.desk.session.close()

    def tell(self, control, *orders):
        """Send a message; returns the verdict."""
        return read_answer(parse(self.intake.answer(rde(control, *orders))))[::2]

    def step(self, *, short=False):
        """A cycle of the arm, then people take what stands at the points or is on the list."""
        self.time_s += 30
        self.desk.handle(Ask(time_s=self.time_s))
        state = self.desk.session.scheduler.state
        for point, place in enumerate(state.places):
            for pick in list(place.picks):
                self.time_s += 5
                taken = pick.quantity - 1 if short else pick.quantity
                self.desk.handle(Sorted(time_s=self.time_s, point=point, taken=taken))
        for pick in self.desk.session.scheduler.pick_list():
            order = state.orders.get(pick.order)
            if order and order.lines[pick.drug].by_hand:
                self.desk.handle(HandDone(time_s=self.time_s, order=pick.order, drug=pick.drug))

    def finish(self):
        """Work until nothing is left to do."""
        for _ in range(500):
            if not self.desk.session.scheduler.state.orders:
                return
            self.step()
        raise AssertionError("the day does not end")

    def given(self):
        """Packs of each line in the messages on complete orders, and their lots."""
        found, lots = Counter(), {}
        for order in dict.fromkeys([*self.desk.done, *self.told()]):
            data = self.intake.dispensed(order)
            for orc, rxd in _lines(parse(data)) if data else ():
                found[orc.text(2)] += int(rxd.text(4))
                count = len(rxd.repetitions(18))
                lots[orc.text(2)] = [rxd.text(18, repetition=k) for k in range(count)]
        return found, lots

    def told(self):
        """Orders that were complete without being submitted."""
        return [placed.order for placed in self.intake.prescriptions.lines.values()]


def _lines(message):
    orcs = [segment for segment in message.segments if segment.name == "ORC"]
    rxds = [segment for segment in message.segments if segment.name == "RXD"]
    return zip(orcs, rxds, strict=True)


@pytest.fixture
def day(tmp_path):
    """A fresh day."""
    found = Day(tmp_path)
    yield found
    found.close()


def test_order_goes_in_and_lots_come_out(day):
    """Two lines of one prescription, with the lots that expire first; the same message again."""
    assert day.tell("M1", ("NW", "O1", "G1", "D0", 2), ("NW", "O2", "G1", "D1", 1)) == ("AA", "")
    assert day.intake.dispensed("G1") is None  # nothing was taken yet
    day.finish()
    assert day.desk.done == ["G1"]
    assert day.given() == ({"O1": 2, "O2": 1}, {"O1": ["L0"], "O2": ["L1"]})
    first = day.intake.dispensed("G1")
    rxd = parse(first).first("RXD")
    assert (rxd.text(19), rxd.text(27)) == ("20270101", "point 1")
    day.close()
    day.open()
    assert day.intake.dispensed("G1") == first
    assert list(day.intake.unsent.values()) == [first]
    day.intake.acknowledge(parse(first).head.text(10))
    day.close()
    day.open()
    assert day.intake.unsent == {}


def test_second_line_joins_an_order_that_nobody_began(day):
    """Before the first cycle it joins; afterwards it is an order of its own."""
    day.tell("M1", ("NW", "O1", "G1", "D0", 2))
    day.tell("M2", ("NW", "O2", "G1", "D1", 1))
    orders = day.desk.session.scheduler.state.orders
    assert [len(order.lines) for order in orders.values()] == [2]
    day.step()
    day.tell("M3", ("NW", "O3", "G1", "D2", 1))
    assert [[*order.lines] for order in orders.values()] == [["D0", "D1"], ["D2"]]
    day.finish()
    assert day.given()[0] == {"O1": 2, "O2": 1, "O3": 1}


def test_cancelled_line_leaves_the_rest_as_it_is(day):
    """What was taken for the other lines is not taken again, and is told with its lot."""
    day.tell("M1", *(("NW", f"O{k}", "G1", f"D{k}", k + 1) for k in range(3)))
    day.step()
    day.step()
    state = day.desk.session.scheduler.state
    (before,) = state.orders.values()
    got = {drug: line.got for drug, line in before.lines.items() if line.got}
    assert got
    gone = next(drug for drug in before.lines if drug not in got)
    assert day.tell("M2", ("CA", f"O{gone[1:]}", "", "", 0)) == ("AA", "")
    (after,) = state.orders.values()
    assert not set(after.lines) & {gone, *got}
    day.finish()
    found, lots = day.given()
    assert found == {f"O{k}": k + 1 for k in range(3) if f"D{k}" != gone}
    assert all(lots.values())
    assert day.tell("M3", ("CA", "O1", "", "", 0))[0] == "AE"


def test_last_open_line_is_cancelled(day):
    """All other packs are there: the prescription is complete at once, and told."""
    day.tell("M1", ("NW", "O0", "G1", "D0", 1), ("NW", "O1", "G1", "D1", 1))
    while not any(
        line.got for line in day.desk.session.scheduler.state.orders["G1"].lines.values()
    ):
        day.step()
    (order,) = day.desk.session.scheduler.state.orders.values()
    (gone,) = [drug for drug, line in order.lines.items() if not line.got]
    assert day.tell("M2", ("DC", f"O{gone[1:]}", "", "", 0)) == ("AA", "")
    assert not day.desk.session.scheduler.state.orders
    (data,) = day.intake.unsent.values()
    kept = {"D0": "O0", "D1": "O1"}.keys() - {gone}
    assert parse(data).first("RXD").text(2) == kept.pop()


def test_hold_release_and_change(day):
    """A line rests, comes back, and is changed; the machine does as it is told last."""
    day.tell("M1", ("NW", "O1", "G1", "D0", 2))
    assert day.tell("M2", ("HD", "O1", "", "", 0)) == ("AA", "")
    assert not day.desk.session.scheduler.state.orders
    assert day.tell("M3", ("XO", "O1", "G1", "D1", 4)) == ("AA", "")
    assert [item.drug for item in day.intake.prescriptions.held] == ["D1"]
    assert day.tell("M4", ("RL", "O1", "", "", 0)) == ("AA", "")
    assert day.tell("M5", ("RL", "O1", "", "", 0))[0] == "AE"
    assert day.tell("M6", ("XO", "O1", "G1", "D2", 3)) == ("AA", "")
    day.finish()
    assert day.given()[0] == {"O1": 3}
    assert "a complete one" in day.tell("M7", ("XO", "O1", "G1", "D2", 5))[1]


def test_orders_are_refused_as_a_whole(day):
    """The second order of a message is not known: the first is not taken either."""
    verdict, why = day.tell("M1", ("NW", "O1", "G1", "D0", 2), ("CA", "O9", "", "", 0))
    assert (verdict, why) == (
        "AE", "ORC[2]-2: expected an order that came before, got 'O9'",
    )  # fmt: skip
    assert not day.intake.prescriptions.lines
    assert not day.desk.session.scheduler.state.orders


@pytest.mark.parametrize(
    "seed", [*range(4), *(pytest.param(k, marks=pytest.mark.slow) for k in range(4, 12))]
)
def test_whatever_happens_each_open_line_gets_its_packs_once(tmp_path, seed):
    """New, changed, held, released and cancelled lines, short bins, recalls, refills, restarts.

    A book of our own says what each line should get in the end: the quantity that was asked for
    last unless it is cancelled or on hold, and never more.
    """
    rng, day = random.Random(seed), Day(tmp_path)
    wanted, state = {}, {}
    for k in range(60):
        name = f"O{rng.randrange(12)}"
        action = rng.choice(["NW", "NW", "XO", "CA", "HD", "RL"])
        drug, amount = rng.choice(DRUGS), rng.randint(1, 3)
        group = f"G{int(name[1:]) % 4}"
        verdict, _ = day.tell(f"M{k}", (action, name, group, drug, amount))
        if verdict == "AA":
            wanted[name] = (drug, amount) if action in ("NW", "XO") else wanted[name]
            if action != "XO":
                state[name] = action
        for _ in range(rng.randrange(3)):
            day.step(short=rng.random() < 0.1)
        if rng.random() < 0.05:
            day.desk.handle(Recall(time_s=day.time_s, drug=drug, lot=rng.choice(BINS).lot))
        if rng.random() < 0.05:
            new = Bin(id="B0", drug="D0", cell=0, quantity=9, lot="NEW", expiry=date(2029, 1, 1))
            if not day.desk.session.scheduler.state.refills:
                day.desk.handle(Refill(time_s=day.time_s, bin=new))
        if rng.random() < 0.1:
            day.close()
            day.open()
    day.finish()
    open_lines = {name for name, last in state.items() if last in ("NW", "RL")}
    found, _ = day.given()
    assert found == {name: wanted[name][1] for name in open_lines}
    day.close()


def test_lots_after_restart_voided_picks_and_hands(tmp_path):
    """The books of lots are rebuilt from the journal of the session."""
    day = Day(tmp_path)
    day.tell("M1", ("NW", "O1", "G1", "D0", 2), ("NW", "O2", "G1", "NONE", 1))
    day.step()
    day.close()
    day.open()
    day.finish()
    assert day.given() == ({"O1": 2, "O2": 1}, {"O1": ["L0"], "O2": [""]})
    kinds = {one.kind for _, found in day.desk.session.answers for one in found}
    assert {Kind.FETCH, Kind.HAND, Kind.DONE} <= kinds
    day.close()


def test_orders_in_and_dispense_messages_out_over_tcp(day):
    """A hospital sends orders to us over TCP, and hears of each one that is complete."""
    heard = []

    def hospital(data):
        heard.append(parse(data))
        return answer(heard[-1])

    async def work():
        async with (
            Listener(day.intake.answer) as ours, Listener(hospital) as theirs,
            Sender("127.0.0.1", await ours.start(), backoff_s=0.01) as to_us,
            Sender("127.0.0.1", await theirs.start(), backoff_s=0.01) as to_them,
            asyncio.timeout(30),
        ):  # fmt: skip
            for k in range(5):
                message = rde(f"M{k}", ("NW", f"O{k}", f"G{k}", DRUGS[k], k + 1))
                assert await to_us.send(message) == ("AA", "")
            day.finish()
            for order in day.desk.done:
                assert day.intake.dispensed(order)
            for control, data in day.intake.unsent.items():
                assert await to_them.send(data) == ("AA", "")
                day.intake.acknowledge(control)

    asyncio.run(work())
    assert {message.first("ORC").text(2): message.first("RXD").text(4) for message in heard} == {
        f"O{k}": str(k + 1) for k in range(5)
    }
    assert day.intake.unsent == {}
