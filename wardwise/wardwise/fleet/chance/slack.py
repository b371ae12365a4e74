"""The normal chain of a row of steps, and a test of insertions in constant time.

Step ``k`` starts at ``max(start[k-1] + increment[k], earliest[k])``; the increment is the
service before and the leg. Means and variances of arrivals follow by `start_moments`.
"""

from __future__ import annotations

import math

from wardwise.fleet.chance.normal import start_moments
from wardwise.fleet.compiled import inlined, kernel


@kernel
def arrivals(mean, var, more_mean, more_var, earliest, out_mean, out_var):  # type: ignore[no-untyped-def]
    """Mean and variance of the arrival at each of K steps, written into the last two.

    Parameters
    ----------
    mean, var
        Of the moment from which the first increment counts.
    more_mean, more_var, earliest
        Of shape (K,): increments, independent of each other, and earliest starts.
    out_mean, out_var
        Of shape (K,): filled with the moments of arrivals, before any wait.

    Returns
    -------
    Mean and variance of the last start.
    """
    for k in range(len(earliest)):
        out_mean[k] = mean + more_mean[k]
        out_var[k] = var + more_var[k]
        mean, var = start_moments(out_mean[k], out_var[k], earliest[k])
    return mean, var


@kernel
def suffix_minima(mean, var, latest, z, least_var, least_slack):  # type: ignore[no-untyped-def]
    """Least variance, and least ``latest - mean - z * sqrt(var)``, from each step on.

    All arrays have shape (K,); the last two are filled. A step without a last moment
    has `latest` infinite, and bounds neither.
    """
    lowest, slack = math.inf, math.inf
    for k in range(len(latest) - 1, -1, -1):
        if latest[k] < math.inf:
            lowest = min(lowest, var[k])
            slack = min(slack, latest[k] - mean[k] - z * math.sqrt(var[k]))
        least_var[k] = lowest
        least_slack[k] = slack


@inlined
def keeps_promises(more_mean, more_var, z, least_var, least_slack):  # type: ignore[no-untyped-def]
    """Whether steps keep ``mean + z * sqrt(var) <= latest`` when an insertion delays them.

    The insertion adds `more_mean` >= 0 to the mean and `more_var` >= 0 to the variance
    of every arrival behind it; the other two are the suffix minima of the first of them.

    Proof, for steps that never wait: arrival k gets mean m + M and variance v + V. The
    root is concave, so its growth sqrt(v + V) - sqrt(v) falls with v and is largest at
    the least variance. If M and z times that growth stay within the least slack, then
    m + M + z sqrt(v + V) <= m + z sqrt(v) + slack <= latest for every k.

    Where steps wait, a delay of one start is at most that of its arrival on every day,
    but matched moments do not follow exactly: confirm a chosen place by `arrivals`.
    """
    if least_slack == math.inf:
        return True
    growth = math.sqrt(least_var + more_var) - math.sqrt(least_var)
    return more_mean + z * growth <= least_slack
