"""Labels of a store as tensors, and how far rounded ones are from others."""

# Shapes: B images of a batch, C classes, K classes of an image

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from weightwise.distill.epoch import SoftBatch


def as_tensors(batch: SoftBatch) -> tuple[Tensor, Tensor, Tensor | None]:
    """Labels of a batch as `SparseTarget.recover` takes them.

    Parameters
    ----------
    batch
        What `SoftLabels.gather` gives.

    Returns
    -------
    tuple
        Classes (int64), values (float32), and which of them are stored (bool), shape (B, K);
        ``None`` for the last where all are, so that targets come out as for a teacher at hand.
    """
    index_BK = torch.from_numpy(batch.indices.astype("int64"))
    value_BK = torch.from_numpy(batch.values.astype("float32"))
    K = index_BK.shape[1]
    if (batch.counts == K).all():
        return index_BK, value_BK, None
    stored_BK = torch.arange(K) < torch.from_numpy(batch.counts)[:, None]
    return index_BK, value_BK, stored_BK


def sparse_kl(
    value_BK: NDArray[Any], other_BK: NDArray[Any], count_B: NDArray[np.int64], num_classes: int
) -> NDArray[np.float64]:
    """KL divergence between the targets of two roundings of the same classes' probabilities.

    The mass that is not stored is spread over the other classes, cut at 0, and all is divided by
    its sum (TinyViT, arXiv 2207.10666, equation 2); no target is made with all classes.

    Parameters
    ----------
    value_BK, other_BK
        Probabilities, zeros from ``count_B`` on.
    count_B
        Number of classes of each image.
    num_classes
        C.

    Returns
    -------
    ndarray
        KL(value || other) in nats, shape (B,); infinite if only the other one is 0 somewhere,
        0 where an image has no mass at all.
    """
    parts = []
    for one_BK in (value_BK.astype(np.float64), other_BK.astype(np.float64)):
        sum_B = one_BK.sum(axis=1)
        rest_B = np.where(count_B < num_classes, (1 - sum_B).clip(min=0), 0.0)
        total_B = np.where(sum_B + rest_B > 0, sum_B + rest_B, 1.0)
        parts.append((one_BK / total_B[:, None], rest_B / total_B))
    (p_BK, rest_B), (q_BK, other_rest_B) = parts
    kl_B: NDArray[np.float64] = _terms(p_BK, q_BK).sum(axis=1) + _terms(rest_B, other_rest_B)
    return kl_B


def _terms(p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Elements of a KL divergence: p log(p / q), 0 where p is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms: NDArray[np.float64] = np.where(p > 0, p * np.log(p / q), 0.0)
    return terms
