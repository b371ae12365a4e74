"""Byte-level byte-pair encoding.

Text is split into words with GPT-2's pattern, each word into UTF-8 bytes, and the most frequent
neighbours are merged until the vocabulary is full (Sennrich et al., arXiv 1508.07909). All 256
bytes are in the vocabulary, so every text can be written and comes back unchanged. The work is
done by the `tokenizers` library, and the file is its ``tokenizer.json``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

END_OF_TEXT = "<|endoftext|>"
# 256 bytes and the end-of-text token.
SMALLEST_VOCAB = 257


class Tokenizer:
    """Turns text into token ids and back.

    Parameters
    ----------
    backend
        A tokenizer of the `tokenizers` library that knows the end-of-text token.

    Raises
    ------
    ValueError
        If the end-of-text token is missing.
    """

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        eos_id = backend.token_to_id(END_OF_TEXT)
        if eos_id is None:
            raise ValueError(f"tokenizer: expected a vocabulary with {END_OF_TEXT}")
        # Text that happens to contain the end-of-text marker must not end the text.
        backend.encode_special_tokens = True
        self._backend = backend
        self.eos_id: int = eos_id

    @property
    def vocab_size(self) -> int:
        """Number of token ids, the end-of-text token included."""
        size: int = self._backend.get_vocab_size()
        return size

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, without an end-of-text token."""
        ids: list[int] = self._backend.encode(text).ids
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many texts, in parallel."""
        return [encoding.ids for encoding in self._backend.encode_batch_fast(list(texts))]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids; end-of-text tokens are left out.

        Ids that end inside a character give the replacement character there.
        """
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text

    def save(self, path: Path | str) -> None:
        """Write ``tokenizer.json`` to ``path``, whole or not at all."""
        path = Path(path)
        partial = path.with_name(path.name + ".partial")
        partial.write_text(self._backend.to_str(pretty=True), encoding="utf-8")
        partial.replace(path)

    @classmethod
    def load(cls, path: Path | str) -> Tokenizer:
        """Read a ``tokenizer.json``.

        Raises
        ------
        ValueError
            If the file is missing or is not a tokenizer; the message names it.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: expected a readable tokenizer.json, got {error}") from error
        try:
            backend = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"{path}: expected a tokenizer.json, got {error}") from error
        return cls(backend)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn merges from text; the same texts in the same order give the same tokenizer.

    Parameters
    ----------
    texts
        Documents; read once.
    vocab_size
        Number of token ids wanted, at least 257. Little text may give fewer.

    Returns
    -------
    Tokenizer
        The trained tokenizer; id 0 is the end-of-text token.

    Raises
    ------
    ValueError
        If ``vocab_size`` is below 257.
    """
    if vocab_size < SMALLEST_VOCAB:
        raise ValueError(f"vocab_size: expected at least {SMALLEST_VOCAB}, got {vocab_size}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)
