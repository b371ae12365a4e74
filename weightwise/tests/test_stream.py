"""Text as its tokens come: whole characters, stop texts, nothing lost."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import train_tokenizer
from weightwise.lm.stream import TextStream

TOKENIZER = train_tokenizer(["stop and go, stop and go\n"] * 5, 280)


def stream_of(ids, stop_texts=()):
    """Feed all ids; gives the stream and its text after each."""
    stream = TextStream(TOKENIZER, stop_texts)
    seen = []
    for token in ids:
        stream.add(token)
        seen.append(stream.text)
    return stream, seen


@settings(max_examples=150, deadline=None)
@given(ids=st.lists(st.integers(1, TOKENIZER.vocab_size - 1), max_size=30))
def test_pieces_add_up_to_the_decoded_whole(ids):
    """Any tokens, broken characters included; what was released stays."""
    stream, seen = stream_of(ids)
    stream.finish()
    assert stream.text == TOKENIZER.decode(ids)
    for before, after in itertools.pairwise([*seen, stream.text]):
        assert after.startswith(before)


@settings(max_examples=100, deadline=None)
@given(text=st.text(max_size=20))
def test_no_unfinished_character_is_released(text):
    """Bytes of a character that come one by one show when it is whole."""
    ids = [token for byte in text.encode() for token in _token_of(byte)]
    _, seen = stream_of(ids)
    for shown in seen:
        assert text.startswith(shown)
    if text and "\N{REPLACEMENT CHARACTER}" not in text:
        assert seen[-1] == text


def _token_of(byte: int) -> list[int]:
    """The token of a single byte, in the alphabet of byte-level encodings."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    moved = [b for b in range(256) if b not in keep]
    character = chr(byte) if byte in keep else chr(256 + moved.index(byte))
    token = TOKENIZER._backend.token_to_id(character)
    assert token is not None
    return [token]


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet="ab<|é", max_size=25),
    stops=st.lists(st.text(alphabet="ab<|é", min_size=1, max_size=4), max_size=3),
)
def test_text_ends_before_the_first_stop_text(text, stops):
    """Byte by byte: what shows is the text up to the first stop text that is complete."""
    stream = TextStream(TOKENIZER, stops)
    fed = b""
    for byte in text.encode():
        stream.add(*_token_of(byte))
        fed += bytes([byte])
        assert text.startswith(stream.text)
        assert not any(stop in stream.text for stop in stops)
        if stream.is_stopped:
            break
    stream.finish()
    done = fed.decode(errors="ignore")
    hit = min((done.find(stop) for stop in stops if stop in done), default=None)
    assert stream.is_stopped == (hit is not None)
    assert stream.text == (text if hit is None else done[:hit])


def test_what_may_begin_a_stop_text_waits():
    """Of "say END." the letters E, N wait; when "." comes instead of D they are released."""
    stream = TextStream(TOKENIZER, ["END"])
    shown = []
    for byte in b"say EN.":
        stream.add(*_token_of(byte))
        shown.append(stream.text)
    assert shown == ["s", "sa", "say", "say ", "say ", "say ", "say EN."]
    stream.add(*_token_of(ord("E")))
    assert stream.text == "say EN."
    stream.finish()
    assert stream.text == "say EN.E"
