"""Single results of the static comparison: their file formats and the gap to the best known."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, NamedTuple

from .found import DISTANCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

SOLOMON = "solomon"
GEHRING_HOMBERGER = "gh"
COLUMNS = (
    "set", "instance", "objective", "solver", "version", "budget_s", "seed", "vehicles",
    "distance", "gap_pct", "feasible", "cpu_s",
)  # fmt: skip


class Key(NamedTuple):
    """What a result is the result of."""

    set: str
    instance: str
    objective: str
    solver: str
    version: str
    budget_s: float
    seed: int


class Result(NamedTuple):
    """What a solver had within its budget; no feasible plan has no vehicles and no distance.

    `cpu_s` is when the plan was found (peers) or handed over (ours).
    """

    key: Key
    vehicles: int | None
    distance: float | None
    cpu_s: float | None

    @property
    def is_feasible(self) -> bool:
        """Whether there is a plan, and the checker accepts it."""
        return self.vehicles is not None


class Best(NamedTuple):
    """Best known vehicles and distance."""

    vehicles: int
    distance: float


def read_best(path: Path) -> dict[tuple[str, str], Best]:
    """Best known values by instance and objective of the Solomon files."""
    names = {"dist": DISTANCE, "hier": "hierarchical"}
    with path.open(encoding="utf-8", newline="") as file:
        return {
            (row["instance"], names[row["objective"]]): Best(
                int(row["vehicles"]), float(row["value"])
            )
            for row in csv.DictReader(file)
            if row["set"] == "solomon" and row["objective"] in names
        }


def gap_pct(result: Result, best: Mapping[tuple[str, str], Best]) -> float | None:
    """Distance above the best known in percent; for fewest vehicles only where they are equal."""
    known = best.get((result.key.instance, result.key.objective))
    if known is None or result.distance is None:
        return None
    if result.key.objective != DISTANCE and result.vehicles != known.vehicles:
        return None
    return 100 * (result.distance / known.distance - 1)


def append(path: Path, results: Iterable[Result]) -> None:
    """Add results to a cache, a JSON object a line, in one write."""
    lines = [json.dumps({**r._asdict(), "key": r.key._asdict()}) + "\n" for r in results]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))


def read(path: Path) -> dict[Key, Result]:
    """Results in a cache; a line that an interruption has cut off is passed over."""
    found = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            key = Key(**row.pop("key"))
            found[key] = Result(key, **row)
    return found


def write_csv(path: Path, results: Sequence[Result], best: Mapping[tuple[str, str], Best]) -> None:
    """Write all single results as a table."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for result in sorted(results, key=lambda result: result.key):
            key, gap = result.key, gap_pct(result, best)
            table.writerow(
                [
                    *key[:5], f"{key.budget_s:g}", key.seed, result.vehicles,
                    _rounded(result.distance, 3), _rounded(gap, 4), int(result.is_feasible),
                    _rounded(result.cpu_s, 2),
                ]
            )  # fmt: skip


def _rounded(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
