"""Factors of random times for many scenarios at once.

`Spread.quantile` states them. Quantiles of the gamma law take some 1.5 us each; here those
of gamma, log-normal and normal laws are interpolated by cubics on an even grid of normal
scores, on which they are smooth: ``factor = Q(Phi(score))``. Scores of uniform numbers
are interpolated, too, by cubics in the smaller tail, 32 to each power of two, which the
bits of a double say where to find; their error is 2e-9. The error of a factor is below
2e-6 of itself or of the mean, whichever is more; factors are kept as float32, whose own
error is 6e-8.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.special import gammainccinv, gammaincinv, ndtr, ndtri

from wardwise.fleet.chance.luck import NUMBERS_PER_COUNT, fill_uniforms
from wardwise.fleet.randomness import Law

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from wardwise.fleet.randomness import Spread

# The least uniform number, 2**-53, has the score -8.21.
MOST_SCORE = 8.3
NUM_FACTOR_PIECES = 1024
# Other laws have corners, which cubics round off.
SMOOTH = (Law.GAMMA, Law.LOGNORMAL, Law.NORMAL)
PIECE_WIDTH = 2 * MOST_SCORE / NUM_FACTOR_PIECES
# Tails from 2**-53 up to 1/2; a piece is told by the exponent and five bits of a double.
NUM_POWERS = 52
NUM_PARTS = 32
REST_BITS = np.uint64(47)
REST_MASK = np.uint64(2**47 - 1)
REST_STEP = 2.0**-47
FIRST_PIECE = np.float64(2.0**-53).view(np.uint64) >> REST_BITS
# So many numbers are drawn at once: a multiple of 4.
STRIP = 512
# Cubics are fixed by their values here, from one end of a piece to the other.
NODES = np.array([0.0, 1 / 3, 2 / 3, 1.0])


def fill_factors(
    spread: Spread, cv: float, uniform: NDArray[np.float64], out: NDArray[np.float32]
) -> None:
    """Write the factors at uniform numbers of shape (B,) into `out` of the same shape."""
    if spread.law in SMOOTH and cv > 0 and spread.cv > 0:
        _fill_factors(factor_pieces(spread.law, cv), normal_scores(uniform), out)
    else:
        out[:] = spread.quantile(uniform, cv)


def normal_scores(uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal quantiles at numbers of 2**-53 to 1 - 2**-53."""
    out = np.empty_like(uniform)
    _fill_scores(score_pieces(), uniform, out)
    return out


@lru_cache(maxsize=2048)
def factor_pieces(law: Law, cv: float) -> NDArray[np.float64]:
    """Cubics of a smooth law's factor on the grid of scores, shape (1024, 4)."""

    def factor(at: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = -MOST_SCORE + at * PIECE_WIDTH
        if law is Law.NORMAL:
            return 1 + cv * scores  # cut off at 0 where it is drawn
        if law is Law.LOGNORMAL:
            variance = np.log1p(cv**2)
            return np.asarray(np.exp(np.sqrt(variance) * scores - variance / 2))
        # Each half from its own tail, which keeps digits.
        low = gammaincinv(cv**-2, ndtr(np.minimum(scores, 0.0)))
        high = gammainccinv(cv**-2, ndtr(-np.maximum(scores, 0.0)))
        return np.asarray(np.where(scores < 0, low, high) * cv**2)

    return _pieces(factor, NUM_FACTOR_PIECES)


@lru_cache(maxsize=1)
def score_pieces() -> NDArray[np.float64]:
    """Cubics of the normal quantile in the lower tail, and its 0 at 1/2."""

    def score(at: NDArray[np.float64]) -> NDArray[np.float64]:
        # The end of the last piece of a power is the start of the next power.
        power = np.minimum(at // NUM_PARTS, NUM_POWERS - 1)
        return np.asarray(ndtri(2.0 ** (power - 53) * (1 + at / NUM_PARTS - power)))

    return np.vstack([_pieces(score, NUM_POWERS * NUM_PARTS), np.zeros((1, len(NODES)))])


def _pieces(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int
) -> NDArray[np.float64]:
    """Cubics between whole numbers, as coefficients of shape (count, 4), lowest first."""
    values = function(np.arange(count)[:, None] + NODES)
    return np.ascontiguousarray(values @ np.linalg.inv(np.vander(NODES, increasing=True)).T)


@njit(cache=True, nogil=True)
def _fill_scores(pieces, uniform, out):  # type: ignore[no-untyped-def]
    for s in range(len(uniform)):
        tail = min(uniform[s], 1.0 - uniform[s])
        bits = np.float64(tail).view(np.uint64)
        i = np.int64((bits >> REST_BITS) - FIRST_PIECE)
        x = np.float64(bits & REST_MASK) * REST_STEP
        score = pieces[i, 0] + x * (pieces[i, 1] + x * (pieces[i, 2] + x * pieces[i, 3]))
        out[s] = score if uniform[s] < 0.5 else -score


@njit(cache=True, nogil=True)
def _fill_factors(pieces, scores, out):  # type: ignore[no-untyped-def]
    for s in range(len(scores)):
        at = (scores[s] + MOST_SCORE) * (1.0 / PIECE_WIDTH)
        i = np.int64(at)
        x = at - i
        value = pieces[i, 0] + x * (pieces[i, 1] + x * (pieces[i, 2] + x * pieces[i, 3]))
        out[s] = np.float32(max(value, 0.0))


@njit(cache=True, nogil=True)
def fill_smooth(keys, which, pieces, tails, counted, table):  # type: ignore[no-untyped-def]
    """Draw rows of a table without leaving compiled code, strip by strip.

    Parameters
    ----------
    keys
        Of each row's stream, shape (R, 2).
    which
        Shape (R,): which of `pieces`, of shape (K, 1024, 4), are those of a row; below 0
        the row is left as it is.
    tails
        As of `score_pieces`.
    counted
        Counter of the first column: a fourth of the first scenario.
    table
        Shape (R, B), float32.
    """
    numbers = np.empty(STRIP)
    for row in range(len(which)):
        if which[row] >= 0:
            for low in range(0, table.shape[1], STRIP):
                out = table[row, low : low + STRIP]
                strip = numbers[: len(out)]
                start = counted + low // NUMBERS_PER_COUNT
                fill_uniforms(keys[row, 0], keys[row, 1], start, strip)
                _fill_scores(tails, strip, strip)
                _fill_factors(pieces[which[row]], strip, out)
