"""Progressive contraction: shrink a model step by step under bounds (TinyViT, section 3.2).

The search is the paper's: candidates around the current models, those within the bounds of the
step scored, the best ones the base of the next, stricter step. The paper does not give its
neighbourhood, its bounds and its scores in numbers, and no code. Ours, therefore:

* Neighbours differ from a base in at most two contraction factors (`Space`).
* Bounds go from the costs of the start to the given ones in equal parts, three by default.
* Candidates are ranked by score, then by fewer MACs, then by their factors, so that a search has
  one result. Where scoring is a training, only the most promising candidates get one, by a score
  that needs no data (`expressivity`).

Latency is measured on the device at hand, only for candidates that the other bounds let pass.
Whatever was measured or scored is in a journal, and a search that was killed goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from math import inf, isnan
from typing import TYPE_CHECKING

from weightwise.vision.config import TinyViTConfig
from weightwise.vision.contract_journal import Journal
from weightwise.vision.contract_score import expressivity
from weightwise.vision.contract_space import Space, neighbours
from weightwise.vision.counts import macs, num_parameters

if TYPE_CHECKING:
    from pathlib import Path

Score = Callable[[TinyViTConfig], float]
Measure = Callable[[Sequence[TinyViTConfig]], Sequence[float]]
Map = Callable[[Score, Sequence[TinyViTConfig]], Iterable[float]]
MEASURED_TOGETHER = 4  # candidates whose runs are interleaved


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Upper bounds of the result; None for what may be anything.

    Parameters
    ----------
    num_params
        Parameters, head included.
    macs
        Multiply-accumulates for one image, `weightwise.vision.Macs.total`.
    latency_s
        Seconds that the given measure takes.
    """

    num_params: float | None = None
    macs: float | None = None
    latency_s: float | None = None

    def __post_init__(self) -> None:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if not given:
            raise ValueError("bounds: expected at least one of num_params, macs, latency_s")
        for name, value in given.items():
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: expected a finite number above 0, got {value}")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How a search goes.

    Parameters
    ----------
    space
        What a neighbour is.
    steps
        Steps from the start to the bounds, at least 1.
    keep
        Models that are bases of the next step, at least 1.
    limit
        Candidates of a step that are scored, those of most `expressivity`; all by default.
    """

    space: Space = field(default_factory=Space)
    steps: int = 3
    keep: int = 1
    limit: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "keep", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model, what it costs and how good it is.

    Parameters
    ----------
    config
        Its factors.
    num_params, macs
        Its costs.
    latency_s
        Measured seconds; None where no bound asks for them.
    score
        More is better.
    """

    config: TinyViTConfig
    num_params: int
    macs: int
    latency_s: float | None
    score: float


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a search stands.

    Parameters
    ----------
    step, steps
        The current one, from 1, and all.
    done, total
        Candidates of this step that are scored, and all.
    best
        The best one of this step so far; None before the first.
    """

    step: int
    steps: int
    done: int
    total: int
    best: Candidate | None


def contract(
    start: TinyViTConfig,
    bounds: Bounds,
    *,
    score: Score = expressivity,
    measure: Measure | None = None,
    plan: Plan | None = None,
    journal: Path | None = None,
    map: Map = map,  # noqa: A002, it takes the place of the built-in one
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> list[list[Candidate]]:
    """Search for the best model within bounds, from a larger one.

    Parameters
    ----------
    start
        Where the search begins.
    bounds
        Of the result.
    score
        How good a model is; more is better. A short training on a part of the data, say.
    measure
        Seconds of each of some models, see `weightwise.vision.contract_latency.Latency`; for a
        bound on latency.
    plan
        How the search goes.
    journal
        File that takes what has been measured and scored; made if missing. A second call with the
        same arguments goes on from there.
    map
        Applies the score to candidates and yields results in their order: the built-in function,
        that of a process pool, or `ray_map`.
    on_progress
        Called when a step begins and after each score.

    Returns
    -------
    list of list
        Of each step the scored candidates, best first; the result is ``found[-1][0]``.

    Raises
    ------
    ValueError
        If no way leads to the bounds, a latency is bounded and there is no measure, or the journal
        is of another search.
    """
    plan = plan or Plan()
    if bounds.latency_s is not None and measure is None:
        raise ValueError("measure: expected one for a bound on latency_s, got None")
    header = {
        "start": asdict(start), "bounds": asdict(bounds), "plan": asdict(plan),
        "score": getattr(score, "__qualname__", type(score).__name__),
    }  # fmt: skip
    search = _Search(start, bounds, score, measure, plan, Journal(journal, header))
    bases, found = [start], []
    for step in range(1, plan.steps + 1):
        configs = search.candidates(bases, step)
        total, scored = len(configs), list[Candidate]()
        on_progress(Progress(step=step, steps=plan.steps, done=0, total=total, best=None))
        for candidate in search.scored(configs, map):
            scored.append(candidate)
            best = min(scored, key=_rank)
            done = len(scored)
            on_progress(Progress(step=step, steps=plan.steps, done=done, total=total, best=best))
        found.append(sorted(scored, key=_rank))
        bases = [one.config for one in found[-1][: plan.keep]]
    return found


def _rank(one: Candidate) -> tuple[float, int, str]:
    """Sorts the best first; equal scores by fewer MACs, then by the factors."""
    return -one.score, one.macs, repr(one.config)


class _Search:
    """What the steps of a search share."""

    def __init__(
        self,
        start: TinyViTConfig,
        bounds: Bounds,
        score: Score,
        measure: Measure | None,
        plan: Plan,
        journal: Journal,
    ) -> None:
        self.start, self.bounds, self.plan = start, bounds, plan
        self._score, self._measure, self._journal = score, measure, journal

    def bounds_of(self, step: int) -> Bounds:
        """The bounds of a step: equal parts of the way from the costs of the start."""
        share = step / self.plan.steps

        def between(first: float, last: float | None) -> float | None:
            # A cost that the start already meets must not grow beyond its bound.
            return None if last is None else last + (1 - share) * max(0.0, first - last)

        latency_s = None
        if self.bounds.latency_s is not None:
            latency_s = between(self._latencies([self.start])[0], self.bounds.latency_s)
        return Bounds(
            num_params=between(num_parameters(self.start), self.bounds.num_params),
            macs=between(macs_of(self.start), self.bounds.macs),
            latency_s=latency_s,
        )

    def candidates(self, bases: Sequence[TinyViTConfig], step: int) -> list[TinyViTConfig]:
        """Neighbours within the bounds of a step; with a limit, those of most expressivity.

        While there is none, the neighbour that comes nearest to the bounds is the base.

        Raises
        ------
        ValueError
            If no neighbour comes nearer.
        """
        bounds = self.bounds_of(step)
        while True:
            around = {one: None for base in bases for one in neighbours(base, self.plan.space)}
            small = [one for one in around if _excess(one, bounds) <= 1]
            if not small:
                nearest = min(around, key=lambda one: _excess(one, bounds))
            elif bounds.latency_s is None:
                return _promising(small)[: self.plan.limit]
            else:
                measured = self._until_enough(_promising(small), bounds.latency_s)
                fast = [one for one, latency_s in measured.items() if latency_s <= bounds.latency_s]
                if fast:
                    return fast[: self.plan.limit]
                nearest = min(measured, key=lambda one: measured[one])
            if nearest in bases:
                raise ValueError(
                    f"bounds: expected a model within {bounds} at step {step} of "
                    f"{self.plan.steps}, found none; allow larger changes in space"
                )
            bases = [nearest]

    def _until_enough(
        self, configs: Sequence[TinyViTConfig], bound_s: float
    ) -> dict[TinyViTConfig, float]:
        """Seconds of models, measured until as many as the limit are within a bound."""
        # Seconds grow with MACs, more or less: what that says is too slow is measured last.
        second_per_mac = self._latencies([self.start])[0] / macs_of(self.start)
        likely = sorted(configs, key=lambda one: macs_of(one) * second_per_mac > bound_s)
        measured: dict[TinyViTConfig, float] = {}
        for first in range(0, len(likely), MEASURED_TOGETHER):
            group = likely[first : first + MEASURED_TOGETHER]
            measured.update(zip(group, self._latencies(group), strict=True))
            num_fast = sum(one <= bound_s for one in measured.values())
            if self.plan.limit is not None and num_fast >= self.plan.limit:
                break
        return measured

    def scored(self, configs: Sequence[TinyViTConfig], map_: Map) -> Iterator[Candidate]:
        """Score candidates that the journal does not have; in their order."""
        new = [one for one in configs if self._journal.get(one, "score") is None]
        scores = iter(map_(self._score, new))
        for one in configs:
            score = self._journal.get(one, "score")
            if score is None:
                score = float(next(scores))
                if isnan(score):  # of a training that has diverged
                    score = -inf
                self._journal.put(one, "score", score)
            yield Candidate(
                config=one, num_params=num_parameters(one), macs=macs_of(one), score=score,
                latency_s=self._journal.get(one, "latency_s"),
            )  # fmt: skip

    def _latencies(self, configs: Sequence[TinyViTConfig]) -> list[float]:
        """Seconds of some models; the start runs beside them, for what slows all down."""
        new = [one for one in configs if self._journal.get(one, "latency_s") is None]
        if new:
            assert self._measure is not None
            yardstick_s, *seconds = self._measure([self.start, *new])
            usual_s = self._journal.get(self.start, "latency_s")
            if usual_s is None:
                usual_s = yardstick_s
                self._journal.put(self.start, "latency_s", usual_s)
            for one, measured_s in zip(new, seconds, strict=True):
                if one != self.start:
                    self._journal.put(one, "latency_s", measured_s * usual_s / yardstick_s)
        found = [self._journal.get(one, "latency_s") for one in configs]
        return [one for one in found if one is not None]


def _promising(configs: list[TinyViTConfig]) -> list[TinyViTConfig]:
    """Models in the order of expressivity, most of it first."""
    return sorted(configs, key=lambda one: (-expressivity(one), macs_of(one), repr(one)))


@lru_cache(maxsize=1 << 14)
def macs_of(config: TinyViTConfig) -> int:
    """Multiplications for one image, counted as the published ones are."""
    return macs(config).total


def _excess(config: TinyViTConfig, bounds: Bounds) -> float:
    """The largest of costs over their bounds, latency left out."""
    costs = (num_parameters(config), bounds.num_params), (macs_of(config), bounds.macs)
    return max((cost / bound for cost, bound in costs if bound is not None), default=0.0)


def ray_map(score: Score, configs: Sequence[TinyViTConfig]) -> Iterator[float]:
    """Score candidates on the Ray cluster that this process is connected to.

    Raises
    ------
    ValueError
        If Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("map: Ray is not installed; pip install 'weightwise[ray]'") from None
    remote = ray.remote(score)
    for future in [remote.remote(one) for one in configs]:
        yield ray.get(future)
