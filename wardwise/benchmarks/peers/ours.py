"""Our own methods under the same clock as the peers."""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import wardwise
from wardwise.fleet.search import watch
from wardwise.fleet.solvers import METHODS, solve, warm_up

if TYPE_CHECKING:
    from wardwise.fleet.plan import Plan
    from wardwise.fleet.problem import Instance

# The peers are stopped by the CPU time of their thread, and so are we: the machine may
# be shared.
watch.time = SimpleNamespace(perf_counter=time.thread_time)

# Long enough to run every kernel of a method once, on an instance of its own.
WARM_UP_S = 0.2
_WARM: set[tuple[str, str]] = set()


def is_ours(solver: str) -> bool:
    """Whether this is one of our methods; PyVRP is called without our adapter."""
    return solver in METHODS and solver != "pyvrp"


def run(
    instance: Instance, method: str, objective: str, budget_s: float, seed: int
) -> tuple[Plan, float]:
    """The plan after `budget_s`, and the CPU seconds of this thread that it took."""
    warm_up()
    if (method, objective) not in _WARM:
        solve(instance, method=method, objective=objective, time_limit=WARM_UP_S, seed=seed)
        _WARM.add((method, objective))
    start = time.thread_time()
    plan = solve(instance, method=method, objective=objective, time_limit=budget_s, seed=seed)
    return plan, time.thread_time() - start


@cache
def version() -> str:
    """Version of the package and a digest of the search's source: other code, other results."""
    folder = Path(wardwise.__file__).parent / "fleet" / "search"
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.read_bytes())
    return f"{wardwise.__version__}+{digest.hexdigest()[:8]}"
