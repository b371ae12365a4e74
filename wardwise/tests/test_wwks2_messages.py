"""WWKS 2 messages: each kind survives its bytes, streams are cut anywhere, noise is refused."""

from __future__ import annotations

import dataclasses
import types
import typing
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from xml.dom import minidom

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wardwise.io import InputError
from wardwise.io.wwks2 import (
    MessageError,
    Reason,
    Splitter,
    count_kinds,
    messages,
    parse,
    parts,
    read_log,
    write,
    xml,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
TEXTS = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"], exclude_characters="\ufffe\uffff"),
        st.sampled_from("\\x1D5C\x1d\x00\r\n\t<>&\"' "),
    ),
    max_size=12,
)
ENDED = b"</WWKS>"


def values(hint, field):
    """Any value of a field, by its type."""
    if isinstance(hint, types.UnionType):
        inner = next(a for a in typing.get_args(hint) if a is not types.NoneType)
        return st.none() | values(inner, field)
    if typing.get_origin(hint) is tuple:
        return st.lists(values(typing.get_args(hint)[0], field), max_size=2).map(tuple)
    if dataclasses.is_dataclass(hint):
        return items(hint)
    if issubclass(hint, StrEnum):
        return st.sampled_from(hint)
    if hint is str:
        is_required = field.default is dataclasses.MISSING
        return TEXTS.filter(bool) if is_required else TEXTS
    return {
        bool: st.booleans(),
        date: st.dates(),
        int: st.integers(0, 2 ** (field.metadata.get("bits", 32) - 1) - 1),
    }[hint]


def items(cls):
    """Any object of a dataclass."""
    hints = typing.get_type_hints(cls)
    return st.builds(
        cls, **{f.name: values(hints[f.name], f) for f in dataclasses.fields(cls)}
    )  # fmt: skip


@pytest.mark.parametrize("kind", messages.KINDS.values(), ids=messages.KINDS)
def test_every_message_survives_its_bytes(kind):
    """Whatever stands in a message, it is the same when read back; another parser reads it, too."""

    @settings(max_examples=15, deadline=None)
    @given(items(kind))
    def check(message):
        data = write(message, NOW)
        envelope = parse(data)
        assert envelope.message == message
        assert envelope.time_stamp == NOW
        lead = minidom.parseString(data).documentElement.firstChild  # noqa: S318, our own
        assert lead.tagName == kind.__name__

    check()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(items(messages.OutputRequest) | items(messages.UnprocessedMessage), max_size=4),
    st.lists(st.integers(1, 40), min_size=1),
    st.sampled_from([b"", b"\n", b" \r\n", b"\xef\xbb\xbf"]),
)
def test_stream_may_be_cut_anywhere(sent, sizes, between):
    """The pieces that arrive do not matter, nor what stands between two messages."""
    stream = b"".join(between + write(message) for message in sent)
    splitter, found, at = Splitter(), [], 0
    while at < len(stream):
        size = sizes[len(found) % len(sizes)]
        found += splitter.feed(stream[at : at + size])
        at += size
    assert [parse(data).message for data in found] == sent
    assert splitter.pending_bytes == 0


def test_quoted_closing_tag_does_not_end_a_message():
    """A refused message comes back inside of CDATA, as the specification shows."""
    quoted = (
        b'<WWKS Version="2.0"><UnprocessedMessage Id="3" Reason="NotSupported"><Message Id="7">'
        b'<![CDATA[<WWKS Version="2.0"><What Id="7"/></WWKS>]]></Message></UnprocessedMessage>'
        b"<!-- </WWKS> --></WWKS>"
    )
    (data,) = Splitter().feed(quoted)
    message = parse(data).message
    assert message.message.id == "7"
    assert message.message.text == '<WWKS Version="2.0"><What Id="7"/></WWKS>'


def test_message_as_a_machine_sends_it():
    """Unknown attributes, both spellings of a unit, True and true, control marks, empty texts."""
    data = (
        b'<WWKS Version="2.0" TimeStamp="2026-11-26T16:28:45Z"><OutputMessage Id="688" Source="777"'
        b' Destination="100" Colour="red"><Details Priority="High" OutputDestination="2"'
        b' Status="Completed"/><Article Id="1690510" PackingUnit="28 ST">'
        b'<Pack Id="4020241125141945"'
        b' ScanCode="0107613\\x1d10ND4638\\x1D17260430"'
        b' SubItemQuantity="0" ExpiryDate="2026-04-30"'
        b' StockInDate="" IsInFridge="true" OutputDestination="1"/></Article><Novelty A="1"/>'
        b"</OutputMessage></WWKS>"
    )
    envelope = parse(data)
    assert envelope.time_stamp == datetime(2026, 11, 26, 16, 28, 45, tzinfo=UTC)
    message = envelope.message
    assert message.details == parts.OutputDetails(
        output_destination=2, priority=parts.OutputPriority.HIGH,
        status=parts.OutputStatus.COMPLETED,
    )  # fmt: skip
    (article,) = message.articles
    assert article.packaging_unit == "28 ST"
    (pack,) = article.packs
    assert pack.scan_code == "0107613\x1d10ND4638\x1d17260430"
    assert pack.expiry_date == date(2026, 4, 30)
    assert (pack.stock_in_date, pack.is_in_fridge, pack.output_destination) == (None, True, 1)


def output(inside='<Details OutputDestination="1"/>', attributes='Id="1" Source="100"'):
    """A request with something changed."""
    return f'<WWKS Version="2.0"><OutputRequest {attributes}>{inside}</OutputRequest></WWKS>'


DETAILS = '<Details OutputDestination="1"/>'


@pytest.mark.parametrize(
    ("text", "reason", "problem"),
    [
        ("<WWKS", Reason.SYNTAX_ERROR, "expected XML"),
        ('<WWX Version="2.0"/>', Reason.SYNTAX_ERROR, "expected the element WWKS, got 'WWX'"),
        ("<WWKS/>", Reason.SYNTAX_ERROR, "WWKS.Version: expected 2.0, got None"),
        ('<WWKS Version="1.0"/>', Reason.SYNTAX_ERROR, "WWKS.Version: expected 2.0, got '1.0'"),
        ('<WWKS Version="2.0"/>', Reason.SYNTAX_ERROR, "expected one element, got 0"),
        ('<WWKS Version="2.0"><Dance Id="9"/></WWKS>', Reason.NOT_SUPPORTED, "got 'Dance'"),
        (output(attributes='Source="1"'), Reason.DATA_ERROR, "OutputRequest.Id: expected a value"),
        (output(attributes='Id=""'), Reason.DATA_ERROR, "OutputRequest.Id: expected a value, got"),
        (output(attributes='Id="1" Source="x"'), Reason.DATA_ERROR, "Source: expected a whole"),
        (output(""), Reason.DATA_ERROR, "OutputRequest.Details: expected one element, got"),
        (output(DETAILS * 2), Reason.DATA_ERROR, "Details: expected one element, got '2 el"),
        (output("<Details/>"), Reason.DATA_ERROR, "OutputRequest.Details.OutputDestination: exp"),
        (output(f'{DETAILS}<Criteria Quantity="-1"/>'), Reason.DATA_ERROR, "got '-1'"),
        (output(f'{DETAILS}<Criteria Quantity="1.5"/>'), Reason.DATA_ERROR, "got '1.5'"),
        (output(f'{DETAILS}<Criteria Quantity="٣"/>'), Reason.DATA_ERROR, "got '٣'"),
        (output(f'{DETAILS}<Criteria Quantity="2147483648"/>'), Reason.DATA_ERROR, "2147483647"),
        (output(f'{DETAILS}<Criteria Quantity="{"9" * 5000}"/>'), Reason.DATA_ERROR, "2147483647"),
        (
            output(f'{DETAILS}<Criteria Quantity="1" MinimumExpiryDate="31.12.2027"/>'),
            Reason.DATA_ERROR, "OutputRequest.Criteria.MinimumExpiryDate: expected YYYY-MM-DD",
        ),
        (
            output(f'{DETAILS}<Criteria Quantity="1" SingleBatchNumber="maybe"/>'),
            Reason.DATA_ERROR, "SingleBatchNumber: expected True or False, got 'maybe'",
        ),
        (
            output('<Details OutputDestination="1" Priority="Urgent"/>'), Reason.DATA_ERROR,
            "Details.Priority: expected Highest or High or Normal or Low or Lowest, got 'Urgent'",
        ),
    ],
)  # fmt: skip
def test_wrong_messages_are_refused_in_words_of_the_protocol(text, reason, problem):
    """Each refusal has a reason that can be sent back, and says what was wrong in one line."""
    with pytest.raises(MessageError) as info:
        parse(text.encode())
    assert info.value.reason is reason
    assert problem in str(info.value)
    assert "\n" not in str(info.value)


def test_refusal_remembers_which_message_it_was():
    """Whoever sent the message can be told its id."""
    with pytest.raises(MessageError) as info:
        parse(output("<Details/>", 'Id="RX17"').encode())
    assert info.value.message_id == "RX17"


LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE l [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY a%d "%s">' % (k, b"&a%d;" % (k - 1) * 10) for k in range(1, 10))
    + b']><WWKS Version="2.0"><StatusRequest Id="&a9;"/></WWKS>'
)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (LAUGHS, "expected no document type"),
        (b'<!DOCTYPE W SYSTEM "file:///etc/passwd"><WWKS Version="2.0"/>', "no document type"),
        (b'<WWKS Version="2.0"><StatusRequest Id="&secret;"/></WWKS>', "expected XML"),
        (b"<a>" * 100_000, "at most 16 deep"),
        (b'<WWKS Version="2.0"><StatusRequest Id="\xc3"/></WWKS>', "expected XML"),
        (b'<WWKS Version="2.0"><StatusRequest Id="\xff"/></WWKS>', "expected XML"),
        (b'<WWKS Version="2.0"><StatusRequest Id="\x00"/></WWKS>', "expected XML"),
        (b'<WWKS Version="2.0"><StatusRequest Id="' + b"x" * 10**8 + b'"/></WWKS>', "at most 16"),
    ],
    ids=[
        "laughs",
        "external",
        "entity",
        "deep",
        "cut utf-8",
        "no utf-8",
        "nul",
        "100 MB",
    ],
)
def test_hostile_xml_is_refused(data, problem):
    """Entities, document types, deep nesting, broken bytes and 100 MB of attribute do no harm."""
    with pytest.raises(MessageError, match=problem) as info:
        parse(data)
    assert info.value.reason is Reason.SYNTAX_ERROR


def test_oversized_message_is_passed_over_without_being_kept():
    """The line goes on with the next message, and memory stays bounded."""
    splitter = Splitter(max_bytes=1000)
    good = write(messages.StatusRequest(id="1"))
    found = []
    found += splitter.feed(b'<WWKS Version="2.0"><StatusRequest Id="')
    for _ in range(1000):
        found += splitter.feed(b"x" * 1000)
        assert splitter.pending_bytes <= 1100
    found += splitter.feed(b'"/></WW')
    found += splitter.feed(b"KS>" + good)
    refusal, after = found
    assert isinstance(refusal, MessageError)
    assert str(refusal) == "message: expected at most 1000 bytes, got more"
    assert parse(after).message == messages.StatusRequest(id="1")


def test_oversized_message_in_one_piece_is_refused_once():
    """The same when all of it arrives at a time, even with a CDATA that never ends."""
    splitter = Splitter(max_bytes=1000)
    good = write(messages.StatusRequest(id="1"))
    refusal, after = splitter.feed(b"<WWKS>" + b"x" * 2000 + b"</WWKS>" + good)
    assert isinstance(refusal, MessageError)
    assert after == good
    found = list(splitter.feed(b"<WWKS><![CDATA[" + b"x" * 2000))
    found += splitter.feed(b"</WWKS>" + good)
    assert isinstance(found[0], MessageError)
    assert found[1:] == [good]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda noise: noise + ENDED))
def test_noise_never_breaks_the_line(noise):
    """Random bytes are cut and refused; nothing but a refusal ever comes out of parse."""
    for part in Splitter().feed(noise):
        if not isinstance(part, MessageError):
            with pytest.raises(MessageError):
                parse(part)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(items(messages.OutputMessage), st.data())
def test_damaged_messages_are_read_or_refused(message, data):
    """One byte changed anywhere: a message or a refusal, never another error."""
    sent = bytearray(write(message))
    sent[data.draw(st.integers(0, len(sent) - 1))] = data.draw(st.integers(0, 255))
    for part in Splitter().feed(bytes(sent)):
        try:
            assert isinstance(parse(part).message, messages.Message)
        except MessageError as error:
            assert error.reason in list(Reason)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (messages.StatusRequest(id=""), "StatusRequest.id: expected str, got ''"),
        (messages.StatusRequest(id="a\ufffe"), "expected characters of XML"),
        (messages.StatusRequest(id="a", source=-1), "source: expected 0 to 2147483647, got -1"),
        (messages.StatusRequest(id="a", source=True), "source: expected 0 to"),
        (messages.StatusRequest(id=5), "id: expected str, got 5"),
        (messages.StatusResponse(id="a", state="Ready"), "state: expected State, got 'Ready'"),
    ],
)
def test_wrong_values_are_not_written(message, problem):
    """A message that the other side would have to refuse is refused here."""
    with pytest.raises(ValueError, match=problem):
        write(message)


def test_limit_of_a_stream_has_a_lower_end():
    """A stream without room for a message makes no sense."""
    with pytest.raises(ValueError, match="max_bytes: expected at least 64, got 10"):
        Splitter(10)
    assert xml.MAX_BYTES == 16 * 1024 * 1024


def test_log_is_read_and_counted(tmp_path):
    """A file of messages one after the other; the first bad one is named by its number."""
    log = tmp_path / "robot.log"
    sent = [messages.StatusRequest(id=str(k)) for k in range(3)]
    log.write_bytes(b"\n".join(write(m, NOW + timedelta(seconds=k)) for k, m in enumerate(sent)))
    assert [e.message for e in read_log(log)] == sent
    assert count_kinds(read_log(log)) == {"StatusRequest": 3}
    log.write_bytes(log.read_bytes() + b"<WWKS></WWKS>")
    with pytest.raises(InputError, match=r"message 4: WWKS\.Version: expected 2\.0"):
        list(read_log(log))
    with pytest.raises(InputError, match="expected a readable file"):
        list(read_log(tmp_path / "none.log"))


def test_each_request_knows_its_response():
    """Requests are answered by the response of the same name; messages by nobody."""
    for name, kind in messages.KINDS.items():
        response = messages.response_kind(kind.__new__(kind))
        if name.endswith("Request"):
            assert response is messages.KINDS[name.removesuffix("Request") + "Response"]
        else:
            assert response is None
