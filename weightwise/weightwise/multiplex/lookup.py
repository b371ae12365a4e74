"""A term of attention's logits that queries look up: contextual relative position.

The logit of query i and key j gets ``q_i . table[:, b(i, j)]`` added. The product with the table
has a column for every bucket b, of which there are few; the term itself has one for every key. So
the term is kept as table and places until it is needed, perhaps for some images only.
"""

# Shapes: B images, M heads, N queries, T keys, d channels of a head, L buckets

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LookUp:
    """Table and places of a term.

    Parameters
    ----------
    table
        A column for every bucket, the same for all heads, with the factor on queries in it.
    place
        Place of every query and key in the products of all queries with the table, see `places`.
    """

    table: Tensor
    place: Tensor

    def of(self, q_BMNd: Tensor) -> Tensor:
        """Compute the term.

        Parameters
        ----------
        q_BMNd
            Queries, unscaled.

        Returns
        -------
        Shape (B, M, N, T).
        """
        B, M, N, _ = q_BMNd.shape
        product_BMNL = q_BMNd @ self.table
        # One look-up in the products of all queries takes half the time of one for every query.
        term_BMX = product_BMNL.flatten(0, 1).flatten(1).index_select(1, self.place)
        return term_BMX.view(B, M, N, -1)

    def products(self, q_BMNd: Tensor) -> Tensor:
        """Products of queries with the table, heads first, (M, B, N L); without a gradient."""
        B, M, N, _ = q_BMNd.shape
        product_MXL = q_BMNd.new_empty(M, B * N, self.table.shape[1])
        for q_BNd, product_XL in zip(q_BMNd.unbind(1), product_MXL.unbind(0), strict=True):
            torch.mm(q_BNd.flatten(0, 1), self.table, out=product_XL)
        return product_MXL.view(M, B, -1)


def places(bucket_NT: Tensor, num_buckets: int) -> Tensor:
    """Places for `LookUp`.

    Parameters
    ----------
    bucket_NT
        Bucket of every query and key, int64.
    num_buckets
        Buckets L.

    Returns
    -------
    int64 tensor of shape (N T,): bucket plus L times the query.
    """
    first_N = num_buckets * torch.arange(len(bucket_NT), device=bucket_NT.device)
    return (bucket_NT + first_N[:, None]).flatten()
