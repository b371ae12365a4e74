"""Which requests lie near each other, in space and in time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from wardwise.fleet.search.packed import is_request

if TYPE_CHECKING:
    from wardwise.fleet.search.packed import Floats, Ints, Packed

# Weights of waiting and of coming too late, per unit of time, beside distance (Vidal et al. 2013).
WAIT_WEIGHT, LATE_WEIGHT = 0.2, 1.0


def proximity(packed: Packed) -> Floats:
    """Cost of visiting node ``j`` right after node ``i``, shape (N, N).

    Distance, and the waiting and the delay that the windows force at least:
    ``d_ij + 0.2 max(e_j - s_i - t_ij - l_i, 0) + max(e_i + s_i + t_ij - l_j, 0)``.
    """
    pairs = np.ix_(packed.place, packed.place)
    distance, travel = packed.distance[pairs], packed.travel[pairs]
    leave = packed.service[:, None] + travel
    wait = np.maximum(packed.earliest[None, :] - (packed.latest[:, None] + leave), 0.0)
    late = np.maximum(packed.earliest[:, None] + leave - packed.latest[None, :], 0.0)
    near: Floats = packed.metre_price * distance + WAIT_WEIGHT * wait + LATE_WEIGHT * late
    return near


def nearest(cost: Floats, packed: Packed, count: int) -> Ints:
    """For every node the `count` requests nearest to it by `cost`, itself excepted; (N, count).

    Of a transfer its two nodes count as they lie; rows of the depot are filled, too.
    """
    requests = np.flatnonzero(is_request(packed))
    count = max(min(count, len(requests) - 1), 0)
    columns = cost[:, requests].copy()
    columns[requests, np.arange(len(requests))] = np.inf
    order = np.argsort(columns, axis=1, kind="stable")[:, :count]
    near: Ints = requests[order]
    return near
