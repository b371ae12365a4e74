"""RDE^O11 in, RDS^O13 and answers out; hl7apy builds what we read and judges what we write."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.core import Message
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from wardwise.io.hl7 import Code, Hl7Error, answer, parse, read_answer, read_items, write_dispensed
from wardwise.io.prescriptions import Action, Given, Item, first_midnight, order_of, packs
from wardwise.pharmacy.problem import Priority

NOW = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
HEAD = "MSH|^~\\&|CPOE|HOSP|ROBOT|PHARM|20260302081500||RDE^O11^RDE_O11|M1|P|2.5.1"
RXE = "RXE|1|{drug}|1||TAB|||||{amount}|{unit}|||||||||||||||||{size}|{size_unit}"
GOOD = (
    HEAD, "PID|||P1^^^HOSP||NAME^GIVEN", "PV1||I|W3^12^1", "ORC|NW|O1^CPOE||G1",
    RXE.format(drug="AMOX", amount=20, unit="TAB", size=10, size_unit="TAB"),
    "TQ1|||||||20260302090000|20260302120000|S", "RXR|PO",
)  # fmt: skip


def built():
    """A message of hl7apy with two orders of one prescription, strictly valid."""
    message = Message("RDE_O11", version="2.5.1", validation_level=VALIDATION_LEVEL.STRICT)
    message.msh.msh_3, message.msh.msh_5, message.msh.msh_11 = "CPOE", "ROBOT", "P"
    message.msh.msh_7, message.msh.msh_10 = "20260302081500+0100", "M1"
    message.msh.msh_9 = "RDE^O11^RDE_O11"
    patient = message.add_group("RDE_O11_PATIENT")
    patient.pid.pid_3, patient.pid.pid_5 = "P1^^^HOSP", "NAME^GIVEN"
    patient.rde_o11_patient_visit.pv1.pv1_2, patient.rde_o11_patient_visit.pv1.pv1_3 = "I", "W3^12"
    for number, (drug, urgency) in enumerate((("AMOX^Amoxicillin", "R"), ("MORPH", "S~R")), 1):
        order = message.add_group("RDE_O11_ORDER")
        order.orc.orc_1, order.orc.orc_2, order.orc.orc_4 = "NW", f"O{number}^CPOE", "G1^CPOE"
        order.orc.orc_9, order.orc.orc_15 = "20260302080000+0100", "20260302083000+0100"
        order.rxe.rxe_2, order.rxe.rxe_3, order.rxe.rxe_5 = drug, "1", "TAB"
        order.rxe.rxe_10, order.rxe.rxe_11, order.rxe.rxe_15 = "25", "TAB", "RX77"
        order.rxe.rxe_28, order.rxe.rxe_29, order.rxe.rxe_30 = "10", "TAB", "AD"
        order.rxe.rxe_20, order.rxe.rxe_21 = "Y", "^mind the kidneys"
        order.rxe.rxe_42 = "OR2"
        if number == 2:
            order.rxe.rxe_35, order.rxe.rxe_39 = "II", "10"
        timing = order.add_group("RDE_O11_TIMING_ENCODED").tq1
        timing.tq1_7, timing.tq1_8 = "20260302090000+0100", "20260302120000+0100"
        for repetition in urgency.split("~"):
            timing.add_field("TQ1_9").value = repetition
        order.rxr.rxr_1 = "PO"
    assert message.validate()
    return message.to_er7().encode()


def judge(data):
    """Let hl7apy parse and validate what we wrote."""
    text = data.decode().rstrip("\r")
    message = parse_message(text, validation_level=VALIDATION_LEVEL.STRICT)
    assert message.validate()
    return message


def test_message_of_a_peer_is_read_field_by_field():
    """ORC, RXE, TQ1 and PV1 go where the docs say."""
    first, second = read_items(parse(built()))
    assert (first.id, first.order, first.patient) == ("O1^CPOE", "G1^CPOE", "P1")
    assert (first.drug, first.quantity) == ("AMOX", 3)  # 25 of 10 a pack
    assert (second.drug, second.quantity) == ("MORPH", 1)  # RXE-39 is the first fill
    assert [first.priority, second.priority] == [Priority.ROUTINE, Priority.STAT]
    assert first.start.isoformat() == "2026-03-02T09:00:00+01:00"
    assert first.end.isoformat() == "2026-03-02T12:00:00+01:00"
    assert first.destination == "OR2"
    assert not first.is_manual
    assert second.is_manual
    assert first.note == "to be reviewed: mind the kidneys"
    assert second.note == "controlled drug, schedule II; to be reviewed: mind the kidneys"


def test_lines_become_one_order():
    """As urgent as the most urgent line, in seconds of its day, the controlled drug by hand."""
    items = read_items(parse(built()))
    midnight = first_midnight(items)
    assert midnight.isoformat() == "2026-03-02T00:00:00+01:00"
    order = order_of("G1", items, midnight, manual_s=90)
    assert (order.priority, order.release_s, order.due_s) == (Priority.STAT, 32_400, 43_200)
    assert order.destination == "OR2"
    assert [(line.drug, line.is_manual, line.manual_s) for line in order.lines] == [
        ("AMOX", False, 0), ("MORPH", True, 90),
    ]  # fmt: skip
    # 9 o'clock at +01:00 is 8 o'clock at UTC.
    assert order_of("G1", items, NOW.replace(hour=0, minute=0)).release_s == 28_800
    by_hand = order_of("G1", items, midnight, machine_drugs=["OTHER"]).lines
    assert all(line.is_manual for line in by_hand)


def test_answers_are_valid_and_speak_of_each_order():
    """RRE^O12 with the controls of table 0119; read back by our own reader."""
    message = parse(built())
    found = judge(answer(message, time=NOW))
    assert found.name == "RRE_O12"
    assert found.msh.msh_5.to_er7() == "CPOE"
    orders = found.rre_o12_response.rre_o12_order
    assert [order.orc.orc_1.to_er7() for order in orders] == ["OK", "OK"]
    assert [order.orc.orc_2.to_er7() for order in orders] == ["O1^CPOE", "O2^CPOE"]
    assert read_answer(parse(answer(message))) == ("AA", "M1", "")


@pytest.mark.parametrize(
    ("control", "done", "unable"),
    [("NW", "OK", "UA"), ("XO", "XR", "UX"), ("CA", "CR", "UC"), ("DC", "DR", "UD"),
     ("HD", "HR", "UH"), ("RL", "OR", "UR")],
)  # fmt: skip
def test_controls_and_their_answers(control, done, unable):
    """Each control has its action and its two answers; what cancels needs no RXE."""
    lines = [line for line in GOOD if control in ("NW", "XO") or not line.startswith("RXE")]
    message = parse("\r".join(lines).replace("ORC|NW", f"ORC|{control}").encode())
    (item,) = read_items(message)
    assert item.action is {
        "NW": Action.NEW, "XO": Action.CHANGE, "CA": Action.CANCEL, "DC": Action.CANCEL,
        "HD": Action.HOLD, "RL": Action.RELEASE,
    }[control]  # fmt: skip
    assert parse(answer(message)).first("ORC").text(1) == done
    refusal = Hl7Error(Code.UNKNOWN_KEY, "not known", segment="ORC", field=2)
    refused = judge(answer(message, refusal))
    assert refused.rre_o12_response.rre_o12_order.orc.orc_1.to_er7() == unable
    assert refused.msa.msa_1.to_er7() == "AE"
    assert refused.err.err_2.to_er7() == "ORC^1^2^1"
    assert refused.err.err_3.err_3_1.to_er7() == "204"


@pytest.mark.parametrize(
    ("codes", "priority"),
    [("S", "stat"), ("A", "urgent"), ("T", "urgent"), ("TS30", "urgent"), ("TM", "urgent"),
     ("P", "urgent"), ("C", "urgent"), ("R", "routine"), ("PRN", "routine"), ("", "routine"),
     ("R~s~A", "stat"), ("A^As soon as possible^HL70485", "urgent")],
)  # fmt: skip
def test_priorities(codes, priority):
    """Table 0485, of several the most urgent."""
    text = "\r".join(GOOD).replace("|S\r", f"|{codes}\r")
    assert read_items(parse(text.encode()))[0].priority == priority


def test_older_place_of_the_priority_is_read():
    """Component 6 of RXE-1 or ORC-7, where there is no TQ1."""
    text = "\r".join(line for line in GOOD if not line.startswith("TQ1"))
    assert read_items(parse(text.encode()))[0].priority is Priority.ROUTINE
    text = text.replace("RXE|1|", "RXE|1^^^^^A|")
    assert read_items(parse(text.encode()))[0].priority is Priority.URGENT
    text = text.replace("ORC|NW|O1^CPOE||G1", "ORC|NW|O1^CPOE||G1|||^^^^^S")
    assert read_items(parse(text.encode()))[0].priority is Priority.STAT


@pytest.mark.parametrize(
    ("old", "new", "code", "told"),
    [
        ("RDE^O11", "ADT^A01", 200, "MSH-9.1: expected RDE, got 'ADT'"),
        ("RDE^O11", "RDE^O25", 201, "MSH-9.2: expected the event O11, got 'O25'"),
        ("|P|2.5.1", "|X|2.5.1", 202, "MSH-11: expected P, T or D"),
        ("|P|2.5.1", "|P|2.3", 203, "MSH-12: expected one of 2.5, 2.5.1, 2.6"),
        ("|M1|", "||", 101, "MSH-10: expected a message control id"),
        ("ORC|NW|", "ORC||", 101, "ORC-1: expected one of NW, XO"),
        ("ORC|NW|", "ORC|SN|", 103, "ORC-1: expected one of NW, XO"),
        ("O1^CPOE", "", 101, "ORC-2: expected a placer or filler order number"),
        ("O1^CPOE", "O1^A\\F\\B", 102, "ORC-2: expected at most 199 characters without"),
        ("O1^CPOE", "x" * 200, 102, "ORC-2: expected at most 199 printable"),
        ("AMOX", "", 101, "RXE-2: expected a code"),
        ("AMOX", "A\\X0D\\B", 102, "RXE-2: expected at most 199 printable"),
        ("|20|TAB", "||TAB", 101, "RXE-10: expected an amount"),
        ("|20|TAB", "|many|TAB", 102, "RXE-10: expected a number"),
        ("|20|TAB", "|1e3|TAB", 102, "RXE-10: expected a number"),
        ("|20|TAB", "|-5|TAB", 102, "RXE-10: expected a number"),
        ("|20|TAB", "|0|TAB", 102, "RXE-10: expected 1 to 1000000 whole packs"),
        ("|20|TAB", "|2.5|PACK", 102, "RXE-10: expected 1 to 1000000 whole packs"),
        ("|20|TAB", "|20|ML", 102, "RXE-10: expected one unit for amount and package size"),
        ("|10|TAB\r", "\r", 102, "RXE-10: expected packs, or a package size"),
        ("|10|TAB\r", "|0|TAB\r", 102, "RXE-10: expected a package size above 0"),
        ("|10|TAB\r", "|10|TAB|XX\r", 103, "RXE-30: expected one of AD, UD, TR, F"),
        ("|10|TAB\r", "|10|TAB||||||IX\r", 103, "RXE-35: expected one of I, II"),
        ("|S\r", "|SOON\r", 103, "TQ1-9: expected one of S, A, T"),
        ("20260302090000|", "20260231|", 102, "TQ1-7: expected a time as YYYYMMDDHHMMSS"),
        ("20260302090000|", "2026030209:00|", 102, "TQ1-7: expected a time"),
        ("20260302090000|", "20260302120000|", 102, "TQ1-8: expected a time after TQ1-7"),
        ("ORC|NW|O1^CPOE||G1\r", "", 100, "RXE: expected ORC before RXE"),
        ("RXE|", "ZXE|", 100, "ORC: expected one RXE after ORC, got 0"),
        ("RXR|PO", "ORC|CA|O1^CPOE", 205, "ORC[2]-2: expected each order once"),
    ],
)  # fmt: skip
def test_refusals_name_segment_field_and_what_is_accepted(old, new, code, told):
    """Each with its code of table 0357, and an answer that hl7apy accepts."""
    text = "\r".join([*GOOD[:-1], ""]) + GOOD[-1]
    assert old in text
    message = parse(text.replace(old, new, 1).encode())
    with pytest.raises(Hl7Error, match="expected") as info:
        read_items(message)
    assert info.value.code == code
    assert str(info.value).startswith(told)
    data = answer(message, info.value, time=NOW)
    verdict, _, why = read_answer(parse(data))
    assert verdict == ("AR" if 200 <= code <= 203 else "AE")
    assert why == str(info.value)
    if 200 <= code <= 203:
        assert parse(data).kind[0] == "ACK"
    else:
        judge(data)


def test_answer_to_what_cannot_be_read():
    """A plain acknowledgment, in ASCII whatever was quoted."""
    refusal = Hl7Error(Code.DATA_TYPE, "expected ü, got '\x0b'")
    found = judge(answer(None, refusal))
    assert found.msh.msh_9.to_er7() == "ACK^^ACK"
    assert found.err.err_8.to_er7().isascii()


WORDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)


@pytest.mark.slow
@given(
    st.lists(st.tuples(WORDS, st.integers(1, 999), WORDS, st.dates(date(2026, 1, 1))), max_size=3),
    WORDS,
)
def test_dispense_message_is_valid_and_holds_all_fields(lots, drug):
    """RDS^O13 of several lots: hl7apy validates it, and each listed field is where it belongs."""
    item = Item(id="O1^CPOE", order="RX77^CPOE", drug=drug, destination="W3",
                source={"ORC-2": "O1^CPOE", "ORC-4": "RX77^CPOE", "PID-3": "P1"})  # fmt: skip
    given_ = [
        Given(item=item, quantity=quantity, lot=lot, expiry=expiry, prepared_at=NOW, person=person,
              place="point 1", note="keep cool")
        for lot, quantity, person, expiry in lots
    ] or [Given(item=item, quantity=1, prepared_at=NOW)]  # fmt: skip
    data = write_dispensed(given_, "D1", time=NOW)
    judge(data)
    rxd = parse(data).first("RXD")
    texts = [rxd.text(18, repetition=k) for k in range(len(lots))]
    assert texts == [lot for lot, *_ in lots]
    dates = [rxd.text(19, repetition=k) for k in range(len(lots))]
    assert dates == [f"{expiry:%Y%m%d}" for *_, expiry in lots]
    assert (rxd.text(1), rxd.text(2), rxd.text(5), rxd.text(7)) == ("1", drug, "PACK", "RX77")
    assert rxd.text(3) == "20260302083000+0000"
    assert rxd.text(4) == str(sum(one.quantity for one in given_))
    assert rxd.text(13) == "W3"
    if lots:
        assert (rxd.text(9), rxd.text(10), rxd.text(27)) == ("keep cool", lots[0][2], "point 1")


def test_dispense_message_goes_back_to_the_sender():
    """Applications are swapped, order numbers, code and route repeated, in its character set."""
    message = parse(built().replace(b"AMOX", b"AM\\T\\X"))
    items = read_items(message)
    given_ = [Given(item=item, quantity=item.quantity, prepared_at=NOW) for item in items]
    data = write_dispensed(given_, "D7", reply_to=message, charset="8859/1", time=NOW)
    judge(data)
    found = parse(data)
    assert (found.head.text(3), found.head.text(5), found.head.text(18)) == (
        "ROBOT", "CPOE", "8859/1",
    )  # fmt: skip
    assert [s.text(2) for s in found.segments if s.name == "ORC"] == ["O1", "O2"]
    assert [s.text(2) for s in found.segments if s.name == "RXD"] == ["AM&X", "MORPH"]
    assert {s.text(1) for s in found.segments if s.name == "RXR"} == {"PO"}
    assert found.first("PID").text(3) == "P1"
    with pytest.raises(ValueError, match="expected at least one line"):
        write_dispensed([], "D8")


@pytest.mark.parametrize(
    ("amount", "unit", "size", "size_unit", "number"),
    [(2, "", None, "", 2), (2, "pack", 20, "TAB", 2), (21, "TAB", 20, "TAB", 2),
     (20, "TAB", 20, "", 1), (0.3, "L", 0.1, "l", 3), (1e6, "{Package}", None, "", 1_000_000)],
)  # fmt: skip
def test_packs(amount, unit, size, size_unit, number):
    """Amounts in packs stay, others are divided by what a pack holds and rounded up."""
    assert packs(amount, unit, size, size_unit) == number
