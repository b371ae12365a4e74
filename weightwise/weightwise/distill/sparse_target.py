"""Distributions over classes that are even but for a few: what is known of a teacher's opinion.

A store keeps K of C probabilities a sample; what is left of 1 is spread evenly over the other
classes (TinyViT, arXiv 2207.10666, equation 2). So a target is a floor that all classes have, and
an excess over it for a few:

    target_c = floor + sum of excess_m over entries m of class c.

Mixtures of such targets are such targets, and so are smoothed ones and those with a share of hard
labels. No target of C classes is ever built.
"""

# Shapes: B batch, C classes, K stored entries, M entries of a target

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from weightwise.distill.loss_rows import can_compile, excess_of

Residual = Literal["uniform", "zeros"]


@dataclass(frozen=True, kw_only=True)
class SparseTarget:
    """Distributions of a batch.

    Parameters
    ----------
    classes
        Classes of entries, shape (B, M), int64; a class may have several.
    excess
        What entries add to the floor, shape (B, M); all sum to 1 with the floors.
    floor
        What each class has, shape (B,).
    num_classes
        C.

    Raises
    ------
    ValueError
        If shapes do not fit. Classes outside of 0 to C - 1 are found where they are looked up.
    """

    classes: Tensor
    excess: Tensor
    floor: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        shape = tuple(self.classes.shape)
        if len(shape) != 2 or shape != tuple(self.excess.shape):
            raise ValueError(
                f"classes, excess: expected one shape (B, M), got {shape} and "
                f"{tuple(self.excess.shape)}"
            )
        if tuple(self.floor.shape) != shape[:1]:
            raise ValueError(f"floor: expected shape {shape[:1]}, got {tuple(self.floor.shape)}")

    @classmethod
    def recover(
        cls,
        index_BK: Tensor,
        value_BK: Tensor,
        num_classes: int,
        *,
        stored_BK: Tensor | None = None,
        residual: Residual = "uniform",
        temperature: float = 1.0,
    ) -> SparseTarget:
        """Rebuild distributions from stored probabilities (equation 2).

        Rounded probabilities may sum to more than 1, or to less though all classes are stored: a
        negative residual counts as 0, and then all is divided by its sum.

        Parameters
        ----------
        index_BK
            Stored classes, shape (B, K), any type of integers; distinct within a row.
        value_BK
            Their probabilities, shape (B, K), at least 0.
        num_classes
            C.
        stored_BK
            Which entries count, shape (B, K), where rows have different K; all by default.
        residual
            ``uniform`` spreads the rest over the other classes; ``zeros`` gives them nothing.
            A row without any mass is even in both.
        temperature
            Takes probabilities to the power of 1 / temperature.

        Raises
        ------
        ValueError
            If a setting is out of its range, or shapes do not fit.
        """
        check_choice("residual", residual, get_args(Residual))
        check_temperature(temperature)
        shapes = {tuple(x.shape) for x in (index_BK, value_BK, stored_BK) if x is not None}
        if len(shapes) != 1 or index_BK.dim() != 2 or index_BK.shape[1] > num_classes:
            raise ValueError(
                f"index_BK, value_BK, stored_BK: expected one shape (B, K) with K <= "
                f"{num_classes}, got {sorted(shapes)}"
            )
        index_BK = index_BK.long()
        value_BK = value_BK if value_BK.dtype == torch.float64 else value_BK.float()
        others: int | Tensor = num_classes - index_BK.shape[1]
        is_plain = stored_BK is None and temperature == 1 and value_BK.numel() > 0
        if is_plain and can_compile(value_BK):
            is_uniform = residual == "uniform"
            excess_BK, floor_B = excess_of(
                value_BK.contiguous(), num_classes - index_BK.shape[1], is_uniform=is_uniform
            )
            return cls(classes=index_BK, excess=excess_BK, floor=floor_B, num_classes=num_classes)
        if stored_BK is not None:
            index_BK = index_BK.where(stored_BK, 0)
            value_BK = value_BK.where(stored_BK, 0)
            others = num_classes - stored_BK.sum(1)
        sum_B = value_BK.sum(1)
        total_B = sum_B.clamp_min(1) if residual == "uniform" else sum_B.where(sum_B > 0, 1)
        # Where all classes are stored there are no others to take the rest.
        if isinstance(others, Tensor):
            total_B = total_B.where(others > 0, sum_B)
            others = others.clamp_min(1)
        elif others == 0:
            total_B, others = sum_B, 1
        value_BK = value_BK / total_B[:, None]
        floor_B = (total_B - sum_B) / (total_B * others)
        if temperature != 1:
            value_BK, floor_B = value_BK ** (1 / temperature), floor_B ** (1 / temperature)
            total_B = value_BK.sum(1) + floor_B * others
            value_BK, floor_B = value_BK / total_B[:, None], floor_B / total_B
        excess_BK = value_BK - floor_B[:, None]
        if stored_BK is not None:
            excess_BK = excess_BK.where(stored_BK, 0)
        return cls(classes=index_BK, excess=excess_BK, floor=floor_B, num_classes=num_classes)

    @classmethod
    def one_hot(cls, label_B: Tensor, num_classes: int) -> SparseTarget:
        """All mass on one class a row, ``label_B`` of shape (B,)."""
        index_BM = label_B.long()[:, None]
        excess_BM = torch.ones_like(index_BM, dtype=torch.float32)
        return cls(
            classes=index_BM, excess=excess_BM, floor=torch.zeros_like(excess_BM[:, 0]),
            num_classes=num_classes,
        )  # fmt: skip

    def mix(self, other: SparseTarget, share: float | Tensor) -> SparseTarget:
        """Mix with another target of as many rows: mixup, CutMix, hard labels.

        Parameters
        ----------
        other
            Has the rest.
        share
            Weight of this target, 0 to 1: a number, or one a row of shape (B,).

        Raises
        ------
        ValueError
            If the other one has another number of rows or classes.
        """
        mine, theirs = ((len(x.floor), x.num_classes) for x in (self, other))
        if mine != theirs:
            raise ValueError(f"other: expected rows and classes {mine}, got {theirs}")
        share_B = torch.as_tensor(share, device=self.floor.device).to(self.floor.dtype)
        share_B = share_B.expand_as(self.floor)
        rest_B = 1 - share_B
        excess = self.excess * share_B[:, None], other.excess * rest_B[:, None]
        return SparseTarget(
            classes=torch.cat((self.classes, other.classes), dim=1),
            excess=torch.cat(excess, dim=1),
            floor=self.floor * share_B + other.floor * rest_B,
            num_classes=self.num_classes,
        )

    def rows(self, row_B: Tensor) -> SparseTarget:
        """Rows in another order, as a partner in a mixture has them."""
        return SparseTarget(
            classes=self.classes[row_B], excess=self.excess[row_B],
            floor=self.floor[row_B], num_classes=self.num_classes,
        )  # fmt: skip

    def smooth(self, smoothing: float) -> SparseTarget:
        """Take a share of the mass, 0 to 1, and spread it over all classes."""
        if not 0 <= smoothing <= 1:
            raise ValueError(f"smoothing: expected 0 to 1, got {smoothing}")
        keep = 1 - smoothing
        return SparseTarget(
            classes=self.classes, excess=self.excess * keep,
            floor=self.floor * keep + smoothing / self.num_classes,
            num_classes=self.num_classes,
        )  # fmt: skip

    def dense(self) -> Tensor:
        """The target of all classes, shape (B, C): for tests and small tasks."""
        target_BC = self.floor[:, None].repeat(1, self.num_classes)
        return target_BC.scatter_add_(1, self.classes, self.excess.to(target_BC.dtype))


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse what is none of some words."""
    if value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(choices)}, got {value!r}")


def check_temperature(temperature: float) -> None:
    """Refuse what cannot divide logits."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature: expected a finite number above 0, got {temperature}")
