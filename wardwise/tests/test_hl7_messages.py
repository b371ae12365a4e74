"""HL7 text: escapes, delimiters, character sets, segments, files; hl7apy reads what we write."""

from __future__ import annotations

import pytest
from hl7apy.parser import parse_message
from hypothesis import given
from hypothesis import strategies as st

from wardwise.errors import InputError
from wardwise.io.hl7 import Code, Hl7Error, parse, split_file
from wardwise.io.hl7.encoding import STANDARD, Delimiters, escaped, unescaped
from wardwise.io.hl7.message import MAX_BYTES, MAX_FIELD, MAX_SEGMENTS, assembled, encoded, line

HEAD = "MSH|^~\\&|CPOE|HOSP|ROBOT|PHARM|20260302081500||RDE^O11^RDE_O11|M1|P|2.5.1"
MARKS = st.permutations("|^~\\&!@#$%*").map(lambda marks: Delimiters(*marks[:5]))


@given(st.text(), MARKS)
def test_any_text_survives_escape_and_back(text, marks):
    """Whatever the delimiters are, none of them structures the message afterwards."""
    written = escaped(text, marks)
    assert unescaped(written, marks) == text
    for mark in (marks.field, marks.component, marks.repetition, marks.subcomponent):
        assert mark not in written
    assert not any(c in written for c in "\r\n\x0b\x1c")


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_components_survive_a_message(components):
    """What is written as components of a field is read from them, but for outer spaces."""
    data = assembled([HEAD, line("ZZ1", {3: encoded(*components)})])
    segment = parse(data).first("ZZ1")
    texts = [segment.text(3, k + 1) if segment else "" for k in range(len(components))]
    assert texts == ["" if c.strip() == '""' else c.strip() for c in components]


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1))
def test_peer_reads_the_same_text(text):
    """hl7apy unescapes what we escape."""
    data = assembled([HEAD, line("NTE", {1: "1", 3: encoded(text)})])
    note = parse_message(data.decode().rstrip("\r"), find_groups=False).nte
    found = note.nte_3.to_er7().replace("\\S\\", "^").replace("\\T\\", "&").replace("\\F\\", "|")
    assert found.replace("\\R\\", "~").replace("\\E\\", "\\") == text


@given(st.binary(max_size=300))
def test_noise_is_refused_and_nothing_else(data):
    """Random bytes, alone and behind a good head, are read or refused by our own error."""
    for start in (b"", b"MSH", f"{HEAD}\r".encode()):
        try:
            parse(start + data)
        except Hl7Error as error:
            assert str(error).isprintable()


@pytest.mark.parametrize("end", ["\r", "\r\n", "\n", "\r\r", "\n\n\r"])
def test_all_segment_ends_are_read(end):
    """CR, CR LF and LF, and empty lines."""
    message = parse(end.join([HEAD, "PID|||P1", "PV1||I|W3^1", ""]).encode())
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "PV1"]
    assert message.segments[2].text(3) == "W3"
    assert message.kind == ("RDE", "O11")


def test_message_says_its_own_delimiters():
    """Fields are read by the delimiters of MSH and rewritten in the standard ones."""
    text = "MSH*:;!@*A*B***20260302**RDE:O11*M1*P*2.5.1\rZZ1*a:b@c:d!S!e;f*x^y|z*p!F!q"
    segment = parse(text.encode()).first("ZZ1")
    assert segment.text(1, 2) == "b"
    assert segment.text(1, 3) == "d:e"
    assert segment.text(1, repetition=1) == "f"
    assert segment.text(3) == "p*q"
    assert segment.canonical(1) == "a^b&c^d:e"
    assert segment.canonical(2) == "x\\S\\y\\F\\z"


@pytest.mark.parametrize(
    ("escape", "meant"),
    [
        ("a\\X0D0A\\b", "a\r\nb"), ("a\\.br\\b", "a\nb"), ("\\H\\a\\N\\", "a"),
        ("\\Zxy\\", "\\Zxy\\"), ("\\XC3A4\\", "ä"), ("\\X0\\", "\\X0\\"), ("5\\", "5\\"),
    ],
)  # fmt: skip
def test_escapes_mean_what_the_standard_says(escape, meant):
    """Hexadecimal and line ends are read, highlighting is dropped, the unknown stays."""
    assert unescaped(escape, STANDARD) == meant


@pytest.mark.parametrize(
    ("name", "codec"),
    [("", "utf-8"), ("UNICODE UTF-8", "utf-8"), ("8859/1", "latin-1"), ("8859/15", "iso8859-15")],
)
def test_character_set_is_that_of_the_message(name, codec):
    """MSH-18 names it; without it, UTF-8."""
    text = f"{HEAD}||||||{name}\rZZ1|Müller"
    assert parse(text.encode(codec)).first("ZZ1").text(1) == "Müller"
    assert parse(b"\xef\xbb\xbf" + HEAD.encode()).head.text(10) == "M1"


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        ("", Code.SEGMENT_SEQUENCE, "begins with MSH"),
        ("PID|||1", Code.SEGMENT_SEQUENCE, "begins with MSH"),
        ("MSH", Code.DATA_TYPE, "MSH-2"),
        ("MSH|^~\\^|A", Code.DATA_TYPE, "MSH-2: expected four different"),
        ("MSH|^~|A", Code.DATA_TYPE, "MSH-2"),
        ("MSHA^~\\&A", Code.DATA_TYPE, "MSH-2"),
        (f"{HEAD}||||||KLINGON", Code.TABLE_VALUE_NOT_FOUND, "MSH-18: expected ASCII"),
        (f"{HEAD}||||||ASCII\rZZ1|ü", Code.DATA_TYPE, "MSH-18: expected ascii text"),
        (f"{HEAD}\rPi|1", Code.SEGMENT_SEQUENCE, "name of a segment"),
        (f"{HEAD}\r{HEAD}", Code.SEGMENT_SEQUENCE, "name of a segment"),
        (f"{HEAD}\rZZ1|1\rZZ1|{'x' * (MAX_FIELD + 1)}", Code.DATA_TYPE, "ZZ1[2]-1: expected at"),
        (f"{HEAD}\r" + "ZZ1|\r" * MAX_SEGMENTS, Code.SEGMENT_SEQUENCE, "at most"),
        (HEAD + "x" * MAX_BYTES, Code.DATA_TYPE, "at most"),
    ],
)
def test_refusals_name_the_place(text, code, told):
    """Segment, number, field and what is accepted."""
    with pytest.raises(Hl7Error, match="expected") as info:
        parse(text.encode())
    assert info.value.code is code
    assert told in str(info.value)
    assert len(str(info.value)) <= 240


def test_file_holds_many_messages(tmp_path):
    """One after the other, in frames, in a batch, with any ends."""
    one, two = f"{HEAD}\rPID|||BTS\r", f"{HEAD}\nPID|||FHS|x\n"
    batch = "FHS|^~\\&\rBHS|^~\\&\r"
    for text in (
        one + two, f"\x0b{one}\x1c\r\x0b{two}\x1c\r", f"{batch}{one}{two}BTS|2\rFTS|1\r",
        f"\ufeff\r\n{one}\r\n\r\n{two}",
    ):  # fmt: skip
        file = tmp_path / "a.hl7"
        file.write_bytes(text.encode())
        messages = [parse(data) for data in split_file(file)]
        assert [message.first("PID").text(3) for message in messages] == ["BTS", "FHS"]
        assert [len(message.segments) for message in messages] == [2, 2]


@pytest.mark.parametrize("data", [b"", b"hello", b"PID|1\rMSH|^~\\&|", b"\x00" * 99])
def test_file_without_messages_is_refused(tmp_path, data):
    """In one line that names the file."""
    file = tmp_path / "a.hl7"
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.hl7: expected messages that begin with MSH"):
        split_file(file)
    with pytest.raises(InputError, match="readable"):
        split_file(tmp_path / "none.hl7")
