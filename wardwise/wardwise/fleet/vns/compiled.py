"""How the kernels of this search are compiled: as those of `search`, but without the lock.

Two threads so run at once, each on arrays of its own. Which functions are `inlined`
and why kernels may not create arrays stands in `wardwise.fleet.search.compiled`.
"""

from __future__ import annotations

from numba import njit

kernel = njit(cache=True, nogil=True, _nrt=False)  # type: ignore[call-overload]
inlined = njit(cache=True, nogil=True, _nrt=False, forceinline=True)  # type: ignore[call-overload]
