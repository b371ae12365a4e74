"""What predictions tell about distillation: which classes go together, and what is too hard.

Wu et al. (TinyViT, arXiv 2207.10666, section 4.1, figure 3) show that a distilled student relates
classes as its teacher does, and that on a large noisy data set small models saturate because of
hard samples, among them mislabelled ones and those of several objects.
"""

# Shapes: B samples of a batch, N samples, C classes

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor


def class_correlation(
    logits_BC: Iterable[Tensor], *, classes: Sequence[int] | None = None
) -> Tensor:
    """Pearson correlation of the predicted probabilities of every pair of classes.

    Parameters
    ----------
    logits_BC
        Batches of logits, each of shape (B, C); samples are all rows.
    classes
        The classes to relate, of which there are then C' of C; all by default.

    Returns
    -------
    Tensor
        Shape (C', C'), float64, 1 on the diagonal. A class whose probability never changes has 0
        with all others.

    Raises
    ------
    ValueError
        If there are fewer than two samples, or batches differ in their classes.
    """
    count, first_C, sum_C, product_CC = 0, None, None, None
    for batch_BC in logits_BC:
        probability_BC = batch_BC.detach().double().softmax(-1)
        if classes is not None:
            probability_BC = probability_BC[:, list(classes)]
        if first_C is None or sum_C is None or product_CC is None:
            # Differences from some sample: sums of squares then lose no digits.
            first_C = probability_BC[0]
            sum_C = torch.zeros_like(first_C)
            product_CC = first_C.new_zeros(len(first_C), len(first_C))
        if probability_BC.shape[1:] != first_C.shape:
            raise ValueError(
                f"logits_BC: expected {len(first_C)} classes in all batches, got "
                f"{probability_BC.shape[1]}"
            )
        probability_BC = probability_BC - first_C
        count += len(probability_BC)
        sum_C += probability_BC.sum(0)
        product_CC.addmm_(probability_BC.T, probability_BC)
    if count < 2 or sum_C is None or product_CC is None:
        raise ValueError(f"logits_BC: expected at least two samples, got {count}")
    covariance_CC = product_CC - sum_C[:, None] * sum_C / count
    # What rounding leaves of a constant is no variance.
    variance_C, rounding_C = covariance_CC.diagonal(), 1e-14 * product_CC.diagonal()
    is_constant_C = variance_C <= rounding_C
    scale_C = variance_C.where(~is_constant_C, 1).rsqrt().where(~is_constant_C, 0)
    correlation_CC = (covariance_CC * scale_C[:, None] * scale_C).clamp(-1, 1)
    return correlation_CC.fill_diagonal_(1)


def resemblance(one_CC: Tensor, other_CC: Tensor) -> float:
    """How alike two correlation matrices are: Pearson correlation of their pairs of classes.

    Raises
    ------
    ValueError
        If their shapes differ, or one has fewer than three classes or the same value throughout.
    """
    shape = tuple(one_CC.shape)
    if shape != tuple(other_CC.shape) or len(shape) != 2 or shape[0] != shape[1] or shape[0] < 3:
        raise ValueError(
            f"one_CC, other_CC: expected one shape (C, C) with C >= 3, got {shape} and "
            f"{tuple(other_CC.shape)}"
        )
    row_P, column_P = torch.triu_indices(*shape, offset=1)
    pairs_2P = torch.stack([matrix[row_P, column_P].double() for matrix in (one_CC, other_CC)])
    pairs_2P -= pairs_2P.mean(1, keepdim=True)
    norms_2 = pairs_2P.norm(dim=1)
    if not (norms_2 > 0).all():
        raise ValueError("one_CC, other_CC: expected pairs that differ, got one value throughout")
    return float(pairs_2P[0] @ pairs_2P[1] / norms_2.prod())


def hardness(logits_NC: Tensor, label_N: Tensor) -> Tensor:
    """How far a strong model is from the labels of samples, in nats, shape (N,).

    Samples with wrong labels or several objects come out on top.
    """
    log_NC = logits_NC.detach().double().log_softmax(-1)
    return -log_NC.gather(1, label_N.long()[:, None])[:, 0]


@dataclass(frozen=True, kw_only=True)
class Saturation:
    """Accuracy of models on what is left without the hardest samples.

    Parameters
    ----------
    removed
        Shares of samples left out, from 0.
    accuracy
        Of each model, one number for each share.
    """

    removed: tuple[float, ...]
    accuracy: Mapping[str, tuple[float, ...]]


def saturation_curve(
    logits_NC: Mapping[str, Tensor],
    label_N: Tensor,
    hardness_N: Tensor,
    removed: Sequence[float] = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5),
) -> Saturation:
    """Leave out more and more of the hardest samples.

    Where small models and large ones draw level, it was those samples that small ones could not
    learn.

    Parameters
    ----------
    logits_NC
        Of each model by its name, shape (N, C).
    label_N
        Classes, shape (N,).
    hardness_N
        How hard each sample is, shape (N,), see `hardness`; of equal ones, later ones stay.
    removed
        Shares to leave out, each in [0, 1).

    Raises
    ------
    ValueError
        If a share is out of its range, or there are other numbers of samples or none.
    """
    if not removed or not all(0 <= share < 1 for share in removed):
        raise ValueError(f"removed: expected shares in [0, 1), got {tuple(removed)}")
    count = len(label_N)
    sizes = {"hardness_N": len(hardness_N)} | {key: len(x) for key, x in logits_NC.items()}
    for name, size in sizes.items():
        if size != count or count == 0:
            raise ValueError(f"{name}: expected {max(count, 1)} samples, got {size}")
    hardest_first_N = hardness_N.argsort(descending=True, stable=True)
    accuracy = {}
    for name, of_model_NC in logits_NC.items():
        right_N = (of_model_NC.argmax(-1) == label_N).double()[hardest_first_N]
        # The share may round to all samples of a few: one is left.
        first = [min(round(share * count), count - 1) for share in removed]
        accuracy[name] = tuple(float(right_N[one:].mean()) for one in first)
    return Saturation(removed=tuple(removed), accuracy=accuracy)
