"""Comparison of a student's logits with those of a teacher that runs beside it.

`SoftLoss` compares with what a store has of a teacher, a few classes an image. Where the teacher is
there, so are its logits of all classes, and nothing needs to be chosen or rebuilt.
"""

# Shapes: B batch, C classes

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F

from weightwise.distill.sparse_target import check_choice, check_temperature

if TYPE_CHECKING:
    from torch import Tensor

PredictionForm: TypeAlias = Literal["cross_entropy", "kl_per_class"]


@dataclass(frozen=True, kw_only=True)
class PredictionLoss:
    """L_prediction of MiniViT (Zhang et al., arXiv 2204.07154), in the released forms.

    Parameters
    ----------
    form
        ``cross_entropy``, of Mini-Swin: CE(softmax(z_t / T), softmax(z_s / T)), mean over the
        batch. ``kl_per_class``, of Mini-DeiT: the divergence, divided by the number of classes
        too, times T^2. Its gradients are 1 / C of the usual ones, which AdamW does not mind, but
        gradient clipping and weights of other losses do.
    temperature
        T, above 0.
    label_share
        Weight of the labels' cross-entropy, 0 to 1; the teacher has the rest. MiniViT uses none.

    Raises
    ------
    ValueError
        If a setting is out of its range.
    """

    form: PredictionForm = "cross_entropy"
    temperature: float = 1.0
    label_share: float = 0.0

    def __post_init__(self) -> None:
        check_choice("form", self.form, get_args(PredictionForm))
        check_temperature(self.temperature)
        if not 0 <= self.label_share <= 1:
            raise ValueError(f"label_share: expected 0 to 1, got {self.label_share}")

    def __call__(
        self, logits_BC: Tensor, teacher_BC: Tensor, label: Tensor | None = None
    ) -> Tensor:
        """Compare a batch.

        Parameters
        ----------
        logits_BC
            Of the student. Only they get gradients.
        teacher_BC
            Logits of the teacher.
        label
            Classes, shape (B,), or shares of classes, shape (B, C); needed with a share of labels.

        Returns
        -------
        Tensor
            A number in nats, float32 for lower types.

        Raises
        ------
        ValueError
            If shapes differ, or labels are missing.
        """
        if logits_BC.dim() != 2 or logits_BC.shape != teacher_BC.shape:
            raise ValueError(
                f"teacher_BC: expected the student's shape (B, C), got {tuple(teacher_BC.shape)} "
                f"for {tuple(logits_BC.shape)}"
            )
        if self.label_share > 0 and label is None:
            raise ValueError(f"label: expected labels for label_share {self.label_share}, got None")
        dtype = torch.promote_types(logits_BC.dtype, torch.float32)
        logits_BC, teacher_BC = logits_BC.to(dtype), teacher_BC.detach().to(dtype)
        student_BC = logits_BC / self.temperature
        log_target_BC = (teacher_BC / self.temperature).log_softmax(1)
        if self.form == "cross_entropy":
            loss = F.cross_entropy(student_BC, log_target_BC.exp())
        else:
            divergence = F.kl_div(
                student_BC.log_softmax(1), log_target_BC, reduction="sum", log_target=True
            )
            loss = divergence * self.temperature**2 / logits_BC.numel()
        if label is None or self.label_share == 0:
            return loss
        return loss + self.label_share * (F.cross_entropy(logits_BC, label) - loss)
