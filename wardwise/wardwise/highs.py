"""HiGHS (extra ``exact``), silent and on one thread."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


def quiet_highs(time_limit: float) -> tuple[Any, Any]:
    """Load HiGHS, which must be installed.

    Parameters
    ----------
    time_limit
        Seconds.

    Returns
    -------
    The module, and a solver that proves its optima.
    """
    import highspy

    with _stdout_on_stderr():  # it greets when it is made, whatever its options
        solver: Any = highspy.Highs()  # type: ignore[no-untyped-call]
    for name, value in (
        ("output_flag", False), ("threads", 1), ("time_limit", float(time_limit)),
        ("mip_rel_gap", 1e-9), ("mip_abs_gap", 1e-7), ("random_seed", 0),
    ):  # fmt: skip
        solver.setOptionValue(name, value)
    return highspy, solver


@contextmanager
def _stdout_on_stderr() -> Iterator[None]:
    """Standard output is for results: what libraries write there goes to standard error."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
