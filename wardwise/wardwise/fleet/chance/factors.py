"""Factors of random times for many scenarios at once.

`Spread.quantile` states them. Quantiles of the gamma law take some 1.5 us each; here they
are interpolated by cubics on an even grid of normal scores, on which they are smooth:
``factor = Q(Phi(score))``. The error is below 2e-6 of the factor or of the mean, which
ever is more; factors are kept as float32, whose own error is 6e-8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.special import gammainccinv, gammaincinv, ndtr, ndtri

from wardwise.fleet.randomness import Law

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from wardwise.fleet.randomness import Spread

# The least uniform number, 2**-53, has the score -8.21.
MOST_SCORE = 8.3
NUM_NODES = 1024
NODE_STEP = 2 * MOST_SCORE / (NUM_NODES - 1)


def fill_factors(
    spread: Spread, cv: float, uniform: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    """Write the factors at uniform numbers of shape (B,) into `out` of the same shape."""
    if spread.law is Law.GAMMA and cv > 0 and spread.cv > 0:
        _interpolate(_gamma_nodes(cv), ndtri(uniform), out)
    else:
        out[:] = spread.quantile(uniform, cv)


@lru_cache(maxsize=2048)
def _gamma_nodes(cv: float) -> NDArray[np.float64]:
    """Factors at the nodes of the grid; each half from its own tail, which keeps digits."""
    scores = np.linspace(-MOST_SCORE, MOST_SCORE, NUM_NODES)
    shape = cv**-2
    low = gammaincinv(shape, ndtr(np.minimum(scores, 0.0)))
    high = gammainccinv(shape, ndtr(-np.maximum(scores, 0.0)))
    return np.asarray(np.where(scores < 0, low, high) * cv**2)


@njit(cache=True, _nrt=False, nogil=True)  # type: ignore[call-overload]
def _interpolate(nodes, scores, out):  # type: ignore[no-untyped-def]
    """Cubics through the four nodes around each score (Lagrange), not below 0."""
    for s in range(len(scores)):
        at = (scores[s] + MOST_SCORE) / NODE_STEP
        i = min(max(int(at), 1), NUM_NODES - 3)
        x = at - i
        a, b, c, d = nodes[i - 1], nodes[i], nodes[i + 1], nodes[i + 2]
        # Newton's form of the polynomial through x = -1, 0, 1, 2.
        second = (a - 2.0 * b + c) * 0.5
        third = (d - 3.0 * c + 3.0 * b - a) / 6.0
        value = b + x * ((c - b) + (x - 1.0) * (second + (x + 1.0) * third))
        out[s] = np.float32(max(value, 0.0))
