"""A teacher's pass over images into a store, and the check that a store is still the teacher's.

The teacher is any function from a batch of images to logits. The images come augmented with the
seeds of `augmentation_seeds`; how is not known here.
"""

# Shapes: B images of a batch, C classes, K classes of an image

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from weightwise.distill.keys import augmentation_seeds
from weightwise.distill.rows import top_k
from weightwise.distill.writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor

    from weightwise.distill.header import StoreConfig
    from weightwise.distill.keys import Keys
    from weightwise.distill.store import SoftLabels


@dataclass(frozen=True, kw_only=True)
class WriteReport:
    """What a pass has written.

    Parameters
    ----------
    num_written
        New records.
    num_stored
        Images that were stored before, or came twice.
    """

    num_written: int
    num_stored: int


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """How far a teacher is from what is stored.

    Parameters
    ----------
    num_images
        Images that were compared.
    value_error
        Mean difference of values.
    index_share
        Share of places at which another class stands.
    """

    num_images: int
    value_error: float
    index_share: float


def write(
    path: Path | str,
    config: StoreConfig,
    teacher: Callable[[Any], Tensor],
    batches: Iterable[tuple[Keys, Any]],
    *,
    epoch: int,
    shard: str = "0",
    progress: Callable[[int], None] | None = None,
) -> WriteReport:
    """Write what a teacher says of an epoch; images that are stored already are left out.

    Parameters
    ----------
    path, config, epoch, shard
        See `StoreWriter`; the config needs a base seed.
    teacher
        Logits of a batch of images, shape (B, C).
    batches
        Keys and images, augmented with the seeds of their keys. `StoreWriter.missing` says which
        are needed at all.
    progress
        Called after each batch with the number of images seen.

    Returns
    -------
    WriteReport
        What came of it.

    Raises
    ------
    ValueError
        If the store is another one, or the teacher's output has another shape or is not finite.
    """
    if config.base_seed is None:
        raise ValueError("base_seed: expected a number, which seeds are made of, got None")
    seen = 0
    with StoreWriter(path, config, epoch=epoch, shard=shard) as writer:
        before = writer.num_records
        for keys, images in batches:
            seen += len(keys)
            if len(writer.missing(keys)):
                with torch.inference_mode():
                    index_BK, value_BK = top_k(teacher(images), config)
                seed_B = augmentation_seeds(config.base_seed, epoch, keys)
                writer.append(keys, seed_B, index_BK, value_BK)
            if progress is not None:
                progress(seen)
        written = writer.num_records - before
    return WriteReport(num_written=written, num_stored=seen - written)


def check(
    labels: SoftLabels,
    teacher: Callable[[Any], Tensor],
    batches: Iterable[tuple[Keys, Any]],
    *,
    epoch: int,
) -> CheckReport:
    """Ask a teacher again.

    Parameters
    ----------
    labels
        The store.
    teacher, batches
        As for `write`; images augmented with the stored seeds.
    epoch
        The epoch that the images are from.

    Returns
    -------
    CheckReport
        Differences over all compared places; both are zero where nothing has changed.

    Raises
    ------
    ValueError
        If a key is not stored, or there are no images.
    """
    errors, others, places, images = 0.0, 0, 0, 0
    for keys, batch_images in batches:
        stored = labels.gather(epoch, keys)
        with torch.inference_mode():
            kept: Any = top_k(teacher(batch_images), labels.config)
        index_BK, value_BK = kept
        if labels.config.packing == "compact":
            order_BK = index_BK.argsort(axis=1)
            index_BK, value_BK = (np.take_along_axis(one, order_BK, axis=1) for one in kept)
        is_stored_BK = np.arange(index_BK.shape[1]) < stored.counts[:, None]
        difference_BK = np.abs(value_BK.astype(np.float64) - stored.values)
        errors += float(difference_BK[is_stored_BK].sum())
        others += int((index_BK != stored.indices)[is_stored_BK].sum())
        places, images = places + int(is_stored_BK.sum()), images + len(keys)
    if not images:
        raise ValueError("batches: expected images to compare, got none")
    return CheckReport(num_images=images, value_error=errors / places, index_share=others / places)
