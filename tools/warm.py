"""Compile the searches side by side, once, before every process of the tests would by itself."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

from wardwise.fleet.solvers import warm_up

# What two processes have to do at the same time: each takes about as long as the other.
METHODS = (("vns",), ("tabu", "ruin"))


def compile_all(methods: tuple[str, ...]) -> None:
    """Compile some methods, or load them from disk."""
    for method in methods:
        warm_up(method)


if __name__ == "__main__":
    with ProcessPoolExecutor(len(METHODS)) as pool:
        list(pool.map(compile_all, METHODS))
