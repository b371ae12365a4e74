"""Labels of a batch on their way into a file: taken from logits, checked, turned into bytes."""

# Shapes: B images of a batch, C classes, K classes of an image

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from weightwise.distill.keys import augmentation_seeds, compiled
from weightwise.distill.records import Layout, codes_of, encode, encode_compact

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.distill.header import StoreConfig

# Rounding K probabilities to 11 bits moves their sum by less than 2^-11; teachers in low precision
# are a little worse.
MAX_SUM = 1.01


class Rows(NamedTuple):
    """Checked labels; every array in the type of the file.

    Parameters
    ----------
    ids
        Ids of keys.
    seeds, indices, values, counts
        As `weightwise.distill.SoftBatch` has them.
    """

    ids: NDArray[np.int64]
    seeds: NDArray[np.int32]
    indices: NDArray[Any]
    values: NDArray[Any]
    counts: NDArray[np.int64]

    def select(self, chosen_B: NDArray[np.bool_]) -> Rows:
        """Some of them."""
        columns: list[Any] = [column[chosen_B] for column in self]
        return Rows(*columns)


def top_k(
    logits_BC: Tensor, config: StoreConfig
) -> tuple[NDArray[np.integer[Any]], NDArray[np.floating[Any]]]:
    """What a store keeps of a teacher's logits.

    Parameters
    ----------
    logits_BC
        Logits in any floating type on any device; shape (B, C).
    config
        The store: number of classes, K, probabilities or logits, float16 or float32.

    Returns
    -------
    tuple
        Classes, the most probable first, and their rounded values; shape (B, K).

    Raises
    ------
    ValueError
        If the shape is another one, or a logit is not finite.
    """
    if logits_BC.ndim != 2 or logits_BC.shape[1] != config.classes:
        raise ValueError(
            f"logits: expected shape (B, {config.classes}), got {tuple(logits_BC.shape)}"
        )
    score_BC = logits_BC.detach().float()
    if not bool(score_BC.isfinite().all()):
        raise ValueError("logits: expected finite numbers")
    # Logits order classes as probabilities do, without the ties that underflow makes.
    score_BK, index_BK = score_BC.topk(config.k, dim=1)
    if config.kind == "probabilities":
        score_BK = (score_BK - score_BC.logsumexp(dim=1, keepdim=True)).exp()
    return (
        index_BK.cpu().numpy().astype(config.index_dtype),
        score_BK.cpu().numpy().astype(config.number_dtype),
    )


class Checker:
    """Refuses what does not fit into a store.

    Parameters
    ----------
    config
        The store.
    epoch
        Epoch of what is checked.
    """

    def __init__(self, config: StoreConfig, epoch: int) -> None:
        self._config, self._epoch = config, epoch
        self._stamp_C = np.zeros(config.classes, dtype=np.int64)
        self._stamp = 0

    def rows(
        self, id_B: NDArray[np.int64], seeds: Any, indices: Any, values: Any, counts: Any
    ) -> Rows:
        """Check labels of a batch, see `weightwise.distill.StoreWriter.append`."""
        seed_B = self._seeds(np.asarray(seeds), id_B)
        shape = (len(id_B), self._config.k)
        index_BK = self._indices(np.asarray(indices), shape)
        value_BK = self._values(np.asarray(values), shape)
        count_B = self._counts(counts, value_BK)
        wrong = int(first_repeated(index_BK, count_B, self._stamp_C, self._stamp))
        self._stamp += len(id_B)
        if wrong >= 0:
            raise ValueError(f"indices: expected different classes in row {wrong}")
        return Rows(id_B, seed_B, index_BK, value_BK, count_B)

    def _seeds(self, seeds: NDArray[Any], id_B: NDArray[np.int64]) -> NDArray[np.int32]:
        if seeds.shape != id_B.shape or (seeds.dtype.kind not in "iu" and len(id_B)):
            raise ValueError(
                f"seeds: expected {len(id_B)} integers, got {seeds.dtype} of shape {seeds.shape}"
            )
        base = self._config.base_seed
        if base is None:
            if len(seeds) and not 0 <= seeds.min() <= seeds.max() < 2**31:
                raise ValueError(f"seeds: expected 0 to 2^31 - 1, got {seeds.min()}, {seeds.max()}")
        elif (seeds != augmentation_seeds(base, self._epoch, id_B)).any():
            raise ValueError(
                f"seeds: expected augmentation_seeds({base}, {self._epoch}, keys), got other ones"
            )
        return seeds.astype(np.int32)

    def _indices(self, indices: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        if indices.shape != shape or indices.dtype.kind not in "iu":
            raise ValueError(
                f"indices: expected integers of shape {shape}, got {indices.dtype} of shape "
                f"{indices.shape}"
            )
        if indices.size and not 0 <= indices.min() <= indices.max() < self._config.classes:
            raise ValueError(
                f"indices: expected 0 to {self._config.classes - 1}, got {indices.min()} to "
                f"{indices.max()}"
            )
        return np.ascontiguousarray(indices, dtype=self._config.index_dtype)

    def _values(self, values: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
        if values.shape != shape or values.dtype.kind != "f":
            raise ValueError(
                f"values: expected floats of shape {shape}, got {values.dtype} of shape "
                f"{values.shape}"
            )
        with np.errstate(over="ignore"):  # found right below
            value_BK = np.ascontiguousarray(values, dtype=self._config.number_dtype)
        sum_B = value_BK.sum(axis=1, dtype=np.float32)
        if not np.isfinite(sum_B).all():
            raise ValueError(f"values: expected finite {value_BK.dtype} numbers")
        if self._config.kind == "logits" or not value_BK.size:
            return value_BK
        if np.signbit(value_BK).any() or sum_B.max() > MAX_SUM:
            raise ValueError(
                f"values: expected probabilities that sum up to at most 1, got from "
                f"{value_BK.min()} and a sum of {sum_B.max()}"
            )
        return value_BK

    def _counts(self, counts: Any, value_BK: NDArray[Any]) -> NDArray[np.int64]:
        config = self._config
        if counts is not None:
            count_B = np.ascontiguousarray(counts, dtype=np.int64)
            least = config.k if config.mass is None else 1
            if (
                count_B.shape != value_BK.shape[:1]
                or not ((least <= count_B) & (count_B <= config.k)).all()
            ):
                raise ValueError(f"counts: expected {least} to {config.k} for each key")
            return count_B
        if config.mass is None:
            return np.full(len(value_BK), config.k)
        if (value_BK[:, 1:] > value_BK[:, :-1]).any():
            raise ValueError("values: expected the largest first where mass is set")
        mass_BK = value_BK.cumsum(axis=1, dtype=np.float32)
        below_B: NDArray[np.int64] = (mass_BK < config.mass).sum(axis=1)
        return np.minimum(below_B + 1, config.k)


@compiled
def first_repeated(index_BK: Any, count_B: Any, stamp_C: Any, stamp: Any) -> Any:
    """The first row that has a class twice, or -1; stamps are used once."""
    for row in range(len(index_BK)):
        stamp += 1
        for i in range(count_B[row]):
            if stamp_C[index_BK[row, i]] == stamp:
                return row
            stamp_C[index_BK[row, i]] = stamp
    return -1


def encoded(rows: Rows, layout: Layout, place: int) -> tuple[NDArray[np.uint64], int]:
    """Bytes of records that start at a place of a file, and what they add to its digest."""
    out = np.zeros(len(rows.ids) * layout.max_units, dtype=np.uint64)
    if layout.config.packing == "plain":
        size, digest = encode(
            layout.numbers, place, rows.ids, rows.seeds, rows.counts,
            rows.indices.view(np.uint16), rows.values.view(np.uint16), out,
        )  # fmt: skip
        return out[:size], int(digest)
    # What is behind an image's last class is sorted behind the others.
    is_behind_BK = np.arange(layout.config.k) >= rows.counts[:, None]
    order_BK = np.where(is_behind_BK, layout.config.classes, rows.indices).argsort(axis=1)
    index_BK, value_BK = (
        np.take_along_axis(one, order_BK, axis=1) for one in (rows.indices, rows.values)
    )
    is_stored_BK = np.arange(layout.config.k) < rows.counts[:, None]
    rest_B = (1 - value_BK.sum(axis=1, dtype=np.float64, where=is_stored_BK)).clip(min=0)
    size, digest = encode_compact(
        layout.numbers, place, rows.ids, rows.seeds, rows.counts, index_BK, codes_of(value_BK),
        np.ceil(rest_B * 65_535).astype(np.uint16), out,
    )  # fmt: skip
    return out[:size], int(digest)
