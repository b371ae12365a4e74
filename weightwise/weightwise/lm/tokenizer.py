"""Byte-level byte-pair encoding.

Text is split into words, each word into UTF-8 bytes, and the most frequent neighbours are merged
until the vocabulary is full (Sennrich et al., arXiv 1508.07909). All 256 bytes are in the
vocabulary, so every text can be written and comes back unchanged. The work is done by the
`tokenizers` library, and the file is its ``tokenizer.json``; rank files of `tiktoken` are read as
well (`weightwise.lm.tiktoken`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from weightwise.lm.tiktoken import (
    CHAT_TOKENS,
    END_OF_TEXT,
    RANK_FILE,
    backend_of,
    ranks_of,
    read_ranks,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# 256 bytes and the end-of-text token.
SMALLEST_VOCAB = 257
# What ends a document: here and in Qwen, in Llama 3, in Llama 2, in DeepSeek.
ENDS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<\uff5cend\u2581of\u2581sentence\uff5c>")


class Tokenizer:
    """Turns text into token ids and back.

    Parameters
    ----------
    backend
        A tokenizer of the `tokenizers` library that knows the end-of-text token.

    Attributes
    ----------
    special_tokens
        Names and ids of the tokens that no text is encoded to, in the order of their ids.
    eos_id
        End of a document, the first of `ENDS` that the vocabulary has.
    bos_id, pad_id
        ``<|bos|>`` and ``<|pad|>``; ``None`` where the vocabulary has no such token.

    Raises
    ------
    ValueError
        If there is no such token.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        added = backend.get_added_tokens_decoder()
        self.special_tokens: dict[str, int] = {
            added[number].content: number for number in sorted(added) if added[number].special
        }
        ends = [name for name in ENDS if name in self.special_tokens]
        if not ends:
            raise ValueError(f"tokenizer: expected a vocabulary with one of {', '.join(ENDS)}")
        # Text that happens to contain the name of a special token must stay text.
        backend.encode_special_tokens = True
        self._backend = backend
        self.eos_id: int = self.special_tokens[ends[0]]
        self.bos_id: int | None = self.special_tokens.get("<|bos|>")
        self.pad_id: int | None = self.special_tokens.get("<|pad|>")

    @property
    def vocab_size(self) -> int:
        """Number of token ids, special ones included."""
        size: int = self._backend.get_vocab_size()
        return size

    def is_same(self, other: Tokenizer) -> bool:
        """Whether both give all tokens the same ids."""
        same: bool = self._backend.get_vocab() == other._backend.get_vocab()
        return same

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without any special token."""
        ids: list[int] = self._backend.encode(text, add_special_tokens=False).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, in parallel."""
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, with_specials: bool = False) -> str:
        """Text of token ids.

        Parameters
        ----------
        ids
            Those that end inside a character give the replacement character there.
        with_specials
            Write special tokens by their names; they are left out by default.
        """
        text: str = self._backend.decode(list(ids), skip_special_tokens=not with_specials)
        return text

    def ranks(self) -> list[bytes]:
        """Bytes of all ordinary tokens by rank, as a rank file of `tiktoken` holds them.

        Raises
        ------
        ValueError
            If the vocabulary is none that such a file can say.
        """
        return ranks_of(self._backend)

    def save(self, path: Path | str) -> None:
        """Write ``tokenizer.json`` to ``path``, whole or not at all."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a ``tokenizer.json``, or a rank file whose name ends in ``.tiktoken``.

        Lines of ``hy.tiktoken`` are counted, as the code of that release does; of other rank files
        the numbers count.

        Raises
        ------
        ValueError
            If the file is missing or is not a tokenizer; the message names it.
        """
        path = Path(path)
        if path.suffix == ".tiktoken":
            return cls.from_ranks(read_ranks(path, in_file_order=path.name == RANK_FILE))
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected a readable tokenizer.json, got {error}") from error
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{path}: expected a tokenizer.json, got {error}") from error
        return cls(backend)

    @classmethod
    def from_ranks(cls, ranks: Sequence[bytes]) -> Tokenizer:
        """Tokenizer of Hunyuan-Large's kind: its split into words, its special tokens at the end.

        Parameters
        ----------
        ranks
            Bytes of the ordinary tokens; the place of a token is its id.

        Raises
        ------
        ValueError
            If a single byte is missing, a token is empty or there twice.
        """
        return cls(backend_of(ranks))


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, *, chat_tokens: bool = False
) -> Tokenizer:
    """Learn merges from text; the same texts in the same order give the same tokenizer.

    Words are those of GPT-2's pattern. `weightwise.lm.tiktoken.extend_ranks` learns with
    Hunyuan-Large's instead.

    Parameters
    ----------
    texts
        Documents; read once.
    vocab_size
        Number of token ids wanted, at least 257, or 263 with chat tokens. Little text may give
        fewer.
    chat_tokens
        Include the special tokens of conversations (`weightwise.lm.chat`).

    Returns
    -------
    Tokenizer
        The trained tokenizer; id 0 is the end-of-text token, chat tokens follow it.

    Raises
    ------
    ValueError
        If ``vocab_size`` is too small.
    """
    special = [END_OF_TEXT, *(CHAT_TOKENS if chat_tokens else ())]
    smallest = SMALLEST_VOCAB - 1 + len(special)
    if vocab_size < smallest:
        raise ValueError(f"vocab_size: expected at least {smallest}, got {vocab_size}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)
