"""Documents to packed tokens: held-out split, tokenizer, shards in a cache.

Preparing is done once per combination of documents and settings: the folder's name is a hash
of both. It is written under a temporary name and renamed when complete, so it is either whole
or absent, and of two processes that prepare the same at once one wins and both go on with it.

A document goes to the held-out split if the hash of its text, as a number in [0, 1), lies below
``valid_fraction``. This does not depend on the other documents, so adding text moves nothing
across. The tokenizer learns from the other documents only.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import asdict, replace
from dataclasses import dataclass as plain_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from weightwise.lm import Tokenizer, train_tokenizer
from weightwise.train.files import new_folder
from weightwise.train.shards import ShardWriter, SplitIndex, TokenStore
from weightwise.train.source import BuiltinSource, Documents, Source, open_documents

if TYPE_CHECKING:
    from collections.abc import Iterator

STRICT = ConfigDict(extra="forbid")
# Part of every cache key: raise it when the layout on disk or the packing changes.
LAYOUT = 1
SPLITS = ("train", "valid")
# Merges learnt from the first 128 MB hardly change with more text, and take minutes.
TOKENIZER_BYTES = 2**27
DOCUMENTS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MixedSource:
    """Documents that get a share of the training sequences.

    Parameters
    ----------
    source
        Where they come from.
    share
        Their share, at least 0 and below 1.
    anneal_share
        Their share from where ``schedule.anneal_from`` says; ``None`` for the same. The best data
        may get more there, or come there only.
    """

    source: Source
    share: float = Field(ge=0.0, lt=1.0)
    anneal_share: float | None = Field(default=None, ge=0.0, lt=1.0)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """What to train on.

    Parameters
    ----------
    kind
        Tells this class from other kinds of data.
    source
        Where the documents come from.
    tokenizer
        Path of a ``tokenizer.json`` or of a rank file (``.tiktoken``); ``None`` trains one with
        the model's ``vocab_size``.
    chat_tokens
        Give a newly trained tokenizer the special tokens of conversations (`weightwise.lm.chat`).
    valid_fraction
        Share of documents held out for validation, above 0 and below 1.
    long_share
        Share of the training sequences that lie inside of one document each, above 0 and below 1;
        ``None`` takes text as it comes. See `weightwise.train.mix`.
    mix
        Further documents with shares of their own; ``source`` has what they leave.
    """

    kind: Literal["text"] = "text"
    source: Source = BuiltinSource()
    tokenizer: str | None = None
    chat_tokens: bool = False
    valid_fraction: float = Field(default=0.02, gt=0.0, lt=1.0)
    long_share: float | None = Field(default=None, gt=0.0, lt=1.0)
    mix: tuple[MixedSource, ...] = ()

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        early = sum(one.share for one in self.mix)
        late = sum(one.share if one.anneal_share is None else one.anneal_share for one in self.mix)
        if max(early, late) + (self.long_share or 0.0) >= 1:
            raise ValueError(
                f"mix: expected shares that leave something to source, got {early:g} and in "
                f"annealing {late:g} beside long_share {self.long_share or 0.0:g}"
            )
        return self

    def check_annealing(self, anneal_from: float | None) -> None:
        """Refuse shares for annealing in a run without; the message names the field.

        Raises
        ------
        ValueError
            If there are such shares and ``anneal_from`` is None.
        """
        for number, one in enumerate(self.mix):
            if anneal_from is None and one.anneal_share is not None:
                raise ValueError(
                    f"data.mix.{number}.anneal_share: expected none without schedule.anneal_from, "
                    f"got {one.anneal_share:g}"
                )


@plain_dataclass(frozen=True, kw_only=True)
class PreparedData:
    """Tokenized and packed documents.

    Parameters
    ----------
    fingerprint
        Key of the documents and settings; the same key means the same tokens.
    tokenizer
        Tokenizer of these tokens.
    train, valid
        Tokens of the two splits.
    mixed
        Tokens to train on of each source of `DataConfig.mix`.
    """

    fingerprint: str
    tokenizer: Tokenizer
    train: TokenStore
    valid: TokenStore
    mixed: tuple[TokenStore, ...] = ()


def default_cache_dir() -> Path:
    """Folder of prepared data: ``$WEIGHTWISE_CACHE``, or ``~/.cache/weightwise``."""
    folder = os.environ.get("WEIGHTWISE_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "weightwise"


def prepare(config: DataConfig, vocab_size: int, cache_dir: Path) -> PreparedData:
    """Tokenize and pack the documents, or find that done in the cache.

    Parameters
    ----------
    config
        What to prepare.
    vocab_size
        Token ids that the model knows: size of a new tokenizer, upper bound for a given one.
    cache_dir
        Folder of the cache; made if missing.

    Returns
    -------
    PreparedData
        Tokenizer and memory-mapped tokens.

    Raises
    ------
    ValueError
        If the documents cannot be read, a split is empty, or the tokenizer has more ids than
        the model.
    """
    documents = open_documents(config.source)
    given = None if config.tokenizer is None else Tokenizer.load(config.tokenizer)
    if given is not None and given.vocab_size > vocab_size:
        raise ValueError(
            f"data.tokenizer: expected at most model.vocab_size = {vocab_size} token ids, "
            f"got {given.vocab_size} in {config.tokenizer}"
        )
    key = _cache_key(config, vocab_size, documents.fingerprint)
    folder = cache_dir / f"data-{key}"
    if not folder.exists():
        with new_folder(folder) as partial:
            _build(partial, documents, config, given, vocab_size)
    data = open_prepared(folder)
    return _with_mix(data, config, folder, vocab_size) if config.mix else data


def open_prepared(folder: Path) -> PreparedData:
    """Open a folder that `prepare` has written.

    Raises
    ------
    ValueError
        If a file is missing or damaged; the message names it.
    """
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        splits = {name: SplitIndex(**index[name]) for name in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / 'index.json'}: expected an index of prepared data ({error!r}); "
            f"remove {folder} to prepare the data again"
        ) from error
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    for name, split in splits.items():
        if split.max_id >= tokenizer.vocab_size:
            raise ValueError(
                f"{folder}: expected token ids below {tokenizer.vocab_size}, "
                f"got {split.max_id} in {name}"
            )
    return PreparedData(
        fingerprint=folder.name.removeprefix("data-"),
        tokenizer=tokenizer,
        train=TokenStore(folder, "train", splits["train"]),
        valid=TokenStore(folder, "valid", splits["valid"]),
    )


def _with_mix(
    data: PreparedData, config: DataConfig, folder: Path, vocab_size: int
) -> PreparedData:
    """Prepare the other sources with the same tokenizer; each has a folder of its own.

    What they hold out is not used: a document that is held out here is so there as well.
    """
    stores, keys = [], [data.fingerprint]
    for number, one in enumerate(config.mix):
        alone = DataConfig(
            source=one.source,
            tokenizer=str(folder / "tokenizer.json"),
            valid_fraction=config.valid_fraction,
        )
        try:
            other = prepare(alone, vocab_size, folder.parent)
        except ValueError as error:
            raise ValueError(f"data.mix.{number}: {error}") from error
        stores.append(other.train)
        keys.append(other.fingerprint)
    fingerprint = hashlib.sha256("/".join(keys).encode()).hexdigest()[:16]
    return replace(data, fingerprint=fingerprint, mixed=tuple(stores))


def is_held_out(text: str, valid_fraction: float) -> bool:
    """Whether a document belongs to the validation split."""
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big") < valid_fraction * 2**64


def _cache_key(config: DataConfig, vocab_size: int, fingerprint: str) -> str:
    parts = {
        "layout": LAYOUT,
        "documents": fingerprint,
        "valid_fraction": config.valid_fraction,
        "vocab_size": vocab_size,
        "tokenizer": None
        if config.tokenizer is None
        else hashlib.sha256(Path(config.tokenizer).read_bytes()).hexdigest(),
    }
    if config.chat_tokens and config.tokenizer is None:
        parts["chat_tokens"] = True  # left out where it is not, so that older caches stay valid
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _build(
    folder: Path,
    documents: Documents,
    config: DataConfig,
    tokenizer: Tokenizer | None,
    vocab_size: int,
) -> None:
    if tokenizer is None:
        seen = (text for text in documents if not is_held_out(text, config.valid_fraction))
        tokenizer = train_tokenizer(
            _first_bytes(seen, TOKENIZER_BYTES), vocab_size, chat_tokens=config.chat_tokens
        )
    tokenizer.save(folder / "tokenizer.json")
    writers = {name: ShardWriter(folder, name, tokenizer.vocab_size) for name in SPLITS}
    for texts in _batches(documents, DOCUMENTS_PER_BATCH):
        for text, ids in zip(texts, tokenizer.encode_batch(texts), strict=True):
            split = "valid" if is_held_out(text, config.valid_fraction) else "train"
            writers[split].append([*ids, tokenizer.eos_id])
    index = {name: asdict(writer.index()) for name, writer in writers.items()}
    _check_not_empty(index["train"]["shard_tokens"], index["valid"]["shard_tokens"])
    (folder / "index.json").write_text(json.dumps(index), encoding="utf-8")


def _check_not_empty(train: tuple[int, ...], valid: tuple[int, ...]) -> None:
    if not train and not valid:
        raise ValueError("data.source: expected documents with text, got none")
    if not valid:
        raise ValueError(
            "data.valid_fraction: expected a share that holds out at least one document, "
            "none fell to validation; raise it, add documents, or cut long files with "
            "data.source.document_bytes"
        )
    if not train:
        raise ValueError(
            "data.valid_fraction: expected a share that leaves documents to train on, "
            "all fell to validation; lower it or add documents"
        )


def _batches(texts: Documents, size: int) -> Iterator[list[str]]:
    """Consecutive groups; documents without text are left out."""
    rest = (text for text in texts if text)
    while group := list(itertools.islice(rest, size)):
        yield group


def _first_bytes(texts: Iterator[str], limit: int) -> Iterator[str]:
    """Texts until their total size passes the limit."""
    total = 0
    for text in texts:
        yield text
        total += len(text.encode())
        if total > limit:
            return
