"""Reinforced data sets: a compressed pickle for each image with all its augmentations.

A file holds ``[key, samples]``; a sample is a mapping of ``params``, what the augmentation has
drawn, and ``prob``, a pair of probabilities and classes. Sample e of every image becomes epoch e
of a store, with e as its seed: its parameters stay in the file, where `read_reinforced` finds them.
Layout as documented by apple/ml-dr (Faghri et al., "Reinforce Data, Multiply Impact", 2023).

A pickle can run any program when it is opened. These are read by a loader that makes lists,
mappings, numbers and text and refuses everything else by name.
"""

# Shapes: K classes of an image

from __future__ import annotations

import gzip
import io
import pickle
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch

from weightwise.distill.store import SoftLabels
from weightwise.distill.tools import names_for, new_store, rows_of
from weightwise.distill.writer import StoreWriter

if TYPE_CHECKING:
    from weightwise.distill.header import StoreConfig

SUFFIXES = (".pth.gz", ".pth.tar", ".pkl.gz")
SETTINGS = "config"
GZIP, ZIP = b"\x1f\x8b", b"PK"
MAX_BYTES = 2**28


@dataclass(frozen=True, kw_only=True)
class ReinforcedSample:
    """One augmentation of an image.

    Parameters
    ----------
    params
        What the augmentation has drawn, as it stands in the file.
    probabilities, classes
        What the teacher has said, the most probable class first.
    """

    params: Any
    probabilities: tuple[float, ...]
    classes: tuple[int, ...]


class _Plain(pickle.Unpickler):
    """A loader that knows no classes and functions."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError(f"it wants {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError(f"it refers to {pid!r}")


def read_reinforced(path: Path | str) -> tuple[int | str, list[ReinforcedSample]]:
    """Read the file of an image.

    Parameters
    ----------
    path
        Compressed or plain pickle, or what ``torch.save`` makes of the same.

    Returns
    -------
    tuple
        Key and augmentations.

    Raises
    ------
    ValueError
        If it is something else or wants more than lists, mappings, numbers and text; with the file.
    """
    path = Path(path)
    try:
        key, samples = _load(path)
        return _key(key), [_sample(one) for one in samples]
    except (
        OSError, EOFError, pickle.UnpicklingError, zlib.error, ValueError, TypeError, KeyError,
        AttributeError, IndexError, RuntimeError,
    ) as error:  # fmt: skip
        raise ValueError(
            f"{path}: expected a pickled key and samples of lists, numbers and text: {error}"
        ) from error


def write_reinforced(path: Path | str, key: int | str, samples: list[ReinforcedSample]) -> None:
    """Write the file of an image, see `read_reinforced`."""
    listed = [
        {"params": one.params, "prob": (list(one.probabilities), list(one.classes))}
        for one in samples
    ]
    raw = pickle.dumps([key, listed], protocol=4)
    Path(path).write_bytes(gzip.compress(raw, mtime=0))  # the same bytes at any time


def from_reinforced(source: Path | str, target: Path | str, config: StoreConfig) -> int:
    """Make a store of a reinforced data set.

    Parameters
    ----------
    source
        Folder with a file for each image.
    target
        The new store.
    config
        What is known about the labels, with ``base_seed`` None: seeds are numbers of samples.

    Returns
    -------
    int
        Number of images.

    Raises
    ------
    ValueError
        If a file is broken or does not fit; nothing is left of the target then.
    """
    if config.base_seed is not None:
        raise ValueError(f"base_seed: expected None for samples of a file, got {config.base_seed}")
    files = [one for one in sorted(Path(source).iterdir()) if _is_image(one)]
    if not files:
        raise ValueError(f"{source}: files: expected some of {', '.join(SUFFIXES)}, found none")
    with new_store(Path(target)) as partial:
        writers: list[StoreWriter] = []
        try:
            for file in files:
                key, samples = read_reinforced(file)
                for epoch, sample in enumerate(samples):
                    if epoch == len(writers):
                        writers.append(StoreWriter(partial, config, epoch=epoch))
                    _append(file, writers[epoch], key, epoch, sample)
        finally:
            for writer in writers:
                writer.close()
    return len(files)


def to_reinforced(source: Path | str, target: Path | str) -> int:
    """Write a file for each image; parameters are ``{"seed": ..., "epoch": ...}``.

    Parameters
    ----------
    source
        A store of probabilities.
    target
        The new folder.

    Returns
    -------
    int
        Number of images.

    Raises
    ------
    ValueError
        If the store has logits, or the target exists.
    """
    labels = SoftLabels(source)
    config, names = labels.config, labels.names()
    if config.kind != "probabilities":
        raise ValueError(f"{source}: kind: expected probabilities, got {config.kind}")
    all_N = np.unique(np.concatenate([labels.epoch(one).ids() for one in labels.epochs]))
    with new_store(Path(target)) as partial:
        for id_ in all_N:
            samples = []
            one_1 = np.array([id_])
            for number in labels.epochs:
                batch, num_missing = labels.epoch(number).gather(one_1)
                if num_missing:
                    continue
                rows, count = rows_of(one_1, batch, config, config), int(batch.counts[0])
                samples.append(
                    ReinforcedSample(
                        params={"seed": int(rows.seeds[0]), "epoch": number},
                        probabilities=tuple(rows.values[0, :count].tolist()),
                        classes=tuple(rows.indices[0, :count].tolist()),
                    )
                )
            listed = names_for(config, names, one_1)
            key = listed[0] if listed else int(id_)
            # A name may have slashes, which a file cannot have.
            write_reinforced(partial / f"{int(id_)}{SUFFIXES[0]}", key, samples)
    return len(all_N)


def _is_image(path: Path) -> bool:
    suffix = next((one for one in SUFFIXES if path.name.endswith(one)), None)
    return suffix is not None and path.name != f"{SETTINGS}{suffix}"


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        start = file.read(2)
    if start == ZIP:
        return torch.load(path, map_location="cpu", weights_only=True)
    with gzip.open(path) if start == GZIP else path.open("rb") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes")
    return _Plain(io.BytesIO(raw)).load()


def _key(found: Any) -> int | str:
    if not isinstance(found, int | str):
        raise TypeError(f"key {found!r}")
    return found


def _sample(found: Any) -> ReinforcedSample:
    values, classes = found["prob"]
    pairs = sorted(zip(map(float, values), map(int, classes), strict=True), key=lambda one: -one[0])
    return ReinforcedSample(
        params=found["params"],
        probabilities=tuple(value for value, _ in pairs),
        classes=tuple(number for _, number in pairs),
    )


def _append(
    file: Path, writer: StoreWriter, key: int | str, epoch: int, sample: ReinforcedSample
) -> None:
    k, mass = writer.config.k, writer.config.mass
    count = len(sample.classes)
    is_fitting = count == k if mass is None else 1 <= count <= k
    if not is_fitting:
        raise ValueError(f"{file}: prob: expected {k} classes, got {count}")
    index_1K, value_1K = np.zeros((1, k), dtype=np.int64), np.zeros((1, k))
    index_1K[0, :count], value_1K[0, :count] = sample.classes, sample.probabilities
    try:
        keys: Any = [key]
        writer.append(keys, [epoch], index_1K, value_1K, None if mass is None else [count])
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
