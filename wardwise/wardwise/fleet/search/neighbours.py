"""Which requests lie near each other, in space and in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats, Ints, Packed

# Weights of waiting and of coming too late, per unit of time, beside distance (Vidal et al. 2013).
WAIT_WEIGHT, LATE_WEIGHT = 0.2, 1.0


def proximity(packed: Packed, nodes: Ints) -> Floats:
    """Cost of visiting one node right after another, over `nodes` (M), shape (M, M).

    Distance, and the waiting and the delay that the windows force at least:
    ``d_ij + 0.2 max(e_j - s_i - t_ij - l_i, 0) + max(e_i + s_i + t_ij - l_j, 0)``.
    """
    pairs = np.ix_(packed.place[nodes], packed.place[nodes])
    distance, travel = packed.distance[pairs], packed.travel[pairs]
    earliest, latest = packed.earliest[nodes], packed.latest[nodes]
    leave = packed.service[nodes][:, None] + travel
    wait = np.maximum(earliest[None, :] - (latest[:, None] + leave), 0.0)
    late = np.maximum(earliest[:, None] + leave - latest[None, :], 0.0)
    near: Floats = packed.metre_price * distance + WAIT_WEIGHT * wait + LATE_WEIGHT * late
    return near


def closeness(packed: Packed, nodes: Ints) -> Floats:
    """Distance between any two of `nodes`, the smaller of both directions; (M, M)."""
    pairs = np.ix_(packed.place[nodes], packed.place[nodes])
    distance: Floats = np.minimum(packed.distance[pairs], packed.distance_to[pairs])
    return distance


def nearest(cost: Floats, nodes: Ints, num_nodes: int, count: int) -> Ints:
    """For each of `nodes` (M) the `count` others nearest to it; shape (`num_nodes`, count).

    Parameters
    ----------
    cost
        Shape (M, M), row = from.

    Returns
    -------
    array
        Rows of nodes that are not asked for stay zero. With fewer than `count`
        others there are as many columns as others.
    """
    count = max(min(count, len(nodes) - 1), 0)
    near = np.zeros((num_nodes, count), dtype=np.int64)
    if count:
        others = cost.copy()
        np.fill_diagonal(others, np.inf)
        near[nodes] = nodes[np.argsort(others, axis=1, kind="stable")[:, :count]]
    return near
