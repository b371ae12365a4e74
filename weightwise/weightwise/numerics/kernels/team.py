"""The compiled loops over the parts of a tensor, on a team of OpenMP threads.

torch leaves its OpenMP threads spinning for a while after each of its own loops. Threads of another
kind would fight them for the cores: measured on two cores, they cost half of the gain.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numba as _numba
import numpy as np
import torch

from weightwise.numerics.kernels.loops import along_columns, along_rows, round_line, stream_line
from weightwise.numerics.kernels.loops import top_of as top_of_part

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST_SHARED = 1 << 17  # elements below which threads cost more than they save
FITTING_LAYERS = ("omp", "tbb")  # numba's third one dies of calls from two threads

numba: Any = _numba  # its types leave out the settings of threads
shared: Any = numba.njit(cache=True, nogil=True, error_model="numpy", parallel=True)
_is_forked = False


def _remember_fork() -> None:
    global _is_forked  # noqa: PLW0603, a process has one past
    _is_forked = True


# A team of OpenMP does not survive a fork, and numba ends a process that would use it.
os.register_at_fork(after_in_child=_remember_fork)


def _has_openmp() -> bool:
    try:
        from numba.np.ufunc import omppool  # type: ignore[attr-defined]  # noqa: F401
    except ImportError:
        return False
    return True


if numba.config.THREADING_LAYER == "default" and _has_openmp():
    numba.config.THREADING_LAYER = "omp"


def is_ready(num_elements: int) -> bool:
    """Whether a tensor of this size should be shared, and a team can do it."""
    if torch.get_num_threads() == 1 or num_elements < LEAST_SHARED or _is_forked:
        return False
    try:
        return numba.threading_layer() in FITTING_LAYERS
    except ValueError:  # no parallel loop of this process has run yet
        return numba.config.THREADING_LAYER in FITTING_LAYERS


@contextmanager
def threads_of_torch() -> Iterator[None]:
    """Use as many threads as torch does."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        numba.set_num_threads(before)


@shared
def tops_of(x: Any, part: Any) -> Any:
    """Bits of the largest magnitude of an array of shape (n,), part by part."""
    count = (x.shape[0] + part - 1) // part
    tops = np.zeros(count, np.int32)
    for i in numba.prange(count):
        tops[i] = top_of_part(x[i * part : (i + 1) * part])
    return tops.max()


@shared
def lines(
    x: Any, out: Any, part: Any, ups: Any, downs: Any, c: Any, keys: Any, streams: Any
) -> None:
    """Fake-quantize an array of shape (n,) with given factors, see `round_line`."""
    for i in numba.prange((x.shape[0] + part - 1) // part):
        first, last = i * part, min((i + 1) * part, x.shape[0])
        if streams:
            stream_line(x[first:last], out[first:last], ups[0], c)
        else:
            round_line(x[first:last], out[first:last], ups, downs, c, first, keys)


@shared
def rows(
    x: Any, out: Any, part: Any, length: Any, size: Any, c: Any, outer: Any, keys: Any, streams: Any
) -> Any:
    """Fake-quantize blocks along rows, see `along_rows`; a part holds whole rows."""
    count = (x.shape[0] + part - 1) // part
    tops = np.zeros(count, np.int32)
    for i in numba.prange(count):
        first, last = i * part, min((i + 1) * part, x.shape[0])
        tops[i] = along_rows(
            x[first:last], out[first:last], length, size, c, outer, first, keys, streams
        )
    return tops.max()


@shared
def columns(
    x: Any, out: Any, num_rows: Any, width: Any, size: Any, c: Any, outer: Any, keys: Any
) -> Any:
    """Fake-quantize blocks along columns, see `along_columns`.

    Parameters
    ----------
    x, out
        Arrays of shape (planes, length, inner).
    num_rows, width
        Rows and columns of a part; a part holds whole blocks.
    """
    planes, length, inner = x.shape
    down, across = (length + num_rows - 1) // num_rows, (inner + width - 1) // width
    count = planes * down * across
    tops = np.zeros(count, np.int32)
    for i in numba.prange(count):
        plane, rest = i // (down * across), i % (down * across)
        top, left = rest // across * num_rows, rest % across * width
        a, b = x[plane], out[plane]
        last = min(top + num_rows, length)
        place = ((plane * length + top) * inner, inner)
        tops[i] = along_columns(
            a[top:last], b[top:last], left, min(left + width, inner), size, c, outer, place, keys
        )
    return tops.max()
