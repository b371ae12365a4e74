"""Rank files of `tiktoken`, the tokenizer that they mean, and longer ones learnt from text.

A rank file has a line for every token: its bytes in base64, a space, its rank. The rank is the
token's id and also its precedence: of all neighbours in a word whose union is a token, those of
the lowest rank are joined first, leftmost first, and a word that is a token itself is taken
whole. The `tokenizers` library joins pairs that it is told of, so every way to cut a token into
two others becomes such a pair, under the rank of the whole; `tiktoken` itself serves the tests.

A rank file does not say how text is cut into words nor which special tokens there are. Both are
those of Hunyuan-Large here (arXiv 2411.02265, section 2.1.2, and its tokenizer's code): text is
normalised to NFC; every digit is a word of its own, so that numbers are read digit by digit; and
the special tokens follow the last rank, 127957 in that model.

To learn tokens, text is written with a base vocabulary, one character for every base token, and
the library's trainer then joins characters. The new tokens come after the old ones, whose ids
stay (the released vocabulary is such an extension, of a general one by Chinese). A vocabulary
without a base is the extension of the 256 bytes.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

END_OF_TEXT = "<|endoftext|>"
# What conversations are written with (`weightwise.lm.chat`).
CHAT_TOKENS = (
    "<|startoftext|>", "<|eos|>", "<|pad|>", "<|extra_0|>", "<|extra_4|>", "<|extra_5|>",
)  # fmt: skip
# The rank file of the released model, whose code counts lines and passes over doubles.
RANK_FILE = "hy.tiktoken"
# In the order of their ids, which begin after the last rank: 127957 to 128165 in the release.
SPECIAL_TOKENS = (
    END_OF_TEXT, "<|startoftext|>", "<|bos|>", "<|eos|>", "<|pad|>",
    *(f"<|extra_{number}|>" for number in range(204)),
)  # fmt: skip
# Alternatives in order of preference; together they match any text.
KINDS_OF_WORD = (
    r"(?i:'(?:s|t|m|d|re|ve|ll))",  # ends of English contractions
    r"[^\r\n\p{L}\p{N}]?\p{L}+",  # letters, with a space or one other sign before them
    r"\p{N}",  # a digit
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # other signs, with the line ends after them
    r"\s*[\r\n]+",  # line ends, with the blanks before them
    r"\s+(?!\S)",  # blanks, except for one before a word
    r"\s+",
)
WORDS = "|".join(KINDS_OF_WORD)
BYTES = [bytes([value]) for value in range(256)]
# Base tokens are spelled as characters from here on, where no blank is; there is room for a
# million.
FIRST_SYMBOL = 0x10000
BREAK = " "
TEXTS_PER_BATCH = 256


def read_ranks(path: Path | str, *, in_file_order: bool = False) -> list[bytes]:
    """Read a rank file.

    Parameters
    ----------
    path
        The file.
    in_file_order
        Count lines instead of believing their numbers, and pass over tokens that came before.

    Returns
    -------
    list of bytes
        Tokens by rank.

    Raises
    ------
    ValueError
        If the file cannot be read, a line is none of a token and a rank, or ranks are not
        0, 1, 2, … each once; the message names file and line.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ValueError(f"{path}: expected a readable rank file, got {error}") from error
    ranks: dict[bytes, int] = {}
    line_of: dict[int, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}: line {number}"
        token, rank = _parse(line, place)
        if in_file_order:
            ranks.setdefault(token, len(ranks))
            continue
        if token in ranks:
            raise ValueError(f"{place}: expected a new token, got that of rank {ranks[token]}")
        if rank in line_of:
            raise ValueError(f"{place}: expected a new rank, got {rank} as in line {line_of[rank]}")
        ranks[token] = rank
        line_of[rank] = number
    for expected, rank in enumerate(sorted(line_of)):
        if rank != expected:
            raise ValueError(
                f"{path}: line {line_of[rank]}: expected ranks without a gap, {expected} is "
                f"missing before {rank}"
            )
    tokens = sorted(ranks, key=ranks.__getitem__)
    try:
        _check(tokens)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return tokens


def write_ranks(path: Path | str, ranks: Sequence[bytes]) -> None:
    """Write a rank file, whole or not at all.

    Parameters
    ----------
    path
        The file; replaced if there is one.
    ranks
        Tokens by rank.
    """
    path = Path(path)
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(ranks))
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(b"".join(lines))
    partial.replace(path)


def extend_ranks(
    ranks: Sequence[bytes],
    texts: Iterable[str],
    num_new: int,
    *,
    on_text: Callable[[int], None] | None = None,
) -> list[bytes]:
    """Learn further tokens from text, after those that there are.

    Parameters
    ----------
    ranks
        Tokens so far by rank; `BYTES` to begin with nothing.
    texts
        Documents; read once.
    num_new
        Tokens to add, at least 0. Text without so many pairs that come twice gives fewer.
    on_text
        Told after every batch of documents how many bytes of UTF-8 it had.

    Returns
    -------
    list of bytes
        The given tokens, unchanged, and the new ones, most frequent first.

    Raises
    ------
    ValueError
        If ``num_new`` is negative, or the given tokens are no vocabulary (see
        `Tokenizer.from_ranks`).
    """
    if num_new < 0:
        raise ValueError(f"num_new: expected at least 0, got {num_new}")
    base = backend_of(ranks, ())
    learner = tokenizers.Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(BREAK)
    trainer = trainers.BpeTrainer(
        # Two ways to join base tokens may give the same bytes: some to spare.
        vocab_size=len(ranks) + num_new + num_new // 8 + 16,
        min_frequency=2,
        initial_alphabet=[chr(FIRST_SYMBOL + rank) for rank in range(len(ranks))],
        show_progress=False,
    )
    learner.train_from_iterator(_spelled(base, texts, on_text), trainer)
    found = learner.get_vocab()
    # A dict for its order: of tokens with the same bytes the first stays.
    tokens = dict.fromkeys(ranks)
    for word in sorted(found, key=found.__getitem__):
        if len(tokens) == len(ranks) + num_new:
            break
        tokens[b"".join(ranks[ord(symbol) - FIRST_SYMBOL] for symbol in word)] = None
    return list(tokens)


def backend_of(
    ranks: Sequence[bytes], special_tokens: Sequence[str] = SPECIAL_TOKENS
) -> tokenizers.Tokenizer:
    """Tokenizer of the `tokenizers` library for tokens by rank.

    Parameters
    ----------
    ranks
        Bytes of the ordinary tokens; the place of a token is its id.
    special_tokens
        Names of the tokens after them.

    Raises
    ------
    ValueError
        If a single byte is missing, a token is empty or there twice, or spells a special one.
    """
    _check(ranks)
    known = {token: rank for rank, token in enumerate(ranks)}
    for name in special_tokens:
        if name.encode() in known:
            raise ValueError(f"ranks: expected no token that spells {name}")
    letter = _letters()
    names = ["".join(letter[value] for value in token) for token in ranks]
    merges = [
        (names[left], names[right])
        for token in ranks
        for left, right in sorted(_cuts(token, known))
    ]
    vocab = {name: rank for rank, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in special_tokens]
    )
    return backend


def ranks_of(backend: tokenizers.Tokenizer) -> list[bytes]:
    """Bytes of all ordinary tokens by rank; undoes `backend_of`.

    Raises
    ------
    ValueError
        If words, normalisation or ids are others than those that `backend_of` gives.
    """
    ours = json.loads(backend_of(BYTES, ()).to_str())
    theirs = json.loads(backend.to_str())
    for part in ("normalizer", "pre_tokenizer"):
        if theirs[part] != ours[part]:
            raise ValueError(
                f"tokenizer: {part}: expected that of Hunyuan-Large's rank file, got another: "
                "only tokenizers trained, extended or loaded as rank files can be written as one"
            )
    vocab = backend.get_vocab(with_added_tokens=False)
    value_of = {letter: value for value, letter in enumerate(_letters())}
    names = sorted(vocab, key=vocab.__getitem__)
    if [vocab[name] for name in names] != list(range(len(names))):
        raise ValueError("tokenizer: expected ids of ordinary tokens from 0 on, without a gap")
    try:
        return [bytes(value_of[letter] for letter in name) for name in names]
    except KeyError as error:
        raise ValueError(
            f"tokenizer: expected tokens made of bytes, got a token with {error.args[0]!r}"
        ) from error


def _parse(line: bytes, place: str) -> tuple[bytes, int]:
    fields = line.split()
    if len(fields) != 2:
        raise ValueError(f"{place}: expected a token in base64 and a rank, got {_shown(line)}")
    try:
        token = base64.b64decode(fields[0], validate=True)
    except binascii.Error:
        raise ValueError(f"{place}: expected a token in base64, got {_shown(fields[0])}") from None
    if not fields[1].isdigit():
        raise ValueError(f"{place}: expected a rank of 0 or more, got {_shown(fields[1])}")
    return token, int(fields[1])


def _shown(found: bytes) -> str:
    return repr(found[:40].decode("ascii", errors="replace"))


def _check(ranks: Sequence[bytes]) -> None:
    """A vocabulary can write every text, and tells its tokens apart."""
    known = set(ranks)
    missing = [value for value in BYTES if value not in known]
    if missing:
        raise ValueError(f"ranks: expected all 256 single bytes, 0x{missing[0].hex()} is missing")
    if b"" in known:
        raise ValueError("ranks: expected tokens of at least one byte, got an empty one")
    if len(known) < len(ranks):
        raise ValueError("ranks: expected every token once, got one twice")


def _cuts(token: bytes, known: dict[bytes, int]) -> Iterator[tuple[int, int]]:
    """Ranks of all pairs of tokens that together are this token."""
    for place in range(1, len(token)):
        left, right = known.get(token[:place]), known.get(token[place:])
        if left is not None and right is not None:
            yield left, right


def _letters() -> list[str]:
    """The character that stands for each byte in a ``tokenizer.json`` (byte-level BPE of GPT-2).

    Bytes that print in Latin-1 stand for themselves, the others are numbered from 256 on.
    """
    printing = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(256)
    return [chr(value if value in printing else next(others)) for value in range(256)]


def _spelled(
    base: tokenizers.Tokenizer, texts: Iterable[str], on_text: Callable[[int], None] | None
) -> Iterator[str]:
    """Texts with a character for every base token, words apart."""
    rest = iter(texts)
    while group := list(itertools.islice(rest, TEXTS_PER_BATCH)):
        for encoding in base.encode_batch(group, add_special_tokens=False):
            ids = np.array(encoding.ids, dtype="<u4") + FIRST_SYMBOL
            first_of_word = np.flatnonzero(np.diff(np.array(encoding.word_ids, dtype=np.int64))) + 1
            spelled = np.insert(ids, first_of_word, ord(BREAK)).astype("<u4")
            yield spelled.tobytes().decode("utf-32-le")
        if on_text is not None:
            on_text(sum(len(text.encode()) for text in group))
