"""The tokenizer: lossless, repeatable, saved and read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import Tokenizer, train_tokenizer
from weightwise.lm.tiktoken import CHAT_TOKENS

TEXTS = [
    "def add(left: int, right: int) -> int:\n    return left + right\n",
    "class Node:\n    def __init__(self, left, right):\n        self.left = left\n",
    "for index in range(10):\n    print(index, index ** 2)\n",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 300)


@settings(max_examples=200, deadline=None)
@given(text=st.text())
def test_every_text_comes_back(tokenizer, text):
    """Any Unicode text survives encoding and decoding unchanged."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < tokenizer.vocab_size for token in ids)


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n    x", "é€😀", "\x00\x7f", "a<|endoftext|>b", "\r\n"]
)
def test_awkward_texts_come_back(tokenizer, text):
    """Blanks, control characters, emoji and the text of the end marker are ordinary text."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_id not in ids


def test_merges_shorten_text_of_the_same_kind(tokenizer):
    """300 ids are 256 bytes, the end marker and 43 merges; words of the text take fewer ids."""
    assert tokenizer.vocab_size == 300
    assert len(tokenizer.encode(TEXTS[0])) < len(TEXTS[0]) / 2


def test_training_twice_gives_the_same_file(tokenizer, tmp_path):
    """Same texts, same order, same vocabulary: byte for byte."""
    tokenizer.save(tmp_path / "first.json")
    train_tokenizer(iter(TEXTS), 300).save(tmp_path / "second.json")
    assert (tmp_path / "first.json").read_bytes() == (tmp_path / "second.json").read_bytes()


def test_saved_tokenizer_reads_back(tokenizer, tmp_path):
    """Ids and end marker are the same after a round trip through the file."""
    tokenizer.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    text = TEXTS[1] + "<|endoftext|> ü"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert (loaded.eos_id, loaded.vocab_size) == (tokenizer.eos_id, tokenizer.vocab_size)
    assert [path.name for path in tmp_path.iterdir()] == ["tokenizer.json"]


def test_batch_equals_one_by_one(tokenizer):
    """Encoding in parallel changes nothing."""
    assert tokenizer.encode_batch(TEXTS) == [tokenizer.encode(text) for text in TEXTS]


def test_end_marker_is_left_out_of_decoded_text(tokenizer):
    """Ids of two documents joined by the end marker read as their texts."""
    ids = [*tokenizer.encode("ab"), tokenizer.eos_id, *tokenizer.encode("cd")]
    assert tokenizer.decode(ids) == "abcd"


def test_bad_input_is_named(tmp_path):
    """Too small a vocabulary, a missing file, a file of another kind."""
    with pytest.raises(ValueError, match="vocab_size: expected at least 257, got 256"):
        train_tokenizer(TEXTS, 256)
    with pytest.raises(ValueError, match=r"none\.json: expected a readable tokenizer\.json"):
        Tokenizer.load(tmp_path / "none.json")
    (tmp_path / "other.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json: expected a tokenizer\.json"):
        Tokenizer.load(tmp_path / "other.json")


def test_chat_tokens_follow_the_end_marker():
    """Where they are asked for, each has an id of its own and no text is encoded to it."""
    chatty = train_tokenizer(TEXTS, 300, chat_tokens=True)
    assert list(chatty.special_tokens.items()) == [
        ("<|endoftext|>", 0),
        *((name, number) for number, name in enumerate(CHAT_TOKENS, 1)),
    ]
    assert (chatty.vocab_size, chatty.eos_id, chatty.pad_id, chatty.bos_id) == (300, 0, 3, None)
    ids = chatty.encode("a<|eos|>b")
    assert not set(ids) & set(chatty.special_tokens.values())
    assert chatty.decode([1, *ids, 2]) == "a<|eos|>b"
    assert chatty.decode([1, *ids, 2], with_specials=True) == "<|startoftext|>a<|eos|>b<|eos|>"
    with pytest.raises(ValueError, match="vocab_size: expected at least 263, got 262"):
        train_tokenizer(TEXTS, 262, chat_tokens=True)
