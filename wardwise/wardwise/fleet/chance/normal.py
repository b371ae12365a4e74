"""Normal times, compiled: what waiting does to their moments, and how late they are.

A robot that comes before the earliest start waits, so service starts at
``max(A, earliest)``. Of a normal arrival ``A`` with mean ``m`` and variance ``v`` the
first two moments of that maximum are, with ``d = m - earliest``, ``s = sqrt(v)`` and
``a = d / s`` (Clark 1961, Operations Research 9(2), for a constant second argument)::

    E[start] - earliest        = d Phi(a) + s phi(a)
    E[(start - earliest) ** 2] = (d * d + v) Phi(a) + d s phi(a)

Counted from the earliest start the squares are of the size of the variance wherever
waiting matters, so that their difference keeps its digits late in a long day.
"""

from __future__ import annotations

import math

from scipy.special import ndtri

from wardwise.fleet.compiled import inlined
from wardwise.fleet.randomness import MOST_SHARE

# Late by less is rounding; the tolerance of the checker.
TOLERANCE_S = 1e-6
# Beyond so many standard deviations waiting is certain or ruled out: Phi(-8) = 6e-16.
FAR = 8.0
ROOT_HALF = math.sqrt(0.5)
PEAK = 1 / math.sqrt(2 * math.pi)


@inlined
def start_moments(mean, var, earliest):  # type: ignore[no-untyped-def]
    """Mean and variance of the start ``max(A, earliest)`` of a normal arrival ``A``.

    Parameters
    ----------
    mean, var
        Of the arrival, in s and s2; with variance 0 the start is certain.
    earliest
        First moment at which service may start, in s.

    Returns
    -------
    Mean in s, at least both arguments, and variance in s2, 0 to `var`.
    """
    ahead = mean - earliest
    if var <= 0.0:
        return max(mean, earliest), 0.0
    deviation = math.sqrt(var)
    a = ahead / deviation
    if a >= FAR:
        return mean, var
    if a <= -FAR:
        return earliest, 0.0
    share = 0.5 * math.erfc(-a * ROOT_HALF)
    peak = PEAK * math.exp(-0.5 * a * a)
    # Both moments in units of the deviation.
    first = a * share + peak
    second = (a * a + 1.0) * share + a * peak
    spread = min(max(second - first * first, 0.0), 1.0)
    return earliest + deviation * max(first, a, 0.0), var * spread


@inlined
def late_probability(mean, var, due):  # type: ignore[no-untyped-def]
    """Probability that a normal time lies after `due`, by more than rounding."""
    over = mean - due - TOLERANCE_S
    if var <= 0.0:
        return 1.0 if over > 0.0 else 0.0
    return 0.5 * math.erfc(-over * ROOT_HALF / math.sqrt(var))


@inlined
def expected_lateness(mean, var, due):  # type: ignore[no-untyped-def]
    """Mean of the part of a normal time that lies after `due`, in s.

    With ``b = (mean - due) / sqrt(var)`` it is
    ``(mean - due) Phi(b) + sqrt(var) phi(b)``.
    """
    over = mean - due
    if var <= 0.0:
        return max(over, 0.0)
    deviation = math.sqrt(var)
    b = over / deviation
    if b >= FAR:
        return over
    if b <= -FAR:
        return 0.0
    share = 0.5 * math.erfc(-b * ROOT_HALF)
    return deviation * max(b * share + PEAK * math.exp(-0.5 * b * b), b, 0.0)


def z_of(share: float) -> float:
    """Standard deviations between a mean and the time exceeded with probability `share`.

    Raises
    ------
    ValueError
        If the share is not above 0 and at most 0.5.
    """
    if not 0 < share <= MOST_SHARE:
        raise ValueError(f"share: expected above 0 and at most {MOST_SHARE:g}, got {share}")
    return -float(ndtri(share))
