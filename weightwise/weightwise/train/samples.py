"""Chats and preferences as samples of tokens, prepared once and kept in the cache.

Like text (`weightwise.train.data`), they are tokenized once per combination of files, tokenizer
and settings; the folder's name is a hash of them all. A record is held out if the hash of its
question, as a number in [0, 1), lies below ``valid_fraction``, so all answers to a question are
on the same side. A preference is two samples, the chosen answer first.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from weightwise.lm import Tokenizer
from weightwise.lm.chat import ChatTemplate
from weightwise.lm.post.dpo import encode_pair, read_preferences
from weightwise.lm.post.records import blame
from weightwise.lm.post.sft import Sample, encode_chat, fit, read_chats
from weightwise.train.data import SPLITS, is_held_out
from weightwise.train.files import new_folder
from weightwise.train.post_config import ChatConfig, PreferenceConfig
from weightwise.train.shards import ShardWriter, SplitIndex, TokenStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from weightwise.lm.chat import Message

# Part of every cache key: raise it when the layout on disk or the encoding changes.
LAYOUT = 1
PostConfig: TypeAlias = ChatConfig | PreferenceConfig


class SampleWriter:
    """Writes the samples of a split.

    Parameters
    ----------
    folder
        Existing folder.
    split
        Name of the split, the first part of the file names.
    vocab_size
        Number of token ids.
    """

    def __init__(self, folder: Path, split: str, vocab_size: int) -> None:
        self._path = folder / f"{split}.npy"
        self._ids = ShardWriter(folder, f"{split}-ids", vocab_size)
        self._flags = ShardWriter(folder, f"{split}-learnt", 2)
        self._sizes: list[tuple[int, int]] = []

    def append(self, sample: Sample) -> None:
        """Add a sample at the end."""
        self._ids.append([int(token) for token in sample.ids])
        self._flags.append([int(flag) for flag in sample.is_learnt])
        self._sizes.append((len(sample.ids), sample.num_targets))

    def finish(self) -> list[SplitIndex]:
        """Write what is left, and describe all."""
        np.save(self._path, np.array(self._sizes, dtype=np.int64).reshape(-1, 2))
        return [self._ids.index(), self._flags.index()]


class SampleStore:
    """Samples of a split, memory-mapped.

    Parameters
    ----------
    folder, split
        As given to `SampleWriter`.
    index
        As it returned.

    Attributes
    ----------
    length_N, num_targets_N
        Ids, and learnt ids, of every sample.

    Raises
    ------
    ValueError
        If a file is missing or has not the size that the index says.
    """

    def __init__(self, folder: Path, split: str, index: Sequence[SplitIndex]) -> None:
        self._ids = TokenStore(folder, f"{split}-ids", index[0])
        self._flags = TokenStore(folder, f"{split}-learnt", index[1])
        sizes_N2: NDArray[np.int64] = np.load(folder / f"{split}.npy")
        self.length_N, self.num_targets_N = sizes_N2.T
        self._start_N = np.cumsum(self.length_N) - self.length_N

    def __len__(self) -> int:
        return len(self.length_N)

    def read(self, number: int) -> Sample:
        """Copy a sample out."""
        start, length = int(self._start_N[number]), int(self.length_N[number])
        return Sample(
            ids=self._ids.read(start, length),
            is_learnt=self._flags.read(start, length).astype(np.bool_),
        )


@dataclass(frozen=True, kw_only=True)
class PreparedSamples:
    """Tokenized chats or preferences.

    Parameters
    ----------
    fingerprint
        Key of the records and settings; the same key means the same samples.
    tokenizer
        Tokenizer of these samples.
    train, valid
        Samples of the two splits.
    folder
        Where they lie; has ``train.jsonl`` with the preferences of the training split.
    num_train, num_valid
        Chats or preferences of the two splits.
    num_cut, num_left_out
        Records that lost their end, and that were left out because nothing learnt remained.
    """

    fingerprint: str
    tokenizer: Tokenizer
    train: SampleStore
    valid: SampleStore
    folder: Path
    num_train: int
    num_valid: int
    num_cut: int
    num_left_out: int

    @property
    def summary(self) -> str:
        """One line about what there is."""
        return (
            f"{self.num_train} records to learn from, {self.num_valid} held out; "
            f"{self.num_cut} cut, {self.num_left_out} left out"
        )


def prepare_samples(
    config: PostConfig, tokenizer_file: Path, seq_length: int, cache_dir: Path
) -> PreparedSamples:
    """Tokenize records, or find that done in the cache.

    Parameters
    ----------
    config
        What to prepare.
    tokenizer_file
        The ``tokenizer.json`` of the model.
    seq_length
        Longest sequence.
    cache_dir
        Folder of the cache; made if missing.

    Returns
    -------
    PreparedSamples
        Tokenizer and samples.

    Raises
    ------
    ValueError
        If a record is wrong, named by file, line and field; if a split is empty; or if the
        tokenizer knows no chat.
    """
    tokenizer = Tokenizer.load(tokenizer_file)
    template = ChatTemplate(tokenizer)
    key = _cache_key(config, tokenizer_file, seq_length)
    folder = cache_dir / f"{config.kind}-{key}"
    if not folder.exists():
        with new_folder(folder) as partial:
            _build(partial, config, template, tokenizer.vocab_size, seq_length)
    return _open(folder, key, tokenizer)


def _open(folder: Path, key: str, tokenizer: Tokenizer) -> PreparedSamples:
    try:
        index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        stores = {
            split: SampleStore(folder, split, [SplitIndex(**table) for table in index[split]])
            for split in SPLITS
        }
        counts = index["counts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{folder}: expected prepared samples ({error}); remove it to prepare them again"
        ) from error
    return PreparedSamples(
        fingerprint=key,
        tokenizer=tokenizer,
        train=stores["train"],
        valid=stores["valid"],
        folder=folder,
        num_train=counts["train"],
        num_valid=counts["valid"],
        num_cut=counts.get("cut", 0),
        num_left_out=counts.get("left out", 0),
    )


def _cache_key(config: PostConfig, tokenizer_file: Path, seq_length: int) -> str:
    paths = [config.path, *([] if config.valid_path is None else [config.valid_path])]
    parts = {
        "layout": LAYOUT,
        "kind": config.kind,
        "files": [_digest(Path(path)) for path in paths],
        "valid_fraction": config.valid_fraction if config.valid_path is None else None,
        "too_long": config.too_long,
        "tokenizer": _digest(tokenizer_file),
        "seq_length": seq_length,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: expected a readable file, got {error.strerror}") from error


def _build(
    folder: Path, config: PostConfig, template: ChatTemplate, vocab_size: int, seq_length: int
) -> None:
    writers = {split: SampleWriter(folder, split, vocab_size) for split in SPLITS}
    counts: Counter[str] = Counter()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as kept:
        for split, place, samples, record in _records(config, template):
            with blame(place):
                fitting = _fit(samples, seq_length, is_cut=config.too_long == "cut")
            if not fitting:
                counts["left out"] += 1
                continue
            counts[split] += 1
            counts["cut"] += any(len(sample.ids) > seq_length + 1 for sample in samples)
            for sample in fitting:
                writers[split].append(sample)
            if record is not None and split == "train":
                kept.write(record + "\n")
    _check_not_empty(counts, config)
    index = {split: [asdict(part) for part in w.finish()] for split, w in writers.items()}
    (folder / "index.json").write_text(json.dumps(index | {"counts": counts}), encoding="utf-8")


def _fit(samples: Sequence[Sample], seq_length: int, *, is_cut: bool) -> list[Sample]:
    """Samples of a record that are left to learn from; all or none."""
    fitting = [fit(sample, seq_length, is_cut=is_cut) for sample in samples]
    whole = [sample for sample in fitting if sample is not None]
    are_equal = len(whole) == 2 and list(whole[0].ids) == list(whole[1].ids)
    return [] if len(whole) < len(samples) or are_equal else whole


def _records(
    config: PostConfig, template: ChatTemplate
) -> Iterator[tuple[str, str, Sequence[Sample], str | None]]:
    """Split, place and samples of every record; of preferences also the record itself."""
    sources = {"train": config.path, "valid": config.valid_path}
    for name, path in sources.items():
        if path is None:
            continue
        fraction = config.valid_fraction if config.valid_path is None else float(name == "valid")
        if isinstance(config, ChatConfig):
            for place, messages in read_chats(Path(path)):
                with blame(place):
                    sample = encode_chat(template, messages)
                yield _split(_question(messages), fraction), place, (sample,), None
        else:
            for place, pair in read_preferences(Path(path)):
                with blame(place):
                    samples = encode_pair(template, pair)
                yield _split(pair.prompt, fraction), place, samples, json.dumps(asdict(pair))


def _question(messages: Sequence[Message]) -> Sequence[Message]:
    """A chat up to its first answer."""
    answers = [number for number, one in enumerate(messages) if one.role == "assistant"]
    return messages[: answers[0]]


def _split(question: Sequence[Message], valid_fraction: float) -> str:
    text = json.dumps([[message.role, message.content] for message in question])
    return "valid" if is_held_out(text, valid_fraction) else "train"


def _check_not_empty(counts: Counter[str], config: PostConfig) -> None:
    if not counts["train"]:
        raise ValueError(
            f"data.path: expected records to learn from, got none in {config.path} "
            f"({counts['left out']} left out: nothing learnt fits into train.seq_length)"
        )
    if not counts["valid"]:
        where = "data.valid_fraction" if config.valid_path is None else "data.valid_path"
        raise ValueError(f"{where}: expected to hold out at least one record, got none")
