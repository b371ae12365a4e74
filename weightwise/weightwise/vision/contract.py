"""Progressive contraction: shrink a model step by step under bounds (TinyViT, section 3.2).

The search is the paper's: candidates around the current models, those within the bounds of the
step scored, the best ones the base of the next, stricter step. The paper does not give its
neighbourhood, its bounds and its scores in numbers, and no code. Ours, therefore:

* Neighbours differ from a base in at most two contraction factors (`Space`).
* Bounds go from the costs of the start to the given ones in equal parts, three by default.
* Candidates are ranked by score, then by fewer MACs, then by their factors, so that a search has
  one result. Where scoring is a training, only the most promising candidates get one, by a score
  that needs no data (`expressivity`). Of several scores each is asked about the best ones by the
  score before: successive halving (Jamieson and Talwalkar, arXiv 1502.07943).

Latency is measured on the device at hand, only for candidates that the other bounds let pass.
Whatever was measured or scored is in a journal, and a search that was killed goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from math import inf, isnan
from typing import TYPE_CHECKING

from weightwise.vision.config import TinyViTConfig
from weightwise.vision.contract_journal import Journal
from weightwise.vision.contract_latency import guessed_seconds, macs_of
from weightwise.vision.contract_plan import Bounds, Candidate, Plan, Progress
from weightwise.vision.contract_score import expressivity
from weightwise.vision.contract_space import neighbours
from weightwise.vision.counts import num_parameters

if TYPE_CHECKING:
    from pathlib import Path

Score = Callable[[TinyViTConfig], float]
Measure = Callable[[Sequence[TinyViTConfig]], Sequence[float]]
Map = Callable[[Score, Sequence[TinyViTConfig]], Iterable[float]]
MEASURED_TOGETHER = 4  # candidates whose runs are interleaved


def contract(
    start: TinyViTConfig,
    bounds: Bounds,
    *,
    score: Score | Sequence[Score] = expressivity,
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
        How good a model is; more is better. A short training on a part of the data, say. Of several
        ones, say ever longer trainings, each is asked about `Plan.survivors` of those before. What
        has an ``identity``, as scores with settings should, is known by it in the journal.
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
    scores = (score,) if callable(score) else tuple(score)
    if not scores:
        raise ValueError("score: expected at least one, got none")
    if bounds.latency_s is not None and measure is None:
        raise ValueError("measure: expected one for a bound on latency_s, got None")
    header = {
        "start": asdict(start), "bounds": asdict(bounds), "plan": asdict(plan),
        "score": " ".join([_name(one) for one in scores]), "measure": measure and _name(measure),
    }  # fmt: skip
    search = _Search(start, bounds, scores, measure, plan, Journal(journal, header))
    bases, found = [start], []
    for step in range(1, plan.steps + 1):
        configs = search.candidates(bases, step)
        total, scored = (
            sum(plan.counts(len(configs), len(scores))),
            dict[TinyViTConfig, Candidate](),
        )
        on_progress(Progress(step=step, steps=plan.steps, done=0, total=total, best=None))
        for done, candidate in enumerate(search.scored(configs, map), start=1):
            scored[candidate.config] = candidate
            best = min(scored.values(), key=_rank)
            on_progress(Progress(step=step, steps=plan.steps, done=done, total=total, best=best))
        found.append(sorted(scored.values(), key=_rank))
        bases = [one.config for one in found[-1][: plan.keep]]
    return found


def _name(part: object) -> str:
    """What a journal calls a score or a measure."""
    name = getattr(part, "identity", None) or getattr(part, "__qualname__", type(part).__name__)
    return str(name)


def _rank(one: Candidate) -> tuple[int, float, int, str]:
    """Sorts the best first; equal scores by fewer MACs, then by the factors."""
    return -one.rung, -one.score, one.macs, repr(one.config)


class _Search:
    """What the steps of a search share."""

    def __init__(
        self,
        start: TinyViTConfig,
        bounds: Bounds,
        scores: tuple[Score, ...],
        measure: Measure | None,
        plan: Plan,
        journal: Journal,
    ) -> None:
        self.start, self.bounds, self.plan = start, bounds, plan
        self._scores, self._measure, self._journal = scores, measure, journal
        self._measured: dict[TinyViTConfig, float] = {}

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
                base_s = min(self._latencies(bases))
                measured = self._until_enough(_promising(small), bounds.latency_s, base_s)
                fast = [one for one, latency_s in measured.items() if latency_s <= bounds.latency_s]
                if fast:
                    return fast[: self.plan.limit]
                nearest = min(measured, key=lambda one: measured[one])
                if measured[nearest] >= base_s:
                    nearest = bases[0]
            if nearest in bases:
                raise ValueError(
                    f"bounds: expected a model within {bounds} at step {step} of "
                    f"{self.plan.steps}, found none; allow larger changes in space"
                )
            bases = [nearest]

    def _until_enough(
        self, configs: Sequence[TinyViTConfig], bound_s: float, base_s: float
    ) -> dict[TinyViTConfig, float]:
        """Seconds of models, measured until as many as the limit are within a bound.

        Those that are likely to be come first, in their order, then the likely fastest ones. With a
        limit none are measured after a group of these that had none within the bound, if any so far
        is better than the base.
        """
        waiting, measured = list(configs), dict[TinyViTConfig, float]()
        limit = len(waiting) if self.plan.limit is None else self.plan.limit
        while waiting and sum(one <= bound_s for one in measured.values()) < limit:
            guesses_s = guessed_seconds(waiting, self._measured)
            likely = [one for one, s in zip(waiting, guesses_s, strict=True) if s <= bound_s]
            fastest = [waiting[place] for place in guesses_s.argsort(kind="stable")]
            group = (likely or fastest)[:MEASURED_TOGETHER]
            seconds = self._latencies(group)
            measured.update(zip(group, seconds, strict=True))
            waiting = [one for one in waiting if one not in measured]
            is_in_vain = not likely and min(seconds) > bound_s
            if is_in_vain and min(measured.values()) < base_s and self.plan.limit is not None:
                break
        return measured

    def scored(self, configs: Sequence[TinyViTConfig], map_: Map) -> Iterator[Candidate]:
        """Candidates by every score that is asked about them, one score after the other."""
        left = list(configs)
        for rung, count in enumerate(self.plan.counts(len(configs), len(self._scores))):
            found = []
            for candidate in self._scored(left[:count], rung, map_):
                found.append(candidate)
                yield candidate
            left = [one.config for one in sorted(found, key=_rank)]

    def _scored(
        self, configs: Sequence[TinyViTConfig], rung: int, map_: Map
    ) -> Iterator[Candidate]:
        """Candidates by one score, in their order; the journal tells what it knows."""
        name = f"score{rung or ''}"
        new = [one for one in configs if self._journal.get(one, name) is None]
        scores = iter(map_(self._scores[rung], new))
        for one in configs:
            score = self._journal.get(one, name)
            if score is None:
                score = float(next(scores))
                if isnan(score):  # of a training that has diverged
                    score = -inf
                self._journal.put(one, name, score)
            yield Candidate(
                config=one, num_params=num_parameters(one), macs=macs_of(one), score=score,
                latency_s=self._journal.get(one, "latency_s"), rung=rung,
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
        seconds = [one for one in found if one is not None]
        self._measured.update(zip(configs, seconds, strict=True))
        return seconds


def _promising(configs: list[TinyViTConfig]) -> list[TinyViTConfig]:
    """Models in the order of expressivity, most of it first."""
    return sorted(configs, key=lambda one: (-expressivity(one), macs_of(one), repr(one)))


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
