"""Distances of relation matrices that are never kept: loss and gradient, chunk by chunk.

Tokens of a window are compared with each other, in a student and in its teacher, and the student
is asked for the same relations. Of N tokens there are N^2 relations, nine times for queries, keys
and values; so some windows, or some rows where one window is large, are related, compared and made
into their part of the gradient before the next. The gradient of a loss is known up to the loss's
own gradient, a number: it is computed along with the loss, and the backward pass multiplies it.

`relation_entropy`   cross-entropy of softmax(scale M_i M_j^T), summed over pairs, mean over rows
`relation_distance`  mean of (S_s - S_t)^2 for S = H H^T

Where N is large beside the width d, the second one needs no N x N matrix. With G_xy = H_x^T H_y,

    ||S_s - S_t||^2        = ||G_ss||^2 + ||G_tt||^2 - 2 ||G_ts||^2
    its gradient by H_s    = 4 (H_s G_ss - H_t G_ts),

5 N d^2 multiply-adds in place of 3 N^2 d. The difference of large numbers costs digits: what is
lost is about 1e-7 of ||S||^2, the float32 rounding of the sums.
"""

# Shapes: X windows, M matrices, N tokens, D width of the student, E of the teacher, R rows,
# I J matrices on the left and on the right of relations

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

# Relations of a chunk: on CPUs those of student and teacher fit the second cache together.
CPU_CHUNK, GPU_CHUNK = 1 << 18, 1 << 25
LEAST_ROWS = 32  # fewer rows at a time would make products of matrices slow


@dataclass(frozen=True, kw_only=True)
class Relations:
    """Which relations are compared, and how.

    Parameters
    ----------
    pairs
        Numbers (i, j) of matrices, without repetition: softmax(scale M_i M_j^T) by rows.
    scale, teacher_scale
        Of the student's logits and of the teacher's.
    is_divergence
        Whether the teacher's entropy is left out. It has no gradient; without it the loss is 0
        where relations are equal.
    rows
        Rows that count, shape (R,), int64, without repetition; all by default.
    """

    pairs: tuple[tuple[int, int], ...]
    scale: float
    teacher_scale: float
    is_divergence: bool = False
    rows: Tensor | None = None

    def sides(self) -> list[tuple[list[int], list[int]]]:
        """Pairs as products of a left and a right side: matrices that meet the same others."""
        partners: dict[int, list[int]] = {}
        for i, j in sorted(self.pairs):
            partners.setdefault(i, []).append(j)
        lefts: dict[tuple[int, ...], list[int]] = {}
        for i, right in partners.items():
            lefts.setdefault(tuple(right), []).append(i)
        return [(left, list(right)) for right, left in lefts.items()]


def relation_entropy(
    student: Sequence[Tensor], teacher: Sequence[Tensor], relations: Relations
) -> Tensor:
    """Cross-entropy of a student's relations with its teacher's.

    Parameters
    ----------
    student, teacher
        M matrices of shapes (X, N, D) and (X, N, E). Only the student's get gradients.
    relations
        Which of them, and how.

    Returns
    -------
    Tensor
        A number in nats: sum over pairs, mean over windows and rows; float64 for float64
        matrices, else float32.
    """
    loss: Tensor = _RelationEntropy.apply(  # type: ignore[no-untyped-call]
        relations, tuple(x.detach() for x in teacher), *student
    )
    return loss


def relation_distance(h_XND: Tensor, other_XNE: Tensor) -> Tensor:
    """Mean of (S - S')^2 over windows and all pairs of tokens, for S = H H^T.

    Parameters
    ----------
    h_XND
        The student's tokens. Only they get gradients.
    other_XNE
        The teacher's.

    Returns
    -------
    Tensor
        A number; float64 for float64 tokens, else float32.
    """
    loss: Tensor = _RelationDistance.apply(  # type: ignore[no-untyped-call]
        h_XND, other_XNE.detach()
    )
    return loss


class _RelationEntropy(torch.autograd.Function):
    """See `relation_entropy`."""

    @staticmethod
    def forward(
        ctx: Any, relations: Relations, teacher: tuple[Tensor, ...], *student: Tensor
    ) -> Tensor:
        X, N, _ = student[0].shape
        rows = N if relations.rows is None else len(relations.rows)
        dtype, is_trained = _dtype_of(student[0]), any(ctx.needs_input_grad)
        ctx.grads = [torch.empty_like(x) for x in student] if is_trained else []
        loss = student[0].new_zeros((), dtype=torch.float64)
        with torch.autocast(student[0].device.type, enabled=False):
            for part in _parts(X, _chunk_of(student[0]) // (len(relations.pairs) * rows * N)):
                s_XMND, t_XMNE = (
                    torch.stack([x[part] for x in side], dim=1).to(dtype)
                    for side in (student, teacher)
                )
                grad_XMND = torch.zeros_like(s_XMND) if is_trained else None
                for left, right in relations.sides():
                    loss += _compare(s_XMND, t_XMNE, left, right, relations, grad_XMND)
                if grad_XMND is not None:
                    for into, grad_XND in zip(ctx.grads, grad_XMND.unbind(1), strict=True):
                        into[part] = grad_XND
        ctx.count = X * rows
        mean: Tensor = loss / ctx.count
        return mean.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # Divided here, where a loss that was scaled for float16 is scaled already.
        return (None, None, *(one * (grad / ctx.count) for one in ctx.grads))


def _compare(
    s_XMND: Tensor,
    t_XMNE: Tensor,
    left: list[int],
    right: list[int],
    relations: Relations,
    grad_XMND: Tensor | None,
) -> Tensor:
    """Sum over windows, rows and pairs of a left and a right matrix; adds to the gradient."""
    X, _, N, _ = s_XMND.shape
    loss = s_XMND.new_zeros((), dtype=torch.float64)
    lefts, rights = _run(left), _run(right)
    s_XTD, t_XTE = s_XMND[:, rights].flatten(1, 2), t_XMNE[:, rights].flatten(1, 2)
    rows = N if relations.rows is None else len(relations.rows)
    most = max(LEAST_ROWS, _chunk_of(s_XMND) // (X * len(left) * len(right) * N))
    for piece in _parts(rows, most):
        row_R: Any = piece if relations.rows is None else relations.rows[piece]
        s_XLD = s_XMND[:, lefts][:, :, row_R].flatten(1, 2) * relations.scale
        t_XLE = t_XMNE[:, lefts][:, :, row_R].flatten(1, 2) * relations.teacher_scale
        part_loss, slope_XLT = _entropy(
            (s_XLD @ s_XTD.mT).unflatten(2, (-1, N)), (t_XLE @ t_XTE.mT).unflatten(2, (-1, N)),
            is_divergence=relations.is_divergence,
        )  # fmt: skip
        loss += part_loss
        if grad_XMND is None:
            continue
        grad_XMND[:, rights] += (slope_XLT.mT @ s_XLD).unflatten(1, (-1, N))
        grad_XIRD = (slope_XLT @ s_XTD).unflatten(1, (len(left), -1)).mul_(relations.scale)
        for i, grad_XRD in zip(left, grad_XIRD.unbind(1), strict=True):
            grad_XMND[:, i, row_R] += grad_XRD
    return loss


def _entropy(s_XLJN: Tensor, t_XLJN: Tensor, *, is_divergence: bool) -> tuple[Tensor, Tensor]:
    """Sum of the cross-entropies of rows, and its gradient by the student's logits."""
    log_s, log_t = s_XLJN.log_softmax(-1), t_XLJN.log_softmax(-1)
    p_t = log_t.exp()
    difference = log_t.sub_(log_s) if is_divergence else -log_s
    loss = torch.dot(p_t.view(-1), difference.view(-1))
    return loss, log_s.exp_().sub_(p_t).flatten(2)


class _RelationDistance(torch.autograd.Function):
    """See `relation_distance`."""

    @staticmethod
    def forward(ctx: Any, h_XND: Tensor, other_XNE: Tensor) -> Tensor:
        (X, N, D), E = h_XND.shape, other_XNE.shape[2]
        dtype, is_trained = _dtype_of(h_XND), ctx.needs_input_grad[0]
        with torch.autocast(h_XND.device.type, enabled=False):
            s_XND, t_XNE = h_XND.to(dtype), other_XNE.to(dtype)
            by_width = N * (2 * D + E) > 2 * D * D + 2 * D * E + E * E
            way = _distance_by_width if by_width else _distance_by_rows
            loss, grad_XND = way(s_XND, t_XNE, is_trained=is_trained)
        ctx.grad = None if grad_XND is None else grad_XND.to(h_XND.dtype)
        ctx.count = X * N * N
        mean: Tensor = loss / ctx.count
        return mean.to(dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return ctx.grad * (4 * grad / ctx.count), None


def _distance_by_width(
    s_XND: Tensor, t_XNE: Tensor, *, is_trained: bool
) -> tuple[Tensor, Tensor | None]:
    """||S_s - S_t||^2 and a quarter of its gradient, from matrices as large as the widths."""
    s_XDD, t_XEE, cross_XED = s_XND.mT @ s_XND, t_XNE.mT @ t_XNE, t_XNE.mT @ s_XND
    ss, tt, ts = (x.double().square().sum() for x in (s_XDD, t_XEE, cross_XED))
    # Rounding may leave less than nothing of equal ones.
    loss = (ss + tt - 2 * ts).clamp_min(0)
    if not is_trained:
        return loss, None
    # Two products rather than one of both side by side: equal ones cancel to the last bit.
    return loss, (s_XND @ s_XDD).sub_(t_XNE @ cross_XED)


def _distance_by_rows(
    s_XND: Tensor, t_XNE: Tensor, *, is_trained: bool
) -> tuple[Tensor, Tensor | None]:
    """||S_s - S_t||^2 and a quarter of its gradient, a chunk of windows or of rows at a time."""
    X, N, _ = s_XND.shape
    loss = s_XND.new_zeros((), dtype=torch.float64)
    grad_XND = torch.empty_like(s_XND) if is_trained else None
    for part in _parts(X, _chunk_of(s_XND) // (N * N)):
        s, t = s_XND[part], t_XNE[part]
        for rows in _parts(N, max(LEAST_ROWS, _chunk_of(s) // (len(s) * N))):
            apart_XRN = (s[:, rows] @ s.mT).sub_(t[:, rows] @ t.mT)
            loss += torch.dot(apart_XRN.view(-1), apart_XRN.view(-1))
            if grad_XND is not None:
                grad_XND[part, rows] = apart_XRN @ s
    return loss, grad_XND


def _run(numbers: list[int]) -> Any:
    """A slice where numbers follow each other: it copies nothing."""
    first, end = numbers[0], numbers[-1] + 1
    return slice(first, end) if end - first == len(numbers) else numbers


def _parts(count: int, size: int) -> Iterator[slice]:
    """Slices of at most so many, and at least one."""
    size = max(1, size)
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


def _chunk_of(x: Tensor) -> int:
    return CPU_CHUNK if x.device.type == "cpu" else GPU_CHUNK


def _dtype_of(x: Tensor) -> torch.dtype:
    """What relations are computed in."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
