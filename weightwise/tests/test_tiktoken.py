"""Rank files, held against the `tiktoken` package and against rules written out here."""

from __future__ import annotations

import base64
import itertools
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from weightwise.lm import Tokenizer, train_tokenizer
from weightwise.lm.tiktoken import (
    BYTES,
    SPECIAL_TOKENS,
    WORDS,
    backend_of,
    extend_ranks,
    read_ranks,
    write_ranks,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ENGLISH = [
    "It's what they've said: we'll see, I'd say you're right, I'M SURE HE'LL come.\n" * 3,
    "In 2024 the model had 52 000 000 000 parameters (of 389 billion), 16 experts.\n\n" * 3,
    "def add(left: int, right: int) -> int:\n    return left + right  # adds\r\n" * 3,
]
CHINESE = [
    "混合专家模型把每个词送到一个专家，专家的容量有限。\n" * 3,
    "模型有三千八百九十亿个参数，每个词用五百二十亿个参数。\n" * 3,
]
MANY = [
    *ENGLISH, *CHINESE,
    "Größe über Maß, daß es nicht geht; naïve café, Ångström.",
    "Привет, как дела? Всё хорошо.", "مرحبا بالعالم ١٢٣", "नमस्ते दुनिया, क्या हाल है?",
    "สวัสดีชาวโลก", "안녕하세요 세계", "こんにちは、世界！カタカナ", "Γειά σου Κόσμε",
    "👩‍👩‍👧‍👦🏳️‍🌈 e\u0301 \u212b \u1e9b\u0323 ｆｕｌｌ １２ Ⅷ ½",
    "\u00a0\u2003x\u2028y\u0085z\ufeff\u200b",
    "tabs\t\tand  blanks   at the end   ", "\n \n\n  x\r\n\r\ry", "''s 'ſ it'S' d'RE 'vex", "",
    "<|eos|> and <|endoftext|> are text", "!!!\n\n???\r\n", "a1b22c333", "x\x00\x1c\x1f y",
]  # fmt: skip
RANKS = extend_ranks(BYTES, ENGLISH, 120)
LONGER = extend_ranks(RANKS, CHINESE, 80)
# Letters that later editions of Unicode add are letters to one engine and none to the other.
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cn"]))
LIKELY = st.lists(
    st.sampled_from(["'s", "'LL", "the", " ", "  ", "\n", "\r\n", "3", "42", "专家", "模", "é",
                     "e\u0301", "!", "(", " -", "\t", "ab", "<|eos|>", "\u00a0", "ि", "x"])
).map("".join)  # fmt: skip


def peer(ranks: list[bytes]) -> tiktoken.Encoding:
    """The same vocabulary in the package that the files are from."""
    return tiktoken.Encoding(
        "peer",
        pat_str=WORDS,
        mergeable_ranks={token: rank for rank, token in enumerate(ranks)},
        special_tokens={name: len(ranks) + i for i, name in enumerate(SPECIAL_TOKENS)},
    )


OURS, THEIRS = Tokenizer.from_ranks(LONGER), peer(LONGER)


def theirs_of(encoding: tiktoken.Encoding, text: str) -> list[int]:
    """Ids of normalised text, in which no name of a special token means that token."""
    return encoding.encode(unicodedata.normalize("NFC", text), disallowed_special=())


@pytest.mark.parametrize("text", MANY)
def test_ids_are_those_of_tiktoken(text: str) -> None:
    """In many languages, with signs, blanks and emoji of all kinds."""
    assert OURS.encode(text) == theirs_of(THEIRS, text)


@pytest.mark.slow
@settings(max_examples=400)
@given(text=st.one_of(TEXT, LIKELY))
def test_ids_of_any_text_are_those_of_tiktoken(text: str) -> None:
    """Texts that nobody would write, and texts full of what the rules speak of."""
    assert OURS.encode(text) == theirs_of(THEIRS, text)


@settings(max_examples=100)
@given(text=st.one_of(TEXT, LIKELY))
def test_text_comes_back_to_the_byte(text: str) -> None:
    """After normalisation nothing is lost, here or there, one by one or in a batch."""
    expected = unicodedata.normalize("NFC", text).encode()
    ids = OURS.encode(text)
    assert OURS.decode(ids).encode() == expected
    assert THEIRS.decode_bytes(ids) == expected
    assert OURS.encode_batch([text, "a"]) == [ids, OURS.encode("a")]


@st.composite
def vocabularies(draw: st.DrawFn) -> list[bytes]:
    """All bytes, and unions of earlier tokens of few letters, in any order of length."""
    tokens = [b"a", b"b", b"c"]
    for _ in range(draw(st.integers(0, 12))):
        union = draw(st.sampled_from(tokens)) + draw(st.sampled_from(tokens))
        if union not in tokens and len(union) < 12:
            tokens.append(union)
    return [*BYTES, *draw(st.permutations(tokens[3:]))]


@pytest.mark.slow
@settings(max_examples=200)
@given(ranks=vocabularies(), text=st.text(alphabet="abc", max_size=30))
def test_any_order_of_ranks_is_obeyed(ranks: list[bytes], text: str) -> None:
    """Ranks decide what is joined, also where no training would give such an order."""
    assert Tokenizer.from_ranks(ranks).encode(text) == peer(ranks).encode(text)


def words_of(text: str) -> list[str]:
    """The sheet's rule for words, a scanner without regular expressions."""
    found, place = [], 0
    while place < len(text):
        end = next(filter(None, (rule(text, place) for rule in RULES)))
        found.append(text[place:end])
        place = end
    return found


def is_letter(sign: str) -> bool:
    return unicodedata.category(sign).startswith("L")


def is_digit(sign: str) -> bool:
    return unicodedata.category(sign).startswith("N")


def is_blank(sign: str) -> bool:
    return sign.isspace() and sign not in "\x1c\x1d\x1e\x1f"


def run(text: str, place: int, *, of: Callable[[str], bool]) -> int:
    """End of the longest run of signs of a kind."""
    return place + sum(1 for _ in itertools.takewhile(of, text[place:]))


def contraction(text: str, place: int) -> int | None:
    for length in (2, 3):
        part = text[place : place + length].casefold()
        if part in ("'s", "'t", "'m", "'d", "'re", "'ve", "'ll") and len(part) == length:
            return place + length
    return None


def letters(text: str, place: int) -> int | None:
    first = text[place]
    start = place if is_letter(first) or is_digit(first) or first in "\r\n" else place + 1
    end = run(text, start, of=is_letter)
    return end if end > start else None


def digit(text: str, place: int) -> int | None:
    return place + 1 if is_digit(text[place]) else None


def signs(text: str, place: int) -> int | None:
    start = place + 1 if text[place] == " " else place
    end = run(text, start, of=lambda s: not (is_blank(s) or is_letter(s) or is_digit(s)))
    return run(text, end, of="\r\n".__contains__) if end > start else None


def blanks(text: str, place: int) -> int | None:
    end = run(text, place, of=is_blank)
    line_ends = [i for i in range(place, end) if text[i] in "\r\n"]
    if line_ends:
        return line_ends[-1] + 1
    return end - 1 if place < end - 1 and end < len(text) else end


RULES = (contraction, letters, digit, signs, blanks)


@pytest.mark.slow
@settings(max_examples=300)
@given(text=st.one_of(TEXT, LIKELY, st.sampled_from(MANY)))
def test_words_are_those_of_the_rule(text: str) -> None:
    """The pattern cuts where the rule says, and loses nothing."""
    found = backend_of(BYTES).pre_tokenizer.pre_tokenize_str(text)
    assert [text[start:end] for _, (start, end) in found] == words_of(text)


def test_special_tokens_have_the_released_ids() -> None:
    """127957 ranks end where the release puts its marks: 127957 to 128165."""
    pairs = (bytes(pair) for pair in itertools.product(range(256), repeat=2))
    triples = (bytes(triple) for triple in itertools.product(range(256), repeat=3))
    ranks = list(itertools.islice(itertools.chain(BYTES, pairs, triples), 127_957))
    special = Tokenizer.from_ranks(ranks).special_tokens
    names = ("endoftext", "startoftext", "bos", "eos", "pad", "extra_0", "extra_5", "extra_203")
    assert [special[f"<|{name}|>"] for name in names] == [
        127_957, 127_958, 127_959, 127_960, 127_961, 127_962, 127_967, 128_165,
    ]  # fmt: skip
    assert len(special) == 209


def test_names_of_special_tokens_are_text() -> None:
    """Only ids make them; decoding shows them where that is asked for."""
    special = OURS.special_tokens
    ids = OURS.encode("a<|eos|>")
    assert not set(ids) & set(special.values())
    marked = [special["<|bos|>"], *ids, special["<|eos|>"]]
    assert OURS.decode(marked) == "a<|eos|>"
    assert OURS.decode(marked, with_specials=True) == "<|bos|>a<|eos|><|eos|>"
    assert (OURS.bos_id, OURS.pad_id, OURS.eos_id) == (
        special["<|bos|>"], special["<|pad|>"], special["<|endoftext|>"],
    )  # fmt: skip


def test_files_come_back(tmp_path: Path) -> None:
    """As ranks, as a tokenizer from either kind of file, and as the same bytes again."""
    write_ranks(tmp_path / "a.tiktoken", LONGER)
    assert read_ranks(tmp_path / "a.tiktoken") == LONGER
    from_ranks = Tokenizer.load(tmp_path / "a.tiktoken")
    from_ranks.save(tmp_path / "tokenizer.json")
    from_json = Tokenizer.load(tmp_path / "tokenizer.json")
    assert from_json.ranks() == LONGER
    assert from_json.special_tokens == from_ranks.special_tokens == OURS.special_tokens
    assert [from_json.encode(text) for text in MANY] == [OURS.encode(text) for text in MANY]
    write_ranks(tmp_path / "b.tiktoken", from_json.ranks())
    assert (tmp_path / "a.tiktoken").read_bytes() == (tmp_path / "b.tiktoken").read_bytes()
    assert {path.suffix for path in tmp_path.iterdir()} == {".tiktoken", ".json"}


LINES = [b"%s %d" % (base64.b64encode(token), rank) for rank, token in enumerate(BYTES)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({4: b"YQ=="}, "line 5: expected a token in base64 and a rank, got 'YQ=='"),
        ({4: b"Y!== 4"}, "line 5: expected a token in base64, got 'Y!=='"),
        ({4: b"YQ 4"}, "line 5: expected a token in base64, got 'YQ'"),
        ({4: b"BA== four"}, "line 5: expected a rank of 0 or more, got 'four'"),
        ({4: b"BA== -4"}, "line 5: expected a rank of 0 or more, got '-4'"),
        ({4: b"BA== 3"}, "line 5: expected a new rank, got 3 as in line 4"),
        ({4: LINES[3].replace(b"3", b"4")}, "line 5: expected a new token, got that of rank 3"),
        ({255: b"/w== 256"}, "line 256: expected ranks without a gap, 255 is missing before 256"),
        ({255: b""}, "expected all 256 single bytes, 0xff is missing"),
        ({4: b"\xff\xfe\x00 4"}, "line 5: expected a token in base64"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, change: dict[int, bytes], message: str) -> None:
    """Each is refused by file and line."""
    path = tmp_path / "bad.tiktoken"
    path.write_bytes(b"\n".join(change.get(i, line) for i, line in enumerate(LINES)))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        Tokenizer.load(path)
    assert str(caught.value).startswith(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """With its path."""
    with pytest.raises(ValueError, match=r"none\.tiktoken: expected a readable rank file"):
        read_ranks(tmp_path / "none.tiktoken")


def test_lines_can_be_counted_instead(tmp_path: Path) -> None:
    """A token that came before is passed over, and later ones move up."""
    path = tmp_path / "hy.tiktoken"
    path.write_bytes(b"\n".join([*LINES, b"YQ== 256", b"YWI= 257"]))
    with pytest.raises(ValueError, match="line 257: expected a new token"):
        read_ranks(path)
    assert read_ranks(path, in_file_order=True) == [*BYTES, b"ab"]
    assert Tokenizer.load(path).ranks() == [*BYTES, b"ab"]  # by its name


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        (BYTES[1:], "0x00 is missing"),
        ([*BYTES, b"ab", b"ab"], "every token once"),
        ([*BYTES, b""], "at least one byte"),
        ([*BYTES, b"<|eos|>"], r"no token that spells <\|eos\|>"),
    ],
)
def test_vocabularies_that_cannot_work_are_refused(ranks: list[bytes], message: str) -> None:
    """Texts would be lost, or tokens be mistaken for each other."""
    with pytest.raises(ValueError, match=message):
        Tokenizer.from_ranks(ranks)


def test_every_new_token_is_a_most_frequent_pair() -> None:
    """Replayed from the definition: words, counts of neighbours, the most frequent joined."""
    texts = ["the whale sang; the sea was calm, the whale was not.\n", "a calm sea, a whale\n"]
    words = Counter(word.encode() for text in texts for word in words_of(text))
    split = {word: [bytes([value]) for value in word] for word in words}
    learnt = extend_ranks(BYTES, texts, 30)[256:]
    assert len(learnt) >= 15
    for token in learnt:
        pairs: Counter[tuple[bytes, bytes]] = Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        best = max(pairs.values())
        assert best >= 2
        (left, right), count = next(
            item for item in pairs.most_common() if b"".join(item[0]) == token
        )
        assert count == best
        for parts in split.values():
            for place in range(len(parts) - 2, -1, -1):
                if parts[place : place + 2] == [left, right]:
                    parts[place : place + 2] = [token]


def test_an_extension_keeps_what_there_was() -> None:
    """Old tokens stay where they were, new ones make the new kind of text shorter."""
    assert LONGER[: len(RANKS)] == RANKS
    assert len(LONGER) == len(RANKS) + 80 == len(set(LONGER))
    old, new = Tokenizer.from_ranks(RANKS), OURS
    assert sum(map(len, new.encode_batch(CHINESE))) < 0.5 * sum(map(len, old.encode_batch(CHINESE)))
    # English text has no pair that was learnt from Chinese.
    assert [new.encode(text) for text in ENGLISH] == [old.encode(text) for text in ENGLISH]
    assert new.special_tokens["<|eos|>"] == old.special_tokens["<|eos|>"] + 80


def test_learning_is_repeatable_and_ends_with_the_text() -> None:
    """The same text gives the same tokens; none is learnt from what comes once only."""
    assert extend_ranks(RANKS, iter(CHINESE), 80) == LONGER
    assert extend_ranks(BYTES, ["abcdefg hijkl"], 50) == BYTES
    assert extend_ranks(RANKS, CHINESE, 0) == RANKS
    assert extend_ranks(BYTES, ["ab ab"], 50) == [*BYTES, b"ab"]  # " ab" is there once
    sizes: list[int] = []
    extend_ranks(BYTES, ["é", "ab"] * 200, 1, on_text=sizes.append)
    assert sum(sizes) == 200 * 4
    with pytest.raises(ValueError, match="num_new: expected at least 0, got -1"):
        extend_ranks(BYTES, [], -1)


def test_other_kinds_of_tokenizer_are_no_rank_files() -> None:
    """One with GPT-2's words would come back from a rank file with others."""
    with pytest.raises(ValueError, match="expected that of Hunyuan-Large's rank file"):
        train_tokenizer(ENGLISH, 300).ranks()
