"""Parts of sources: some samples, a split by key, labels made wrong on purpose."""

# Shapes: N samples

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from weightwise.images.decode import Pixels
    from weightwise.images.sources import Source


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Some samples of a source, possibly with other labels.

    Parameters
    ----------
    source
        All samples.
    numbers
        Which ones, in order.
    labels
        Their classes; by default those of the source.
    """

    source: Source
    numbers: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and len(self.labels) != len(self.numbers):
            raise ValueError(f"labels: expected {len(self.numbers)} labels, got {len(self.labels)}")

    def __len__(self) -> int:
        return len(self.numbers)

    def key(self, number: int) -> str:
        """Name of a sample."""
        return self.source.key(int(self.numbers[number]))

    def label(self, number: int) -> int | None:
        """Class of a sample."""
        if self.labels is not None:
            return int(self.labels[number])
        return self.source.label(int(self.numbers[number]))

    def load(self, number: int) -> Pixels:
        """What the source gives."""
        return self.source.load(int(self.numbers[number]))


def split(source: Source, test_fraction: float) -> tuple[Subset, Subset]:
    """Split by the hash of the key, so that no sample changes sides when others come or go.

    Parameters
    ----------
    source
        All samples.
    test_fraction
        Share of the second part, 0 to 1.

    Returns
    -------
    tuple
        Training part and test part.
    """
    if not 0 <= test_fraction <= 1:
        raise ValueError(f"test_fraction: expected 0 to 1, got {test_fraction}")
    is_test_N = np.array(
        [is_held_out(source.key(i), test_fraction) for i in range(len(source))], dtype=np.bool_
    )
    train_N, test_N = np.flatnonzero(~is_test_N), np.flatnonzero(is_test_N)
    return Subset(source=source, numbers=train_N), Subset(source=source, numbers=test_N)


def is_held_out(key: str, fraction: float) -> bool:
    """Whether the hash of a key, as a number in [0, 1), lies below a share."""
    digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64 < fraction


def corrupt_labels(source: Source, share: float, num_classes: int, seed: int) -> Subset:
    """Give a share of the samples another class, each other one equally likely.

    Parameters
    ----------
    source
        Samples with labels.
    share
        Share that is changed, 0 to 1; exact up to rounding.
    num_classes
        Classes C, at least 2.
    seed
        Decides which, and to what.

    Raises
    ------
    ValueError
        If a number is out of range, or a sample has no label.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected 0 to 1, got {share}")
    if num_classes < 2:
        raise ValueError(f"num_classes: expected at least 2, got {num_classes}")
    labels = [source.label(i) for i in range(len(source))]
    known = [label for label in labels if label is not None and 0 <= label < num_classes]
    if len(known) < len(labels):
        raise ValueError(f"source: expected labels of 0 to {num_classes - 1} for all samples")
    rng = np.random.Generator(np.random.PCG64(seed))
    label_N = np.array(known, dtype=np.int64)
    changed = rng.permutation(len(labels))[: round(share * len(labels))]
    label_N[changed] += rng.integers(1, num_classes, len(changed))
    return Subset(source=source, numbers=np.arange(len(labels)), labels=label_N % num_classes)
