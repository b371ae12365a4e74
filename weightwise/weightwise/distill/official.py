"""The directories that TinyViT's own scripts write and read.

``logits_top{K}_epoch{e}/rank{r}-keys.txt`` has a key on each line, ``rank{r}-values.bin`` a record
of 4 + 4 K bytes for each: the seed (int32), classes (int16, most probable first) and probabilities
(float16), little-endian. Number of classes, teacher and augmentation stand nowhere; a key is a
number of the data set (ImageNet-1k) or a name (ImageNet-22k). Layout as documented by
microsoft/Cream, TinyViT, ``save_logits.py``.
"""

# Shapes: N records of a file, K classes of an image

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from weightwise.distill.store import SoftLabels
from weightwise.distill.tools import names_for, new_store, rows_of
from weightwise.distill.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from weightwise.distill.header import StoreConfig

FOLDER, FILE = re.compile(r"logits_top(\d+)_epoch(\d+)"), re.compile(r"rank(\d+)-keys\.txt")
MAX_CLASSES = 2**15 - 1
READ = 2**16  # records at a time


def official_record(k: int) -> np.dtype[Any]:
    """A record of ``values.bin``."""
    return np.dtype([("seed", "<i4"), ("index", "<i2", k), ("value", "<f2", k)])


def from_official(source: Path | str, target: Path | str, config: StoreConfig) -> int:
    """Make a store of official directories.

    Parameters
    ----------
    source
        Folder with ``logits_top{K}_epoch{e}`` folders.
    target
        The new store.
    config
        What is known about the labels: ``k`` as in the folders' names, ``base_seed`` None because
        official seeds are no function of keys.

    Returns
    -------
    int
        Records that were dropped because their keys were there already.

    Raises
    ------
    ValueError
        If a file is missing, has another size than its keys say, or a label is out of range; with
        the file. Nothing is left of the target then.
    """
    if config.base_seed is not None or config.mass is not None:
        raise ValueError("base_seed, mass: expected None for labels in the official layout")
    found = {one: FOLDER.fullmatch(one.name) for one in sorted(Path(source).iterdir())}
    folders = {int(match[2]): (one, int(match[1])) for one, match in found.items() if match}
    if not folders:
        raise ValueError(f"{source}: files: expected folders logits_top*_epoch*, found none")
    dropped = 0
    with new_store(Path(target)) as partial:
        for epoch, (folder, k) in sorted(folders.items()):
            if k != config.k:
                raise ValueError(f"{folder}: k: expected {config.k}, got {k}")
            for file in _key_files(folder):
                rank = file.name.removesuffix("-keys.txt")
                with StoreWriter(partial, config, epoch=epoch, shard=rank) as writer:
                    _copy_file(file, writer)
                    dropped += writer.num_dropped
    return dropped


def to_official(source: Path | str, target: Path | str) -> None:
    """Write official directories, one rank in each.

    Parameters
    ----------
    source
        A store of float16 probabilities with K classes of every image.
    target
        The new folder.

    Raises
    ------
    ValueError
        If the layout cannot hold the store, or the target exists.
    """
    labels = SoftLabels(source)
    config = labels.config
    if config.classes > MAX_CLASSES:
        raise ValueError(f"classes: expected at most {MAX_CLASSES}, got {config.classes}")
    if config.kind != "probabilities" or config.mass is not None or config.value_dtype != "float16":
        raise ValueError(f"{source}: expected float16 probabilities of K classes without mass")
    names, record = labels.names(), official_record(config.k)
    with new_store(Path(target)) as partial:
        for number in labels.epochs:
            folder = partial / f"logits_top{config.k}_epoch{number}"
            folder.mkdir()
            epoch = labels.epoch(number)
            left = set(epoch.ids().tolist()) if epoch.num_repeated else None
            with (
                (folder / "rank0-keys.txt").open("w", encoding="utf-8", newline="\n") as keys,
                (folder / "rank0-values.bin").open("wb") as values,
            ):
                for id_N, batch in epoch.batches():
                    rows = rows_of(id_N, batch, config, config)
                    if left is not None:  # the first of equal keys
                        is_first_N = np.array([one in left for one in id_N.tolist()])
                        left -= set(id_N.tolist())
                        rows = rows.select(is_first_N)
                    out_N = np.empty(len(rows.ids), record)
                    out_N["seed"], out_N["index"] = rows.seeds, rows.indices
                    out_N["value"] = rows.values
                    listed = names_for(config, names, rows.ids) or rows.ids.tolist()
                    keys.writelines(f"{one}\n" for one in listed)
                    values.write(out_N.tobytes())


def _key_files(folder: Path) -> list[Path]:
    """Lists of keys in the order of ranks."""
    found = {one: FILE.fullmatch(one.name) for one in folder.iterdir()}
    files = sorted((int(match[1]), one) for one, match in found.items() if match)
    if not files:
        raise ValueError(f"{folder}: files: expected rank*-keys.txt, found none")
    return [one for _, one in files]


def _copy_file(file: Path, writer: StoreWriter) -> None:
    config = writer.config
    values = file.with_name(file.name.replace("-keys.txt", "-values.bin"))
    keys = file.read_text(encoding="utf-8").split("\n")
    if keys.pop():
        raise ValueError(f"{file}: keys: expected a line end after the last one")
    record = official_record(config.k)
    size = values.stat().st_size if values.exists() else 0
    if size != len(keys) * record.itemsize:
        raise ValueError(
            f"{values}: records: expected {len(keys)} of {record.itemsize} bytes as there are keys,"
            f" got {size} bytes"
        )
    for start, rows_N in _parts(values, record):
        part: Any = keys[start : start + len(rows_N)]
        try:
            if config.keys == "index":
                part = np.array([int(one) for one in part], dtype=np.int64)
            writer.append(part, rows_N["seed"], rows_N["index"], rows_N["value"])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{values}, records from {start}: {error}") from error


def _parts(values: Path, record: np.dtype[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    with values.open("rb") as file:
        start = 0
        while len(rows_N := np.fromfile(file, record, READ)):
            yield start, rows_N
            start += len(rows_N)
