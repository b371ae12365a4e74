"""Cross-entropy of a student with a teacher's stored probabilities (TinyViT, arXiv 2207.10666).

For logits z and a target of mass 1 that is a floor and a few excesses (`SparseTarget`), and with
s = z - max(z), equation 1 of the paper becomes

    loss     = log(sum_c exp s_c) - sum_m excess_m s_m - floor sum_c s_c
    gradient = softmax(z) - floor - excess scattered to its classes.

The gradient is computed from the logits when it is asked for: on a CPU, doing exponentials anew
takes less time than to keep them, and no memory (`loss_rows`).
"""

# Shapes: B batch, C classes, K stored entries, M entries of a target

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch.autograd.function import once_differentiable

from weightwise.distill.loss_rows import gradient_of, loss_of
from weightwise.distill.sparse_target import (
    Residual,
    SparseTarget,
    check_choice,
    check_temperature,
)

if TYPE_CHECKING:
    from torch import Tensor

Reduction = Literal["mean", "sum", "none"]


@dataclass(frozen=True, kw_only=True)
class SoftLoss:
    """What a student is asked to match, as settings of a training.

    Parameters
    ----------
    residual
        Where the mass goes that a store left out, see `SparseTarget.recover`.
    temperature
        Softens teacher and student; the soft part is multiplied by its square (Hinton et al.,
        arXiv 1503.02531). Labels are matched at 1.
    smoothing
        Share of targets spread over all classes, 0 to 1.
    hard_share
        Share of labels, 0 to 1. TinyViT uses none.
    reduction
        ``mean`` or ``sum`` over the batch, or ``none``.
    """

    residual: Residual = "uniform"
    temperature: float = 1.0
    smoothing: float = 0.0
    hard_share: float = 0.0
    reduction: Reduction = "mean"

    def __post_init__(self) -> None:
        check_choice("residual", self.residual, get_args(Residual))
        check_choice("reduction", self.reduction, get_args(Reduction))
        check_temperature(self.temperature)
        for name in ("smoothing", "hard_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected 0 to 1, got {getattr(self, name)}")

    def __call__(
        self,
        logits_BC: Tensor,
        index_BK: Tensor,
        value_BK: Tensor,
        *,
        stored_BK: Tensor | None = None,
        label_B: Tensor | None = None,
        partner_B: Tensor | None = None,
        share_B: float | Tensor = 1.0,
    ) -> Tensor:
        """Compare a batch with its stored targets.

        Parameters
        ----------
        logits_BC
            Of the student, shape (B, C).
        index_BK, value_BK, stored_BK
            The store's, see `SparseTarget.recover`.
        label_B
            Classes, shape (B,); needed with a share of labels only.
        partner_B
            With which row of the batch each image was mixed, shape (B,).
        share_B
            Share of the own image in such a mixture, a number or shape (B,).

        Raises
        ------
        ValueError
            If shapes or classes do not fit, or labels are missing.
        """
        if self.hard_share > 0 and label_B is None:
            raise ValueError(f"label_B: expected labels for hard_share {self.hard_share}, got None")
        num_classes = logits_BC.shape[-1]
        target = SparseTarget.recover(
            index_BK, value_BK, num_classes, stored_BK=stored_BK, residual=self.residual,
            temperature=self.temperature,
        )  # fmt: skip
        if self.hard_share == 0 or label_B is None:
            return self._loss(logits_BC, target, partner_B, share_B, self.temperature)
        hard = SparseTarget.one_hot(label_B, num_classes)
        if self.temperature == 1:
            target = target.mix(hard, 1 - self.hard_share)
            return self._loss(logits_BC, target, partner_B, share_B, 1.0)
        soft_loss = self._loss(logits_BC, target, partner_B, share_B, self.temperature)
        hard_loss = self._loss(logits_BC, hard, partner_B, share_B, 1.0)
        return soft_loss + self.hard_share * (hard_loss - soft_loss)

    def _loss(
        self,
        logits_BC: Tensor,
        target: SparseTarget,
        partner_B: Tensor | None,
        share_B: float | Tensor,
        temperature: float,
    ) -> Tensor:
        if partner_B is not None:
            target = target.mix(target.rows(partner_B), share_B)
        if self.smoothing > 0:
            target = target.smooth(self.smoothing)
        return soft_cross_entropy(
            logits_BC, target, temperature=temperature, reduction=self.reduction
        )


def soft_cross_entropy(
    logits_BC: Tensor,
    target: SparseTarget,
    *,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Cross-entropy of logits and sparse targets (equation 1).

    Parameters
    ----------
    logits_BC
        Shape (B, C), any float type. Only they get gradients.
    target
        B rows of C classes.
    temperature
        Divides logits; the loss is multiplied by its square.
    reduction
        ``mean`` or ``sum`` over the batch, or ``none``.

    Returns
    -------
    Tensor
        A number, or shape (B,) without a reduction, in nats; float64 for such logits, else
        float32.

    Raises
    ------
    ValueError
        If a setting is out of its range, or rows or classes do not fit. In float64 and on other
        devices than CPUs, torch says so of single classes in its own words.
    """
    check_choice("reduction", reduction, get_args(Reduction))
    check_temperature(temperature)
    shape = len(target.floor), target.num_classes
    if tuple(logits_BC.shape) != shape or not logits_BC.is_floating_point():
        raise ValueError(
            f"logits_BC: expected floats of shape {shape}, got {logits_BC.dtype} of shape "
            f"{tuple(logits_BC.shape)}"
        )
    loss: Tensor = _SoftCrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits_BC, target.classes, target.excess, target.floor, temperature, reduction
    )
    return loss if temperature == 1 else loss * temperature**2


class _SoftCrossEntropy(torch.autograd.Function):
    """The reduced loss; the gradient is computed from the logits when it is asked for."""

    @staticmethod
    def forward(
        ctx: Any,
        logits_BC: Tensor,
        index_BM: Tensor,
        excess_BM: Tensor,
        floor_B: Tensor,
        temperature: float,
        reduction: Reduction,
    ) -> Tensor:
        dtype = torch.float64 if logits_BC.dtype == torch.float64 else torch.float32
        excess_BM, floor_B = excess_BM.to(dtype).contiguous(), floor_B.to(dtype).contiguous()
        target = index_BM.contiguous(), excess_BM, floor_B
        loss_B, known_2B = loss_of(logits_BC, *target, 1 / temperature)
        ctx.save_for_backward(logits_BC, *target, known_2B)
        ctx.sharpness, ctx.is_mean = 1 / temperature, reduction == "mean"
        if reduction == "none":
            return loss_B
        return loss_B.mean() if ctx.is_mean else loss_B.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits_BC, index_BM, excess_BM, floor_B, known_2B = ctx.saved_tensors
        grad_B = (grad / len(floor_B) if ctx.is_mean else grad).expand_as(floor_B).contiguous()
        grad_BC = gradient_of(
            logits_BC, index_BM, excess_BM, floor_B, known_2B, grad_B, ctx.sharpness
        )
        return grad_BC, None, None, None, None, None
