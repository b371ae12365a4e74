"""Tools for whole stores: verify, merge, take a part, pack, save what is left of a damaged one.

Each writes a new store under a temporary name and renames it when all has gone well. Sources stay
as they are.
"""

# Shapes: B images, K classes of an image

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from weightwise.distill.epoch import Epoch
from weightwise.distill.header import check_same
from weightwise.distill.keys import KeySet
from weightwise.distill.rows import Rows
from weightwise.distill.shard import peek
from weightwise.distill.store import SoftLabels, epoch_folders, ids_for
from weightwise.distill.targets import sparse_kl
from weightwise.distill.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from weightwise.distill.epoch import SoftBatch
    from weightwise.distill.header import StoreConfig
    from weightwise.distill.keys import Keys


@dataclass(frozen=True, kw_only=True)
class StoreReport:
    """What `verify` has found.

    Parameters
    ----------
    num_images
        Stored images by epoch.
    num_repeated
        Records whose key an earlier file of the epoch has, with the same seed.
    open_files
        Files whose writer is at work or was killed; complete up to their last record.
    problems
        What is wrong, a line each, with file and field; empty if the store is sound.
    """

    num_images: dict[int, int] = field(default_factory=dict)
    num_repeated: int = 0
    open_files: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PackReport:
    """What packing has gained and cost.

    Parameters
    ----------
    bytes_before, bytes_after
        Size of an image's record.
    kl_mean, kl_max
        Divergence KL(plain || packed) of targets in nats, over all images.
    """

    bytes_before: float
    bytes_after: float
    kl_mean: float
    kl_max: float


def verify(path: Path | str) -> StoreReport:
    """Read all of a store: heads, seals, checksums, ranges, keys, and the names of all images.

    Parameters
    ----------
    path
        Folder of the store.

    Returns
    -------
    StoreReport
        Nothing is raised for what is wrong in the files.

    Raises
    ------
    ValueError
        If there is no store.
    """
    folders = epoch_folders(Path(path))
    if not folders:
        raise ValueError(f"{path}: files: expected a store with epoch-*/*.soft, found none")
    images: dict[int, int] = {}
    repeated, open_files, problems = 0, [], []
    config: StoreConfig | None = None
    for number in sorted(folders):
        try:
            config = config or peek(min(folders[number].glob("*.soft")))[0]
            epoch = Epoch(folders[number], config, number)
            problems += _problems_of(epoch, SoftLabels(path).names())
        except ValueError as error:
            problems.append(str(error))
            continue
        images[number] = epoch.num_images
        repeated += epoch.num_repeated
        open_files += [str(one.path) for one in epoch.shards if one.seal is None]
    return StoreReport(
        num_images=images, num_repeated=repeated, open_files=tuple(open_files),
        problems=tuple(problems),
    )  # fmt: skip


def _problems_of(epoch: Epoch, names: dict[int, str]) -> list[str]:
    """What `Epoch` does not look at: all records, whether they are found, have names, ranges."""
    found, config = [], epoch.config
    for id_B, batch in epoch.batches():
        if not epoch.contains(id_B).all():
            found.append(f"{epoch.folder / 'index'}: keys: expected all, some are not found")
        if config.keys == "name" and not names.keys() >= set(id_B.tolist()):
            found.append(f"{epoch.folder}: names: expected one for every key, some have none")
        if batch.indices.max(initial=0) >= config.classes or batch.indices.min(initial=0) < 0:
            found.append(f"{epoch.folder}: index: expected 0 to {config.classes - 1}")
        if not np.isfinite(batch.values).all():
            found.append(f"{epoch.folder}: value: expected finite numbers")
    return sorted(set(found))


def merge(sources: Sequence[Path | str], target: Path | str) -> None:
    """Make one store of several, with one file for each epoch.

    Parameters
    ----------
    sources
        Stores that say the same about themselves. Keys that several have count once.
    target
        The new store.

    Raises
    ------
    ValueError
        If sources differ, are damaged, or have a key with two seeds; or if the target exists.
    """
    stores = [SoftLabels(one) for one in sources]
    if not stores:
        raise ValueError("sources: expected at least one store")
    for store in stores[1:]:
        check_same(store.path, store.config, stores[0].config)
    _refuse_two_seeds(stores)
    _copy(stores, Path(target), stores[0].config, {e for one in stores for e in one.epochs})


def subset(
    source: Path | str,
    target: Path | str,
    *,
    keys: Keys | None = None,
    epochs: Collection[int] | None = None,
    k: int | None = None,
) -> None:
    """Copy a part of a store.

    Parameters
    ----------
    source, target
        A store and the new one.
    keys
        Images to keep; all if it is `None`.
    epochs
        Epochs to keep, under their numbers; all if it is `None`.
    k
        Number of classes to keep of each image, the most probable ones.

    Raises
    ------
    ValueError
        If something is not in the source, the source is damaged, or the target exists.
    """
    store = SoftLabels(source)
    chosen = set(store.epochs if epochs is None else epochs)
    if not chosen or not chosen <= set(store.epochs):
        raise ValueError(f"epochs: expected some of {store.epochs}, got {sorted(chosen)}")
    k = store.config.k if k is None else k
    if not 1 <= k <= store.config.k:
        raise ValueError(f"k: expected 1 to {store.config.k}, got {k}")
    kept = None
    if keys is not None:
        kept, ids = KeySet(), ids_for(store.config, keys)
        kept.add(ids)
        for number in chosen:
            if not store.contains(number, keys).all():
                raise ValueError(f"{source}: keys: expected all in epoch {number}, some are not")
    _copy([store], Path(target), replace(store.config, k=k), chosen, kept=kept)


def pack(
    source: Path | str, target: Path | str, packing: Literal["plain", "compact"] = "compact"
) -> PackReport:
    """Copy a store in another packing.

    Parameters
    ----------
    source, target
        A store and the new one.
    packing
        See `StoreConfig`.

    Returns
    -------
    PackReport
        Sizes, and the error of the targets, measured on all images.

    Raises
    ------
    ValueError
        If the store has logits, is damaged, or the target exists.
    """
    store = SoftLabels(source)
    config = replace(store.config, packing=packing)
    _copy([store], Path(target), config, set(store.epochs))
    total, most, count = 0.0, 0.0, 0
    packed = SoftLabels(target)
    for number in store.epochs:
        for ids, batch in store.epoch(number).batches():
            other, _ = packed.epoch(number).gather(ids)
            kl_B = sparse_kl(_by_class(batch), _by_class(other), batch.counts, config.classes)
            total, most = total + float(kl_B.sum()), max(most, float(kl_B.max(initial=0)))
            count += len(kl_B)
    sizes = [
        sum(one.num_units * 8 for number in opened.epochs for one in opened.epoch(number).shards)
        for opened in (store, packed)
    ]
    some = max(1, count)
    return PackReport(
        bytes_before=sizes[0] / some, bytes_after=sizes[1] / some, kl_mean=total / some, kl_max=most
    )


def _by_class(batch: SoftBatch) -> NDArray[Any]:
    """Values in the order of classes, zeros last."""
    is_behind_BK = np.arange(batch.values.shape[1]) >= batch.counts[:, None]
    order_BK = np.where(is_behind_BK, 2**31, batch.indices.astype(np.int64)).argsort(axis=1)
    return np.take_along_axis(batch.values, order_BK, axis=1)


def salvage(source: Path | str, target: Path | str) -> int:
    """Copy all records of a store that are whole; to be used where `verify` finds damage.

    Parameters
    ----------
    source, target
        A damaged store and the new one.

    Returns
    -------
    int
        Number of damaged stretches, of one or more records, that were left out. A missing end of
        a file is none: nobody knows any more what was in it.

    Raises
    ------
    ValueError
        If the head of a file is damaged, or the target exists.
    """
    store = SoftLabels(source)
    folders = epoch_folders(store.path)
    opened = {
        number: Epoch(folders[number], store.config, number, is_lenient=True)
        for number in store.epochs
    }
    _copy([store], Path(target), store.config, set(store.epochs), opened=opened)
    return sum(shard.num_lost for epoch in opened.values() for shard in epoch.shards)


def _copy(
    stores: Sequence[SoftLabels], target: Path, config: StoreConfig, epochs: Collection[int],
    *, kept: KeySet | None = None, opened: dict[int, Epoch] | None = None,
) -> None:  # fmt: skip
    names = {id_: name for one in stores for id_, name in one.names().items()}
    with new_store(target) as partial:
        for number in sorted(epochs):
            with StoreWriter(partial, config, epoch=number) as writer:
                for store in stores:
                    if number not in store.epochs:
                        continue
                    epoch = (opened or {}).get(number) or store.epoch(number)
                    for id_B, batch in epoch.batches():
                        rows = rows_of(id_B, batch, store.config, config)
                        if kept is not None:
                            rows = rows.select(kept.contains(rows.ids))
                        writer.append_rows(rows, names_for(config, names, rows.ids))


def rows_of(
    id_B: NDArray[np.int64], batch: SoftBatch, source: StoreConfig, target: StoreConfig
) -> Rows:
    """Labels of a store as those of another one with the same classes and at most its K."""
    index_BK, value_BK = batch.indices, batch.values
    if source.packing == "compact":
        order_BK = (-value_BK.astype(np.float32)).argsort(axis=1, kind="stable")
        index_BK, value_BK = (
            np.take_along_axis(one, order_BK, axis=1) for one in (index_BK, value_BK)
        )
    count_B = np.minimum(batch.counts, target.k)
    cut: list[Any] = [np.ascontiguousarray(one[:, : target.k]) for one in (index_BK, value_BK)]
    return Rows(id_B, batch.seeds, cut[0], cut[1].astype(target.number_dtype), count_B)


def names_for(
    config: StoreConfig, names: dict[int, str], id_B: NDArray[np.int64]
) -> list[str] | None:
    """Names of images, where keys are names.

    Raises
    ------
    ValueError
        If one has none.
    """
    if config.keys == "index":
        return None
    try:
        return [names[one] for one in id_B.tolist()]
    except KeyError as error:
        raise ValueError(f"names-*.txt: names: expected one for key {error}, found none") from None


def _refuse_two_seeds(stores: Sequence[SoftLabels]) -> None:
    for place, store in enumerate(stores):
        for number in store.epochs:
            others = [one for one in stores[:place] if number in one.epochs]
            for id_B, batch in store.epoch(number).batches() if others else ():
                for other in others:
                    found, _ = other.epoch(number).gather(id_B)
                    is_other = (found.counts > 0) & (found.seeds != batch.seeds)
                    if is_other.any():
                        raise ValueError(
                            f"{store.path}: key: {id_B[is_other][0]} of epoch {number} has another "
                            f"seed in {other.path}"
                        )


@contextmanager
def new_store(target: Path) -> Iterator[Path]:
    """Fill a store under a temporary name; it gets its own when all has gone well.

    Raises
    ------
    ValueError
        If there is something of that name.
    """
    if target.exists():
        raise ValueError(f"{target}: expected a name that is free, there is something")
    partial = target.with_name(f".partial-{os.getpid()}-{target.name}")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
