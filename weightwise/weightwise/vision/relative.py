"""Terms of relative position, from queries (iRPE, Wu et al., arXiv 2107.14222).

Two places of a map that lie x rows and y columns apart belong to the bucket (g(x), g(y)), where g
is exact nearby and logarithmic far away (their equation 18)::

    g(x) = round(x)                                                        if |x| <= alpha
    g(x) = sign(x) min(beta, round(alpha + ln(|x| / alpha) / ln(gamma / alpha) (beta - alpha)))

with alpha = 1.9, beta = 2 alpha and gamma = 8 alpha in Mini-DeiT, cut to whole numbers: 0 and 1
stay, 2 and 3 become 2, all beyond becomes 3. That makes 7 x 7 buckets for maps of any size. A class
token, which lies nowhere, has a bucket of its own.

The logit of query i and key j gets q_i . table[:, bucket(i, j)] added. All heads of an execution
have one table, so that the term costs a product with 49 columns and a look-up.
"""

# Shapes: N queries and keys, d channels of a head, R rows, S columns, X = N^2 pairs

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightwise.multiplex.lookup import LookUp

BORDERS = (1, 2, 4)  # smallest distances that reach 1, 2 and 3, see the module
REACH = len(BORDERS)
SIDE = 2 * REACH + 1


def num_buckets(*, class_token: bool) -> int:
    """Columns of a table."""
    return SIDE**2 + class_token


def piece(offset: Tensor) -> Tensor:
    """Map distances along an axis to -3 ... 3: the function g above.

    Parameters
    ----------
    offset
        Whole numbers, of any shape.

    Returns
    -------
    Tensor of the same shape and type.
    """
    distance = offset.abs()
    reached = torch.zeros_like(distance)
    for border in BORDERS:
        reached = reached + (distance >= border)
    return offset.sign() * reached


def buckets(
    rows: int, columns: int, *, class_token: bool, device: torch.device | None = None
) -> Tensor:
    """Bucket of every query and key of a map.

    Parameters
    ----------
    rows, columns
        Size of the map, at least 1.
    class_token
        Whether a token before those of the map belongs to no place.
    device
        Where the result lies.

    Returns
    -------
    int64 tensor of shape (N, N), whose entry (i, j) is 7 (g(row_i - row_j) + 3) +
    g(column_i - column_j) + 3, or 49 where one of the two is the class token.
    """
    row_R = torch.arange(rows, device=device)
    column_S = torch.arange(columns, device=device)
    row_RR = piece(row_R[:, None] - row_R) + REACH
    column_SS = piece(column_S[:, None] - column_S) + REACH
    bucket_RSRS = SIDE * row_RR[:, None, :, None] + column_SS[None, :, None, :]
    bucket_NN = bucket_RSRS.reshape(rows * columns, rows * columns)
    return F.pad(bucket_NN, (1, 0, 1, 0), value=SIDE**2) if class_token else bucket_NN


class KeyTerm(nn.Module):
    """Table of an execution; it starts at zero, where it adds nothing.

    Parameters
    ----------
    head_width
        Channels d of a head.
    class_token
        See `buckets`.
    """

    def __init__(self, head_width: int, *, class_token: bool) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(head_width, num_buckets(class_token=class_token)))

    def forward(self, place_X: Tensor) -> LookUp:
        """Return what is added to logits.

        Parameters
        ----------
        place_X
            Result of `places` for these buckets.

        Returns
        -------
        Term of unscaled queries; it comes with their factor ``1 / sqrt(d)``.
        """
        return LookUp(table=self.table * self.table.shape[0] ** -0.5, place=place_X)
