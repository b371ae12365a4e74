"""How the inner loops are compiled.

The loops receive their arrays in tuples. Counting the references of each array
that a function takes from a tuple costs more than the loop itself (measured:
refresh of a chain of eight 320 ns with counting, 145 ns without), so kernels do
without. They may therefore neither create nor return arrays; whoever needs a
new array makes it in a function compiled by plain `njit`. They run without Python's
lock, so that threads may search at once, each on arrays of its own.

`inlined` functions are compiled alone and then merged into their callers, best for
hot loops. `expanded` ones are copied into their callers before anything is compiled,
which saves a second of compilation each.
"""

from __future__ import annotations

from numba import njit

kernel = njit(cache=True, nogil=True, _nrt=False)  # type: ignore[call-overload]
inlined = njit(cache=True, nogil=True, _nrt=False, forceinline=True)  # type: ignore[call-overload]
expanded = njit(inline="always")
